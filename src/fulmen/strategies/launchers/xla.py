"""Processes that torch_xla starts, one for each device of this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen.strategies.launchers.multiprocessing import MultiProcessingLauncher, first_error, work
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.strategies.launchers.launcher import Launched

#: in the environment of a process that was started
STARTED = "FULMEN_STARTED_BY_XLA"


class XLALauncher(MultiProcessingLauncher):
    """Runs each verb of the Trainer in new processes, which ``torch_xla.launch`` starts."""

    def run(self, owner: Launched, function: Callable[..., Any], *args: Any) -> Any:
        import pickle

        import torch_xla  # type: ignore[import-not-found]

        from fulmen.accelerators.xla import XLAAccelerator

        there = XLAAccelerator.auto_device_count()
        if self.num_processes != there:
            raise MisconfigurationException(
                f"`devices={self.num_processes}`: torch_xla starts a process for each of the {there} devices of this "
                f"machine, or runs on one. Write `devices={there}`, or `devices=1`."
            )
        with tempfile.TemporaryDirectory(prefix="fulmen-") as folder:
            self.write_work(folder, owner, function, args)
            try:
                torch_xla.launch(_in_process, args=(folder,), start_method="spawn")
            except Exception as error:
                raise first_error(Path(folder), []) from error
            answer = Path(folder, "answer")
            return owner.take_answer(pickle.loads(answer.read_bytes())) if answer.exists() else None


def _in_process(index: int, folder: str) -> None:
    import cloudpickle

    os.environ.update({STARTED: "1", "LOCAL_RANK": str(index)})
    code = work(folder, lambda: cloudpickle.loads(Path(folder, "work").read_bytes()))
    if code:
        raise SystemExit(code)
