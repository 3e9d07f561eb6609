"""What to keep: the best by a score, the newest, all, or nothing. Nothing here touches a file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Kept:
    """The files that exist because of a policy, as far as they are announced: each of them is completely written.

    Attributes:
        best_k_models: score of each kept file, by path; empty when nothing is monitored.
        best_model_path: the best of them; the newest when nothing is monitored; ``""`` when there is none.
        best_model_score: its score.
        kth_best_model_path: the worst of them, the next one to go.
        kth_value: its score, worse than every number as long as there is none.
        current_score: the score of the file saved most recently.
        last_model_path: the file of the most recent state, ``""`` when there is none.
    """

    kth_value: Tensor
    best_k_models: dict[str, Tensor] = field(default_factory=dict)
    best_model_path: str = ""
    best_model_score: Tensor | None = None
    kth_best_model_path: str = ""
    current_score: Tensor | None = None
    last_model_path: str = ""


@dataclass(frozen=True, slots=True)
class Retention:
    """How many files to keep, and which is better.

    Attributes:
        keep: how many; -1: all of them; 0: none.
        mode: ``"min"`` if a lower score is better, ``"max"`` if a higher one is.
        ranked: by a score (True), or by age: newer is better (False).
    """

    keep: int
    mode: str
    ranked: bool

    @classmethod
    def from_arguments(cls, save_top_k: int, mode: str, monitor: str | None) -> Retention:
        """Read the arguments of ``ModelCheckpoint``.

        Raises:
            MisconfigurationException: ``save_top_k`` or ``mode`` is not allowed, or there is no score to rank by.
        """
        if mode not in ("min", "max"):
            raise MisconfigurationException(
                f"ModelCheckpoint(mode={mode!r}) says which score is better: write 'min' (lower) or 'max' (higher)."
            )
        if not isinstance(save_top_k, int) or save_top_k < -1:
            raise MisconfigurationException(
                f"ModelCheckpoint(save_top_k={save_top_k!r}) is the number of files to keep: "
                f"write a whole number, -1 for all or 0 for none."
            )
        if monitor is None and save_top_k > 1:
            raise MisconfigurationException(
                f"ModelCheckpoint(save_top_k={save_top_k}, monitor=None) has no score to rank files by. "
                f"Name one, as in monitor='val_loss', or write save_top_k=1 (the newest), -1 (all) or 0 (none)."
            )
        return cls(save_top_k, mode, monitor is not None)

    @property
    def worst(self) -> Tensor:
        """A score that is worse than every number."""
        return torch.tensor(float("inf" if self.mode == "min" else "-inf"))

    def none(self) -> Kept:
        """What is kept before anything was saved."""
        return Kept(kth_value=self.worst)

    def is_better(self, score: Tensor, than: Tensor) -> bool:
        """Whether ``score`` beats ``than``; equal scores do not, and NaN beats nothing."""
        return bool(score < than if self.mode == "min" else score > than)

    def wants(self, kept: Kept, score: Tensor | None) -> bool:
        """Whether a file with ``score`` would be kept: there is room, or it beats the worst. A tie replaces nothing."""
        if not self.ranked:
            return self.keep != 0
        if score is None or self.keep == 0:
            return False
        if self.keep == -1 or len(kept.best_k_models) < self.keep:
            return True
        return self.is_better(score, kept.best_k_models[kept.kth_best_model_path])

    def makes_room(self, kept: Kept) -> str:
        """The path that one more file takes the place of, and so may also take the name of; ``""`` if none."""
        if not self.ranked:
            return kept.best_model_path
        return kept.kth_best_model_path if 0 < self.keep <= len(kept.best_k_models) else ""

    def add(self, kept: Kept, path: str, score: Tensor | None) -> tuple[Kept, str]:
        """What is kept once ``path`` is written, and the path of the file that is then to be removed (or ``""``)."""
        if not self.ranked:
            dropped = kept.best_model_path if self.keep == 1 else ""
            return replace(kept, best_model_path=path), "" if dropped == path else dropped
        assert score is not None
        if score.is_floating_point():
            score = torch.where(score.isnan(), self.worst.to(score), score)
        # a file that is written over makes the room itself
        dropped = path if path in kept.best_k_models else self.makes_room(kept)
        scores = {other: value for other, value in kept.best_k_models.items() if other != dropped}
        scores[path] = score
        return self.ranking(kept, scores, current=score), "" if dropped == path else dropped

    def without(self, kept: Kept, gone: Collection[str]) -> Kept:
        """What is left of ``kept`` when the files in ``gone`` are no more."""
        scores = {path: score for path, score in kept.best_k_models.items() if path not in gone}
        if kept.best_model_path in gone:
            kept = replace(kept, best_model_path="", best_model_score=None)
        if kept.last_model_path in gone:
            kept = replace(kept, last_model_path="")
        return self.ranking(kept, scores, kept.current_score) if len(scores) < len(kept.best_k_models) else kept

    def ranking(self, kept: Kept, scores: dict[str, Tensor], current: Tensor | None) -> Kept:
        """``kept`` with the files in ``scores`` instead; of equal scores the oldest is best, and also worst."""
        if not scores:
            return replace(kept, best_k_models={}, kth_best_model_path="", kth_value=self.worst, current_score=current)
        lowest, highest = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
        best, kth = (lowest, highest) if self.mode == "min" else (highest, lowest)
        return replace(
            kept,
            best_k_models=scores,
            best_model_path=best,
            best_model_score=scores[best],
            kth_best_model_path=kth,
            kth_value=scores[kth],
            current_score=current,
        )


# -- in words ---------------------------------------------------------------------------------------------------------


def saved(trainer: Trainer, monitor: str | None, path: str, score: Tensor | None) -> str:
    """A sentence: the file at ``path`` is there, because of ``score``."""
    why = "the newest" if score is None else f"{monitor}={score.item():.5g}"
    return f"Epoch {trainer.current_epoch}, step {trainer.global_step}: saved {path!r} ({why})."


def not_among_best(trainer: Trainer, monitor: str | None, score: Tensor, save_top_k: int) -> str:
    """A sentence: there is no file for ``score``."""
    return (
        f"Epoch {trainer.current_epoch}, step {trainer.global_step}: {monitor}={score.item():.5g} is not "
        f"among the best {save_top_k}."
    )


def monitor_is_missing(monitor: str, names: Iterable[str]) -> str:
    """A sentence: there is nothing to rank by."""
    return (
        f"ModelCheckpoint(monitor={monitor!r}) found no metric of that name. There are: "
        f"{', '.join(map(repr, sorted(names)))}. Log it with `self.log({monitor!r}, value)`, or monitor another."
    )
