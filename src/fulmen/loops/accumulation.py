"""What a training step returned, and what the gradients of an accumulation window are divided by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.memory import recursive_detach
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import described

if TYPE_CHECKING:
    from fulmen.loops.progress import Progress
    from fulmen.strategies.late import Late


class Window:
    """The batches that share one optimizer step.

    A step's loss is a mean, so the gradients of ``n`` batches are divided by ``n``: by the number of batches that are
    really in the window, also at the end of an epoch. A step may instead return ``{"loss_sum": s, "weight": w}`` (say,
    the summed loss over tokens and their number); the update is then that of ``sum(s) / sum(w)`` over the window.

    With several processes the batches that they have at the same step are a *group*, which counts as one batch: the
    mean over its samples. Of a loss that comes as a sum, sums and weights are those of all processes.
    """

    __slots__ = ("contributed", "late", "missing", "share", "short", "size", "skipped", "weight")

    def __init__(self) -> None:
        self.size = 1  #: batches that the window will have
        self.contributed = 0  #: batches that gave a loss
        self.weight: Tensor | float | None = None  #: sum of weights, if losses come as sums
        self.skipped = 0  #: batches of the epoch that gave no loss
        self.missing = 0.0  #: what batches that gave no loss would have counted
        self.short = 0  #: batches that did not come, of an epoch of unknown length
        self.share: Callable[[], float] | None = None  #: what this process's batch counts in its group; None: all
        self.late: Late | None = None  #: what all processes are told at the end of the window

    def loss_of(self, output: Any, progress: Progress) -> tuple[Tensor | None, dict[str, Any]]:
        """Read what ``training_step`` returned for the batch at which ``progress`` stands.

        Args:
            output: a tensor with one element, a mapping with the key ``loss`` or the keys ``loss_sum`` and ``weight``,
                or None to skip this batch.

        Returns:
            The loss to go backward from (None to skip) and, without its graph, the dict that ``on_train_batch_end``
            gets.

        Raises:
            MisconfigurationException: it is none of those, or the loss has no graph.
        """
        if progress.starts_accumulation:
            self.size, self.contributed, self.weight, self.missing = progress.window, 0, None, 0.0
        share = 1.0 if self.share is None else self.share()
        loss, outputs = self._read(output, share)
        if not progress.accumulating:
            self.short = 0 if self.size == 1 else self.size - 1 - progress.batch_idx % progress.accumulate_grad_batches
            if self.late is not None:
                told = loss if self.late.wants_loss else None
                self.late.send(self.missing + self.short, self.weight, self.contributed, told)
        return loss, outputs

    def begin_parts(self, progress: Progress) -> float:
        """The batch at which ``progress`` stands is run in parts: what it counts in its group, to be shared out among
        them.
        """
        if progress.starts_accumulation:
            self.size, self.contributed, self.weight, self.missing = progress.window, 0, None, 0.0
        return 1.0 if self.share is None else self.share()

    def loss_of_part(self, output: Any, share: float) -> tuple[Tensor | None, dict[str, Any]]:
        """Read what ``training_step`` returned for a part of a batch, as :meth:`loss_of` does for a whole one.

        Args:
            share: the fraction of the batch that the part is, times what the batch counts.
        """
        skipped = self.skipped
        loss, outputs = self._read(output, share)
        self.skipped = skipped
        return loss, outputs

    def finish_parts(self, progress: Progress, loss: Tensor | None, is_there: bool) -> None:
        """All parts of the batch are run, and the processes are about to exchange what they have.

        Args:
            loss: the sum of those of the parts; None if none of them gave one.
            is_there: there was a batch.
        """
        self.skipped += loss is None and is_there
        if not progress.accumulating:
            self.short = 0 if self.size == 1 else self.size - 1 - progress.batch_idx % progress.accumulate_grad_batches
            if self.late is not None:
                told = loss if self.late.wants_loss else None
                self.late.send(self.missing + self.short, self.weight, self.contributed, told)

    def _read(self, output: Any, share: float) -> tuple[Tensor | None, dict[str, Any]]:
        if isinstance(output, Tensor):
            loss, outputs = output, {}
        elif output is None:
            self.skipped += share > 0  # else there was no batch
            self.missing += share
            return None, {}
        elif isinstance(output, Mapping):
            if "loss_sum" in output:
                if not share and "weight" in output:  # a batch that takes the place of one that is not there
                    output = {**output, "loss_sum": output["loss_sum"] * 0, "weight": output["weight"] * 0}
                return self._loss_sum_of(output)
            if output.get("loss") is None:
                raise MisconfigurationException(
                    f"`training_step` returned a {type(output).__name__} with the keys {list(output)}, but not `loss`. "
                    "Return the loss itself, {'loss': loss, ...}, or None to skip the batch."
                )
            loss, outputs = output["loss"], recursive_detach(dict(output))
        else:
            raise MisconfigurationException(
                f"`training_step` returned {described(output)}, which is no loss. `return` a "
                "tensor with one element, {'loss': loss, ...}, or None to skip the batch."
            )
        if self.weight is not None:
            raise _mixed()
        self.contributed += 1
        if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
            raise _no_gradient(loss)
        if self.size != 1:
            loss = loss / self.size
        outputs["loss"] = loss.detach()
        return (loss if share == 1 else loss * share), outputs

    def _loss_sum_of(self, output: Mapping[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        if "weight" not in output:
            raise MisconfigurationException(
                f"`training_step` returned `loss_sum` without `weight` (keys: {list(output)}). "
                "Return {'loss_sum': summed_loss, 'weight': number_of_summed_elements}."
            )
        loss, weight = output["loss_sum"], output["weight"]
        if not (isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1):
            raise _no_gradient(loss)
        if self.weight is None and self.contributed:
            raise _mixed()
        outputs = recursive_detach(dict(output))
        outputs["loss"] = loss.detach() / outputs["weight"]
        weight = _precise(weight.detach()) if isinstance(weight, Tensor) else float(weight)
        self.weight = weight if self.weight is None else self.weight + weight
        self.contributed += 1
        return loss, outputs

    def state_dict(self) -> dict[str, Any]:
        """An open window as plain data; its gradients are saved beside it."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        for name in _STATE:
            setattr(self, name, state.get(name, 0.0))

    def finish_epoch(self, batches: int) -> None:
        """Say if none of the epoch's batches gave a loss: nobody wants that."""
        if self.skipped == batches > 0:
            rank_zero_warn(
                f"`training_step` returned None for every batch of the epoch ({batches}), so nothing was trained. "
                "Was `return loss` forgotten?"
            )
        self.skipped = 0

    def rescale(self, optimizer: Any) -> None:
        """Divide the gradients by what only the end of the window could tell: the weight, or skipped batches."""
        if self.late is not None:
            self._rescale_together(optimizer, self.late)
        elif self.weight is not None:
            weight = torch.as_tensor(self.weight, dtype=torch.float64 if isinstance(self.weight, float) else None)
            nothing = torch.zeros_like(weight)  # nothing but empty batches: no update
            _multiply(optimizer, torch.where(weight > 0, 1 / weight, nothing))
        elif self.contributed and (self.missing or self.short):
            _multiply(optimizer, self.size / (self.size - self.missing - self.short))

    def _rescale_together(self, optimizer: Any, late: Late) -> None:
        if not self.contributed and late.nobody_had_a_loss(self.size):  # as if nobody had gone backward
            for parameter in _parameters(optimizer):
                parameter.grad = None
            return
        factor = self._factor(late)
        if factor is not None:
            _multiply(optimizer, factor)

    def _factor(self, late: Late) -> float | Tensor | None:
        try:
            return late.factor(self.size, sums=self.weight is not None or not self.contributed)
        except ValueError:
            raise _mixed() from None

    def loss_of_all(self, loss: Tensor | None) -> Tensor | None:
        """The loss of all processes, for an optimizer that looks at it and must find the same on each; to be called
        before :meth:`rescale`.
        """
        if self.late is None:
            return loss
        if not self.contributed and self.late.nobody_had_a_loss(self.size):
            return None
        common, factor = self.late.loss(), self._factor(self.late)
        return common if common is None or factor is None else common * factor


#: what a window that is saved in its middle is made of
_STATE = ("contributed", "missing", "size", "skipped", "weight")


def _parameters(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _multiply(optimizer: Any, factor: Tensor | float) -> None:
    """Multiply the gradients of the optimizer's parameters."""
    alike: dict[Any, list[Tensor]] = {}
    for parameter in _parameters(optimizer):
        if parameter.grad is not None:
            alike.setdefault((parameter.grad.device, parameter.grad.dtype), []).append(parameter.grad)
    for (device, dtype), gradients in alike.items():
        one = factor.to(device=device, dtype=dtype) if isinstance(factor, Tensor) else factor
        torch._foreach_mul_(gradients, one)  # pyright: ignore[reportPrivateImportUsage]


def detached_outputs(output: Any) -> dict[str, Any]:
    """The dict for ``on_train_batch_end`` of a step in manual optimization, which may return a tensor, a mapping or
    None.
    """
    if output is None:
        return {}
    if isinstance(output, Tensor):
        return {"loss": output.detach()}
    if isinstance(output, Mapping):
        return recursive_detach(dict(output))
    raise MisconfigurationException(
        f"`training_step` returned {described(output)}. In manual optimization return a tensor, a dict, or nothing."
    )


def _precise(weight: Tensor) -> Tensor:
    """A weight in a type in which sums of it, and its inverse, are right: a number of tokens may be a whole number, or
    come in half precision."""
    return weight.float() if weight.device.type == "mps" else weight.double()  # MPS has no double precision


def _mixed() -> MisconfigurationException:
    return MisconfigurationException(
        "`training_step` returned `loss` for one batch and `loss_sum` with `weight` for another of the same "
        "accumulation window; a mean cannot be added to a sum. Return {'loss_sum': ..., 'weight': ...} for every batch."
    )


def _no_gradient(loss: Any) -> MisconfigurationException:
    if not isinstance(loss, Tensor):
        return MisconfigurationException(
            f"`training_step` returned the loss {loss!r} (a {type(loss).__name__}), which is no tensor. "
            "Return the tensor itself, without `.item()` or `float(...)`."
        )
    if loss.numel() != 1:
        return MisconfigurationException(
            f"`training_step` returned a loss of shape {tuple(loss.shape)}; only a single number can be minimised. "
            "Return `loss.mean()`, or {'loss_sum': loss.sum(), 'weight': loss.numel()}."
        )
    return MisconfigurationException(
        "`training_step` returned a loss that does not depend on any trainable parameter (requires_grad is False). "
        "Compute it from the model's output without `.detach()`, `.item()` or `torch.no_grad()`, unfreeze a parameter, "
        "or return None to skip the batch."
    )
