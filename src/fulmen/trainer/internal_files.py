"""The views of Lightning's inside that put a checkpoint back piece by piece, within a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulmen.trainer import checkpoint as checkpoints

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def dump(trainer: Trainer, weights_only: bool | None = None) -> dict[str, Any]:
    """The whole state of the run, as a file would hold it."""
    return checkpoints.dump(trainer, bool(weights_only))


def open_file(trainer: Trainer, checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
    """Read a checkpoint, to be put back piece by piece.

    Args:
        checkpoint_path: None: the one that the run began from, if any.
    """
    path = checkpoint_path or trainer.ckpt_path
    trainer.opened_checkpoint = {} if path is None else checkpoints.load(trainer, path, weights_only)


def close_file(trainer: Trainer) -> None:
    """Let the checkpoint go, when all processes have come here."""
    trainer.opened_checkpoint = {}
    trainer.strategy.barrier("close_file")


def restore_model(trainer: Trainer) -> None:
    """Put the weights back."""
    if trainer.opened_checkpoint:
        checkpoints.restore_weights(trainer, trainer.opened_checkpoint)


def restore_datamodule(trainer: Trainer) -> None:
    checkpoints.restore_datamodule(trainer, trainer.opened_checkpoint)


def restore_callbacks(trainer: Trainer) -> None:
    checkpoints.restore_callbacks(trainer, trainer.opened_checkpoint)


def restore_precision(trainer: Trainer) -> None:
    checkpoints.restore_precision(trainer, trainer.opened_checkpoint)


def restore_optimizers_and_schedulers(trainer: Trainer) -> None:
    restore_optimizers(trainer)
    restore_schedulers(trainer)


def restore_optimizers(trainer: Trainer) -> None:
    """Put the state of the optimizers back.

    Raises:
        KeyError: the checkpoint holds weights only.
        MisconfigurationException: it is of other optimizers.
    """
    if trainer.opened_checkpoint:
        checkpoints.restore_states(trainer, "optimizers", _of(trainer, "optimizer_states"))


def restore_schedulers(trainer: Trainer) -> None:
    """Put the state of the schedulers back.

    Raises:
        KeyError: the checkpoint holds weights only.
        MisconfigurationException: it is of other schedulers.
    """
    if trainer.opened_checkpoint:
        checkpoints.restore_states(trainer, "schedulers", _of(trainer, "lr_schedulers"))


def _of(trainer: Trainer, key: str) -> Any:
    if key not in trainer.opened_checkpoint:
        raise KeyError(f"the checkpoint has no {key}: it holds weights only (`save_weights_only=True`).")
    return trainer.opened_checkpoint[key]
