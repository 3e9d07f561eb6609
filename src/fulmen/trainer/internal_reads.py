"""What the views of Lightning's inside (:mod:`fulmen.trainer.views`) read, where it is more than one attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.trainer.explain import evaluation_table
from fulmen.trainer.flags import ordered
from fulmen.trainer.loop_counters import automatic_steps
from fulmen.trainer.states import RunningStage
from fulmen.utilities.combined_loader import CombinedLoader
from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from fulmen.trainer.trainer import Trainer

# -- counters ---------------------------------------------------------------------------------------------------------


def batch_count(trainer: Trainer, span: str, name: str) -> int:
    """One of Lightning's four counters of batches: *ready* (fetched), *started*, *processed*, *completed*.

    Args:
        span: ``"total"``: of the whole run; ``"current"``: of the epoch.
    """
    progress, hook = trainer.progress, trainer.metrics.hook
    count = progress.batches_done
    if progress.is_within_step and name in ("ready", "started"):
        count += not (name == "started" and hook == "on_train_batch_start")
    elif name == "completed" and progress.batch_is_open and trainer.state.stage == RunningStage.TRAINING:
        count -= 1  # its last hooks are being called
    return count if span == "current" else progress.total_batches - progress.batches_done + count


def write_batch_count(trainer: Trainer, value: int) -> None:
    """Set how many batches were trained on in the whole run; all four counters follow."""
    now = batch_count(trainer, "total", "ready")
    if value not in (now, now - 1):  # where the four of them stand, depending on the moment
        trainer.progress.total_batches += value - now


def total_batch_idx(trainer: Trainer) -> int:
    """The position of this batch in the whole run, from 0; -1 before the first."""
    return batch_count(trainer, "total", "ready") - 1


def epoch_count(trainer: Trainer, span: str, name: str) -> int:
    """One of Lightning's four counters of epochs; those of the run and of this ``fit`` are the same."""
    progress, hook = trainer.progress, trainer.metrics.hook
    if name == "completed":
        return progress.epoch
    if name == "processed":
        return progress.epoch + (progress.epoch_is_closed or (progress.in_epoch and hook == "on_train_epoch_end"))
    begun = progress.in_epoch or progress.epoch_is_closed
    return progress.epoch + (begun and not (name == "started" and hook == "on_train_epoch_start"))


def set_epoch(trainer: Trainer, value: int) -> None:
    trainer.progress.epoch = value


def set_step(trainer: Trainer, value: int) -> None:
    trainer.progress.step = value


def step_count(trainer: Trainer, span: str, name: str) -> int:
    """Steps of automatic optimization; 0 in manual optimization."""
    return automatic_steps(trainer.progress)["step"][span][name]


def manual_step_count(trainer: Trainer, span: str, name: str) -> int:
    """Steps of manual optimization; 0 in automatic optimization."""
    return 0 if trainer.progress.counts_own_steps else trainer.progress.step


def write_automatic_steps(trainer: Trainer, value: int) -> None:
    if trainer.progress.counts_own_steps:
        trainer.progress.step = value


def write_manual_steps(trainer: Trainer, value: int) -> None:
    """Set the steps made in manual optimization.

    Programs add one here for a step that Lightning does not see, of an optimizer that they step themselves. Here it is
    counted already, so that to add one within a batch does nothing.
    """
    progress = trainer.progress
    if progress.counts_own_steps:
        return
    if progress.in_epoch and value == progress.step + 1:
        rank_zero_warn(
            "one was added to `optim_step_progress.total.completed`, for a step of an optimizer that is stepped "
            "directly. It is counted already: `global_step` counts all steps of the optimizers that "
            "`configure_optimizers` returned. Take the line out."
        )
        return
    progress.step = value


# -- data -------------------------------------------------------------------------------------------------------------


def ask_for_training_data(trainer: Trainer) -> None:
    """Ask for the training loader now, as ``configure_optimizers`` does that needs to know its length."""
    trainer.data.request("train")


def combined(trainer: Trainer, stage: str) -> CombinedLoader | None:
    """The loaders of ``stage`` as one; None before they were asked for."""
    loaders = trainer._loaders(stage)
    if loaders is None:
        return None
    return loaders.combined or CombinedLoader(loaders.given, loaders.mode)  # type: ignore[arg-type]


def comes_from_hook(trainer: Trainer, stage: str) -> bool:
    """Whether the loaders of ``stage`` come from a hook, as none were passed to the verb."""
    return trainer._given_loaders.get(stage) is None


def source_of(trainer: Trainer, stage: str) -> Any:
    """The loaders of ``stage`` that were passed, or whose hook gives them."""
    given = trainer._given_loaders.get(stage)
    if given is not None:
        return given
    return trainer.lightning_module if trainer._source_of_data is None else trainer._source_of_data


# -- where it runs, and who listens -----------------------------------------------------------------------------------


def is_distributed(trainer: Any) -> bool:
    """Whether ``trainer.strategy`` is one for several processes, however many there are."""
    from fulmen.strategies.parallel import ParallelStrategy

    return isinstance(trainer.strategy, ParallelStrategy)


def strategy_flag(trainer: Trainer) -> Any:
    """The name of the strategy, if it was asked for by one, else the strategy."""
    asked = trainer._strategy_asked_for
    return asked if isinstance(asked, str) and asked != "auto" else trainer.strategy


def accelerator_flag(trainer: Trainer) -> str:
    return trainer.strategy.root_device.type


def parallel_devices(trainer: Trainer) -> list[torch.device]:
    """The devices of this machine's processes."""
    return [trainer.accelerator.device(index) for index in trainer.device_ids]


def reordered(callbacks: list[Any]) -> list[Any]:
    """``callbacks`` in calling order: finders first, checkpoints last."""
    return ordered(callbacks)


# -- values -----------------------------------------------------------------------------------------------------------


def log_metrics(trainer: Trainer, metrics: dict[str, Any], step: int | None = None) -> None:
    """Send values to all loggers; at this step of theirs unless ``step`` is given."""
    for logger in trainer.loggers:
        logger.log_metrics(metrics, trainer.progress.batches_that_stepped if step is None else step)
        logger.save()


def result_metrics(trainer: Trainer) -> list[Any]:
    """The values that may still have to be reduced over processes: none, as those of an epoch always are."""
    return []


def prints_results(trainer: Trainer) -> bool:
    """Whether the verb that runs prints its results."""
    return trainer.state.fn in ("validate", "test") and trainer._verbose


def print_results(results: list[dict[str, Any]], stage: str) -> None:
    """Print the table of an evaluation."""
    print(evaluation_table(stage, results))


def replace_printing(trainer: Trainer, function: Callable[[list[dict[str, Any]], str], None]) -> None:
    """Let ``function`` print the results of evaluations from now on."""
    trainer.results_printer = function
