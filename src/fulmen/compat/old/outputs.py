"""What the steps of an epoch returned, for hooks that want all of it at the end: ``training_epoch_end(outputs)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule

_NOT_KNOWN: Any = object()


class Outputs:
    """Collects what steps return. It holds one epoch at a time.

    Args:
        module: the module that is run.
    """

    def __init__(self, module: LightningModule) -> None:
        self._module = module
        self.training: list[Any] = []
        self.evaluation: list[list[Any]] = [[]]
        self.of_batch: Any = _NOT_KNOWN  #: of several optimizers, what ``training_step`` returned for each

    # -- training -----------------------------------------------------------------------------------------------------

    def begin_training(self) -> None:
        """An epoch begins."""
        self.training = []
        done = self._module.trainer.progress.batches_done
        if done:
            rank_zero_warn(
                f"the run goes on in the middle of an epoch: its first {done} batches are not among the `outputs` that "
                f"a hook of {type(self._module).__name__} gets at the end of it. Collect what you need in a metric of "
                "torchmetrics, which is saved, or by `self.log`."
            )

    def add_training(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch was trained."""
        outputs = self.take_of_batch(outputs)
        if outputs:
            self.training.append(outputs)

    def take_of_batch(self, outputs: Any) -> Any:
        """What ``on_train_batch_end`` gets: of several optimizers one for each."""
        return outputs if self.of_batch is _NOT_KNOWN else self.of_batch

    def end_training(self, hook: Callable[[Any], Any]) -> None:
        """An epoch ends: hand over, and forget."""
        log_returned(self._module, hook(self.training))

    # -- validation and testing ---------------------------------------------------------------------------------------

    def begin_evaluation(self) -> None:
        """A validation or a test begins."""
        self.evaluation = [[]]

    def add_evaluation(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """A batch was evaluated."""
        while len(self.evaluation) <= dataloader_idx:
            self.evaluation.append([])
        if outputs is not None:
            self.evaluation[dataloader_idx].append(outputs)

    def of_evaluation(self) -> list[Any]:
        """A list of batches, or one such list for each of several loaders."""
        trainer = self._module.trainer
        number = len(trainer.num_test_batches if trainer.testing else trainer.num_val_batches)
        if number <= 1:
            return self.evaluation[0]
        return self.evaluation + [[] for _ in range(number - len(self.evaluation))]

    def end_evaluation(self, hook: Callable[[Any], Any]) -> None:
        """A validation or a test ends: hand over, and forget."""
        log_returned(self._module, hook(self.of_evaluation()))


# -- dicts with `log` and `progress_bar`, the way of 0.9 --------------------------------------------------------------


def has_dicts_to_log(step: Any) -> bool:
    """Whether the code of ``step`` names one of the keys under which 0.9 looked for values to log."""
    code = getattr(getattr(step, "__func__", step), "__code__", None)
    return code is not None and any(_names_key(constant) for constant in code.co_consts)


def _names_key(constant: Any) -> bool:
    if isinstance(constant, tuple):
        return any(_names_key(part) for part in constant)
    return isinstance(constant, str) and constant in ("log", "progress_bar")


def log_returned(module: LightningModule, returned: Any, on_step: bool = False) -> None:
    """Log what a step or a hook returned to be logged: ``{"log": {...}, "progress_bar": {...}, "val_loss": ...}``.

    Args:
        on_step: it is of a training step.
    """
    if not isinstance(returned, Mapping):
        return
    logged, shown = (dict(returned.get(key) or {}) for key in ("log", "progress_bar"))
    watched = {} if on_step else {name: value for name, value in returned.items() if _is_number(value)}
    known = () if logged or shown else module.trainer.callback_metrics  # they were logged, too
    for name, value in {**watched, **shown, **logged}.items():
        if _is_number(value) and name not in known:
            logger = None if name in logged else False
            module.log(name, value, prog_bar=name in shown, logger=logger, on_step=on_step, on_epoch=not on_step)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, Tensor) and value.numel() == 1)
