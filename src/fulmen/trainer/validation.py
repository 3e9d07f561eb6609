"""What cannot work is said before anything runs."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import LBFGS
from torch.utils.data import DataLoader

from fulmen.callbacks.callback import Callback
from fulmen.core.datamodule import LightningDataModule
from fulmen.core.module import LightningModule
from fulmen.loops.plan import takes, written
from fulmen.trainer.hook_checks import near_name
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown
from fulmen.utilities.warnings import PossibleUserWarning

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy
    from fulmen.trainer.trainer import Trainer

_STEP = {"fit": "training_step", "validate": "validation_step", "test": "test_step", "predict": "predict_step"}
_LOADERS = {"fit": "train", "validate": "validate", "test": "test", "predict": "predict"}
_REMOVED = {
    "training_epoch_end": "on_train_epoch_end",
    "validation_epoch_end": "on_validation_epoch_end",
    "test_epoch_end": "on_test_epoch_end",
}


def check_run(trainer: Trainer, verb: str) -> None:
    """Check the module, its data and the Trainer's arguments against each other.

    Raises:
        MisconfigurationException: something that ``verb`` needs is missing, or two settings contradict each other.
        NotImplementedError: a hook of version 1 is there.
        RuntimeError: a step has arguments that cannot be given.
    """
    module = trainer.lightning_module
    taken = trainer._translation.taken if trainer._translation is not None else set()
    _check_removed_hooks(module, taken)
    _check_steps(module, verb)
    if verb == "fit":
        _check_fit(trainer, module, taken)
    _check_signatures(module, verb)


def check_model(model: Any, verb: str) -> LightningModule:
    """The model, if it is one.

    Raises:
        TypeError: it is not.
    """
    if isinstance(model, LightningModule):
        if "_parameters" not in model.__dict__:
            raise TypeError(
                f"`trainer.{verb}` got a {type(model).__name__} whose `__init__` did not call that of LightningModule. "
                "Write `super().__init__()` as its first line."
            )
        return model
    if model is None:
        raise TypeError(
            f"`trainer.{verb}()` was given no model, and this Trainer has not run one yet. Write "
            f"`trainer.{verb}(model)`."
        )
    if isinstance(model, type):
        raise TypeError(
            f"`trainer.{verb}` got the class {model.__name__} instead of an instance"
            + (f". Write `{model.__name__}(...)`." if issubclass(model, LightningModule) else " of a LightningModule.")
        )
    kind = type(model)
    origin = next((parent.__module__ for parent in kind.__mro__ if parent.__name__ == "LightningModule"), None)
    if origin is not None:
        raise TypeError(
            f"`trainer.{verb}` got a {kind.__name__} that derives from `{origin}.LightningModule`, another package's "
            "class. Derive it from `fulmen.LightningModule`: `from fulmen import LightningModule`."
        )
    if isinstance(model, LightningDataModule):
        raise TypeError(
            f"`trainer.{verb}` got a {kind.__name__} as model, which is a LightningDataModule. "
            f"Write `trainer.{verb}(model, datamodule=datamodule)`."
        )
    if isinstance(model, DataLoader):
        raise TypeError(
            f"`trainer.{verb}` got a {kind.__name__} as model; the model comes first. "
            f"Write `trainer.{verb}(model, dataloader)`."
        )
    raise TypeError(
        f"`trainer.{verb}` got {shown(model)}, which is no LightningModule. Derive it from `fulmen.LightningModule`"
        + (", which is a torch.nn.Module too." if "torch" in str(kind.__mro__) else ".")
    )


def _check_removed_hooks(module: LightningModule, taken: set[str]) -> None:
    for old, new in _REMOVED.items():
        if old not in taken and callable(getattr(module, old, None)):
            raise NotImplementedError(
                f"`{type(module).__name__}.{old}` is a hook of version 1 and is not called any more. "
                f"Collect what the steps return in a list of your own and use it in `{new}(self)`."
            )


def _check_steps(module: LightningModule, verb: str) -> None:
    name = _STEP[verb]
    kind = type(module).__name__
    if verb == "predict":
        if module.predict_step is None:
            raise MisconfigurationException(
                f"`{kind}.predict_step` is None. Define `def predict_step(self, batch, batch_idx):`."
            )
        if (
            written(module, "predict_step", LightningModule) is None
            and written(module, "forward", LightningModule) is None
        ):
            raise MisconfigurationException(
                f"`trainer.predict` needs `predict_step` or `forward`, and {kind} has neither. "
                "Define `def predict_step(self, batch, batch_idx):`."
            )
        return
    if written(module, name, LightningModule) is None:
        raise MisconfigurationException(
            f"`trainer.{verb}` needs `{name}`, and {kind} has none. "
            + _advice(module, name, f"Define `def {name}(self, batch, batch_idx):`.")
        )


def _advice(module: LightningModule, hook: str, otherwise: str) -> str:
    near = near_name(module, hook)
    return otherwise if near is None else f"It has `{near}`: rename that to `{hook}`."


def _check_fit(trainer: Trainer, module: LightningModule, taken: set[str]) -> None:
    kind = type(module).__name__
    if written(module, "configure_optimizers", LightningModule) is None:
        raise MisconfigurationException(
            f"`trainer.fit` needs `configure_optimizers`, and {kind} has none. "
            + _advice(
                module,
                "configure_optimizers",
                "Define `def configure_optimizers(self): return torch.optim.Adam(self.parameters(), lr=1e-3)`.",
            )
        )
    if "optimizer_idx" not in taken and _parameter(module.training_step, "optimizer_idx") is not None:
        raise RuntimeError(
            f"`{kind}.training_step` takes `optimizer_idx`, which belongs to version 1. For several optimizers set "
            "`self.automatic_optimization = False` and use `opt_a, opt_b = self.optimizers()` in `training_step(self, "
            "batch, batch_idx)`."
        )
    has_step = written(module, "validation_step", LightningModule) is not None
    has_data = trainer.defines_loader("validate")
    if has_data and not has_step:
        rank_zero_warn(
            f"{kind} has validation data but no `validation_step`: nothing is validated. "
            + _advice(module, "validation_step", "Define `def validation_step(self, batch, batch_idx):`.")
        )
    if has_step and not has_data:
        rank_zero_warn(
            f"{kind} has a `validation_step` but no validation data: nothing is validated. Pass `val_dataloaders`.",
            category=PossibleUserWarning,
        )
    if not module.automatic_optimization and "automatic_optimization" not in taken:
        if trainer.gradient_clip_val:
            raise MisconfigurationException(
                f"`Trainer(gradient_clip_val={trainer.gradient_clip_val})` does nothing in manual optimization. Leave "
                "it out and call `self.clip_gradients(optimizer, gradient_clip_val=...)` before `optimizer.step()`."
            )
        if trainer.accumulate_grad_batches != 1:
            raise MisconfigurationException(
                f"`Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches})` does nothing in manual "
                "optimization. Leave it out and step every so many batches: `if (batch_idx + 1) % n == 0: "
                "optimizer.step()`."
            )


def _check_signatures(module: LightningModule, verb: str) -> None:
    """A step must take a batch; how many loaders there are is only known later."""
    names = [_STEP[verb]]
    if verb == "fit" and written(module, "validation_step", LightningModule) is not None:
        names.append("validation_step")
    for name in names:
        step = getattr(module, name)
        if not takes(step, "batch", 0):
            raise MisconfigurationException(
                f"`{type(module).__name__}.{name}` takes no batch. Define `def {name}(self, batch, batch_idx):`."
            )
        required = [
            p.name
            for p in _parameters(step)[2:]
            if p.default is p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            and not (p.name == "dataloader_idx" and name != "training_step")
        ]
        if required:
            raise MisconfigurationException(
                f"`{type(module).__name__}.{name}` needs {required}, which nobody can give. "
                f"Define `def {name}(self, batch, batch_idx):`."
            )


def check_optimizers(trainer: Trainer) -> None:
    """Check the optimizers against the module and the Trainer's arguments.

    Raises:
        MisconfigurationException: LBFGS with accumulation.
    """
    module = trainer.lightning_module
    every = trainer.accumulate_grad_batches
    if module.automatic_optimization and every != 1 and any(isinstance(o, LBFGS) for o in trainer.optimizers):
        raise MisconfigurationException(
            f"`Trainer(accumulate_grad_batches={every})` with LBFGS: it computes the loss several times per step, which"
            " only the window's last batch could give. Write `accumulate_grad_batches=1` and make batches larger, or "
            "choose another optimizer."
        )
    own = set(map(id, module.parameters()))
    for optimizer in trainer.optimizers:
        stepped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        foreign = sum(id(parameter) not in own for parameter in stepped)
        name, kind = type(optimizer).__name__, type(module).__name__
        if not foreign:
            continue
        if foreign == len(stepped) and own:
            rank_zero_warn(
                f"{name} would train nothing of {kind}: none of its {foreign} parameters belongs to the module. Make "
                f"it in `configure_optimizers`, when all layers are there, by `{name}(self.parameters(), ...)`."
            )
        else:
            rank_zero_warn(
                f"{name} trains what is no part of {kind}: {foreign} of its {len(stepped)} parameters, which are "
                "neither saved nor moved to the device. Assign the module that they belong to: `self.part = part`.",
                category=PossibleUserWarning,
            )


def explain_no_parameters(module: LightningModule, error: ValueError) -> None:
    """Add to torch's error about an empty list of parameters why it is empty."""
    if "empty parameter list" not in str(error) or any(True for _ in module.parameters()):
        return
    kind = type(module).__name__
    for name, value in vars(module).items():
        parts = list(value.values()) if isinstance(value, dict) else value
        if name[0] != "_" and isinstance(parts, (list, tuple)) and any(isinstance(part, nn.Module) for part in parts):
            container = "ModuleDict" if isinstance(value, dict) else "ModuleList"
            error.add_note(
                f"{kind} has no parameters: torch does not see the modules in its {type(value).__name__} `{name}`. "
                f"Write `self.{name} = nn.{container}(...)`."
            )
            return
    error.add_note(
        f"{kind} has no parameters: it never assigned a layer or a parameter to itself. "
        "Write `self.layer = nn.Linear(...)` in `__init__`."
    )


def check_dataloader_idx(module: Any, callbacks: list[Any], stage: str, several: bool) -> None:
    """With several loaders steps and hooks must take ``dataloader_idx``; with one they must not need it.

    Raises:
        RuntimeError: they do.
    """
    _check_dataloader_idx(module, LightningModule, stage, several)
    for callback in callbacks:
        _check_dataloader_idx(callback, Callback, stage, several, skip=2)


def _check_dataloader_idx(owner: Any, empty: type, stage: str, several: bool, skip: int = 0) -> None:
    """``skip``: the arguments that come before those of the module's hooks."""
    name = {"test": "test", "predict": "predict"}.get(stage, "validation")
    for method in (f"{name}_step", f"on_{name}_batch_start", f"on_{name}_batch_end"):
        if written(owner, method, empty) is None:
            continue
        function = getattr(owner, method)
        place = skip + (3 if method.endswith("_batch_end") else 2)
        if several and method != "predict_step" and not takes(function, "dataloader_idx", place):
            raise RuntimeError(
                f"there are several {name} loaders, but `{type(owner).__name__}.{method}` does not take the number of "
                "the loader. Add the argument `dataloader_idx=0`."
            )
        if not several:
            parameter = _parameter(function, "dataloader_idx")
            if parameter is not None and parameter.default is parameter.empty:
                raise RuntimeError(
                    f"`{type(owner).__name__}.{method}` needs `dataloader_idx`, but there is one {name} loader. "
                    "Write `dataloader_idx=0`."
                )


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _parameter(function: Any, name: str) -> inspect.Parameter | None:
    return next((parameter for parameter in _parameters(function) if parameter.name == name), None)


def check_shares(strategy: Strategy) -> None:
    """See that the strategy splits the data as it says to a sampler.

    Raises:
        MisconfigurationException: ``distributed_sampler_kwargs`` says otherwise.
    """
    said = strategy.distributed_sampler_kwargs
    size, rank = strategy.data_parallel_size, strategy.data_parallel_rank
    if (said["num_replicas"], said["rank"]) != (size, rank):
        raise MisconfigurationException(
            f"`{type(strategy).__name__}.distributed_sampler_kwargs` is {said}, and the data is split into {size} "
            f"shares, of which this process has number {rank}. Write the properties `data_parallel_size` and "
            "`data_parallel_rank`, which also weigh losses and metrics."
        )
