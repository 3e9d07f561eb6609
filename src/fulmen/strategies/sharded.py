"""What strategies have in common that spread one module over several processes."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from fulmen.core.saving import load_weights
from fulmen.plugins.io.async_plugin import AsyncCheckpointIO
from fulmen.plugins.io.distributed_plugin import DistributedCheckpointIO, Promises
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.strategies.parallel import ParallelStrategy
from fulmen.strategies.sharding import broadcast_from_first, spread_like, topmost_sharded, whole
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule

#: the name under which a module knows what calls its steps with all of its parameters gathered
_CALL = "_call_gathered"


class ShardedStrategy(ParallelStrategy, ABC):
    """The parameters of the module are spread over the processes, which gather what they need when they need it.

    So all must run it equally often, whatever they have to run it on. After a run the module stays as it is, spread
    over the processes; a later run of any verb goes on with it.
    """

    forward_is_collective = True
    saves_shards: bool = False  #: checkpoints are folders into which each process writes what it has
    casts_batches: bool = False  #: what a step is given gets the type that the parameters are gathered in

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._weights: tuple[Any, bool, str] | None = None  # to be loaded when the module is sharded
        self._promises = Promises()
        self._output: Any = None  # of the last training step, if it may have to go backward without counting
        self._is_accumulating = False
        self._topmost: list[FSDPModule] = []

    # -- the module ---------------------------------------------------------------------------------------------------

    def shard_module(self, module: LightningModule) -> None:
        """Spread the parameters of ``module`` that are not spread yet."""
        raise NotImplementedError

    @property
    def has_weights_to_load(self) -> bool:
        """A checkpoint gives the values of the parameters."""
        return self._weights is not None

    def setup_module(self, module: LightningModule) -> None:
        broadcast_from_first(module)
        self.shard_module(module)
        self.model = module
        self._topmost = topmost_sharded(module)
        if self._weights is not None:
            weights, self._weights = self._weights, None
            self._load_now(module, *weights)

    def module_init_context(self, empty_init: bool | None = None) -> AbstractContextManager[Any]:
        return torch.device("meta" if empty_init else "cpu")  # it is moved part by part, as it is sharded

    def wrap_step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        module = self.model
        call = self._gathered_call(module) if isinstance(module, FSDPModule) else _call
        casts = self.casts_batches

        def run(*args: Any) -> Any:
            return call(step, *args) if casts else call(functools.partial(step, *args))

        if name != "training_step":
            return run

        def train(*args: Any) -> Any:
            self._output = None
            output = run(*args)
            self._output = output
            return output

        return train

    def _gathered_call(self, module: Any) -> Callable[..., Any]:
        """What calls a function as if it were the ``forward`` of the module."""
        if _CALL not in module.__dict__:
            setattr(module, _CALL, _call)
            register_fsdp_forward_method(module, _CALL)
        return getattr(module, _CALL)

    @contextmanager
    def no_backward_sync(self) -> Generator[None, None, None]:  # type: ignore[override]
        for part in self._topmost:
            part.set_requires_gradient_sync(False)
        self._is_accumulating = True
        try:
            yield
        finally:
            for part in self._topmost:
                part.set_requires_gradient_sync(True)

    def join_backward(self) -> None:
        output, self._output = self._output, None
        loss = output.get("loss", output.get("loss_sum")) if isinstance(output, dict) else output
        if isinstance(loss, Tensor) and loss.requires_grad:
            (loss * 0).backward()

    def teardown(self) -> None:
        self._output = self._weights = None
        self._promises.forget()
        self.model = None  # it stays spread over the processes, and where it is
        super().teardown()

    # -- its state ----------------------------------------------------------------------------------------------------

    def gathered(self, state: Any) -> Any:
        """``state`` as one process has it, on the first process; on the others its tensors have no memory. As it is
        where checkpoints are written shard by shard.
        """
        return state if self.saves_shards else whole(state, keep=self.is_global_zero)

    def lightning_module_state_dict(self, module: LightningModule) -> dict[str, Any]:
        return self.gathered(module.state_dict())

    def load_model_state(self, module: LightningModule, state_dict: Any, strict: bool, source: str) -> None:
        """Load weights, or keep them until the module is sharded."""
        self._weights = state_dict, strict, source
        if self.model is not None:
            weights, self._weights = self._weights, None
            self._load_now(module, *weights)

    def _load_now(self, module: LightningModule, state_dict: Any, strict: bool, source: str) -> None:
        own = module.state_dict()
        common = [name for name in state_dict if name in own]
        parts = dict(zip(common, self.own_parts([(state_dict[name], own[name]) for name in common])))
        loaded = type(state_dict)((name, parts.get(name, value)) for name, value in state_dict.items())
        vars_of = getattr(state_dict, "__dict__", None)
        if vars_of:
            loaded.__dict__.update(vars_of)
        load_weights(module, loaded, strict, source)

    def own_parts(self, pairs: Sequence[tuple[Any, Tensor]]) -> list[Any]:
        """What this process keeps of the values of a checkpoint, each of which belongs to the tensor beside it."""
        return [spread_like(value, tensor) for value, tensor in self._promises.kept(pairs)]

    # -- files --------------------------------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        super().setup_environment()
        if self.saves_shards:
            self.checkpoint_io = _sharded_io(self.checkpoint_io)
            _innermost(self.checkpoint_io).join()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.saves_shards:
            filepath = self.broadcast(filepath)
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)
        else:
            super().save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        found = self._promises.read(checkpoint_path, weights_only)
        return found if found is not None else super().load_checkpoint(checkpoint_path, weights_only)


def _call(step: Callable[..., Any], *args: Any) -> Any:
    return step(*args)


def _innermost(files: Any) -> DistributedCheckpointIO:
    return _innermost(files.checkpoint_io) if isinstance(files, AsyncCheckpointIO) else files


def _sharded_io(files: Any) -> Any:
    """``files``, or what writes shards in its place if it is the usual one."""
    if isinstance(files, AsyncCheckpointIO):
        files.checkpoint_io = _sharded_io(files.checkpoint_io)
        return files
    if isinstance(files, DistributedCheckpointIO):
        return files
    if type(files) is TorchCheckpointIO:
        return DistributedCheckpointIO()
    raise MisconfigurationException(
        f"{type(files).__name__} was given to write checkpoints, and the strategy writes sharded ones, by all processes. "
        "Derive it from DistributedCheckpointIO, or write whole files: `state_dict_type='full'` "
        "(`save_distributed_checkpoint=False` for ModelParallelStrategy)."
    )
