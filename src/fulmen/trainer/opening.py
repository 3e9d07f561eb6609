"""What the hooks that open a run change again, though a checkpoint holds it.

``setup``, ``on_fit_start``, ``on_train_start`` and, in the middle of an epoch, ``on_train_epoch_start`` are called in
each process, for what lives in the process: files, connections, references. They were called in the run that goes on,
too, and what they changed of its state then is in the file. So the state is put back when they have been called.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulmen.callbacks.callback import Callback
from fulmen.core.module import LightningModule
from fulmen.loops.plan import written
from fulmen.trainer.checkpoint_checks import take_back
from fulmen.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

_EXTRA = "_extra_state"  # the end of its key, as torch has it
_NO_ATTRIBUTES = frozenset(vars(nn.Module()))


class Restored:
    """The state of a run just after it was restored; make it just before.

    Weights and optimizers are held as the checkpoint has them, without a copy, unless they came out different.
    """

    def __init__(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        self._trainer, self._checkpoint = trainer, checkpoint
        # the tensors of a sharded module are too large to be held twice, and hooks seldom reach them
        self._is_sharded = trainer.strategy.forward_is_collective
        self._attributes: list[tuple[Any, dict[str, Any]]] = [
            (owner, _plain_attributes(owner)) for owner in _loaders_by_hand(trainer)
        ]
        self._tensors: dict[str, Tensor] = {}
        self._extra: dict[str, Any] = {}
        self._states: list[tuple[Any, Any]] = []
        self._of_callbacks: dict[str, Any] = {}
        self._of_datamodule: Any = None

    def note_model(self) -> None:
        """The module, the callbacks and the datamodule are restored."""
        module, saved = self._trainer.lightning_module, self._checkpoint["state_dict"]
        own = {} if self._is_sharded else _tensors_of(module)
        has_other_names = any(name not in own for name in saved if not name.endswith(_EXTRA))
        for name, tensor in own.items():
            value = saved.get(name)
            if isinstance(value, Tensor):
                self._tensors[name] = value if _equal(tensor, value) else tensor.detach().clone()
            elif has_other_names and _is_saved(module, name):  # the module has a way of its own to save and load it
                self._tensors[name] = tensor.detach().clone()
        for name in saved:
            if name.endswith(_EXTRA):
                owner = _owner_of(module, name)
                if owner is not None:
                    self._extra[name] = deepcopy(owner.get_extra_state())
        self._of_callbacks = self._states_of_callbacks()
        datamodule = self._trainer.datamodule
        if datamodule is not None and type(datamodule).__qualname__ in self._checkpoint:
            self._of_datamodule = deepcopy(datamodule.state_dict())
        self._attributes = [(owner, _changed(before, _plain_attributes(owner))) for owner, before in self._attributes]

    def note_state(self, owner: Any, saved: Any) -> None:
        """An optimizer or a scheduler is restored."""
        if self._is_sharded and isinstance(owner, Optimizer):
            return
        now = owner.state_dict()
        self._states.append((owner, saved if _same(now, saved) else deepcopy(now)))

    def put_back(self) -> None:
        """The hooks were called: whatever is not as it was is made so again."""
        source = self._trainer.loaded_ckpt_path
        changed = [*self._put_back_tensors(), *self._put_back_attributes()]
        now = self._states_of_callbacks()
        for callback in self._trainer.callbacks:
            key = callback.state_key if isinstance(callback, Callback) else None
            if key in now and not _same(now[key], self._of_callbacks.get(key)):
                callback.load_state_dict(deepcopy(self._checkpoint["callbacks"][key]))
        datamodule = self._trainer.datamodule
        saved = self._of_datamodule
        if datamodule is not None and saved is not None and not _same(datamodule.state_dict(), saved):
            take_back(datamodule, deepcopy(saved), source)
        for owner, state in self._states:
            now = owner.state_dict()
            if not _same(now, state) and _groups_in(now) == _groups_in(state):
                take_back(owner, deepcopy(state), source)
                changed.append(type(owner).__name__)
        if changed:
            rank_zero_info(
                "%s: changed by a hook that opens the run or the epoch, and put back as the checkpoint has it, since "
                "the run that goes on has done so before. To go on with something else, change the checkpoint in "
                "`on_load_checkpoint`.",
                ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else ""),
            )

    def _put_back_tensors(self) -> Iterator[str]:
        module = self._trainer.lightning_module
        own = _tensors_of(module)
        with torch.no_grad():
            for name, value in self._tensors.items():
                tensor = own.get(name)
                if tensor is None or _equal(tensor, value):
                    continue
                if tensor.shape == value.shape:
                    tensor.copy_(value)
                elif isinstance(tensor, nn.Parameter):  # another one, with a shape of its own
                    continue
                else:
                    path, _, last = name.rpartition(".")
                    setattr(module.get_submodule(path), last, value.to(tensor.device, tensor.dtype, copy=True))
                yield name
        for name, value in self._extra.items():
            owner = _owner_of(module, name)
            if owner is not None and not _same(owner.get_extra_state(), value):
                owner.set_extra_state(deepcopy(value))
                yield name

    def _put_back_attributes(self) -> Iterator[str]:
        for owner, attributes in self._attributes:
            for name, value in attributes.items():
                now = getattr(owner, name, None)
                if isinstance(now, nn.Module) and isinstance(value, dict):
                    if not _same(now.state_dict(), value):
                        now.load_state_dict(value)
                        yield f"{type(owner).__name__}.{name}"
                elif not _same(now, value):
                    value = value.to(now.device) if isinstance(value, Tensor) and isinstance(now, Tensor) else value
                    setattr(owner, name, _plain(value))
                    yield f"{type(owner).__name__}.{name}"

    def _states_of_callbacks(self) -> dict[str, Any]:
        """A copy of the present state of each callback that has one in the checkpoint, by its key."""
        states = self._checkpoint.get("callbacks", {})
        callbacks = [callback for callback in self._trainer.callbacks if isinstance(callback, Callback)]
        return {one.state_key: deepcopy(one.state_dict()) for one in callbacks if states.get(one.state_key)}


# -- the module's tensors ---------------------------------------------------------------------------------------------


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    found = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in found if not nn.parameter.is_lazy(tensor)}


def _is_saved(module: nn.Module, name: str) -> bool:
    path, _, last = name.rpartition(".")
    return last not in module.get_submodule(path)._non_persistent_buffers_set


def _owner_of(module: nn.Module, key: str) -> nn.Module | None:
    try:
        return module.get_submodule(key.removesuffix(_EXTRA).removesuffix("."))
    except AttributeError:
        return None


# -- attributes that `on_load_checkpoint` sets ------------------------------------------------------------------------


def _loaders_by_hand(trainer: Trainer) -> list[Any]:
    """The module and the callbacks whose ``on_load_checkpoint`` somebody wrote."""
    owners: list[Any] = []
    if written(trainer.lightning_module, "on_load_checkpoint", LightningModule) is not None:
        owners.append(trainer.lightning_module)
    for callback in trainer.callbacks:
        of_ours = type(callback).__module__.startswith("fulmen.")
        if isinstance(callback, Callback) and not of_ours and written(callback, "on_load_checkpoint", Callback):
            owners.append(callback)
    return owners


def _plain_attributes(owner: Any) -> dict[str, Any]:
    """Copies of those attributes of ``owner`` that are plain data, and the states of those that are modules."""
    found = {}
    for name, value in vars(owner).items():
        if name in _NO_ATTRIBUTES:
            continue
        try:
            found[name] = deepcopy(value.state_dict()) if isinstance(value, nn.Module) else _plain(value)
        except TypeError:
            continue
    return found


def _plain(value: Any) -> Any:
    """A copy of plain data.

    Raises:
        TypeError: it is something else.
    """
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) in (list, tuple, set):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {_plain(key): _plain(one) for key, one in value.items()}
    if type(value).__module__ == "numpy":
        return deepcopy(value)
    raise TypeError


def _changed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The attributes that ``on_load_checkpoint`` has changed."""
    return {name: value for name, value in now.items() if name not in before or not _same(value, before[name])}


# -- equal ------------------------------------------------------------------------------------------------------------


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether they hold the same numbers, wherever they are and in whatever precision the first one is."""
    if one.shape != other.shape:
        return False
    one, other = one.detach(), other.detach().to(one.device, one.dtype)
    try:
        return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    except (RuntimeError, NotImplementedError):  # a type of number that cannot be compared
        return False


def _same(one: Any, other: Any) -> bool:
    """Whether two pieces of state are equal."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return _equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is not type(other):
        return False
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # arrays, which compare element by element
        return getattr(one, "shape", None) == getattr(other, "shape", ()) and bool((one == other).all())


def _groups_in(state: Any) -> int | None:
    groups = state.get("param_groups") if isinstance(state, dict) else None
    return len(groups) if isinstance(groups, list) else None
