"""Losses and gradients that are not finite: whether there are any, which come first, and the file that lists them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from fulmen.loggers.files import read_text, replacing
from fulmen.plugins.io.index import command
from fulmen.utilities.cloud_io import exists, is_remote, join_path, make_dirs

if TYPE_CHECKING:
    from torch.nn import Module

    from fulmen.trainer.trainer import Trainer

#: the file in the directory of a run that lists the steps in which something was not finite
FILE_NAME = "nonfinite.json"
FORMAT = 1


@dataclass(slots=True)
class TrainedBatch:
    """A batch that contributes to a step.

    Attributes:
        batch: its position in the epoch.
        total: its position in the run.
        indices: positions of its samples in the data set; None when they cannot be known.
        loss: its loss as ``training_step`` returned it; None if it gave none.
    """

    batch: int
    total: int
    indices: list[int] | None = None
    loss: float | None = None


@dataclass(slots=True)
class Finding:
    """What was not finite in a step, and where it came up first.

    Attributes:
        step: the number of the step that was about to be made: ``global_step`` goes from ``step - 1`` to ``step``.
        epoch: epochs completed before.
        batches: the batches of the step, in their order.
        batch: position in the epoch of the first batch with a loss that is not finite, else of the last one.
        loss: the loss of that batch.
        indices: its samples in the data set; None when they cannot be known.
        parameter: the first parameter, in the order of ``named_parameters``, whose gradient is not finite; None if all
            are.
        gradient: what there is in that gradient: ``"nan"``, ``"inf"`` or ``"nan and inf"``.
        bad_gradients: how many parameters have such a gradient.
        weight: the first parameter that is itself not finite, before the step; None if all are.
        input_is_finite: whether all numbers in the batch were finite; None if the batch is not at hand any more.
        digest: checksum of the losses and gradients, to tell whether a replay comes to the same bits.
        action: what the guard did about it.
    """

    step: int
    epoch: int
    batches: list[TrainedBatch]
    batch: int | None = None
    loss: float | None = None
    indices: list[int] | None = None
    parameter: str | None = None
    gradient: str | None = None
    bad_gradients: int = 0
    weight: str | None = None
    input_is_finite: bool | None = None
    digest: str = ""
    action: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether there is a loss or a gradient that is not finite."""
        return self.parameter is not None or any(not _is_finite(batch.loss) for batch in self.batches)

    def __str__(self) -> str:
        """Sentences that say all this."""
        of_batch = "" if self.batch is None else f" of batch {self.batch}"
        parts: list[str] = []
        if not _is_finite(self.loss):
            parts.append(f"the loss{of_batch} is {self.loss}")
        if self.parameter is not None:
            more = f" (and of {self.bad_gradients - 1} more)" if self.bad_gradients > 1 else ""
            of_batch = "" if parts else of_batch
            parts.append(f"the gradient of `{self.parameter}`{more}{of_batch} has {self.gradient}")
        lines = [f"Step {self.step} (epoch {self.epoch}) is not finite: {', '.join(parts) or 'nothing is known'}."]
        if self.indices is not None:
            shown = ", ".join(map(str, self.indices[:16])) + (", ..." if len(self.indices) > 16 else "")
            lines.append(f"The samples of the batch are {shown}.")
        if self.weight is not None:
            lines.append(f"The weights were not finite before, `{self.weight}` first.")
        if self.input_is_finite is False:
            lines.append("The batch itself holds numbers that are not finite: look at the data first.")
        return " ".join(lines)


def all_finite(losses: Sequence[Tensor], gradients: Sequence[Tensor]) -> bool:
    """Whether all these are finite: one norm over all gradients, and the host waits for the device once."""
    sizes = [*losses, get_total_norm(gradients)] if gradients else list(losses)
    if not sizes:
        return True
    device = sizes[-1].device
    finite = torch.stack([torch.isfinite(size).reshape(()).to(device) for size in sizes]).all()
    return bool(finite) or all(map(_tensor_is_finite, (*losses, *gradients)))  # a sum of squares may overflow


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The numbers in the gradients that are there."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    found = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in found]
    return [gradient for gradient in found if gradient.numel()]


class StepWatch:
    """What the batches of one optimizer step did, as far as it is known before the step is made."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing is known of any batch."""
        self.batch: Any = None  #: the last one
        self.batches: list[TrainedBatch] = []
        self.losses: list[tuple[int, Tensor]] = []  #: with the positions in the epoch of their batches
        self._step_was_made = False

    def start_batch(self, trainer: Trainer, batch: Any) -> None:
        """A batch begins."""
        progress = trainer.progress
        if self._step_was_made or (trainer.lightning_module.automatic_optimization and progress.starts_accumulation):
            self.clear()
        self.batch = batch
        self.batches.append(TrainedBatch(progress.batch_idx, progress.total_batches, trainer.data.batch_indices))

    def add_loss(self, trainer: Trainer, loss: Tensor) -> None:
        """A loss as it goes backward: in an accumulation window it is a part of what ``training_step`` returned."""
        window = trainer.window
        parts = window.size if trainer.lightning_module.automatic_optimization and window.weight is None else 1
        self.losses.append((trainer.progress.batch_idx, loss.detach() if parts == 1 else loss.detach() * parts))

    def close(self) -> list[tuple[int, Tensor]]:
        """A step is about to be made: the losses since the one before."""
        self._step_was_made = True
        losses, self.losses = self.losses, []
        return losses

    def examine(self, trainer: Trainer, losses: Sequence[tuple[int, Tensor]], parameters: Sequence[Tensor]) -> Finding:
        """Find out what is not finite, and where it comes up first. Takes its time.

        Args:
            losses: those of the step.
            parameters: whose gradients count.
        """
        finding = Finding(trainer.progress.step + 1, trainer.progress.epoch, self.batches)
        for position, loss in losses:
            for trained in finding.batches:
                if trained.batch == position and _is_finite(trained.loss):
                    trained.loss = float(loss)
        if finding.batches:
            first = next((one for one in finding.batches if not _is_finite(one.loss)), finding.batches[-1])
            finding.batch, finding.loss, finding.indices = first.batch, first.loss, first.indices
            if first is finding.batches[-1]:
                finding.input_is_finite = all(map(_tensor_is_finite, _tensors_in(self.batch)))
        _examine_gradients(finding, trainer.lightning_module, losses, {id(parameter) for parameter in parameters})
        return finding


def _examine_gradients(
    finding: Finding, module: Module, losses: Sequence[tuple[int, Tensor]], counted: set[int]
) -> None:
    digest = hashlib.sha256()
    for _, loss in losses:
        digest.update(_bytes(loss))
    for name, parameter in module.named_parameters():
        if finding.weight is None and not _tensor_is_finite(parameter):
            finding.weight = name
        if id(parameter) not in counted or not (found := gradients_of([parameter])):
            continue
        [gradient] = found
        digest.update(name.encode() + _bytes(gradient))
        if not _tensor_is_finite(gradient):
            finding.bad_gradients += 1
            if finding.parameter is None:
                kinds = [("nan", torch.isnan), ("inf", torch.isinf)]
                finding.gradient = " and ".join(kind for kind, test in kinds if bool(test(gradient).any()))
                finding.parameter = name
    finding.digest = f"sha256:{digest.hexdigest()}"


def _is_finite(loss: float | None) -> bool:
    return loss is None or math.isfinite(loss)


def _tensor_is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


def _tensors_in(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        if batch.is_floating_point() or batch.is_complex():
            yield batch
    elif isinstance(batch, dict):
        for item in batch.values():
            yield from _tensors_in(item)
    elif isinstance(batch, (list, tuple)):
        for item in batch:
            yield from _tensors_in(item)


def _bytes(tensor: Tensor) -> bytes:
    """The bits of a tensor; every NaN counts as the same."""
    values = tensor.detach().cpu().reshape(-1)
    values = torch.where(torch.isnan(values), torch.full_like(values, math.nan), values)
    return values.contiguous().view(torch.uint8).numpy().tobytes()


# -- the file ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Record:
    """What ``nonfinite.json`` says of a run.

    Attributes:
        command: ``argv``, ``directory`` and ``module`` of the process that trained.
        checkpoints: the folders that its checkpoints are in, relative to the file where they lie below it.
        findings: the steps in which something was not finite, in the order in which they came.
    """

    command: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @classmethod
    def read(cls, directory: str) -> Record | None:
        """The record of the run in ``directory``; None if nothing was found in it.

        Raises:
            ValueError: the file is of a later version, or damaged.
        """
        path = join_path(directory, FILE_NAME)
        if not exists(path):
            return None
        try:
            content = json.loads(read_text(path))
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
            findings = [
                Finding(**{**found, "batches": [TrainedBatch(**_numbers(batch)) for batch in found["batches"]]})
                for found in map(_numbers, content["findings"])
            ]
            return cls(content["command"], content["checkpoints"], findings)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}") from error

    def write(self, directory: str) -> None:
        """Write the whole file anew."""
        content = {"format": FORMAT, **asdict(self)}
        for found in content["findings"]:
            found["loss"] = _plain(found["loss"])
            for batch in found["batches"]:
                batch["loss"] = _plain(batch["loss"])
        make_dirs(directory)
        with replacing(join_path(directory, FILE_NAME)) as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")


def _plain(loss: float | None) -> float | str | None:
    return loss if _is_finite(loss) else str(loss)  # JSON has no NaN


def _numbers(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "loss": None if found["loss"] is None else float(found["loss"])}


def remember(trainer: Trainer, finding: Finding) -> str:
    """Add ``finding`` to the file of the run. Returns the run's directory, as it is written in a command line."""
    directory = str(trainer.log_dir)
    if trainer.is_global_zero and not trainer.fast_dev_run:
        folders = [str(folder) for one in trainer.checkpoint_callbacks if (folder := getattr(one, "dirpath", None))]
        record = Record.read(directory) or Record(command())
        record.checkpoints = [_relative(folder, directory) for folder in folders]
        record.findings.append(finding)
        record.write(directory)
    return shlex.quote(_relative(directory, os.getcwd()))


def _relative(path: str, start: str) -> str:
    """``path`` as seen from ``start`` if it lies below, else whole."""
    if is_remote(path) or is_remote(start):
        return path
    path, start = os.path.realpath(path), os.path.realpath(start)
    return os.path.relpath(path, start) if os.path.commonpath([path, start]) == start else path
