"""Losses that are suddenly far from those before."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import torch

from fulmen.utilities.cloud_io import exists, join_path, make_dirs, parent_path
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text_files import read_text, replacing

if TYPE_CHECKING:
    from torch import Tensor

    from fulmen.utilities.types import _PATH

FILE_NAME = "skip_batches.json"


class TrainingSpikeException(RuntimeError):
    """The loss of a batch is a spike.

    Attributes:
        batch_idx: the number of the batch in its epoch, from 0.
    """

    def __init__(self, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        text = f"Training spike detected in batch {batch_idx}"
        super().__init__(": ".join([text, *map(str, args)]), **kwargs)
        self.batch_idx = batch_idx
        self._details = args

    def __reduce__(self) -> Any:
        return type(self), (self.batch_idx, *self._details)


class SpikeDetection:
    """Looks at the loss of each batch, and raises :class:`TrainingSpikeException` when it is a spike.

    A loss is a spike if it is worse than the one before and, beyond that, as far from the mean of the last ``window``
    losses as ``atol`` and ``rtol`` say, both if both are given. Spikes do not enter the mean. With several processes
    each looks at its own losses, and a spike of one is a spike of all.

    The number of the batch, and of the one before, from which the weights came, are added to a file: a JSON list of
    numbers, in the order in which they were found. What the file has already stays in it.

    In a loop of your own, call :meth:`on_train_batch_end` after each batch, on all processes. It costs that the host
    waits for the device, and one message to the other processes.

    Args:
        mode: ``"min"``: a higher loss is worse. ``"max"``: a lower one is.
        window: of so many losses the mean is taken.
        warmup: so many losses of the run are not judged.
        atol: the least distance from the mean. None: any.
        rtol: the least distance from the mean, as a multiple of it. None: any.
        exclude_batches_path: the file, or the folder of ``skip_batches.json``; what does not end in ``.json`` is a
            folder. None: the working directory.
        finite_only: a loss that is not finite is a spike, at any time. False: such losses are not looked at.

    Attributes:
        bad_batches: the numbers that were found.

    Raises:
        ValueError: an argument is none of its allowed values.
    """

    def __init__(
        self,
        mode: Literal["min", "max"] = "min",
        window: int = 10,
        warmup: int = 1,
        atol: float | None = None,
        rtol: float | None = 2.0,
        exclude_batches_path: _PATH | None = None,
        finite_only: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"SpikeDetection(mode={mode!r}): write 'min' or 'max'.")
        for name, number, least in (("window", window, 1), ("warmup", warmup, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"SpikeDetection({name}={number!r}): write a whole number from {least}.")
        for name, distance in (("atol", atol), ("rtol", rtol)):
            if distance is not None and not (isinstance(distance, (int, float)) and not math.isnan(distance)):
                raise ValueError(f"SpikeDetection({name}={distance!r}): write a number, or None.")
        if exclude_batches_path is not None and not isinstance(exclude_batches_path, (str, os.PathLike)):
            raise ValueError(f"SpikeDetection(exclude_batches_path={exclude_batches_path!r}): write a path, or None.")
        self.mode = mode
        self.window = window
        self.warmup = warmup
        self.atol = atol
        self.rtol = rtol
        self.exclude_batches_path = exclude_batches_path
        self.finite_only = finite_only
        self.bad_batches: list[int] = []
        self._histories: list[_History] = []  # of each process, known to all

    def on_train_batch_end(self, fabric: Any, loss: Tensor, batch: Any, batch_idx: int) -> None:
        """A batch was trained.

        Args:
            fabric: the ``Fabric``; of use is its ``strategy``.
            loss: of this process.
            batch_idx: the number of the batch in its epoch.

        Raises:
            TrainingSpikeException: the loss of a process is a spike.
        """
        self._look(fabric.strategy, loss, batch_idx, os.getcwd())

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far, of all processes."""
        return {
            "bad_batches": list(self.bad_batches),
            "histories": [{"count": one.count, "last": list(one.last)} for one in self._histories],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.bad_batches = list(state_dict.get("bad_batches", []))
        self._histories = [
            _History(one["count"], deque(one["last"], maxlen=self.window)) for one in state_dict.get("histories", [])
        ]

    # -- one batch ----------------------------------------------------------------------------------------------------

    def _look(self, strategy: Any, loss: Tensor | None, batch_idx: int, directory: str) -> None:
        losses = _losses_of_all(strategy, loss)
        if len(self._histories) != len(losses):  # the first one, or the number of processes has changed
            self._histories = [_History(0, deque(maxlen=self.window)) for _ in losses]
        spikes = [
            rank
            for rank, (history, value) in enumerate(zip(self._histories, losses))
            if value is not None and self._is_spike(history, value)
        ]
        if spikes:
            rank = spikes[0]
            self._note(strategy, batch_idx, directory)
            place = f" of rank {rank}" if len(losses) > 1 else ""
            raise TrainingSpikeException(batch_idx, self._explain(self._histories[rank], losses[rank], place))
        for history, value in zip(self._histories, losses):
            if value is not None and math.isfinite(value):
                history.add(value)

    def _is_spike(self, history: _History, loss: float) -> bool:
        if not math.isfinite(loss):
            return self.finite_only
        if history.count < self.warmup or not history.last:
            return False
        before, mean = history.last[-1], history.mean
        is_worse = loss > before if self.mode == "min" else loss < before
        distance = abs(loss - mean)
        far = (self.atol is None or distance >= abs(self.atol)) and (
            self.rtol is None or distance >= abs(self.rtol * mean)
        )
        return is_worse and far

    def _explain(self, history: _History, loss: float | None, place: str) -> str:
        text = f"the loss{place} is {loss:g}"
        if history.last:
            count = len(history.last)
            mean = "" if count == 1 else f", and the mean of the last {count} was {history.mean:g}"
            text += f". The one before was {history.last[-1]:g}{mean}"
        return text + "."

    # -- the file -----------------------------------------------------------------------------------------------------

    def _note(self, strategy: Any, batch_idx: int, directory: str) -> None:
        found = [number for number in (batch_idx - 1, batch_idx) if number >= 0]
        self.bad_batches = list(dict.fromkeys([*self.bad_batches, *found]))
        path = os.fspath(self.exclude_batches_path if self.exclude_batches_path is not None else directory)
        path = path if path.endswith(".json") else join_path(path, FILE_NAME)
        if strategy.is_global_zero:
            try:
                _add_to_file(path, self.bad_batches)
            except OSError as error:  # the spike matters more
                rank_zero_warn(f"{path}: the batches {self.bad_batches} could not be noted there: {error}")
        strategy.barrier("skip_batches")  # who goes on may read the file


class _History:
    """The losses that one process has seen.

    Attributes:
        count: how many, over the whole run.
        last: the last of them, as many as the window has.
    """

    __slots__ = ("count", "last")

    def __init__(self, count: int, last: deque[float]) -> None:
        self.count, self.last = count, last

    @property
    def mean(self) -> float:
        return math.fsum(self.last) / len(self.last)

    def add(self, loss: float) -> None:
        self.count += 1
        self.last.append(loss)


def _losses_of_all(strategy: Any, loss: Tensor | None) -> list[float | None]:
    """The losses of this batch by rank; None for a process that has none."""
    if strategy.world_size == 1:
        return [None if loss is None else float(loss)]
    device = strategy.root_device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    number = torch.zeros((), dtype=dtype, device=device) if loss is None else loss.detach().to(device, dtype)
    mine = torch.stack([number.reshape(()), torch.full_like(number.reshape(()), loss is not None)])
    return [value if there else None for value, there in strategy.all_gather(mine).tolist()]


def _add_to_file(path: str, batches: list[int]) -> None:
    before: Any = []
    if exists(path):
        try:
            before = json.loads(read_text(path))
        except ValueError:
            before = None
        if not isinstance(before, list) or not all(isinstance(number, int) for number in before):
            rank_zero_warn(
                f"{path} is no list of batches, and is left as it is: {batches} could not be added. Move it away, or "
                "choose another `exclude_batches_path`."
            )
            return
    folder = parent_path(path)
    if folder:
        make_dirs(folder)
    with replacing(path) as file:
        json.dump(list(dict.fromkeys([*before, *batches])), file, indent=4)
