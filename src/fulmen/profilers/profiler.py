"""What every profiler offers."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fulmen.utilities.cloud_io import get_filesystem, is_remote, join_path, make_dirs, parent_path
from fulmen.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from torch import nn


class Profiler(ABC):
    """Derive from this to measure the actions of a run your own way: write ``start`` and ``stop``, and ``summary``.

    Args:
        dirpath: where the report is written; None for the trainer's ``log_dir``.
        filename: the report goes to ``<dirpath>/<stage>-<filename>.txt`` (with ``-<rank>`` on ranks of several); None
            prints it on rank 0.
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None) -> None:
        self.dirpath = dirpath
        self.filename = filename
        self._log_dir: str | None = None
        self._local_rank: int | None = None
        self._stage: str | None = None

    @abstractmethod
    def start(self, action_name: str) -> None:
        """The action begins."""

    @abstractmethod
    def stop(self, action_name: str) -> None:
        """The action has ended."""

    @contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        """Measure the block under it: ``with trainer.profiler.profile("load images"): ...``."""
        self.start(action_name)
        try:
            yield action_name
        finally:
            self.stop(action_name)

    def summary(self) -> str:
        """The report; ``""`` for none."""
        return ""

    def describe(self) -> None:
        """Write the report at the end of a run, or print it if no ``filename`` was given; then :meth:`teardown`."""
        report = self.summary()
        if report and self.filename is None:
            _print(report)
        elif report:
            _append(self._path(".txt"), report)
        self.teardown(stage=self._stage)

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        """A run begins.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
            local_rank: the process's rank on its machine; None if there is one process.
            log_dir: where files go when no ``dirpath`` was given.
        """
        self._stage = str(stage)
        self._local_rank = local_rank
        self._log_dir = log_dir

    def watch(self, module: nn.Module) -> None:
        """The module of the run is there, on its device; no step was made yet. Let go of it in :meth:`teardown`."""

    def teardown(self, stage: str | None) -> None:
        """The run has ended and the report is written: close what is open."""

    @property
    def local_rank(self) -> int:
        """The process's rank on its machine, 0 if there is one process."""
        return self._local_rank or 0

    def _path(self, ending: str, action_name: str | None = None) -> str:
        """``<dirpath>/<stage>-<filename>[-<action>][-<rank>]<ending>``, fit for any file system."""
        if action_name is not None:
            action_name = action_name[-160:]  # names of files have at most 255 bytes; the end says which hook it was
        parts = (self._stage, self.filename, action_name, self._local_rank)
        name = "-".join(str(part) for part in parts if part not in (None, ""))
        directory = self.dirpath or self._log_dir or os.curdir
        return join_path(directory, re.sub(r'[<>:"/\\|?*\n\r\t\[\]]', "_", name) + ending)


@rank_zero_only
def _print(report: str) -> None:
    print(report)


def _append(path: str, text: str) -> None:
    make_dirs(parent_path(path))
    if is_remote(path):
        with get_filesystem(path).open(path, "a", encoding="utf-8") as file:
            file.write(text)  # type: ignore[arg-type]
    else:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)
