"""A run that is over, as its files tell: how it was started, its checkpoints, and what was not finite in it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fulmen.callbacks.nonfinite import FILE_NAME, Record
from fulmen.plugins.io import index
from fulmen.utilities.rank_zero import rank_zero_warn


@dataclass(frozen=True, slots=True)
class SavedState:
    """A checkpoint of a run.

    Attributes:
        path: the file.
        step: optimizer steps made before it.
        batch: batches before it, over all epochs; None if the file does not say.
        reason: why it was written.
    """

    path: Path
    step: int
    batch: int | None = None
    reason: str = ""


@dataclass(slots=True)
class PastRun:
    """A run that is over.

    Attributes:
        path: what was asked for: the run's directory, a folder of checkpoints, or one of them.
        states: its checkpoints.
        record: what was not finite in it.
        command: ``argv``, ``directory`` and ``module`` of the process that made it; empty if no file says.
    """

    path: Path
    states: list[SavedState]
    record: Record
    command: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> PastRun:
        """Read the files of the run at ``path``.

        Raises:
            FileNotFoundError: nothing is there, or nothing that a run leaves.
            ValueError: a file of the run cannot be read.
        """
        given = Path(path).expanduser().resolve()
        if not given.exists():
            raise FileNotFoundError(
                f"there is nothing at {path}. Give the directory of a run, such as lightning_logs/version_0, its "
                "folder of checkpoints, or one of the files in it."
            )
        folder = given.parent if given.is_file() else given
        home = folder if (folder / FILE_NAME).exists() or (folder / "checkpoints").is_dir() else folder.parent
        record = Record.read(str(home))
        if given.is_file() or home != folder:
            folders = [folder]
        elif record is not None and record.checkpoints:
            folders = [home / name for name in record.checkpoints]
        else:
            folders = [home / "checkpoints" if (home / "checkpoints").is_dir() else home]
        states, command = [], record.command if record is not None else {}
        for one in folders:
            found, its_command = _states_in(one)
            states += found
            command = command or its_command
        if given.is_file():
            states = [state for state in states if state.path == given] or [_state_of(given)]
        elif record is None and not states:
            raise FileNotFoundError(
                f"{path} is no directory of a run: there are no checkpoints in it, and no {FILE_NAME}. Give the folder "
                "that holds `checkpoints`, such as lightning_logs/version_0."
            )
        return cls(given, states, record or Record(), command)

    def state_before(self, step: int, batch: int | None = None) -> SavedState | None:
        """The newest checkpoint from which one comes to ``step``; None if there is none.

        Args:
            step: the number of the step that is to be repeated.
            batch: the position in the run of its first batch, if that is known.
        """
        for state in sorted(self.states, key=lambda state: (state.step, state.batch or 0), reverse=True):
            too_late = state.step >= step or (batch is not None and state.batch is not None and state.batch > batch)
            if too_late or state.reason == "exception":  # saved in the middle of a step
                continue
            try:
                content = _content_of(state.path)
            except Exception as error:  # a damaged file
                rank_zero_warn(f"{state.path} cannot be read ({type(error).__name__}: {error}): one before it is used.")
                continue
            if "optimizer_states" not in content or "loops" not in content:  # the weights alone
                continue
            if state.step == step - 1 and "window" in content.get("resume", {}):  # has a part of the step behind it
                continue
            return state
        return None

    def state_after(self, step: int) -> SavedState | None:
        """The first checkpoint that has ``step`` behind it; None if there is none."""
        after = [state for state in self.states if state.step >= step and state.batch is not None]
        return min(after, key=lambda state: state.batch or 0, default=None)


def _states_in(folder: Path) -> tuple[list[SavedState], dict[str, Any]]:
    """The checkpoints in ``folder``, and the command of the run that it belongs to if its list says."""
    known = index.look(str(folder))
    if known is None:
        left_in_a_step = "on_exception.ckpt"  # of an OnExceptionCheckpoint
        files = sorted(path for path in folder.glob("*.ckpt") if path.is_file() and path.name != left_in_a_step)
        return [state for state in map(_state_if_any, files) if state is not None], {}
    states = [
        SavedState(Path(known.path_of(entry)).resolve(), entry.step, entry.batch, entry.reason)
        for entry in known.entries
    ]
    return [state for state in states if state.path.exists()], known.command


def _state_of(path: Path) -> SavedState:
    content = _content_of(path)
    if "global_step" not in content:
        raise ValueError(f"{path} is no checkpoint of a run: it does not say how many steps were made.")
    batch = content.get("loops", {}).get("progress", {}).get("total_batches")
    return SavedState(path, content["global_step"], batch)


def _state_if_any(path: Path) -> SavedState | None:
    try:
        return _state_of(path)
    except Exception:  # whatever else lies there
        return None


def _content_of(path: Path) -> dict[str, Any]:
    """What is in a checkpoint; its tensors are read when they are used."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
