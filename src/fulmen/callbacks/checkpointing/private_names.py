"""What classes derived from Lightning's ModelCheckpoint read and set of its inside."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fulmen.callbacks.checkpointing.files import Files
from fulmen.callbacks.checkpointing.trigger import Place, Position, Trigger
from fulmen.utilities.cloud_io import get_filesystem

if TYPE_CHECKING:
    from torch import Tensor

    from fulmen.trainer.trainer import Trainer

#: what Lightning calls of a ModelCheckpoint and Fulmen does not, and what to write in its place
NOT_CALLED = {
    "_get_metric_interpolated_filepath_name": "`format_checkpoint_name`",
    "_link_checkpoint": "`save_last='link'`, or `_save_last_checkpoint`",
    "_save_monitor_checkpoint": "`_update_best_and_save`",
    "_should_remove_checkpoint": "`_remove_checkpoint`",
}


class PrivateNames:
    """Private names of Lightning's class, for classes that are derived from it: windows onto the parts."""

    dirpath: str | None
    save_on_train_epoch_end: bool | None
    enable_version_counter: bool
    _trigger: Trigger
    _place: Place
    _files: Files

    if TYPE_CHECKING:

        def _free_path(self, trainer: Trainer, metrics: dict[str, Tensor], spare: str) -> str: ...

    @property
    def _every_n_epochs(self) -> int:
        return self._trigger.every_n_epochs

    @_every_n_epochs.setter
    def _every_n_epochs(self, number: int) -> None:
        self._trigger.every_n_epochs = number

    @property
    def _every_n_train_steps(self) -> int:
        return self._trigger.every_n_train_steps

    @_every_n_train_steps.setter
    def _every_n_train_steps(self, number: int) -> None:
        self._trigger.every_n_train_steps = number

    @property
    def _train_time_interval(self) -> timedelta | None:
        return self._trigger.train_time_interval

    @_train_time_interval.setter
    def _train_time_interval(self, interval: timedelta | None) -> None:
        self._trigger.train_time_interval = interval

    @property
    def _save_on_train_epoch_end(self) -> bool | None:
        return self.save_on_train_epoch_end

    @_save_on_train_epoch_end.setter
    def _save_on_train_epoch_end(self, at_train_epoch_end: bool | None) -> None:
        self.save_on_train_epoch_end = at_train_epoch_end

    @property
    def _enable_version_counter(self) -> bool:
        return self.enable_version_counter

    @property
    def _last_global_step_saved(self) -> int:
        """The step of the last save; 0 before the first."""
        saved_at = self._place.saved_at
        return 0 if saved_at is None else max(saved_at.steps, 0)

    @_last_global_step_saved.setter
    def _last_global_step_saved(self, step: int) -> None:
        if self._place.saved_at is not None:
            self._place.saved_at = self._place.saved_at._replace(steps=step)

    @property
    def _last_checkpoint_saved(self) -> str:
        """The file written last; ``""`` before the first."""
        return "" if self._place.newest is None else self._place.newest[1]

    @_last_checkpoint_saved.setter
    def _last_checkpoint_saved(self, path: str | os.PathLike[str]) -> None:
        position = self._place.saved_at or Position(-1, -1, -1)
        self._place.newest = position, os.fspath(path)

    @property
    def _fs(self) -> Any:
        """The file system of ``dirpath``."""
        return get_filesystem(self.dirpath or "")

    def _get_metric_interpolated_filepath_name(
        self, monitor_candidates: dict[str, Tensor], trainer: Trainer, del_filepath: str | None = None
    ) -> str:
        """A path for a new file that writes over none but ``del_filepath``."""
        return self._free_path(trainer, monitor_candidates, spare=del_filepath or "")
