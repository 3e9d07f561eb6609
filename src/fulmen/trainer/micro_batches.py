"""A batch that is too large for the memory: run in parts, with the gradients and the one step of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fulmen.loops.plan import written
from fulmen.loops.progress import ABSENT
from fulmen.strategies.strategy import Strategy
from fulmen.trainer.micro_logs import LogsOfParts
from fulmen.trainer.rewind import Moment, Watched
from fulmen.trainer.splitting import length_of, split
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.memory import garbage_collection_cuda, is_oom_error
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn
from fulmen.utilities.text import described

if TYPE_CHECKING:
    from fulmen.loops.plan import Plan
    from fulmen.trainer.trainer import Trainer

#: more samples than any batch has
_ALL = 2**62


class MicroBatches:
    """Runs each training batch in micro-batches: forward and backward for one after the other, gradients added up.

    Args:
        size: the most samples of a micro-batch. None: the whole batch, until that is too large.
        is_automatic: halve the size when memory is not enough, and run the batch again.

    Attributes:
        size: the most samples of a micro-batch now; None: whole batches.
    """

    def __init__(self, size: int | None, is_automatic: bool) -> None:
        self.size, self.is_automatic = size, is_automatic
        self._watched: Watched | None = None
        self._at_once = 0  # samples that were tried together
        self._has_warned = False

    def run(self, trainer: Trainer, call: Plan, batch: Any) -> tuple[Tensor | None, dict[str, Any]]:
        """Run one batch forward and backward.

        Args:
            call: the plan of this step: another one where there is no batch.

        Returns:
            The loss of the batch, without a graph (None: there is none), and what ``on_train_batch_end`` gets.

        Raises:
            MisconfigurationException: the batch cannot be split.
            RuntimeError: the memory is not enough, and the size is fixed or cannot be halved.
        """
        window, progress = trainer.window, trainer.progress
        is_there = batch is not None and batch is not ABSENT
        if self.is_automatic and (self._watched is None or self._watched.epoch != progress.epoch):
            self._watched = Watched(trainer)
        clears, failed_with = progress.starts_accumulation, 0
        while True:
            moment = Moment(trainer, self._watched, not clears) if self._watched is not None else None
            logs = LogsOfParts(trainer.metrics)
            step = _Step(trainer, call, logs, moment, clears)
            try:
                with logs:
                    loss, outputs = step.run(self._parts(trainer, batch) if is_there else [])
                break
            except (RuntimeError, MemoryError) as error:
                if not is_oom_error(error):
                    raise
                self._explain_the_end(trainer, batch, error)
            assert moment is not None  # the error is let go of here, and with it what it held
            clears = clears and not moment.is_cleared
            moment.go_back()
            garbage_collection_cuda()
            failed_with = failed_with or self._at_once
            self.size = self._at_once // 2
        if failed_with:
            self._say(trainer, failed_with)
        logs.finish()

        def announce() -> None:
            window.finish_parts(progress, loss, is_there)

        if progress.accumulating:
            announce()
        else:
            trainer.strategy.exchange_gradients(announce)
        return loss, outputs

    def _parts(self, trainer: Trainer, batch: Any) -> list[tuple[Any, int]]:
        """The parts of the batch, each with its number of samples."""
        self._at_once = 0
        if self.size is None:
            return [(batch, 1)]
        parts = _split(trainer, batch, self.size)
        self._at_once = max(samples for _, samples in parts)
        if len(parts) > 1 and not self._has_warned:
            self._has_warned = True
            _warn_of_batch_norms(trainer.lightning_module)
        return parts

    # -- not enough memory --------------------------------------------------------------------------------------------

    def _explain_the_end(self, trainer: Trainer, batch: Any, error: Exception) -> None:
        """Raise ``error``, with what to do, if it cannot be helped by a smaller size."""
        if not self.is_automatic:
            error.add_note(
                f"Micro-batches of {self._at_once} samples are too large for the memory. Write "
                f"`Trainer(micro_batch_size={max(1, self._at_once // 2)})`, or `'auto'` to have the size found."
            )
            raise error
        if not self._at_once:
            try:
                self._at_once = sum(samples for _, samples in _split(trainer, batch, _ALL))
            except MisconfigurationException as reason:
                error.add_note(f"`Trainer(micro_batch_size='auto')` could not help: {reason}")
                raise error from None
        if self._at_once < 2:
            error.add_note(
                "The memory is not enough for a single sample. Make the model or the samples smaller, write "
                "`Trainer(precision='bf16-mixed')`, or recompute activations in backward by "
                "`torch.utils.checkpoint.checkpoint`."
            )
            raise error

    def _say(self, trainer: Trainer, failed_with: int) -> None:
        progress = trainer.progress
        who = f"rank {trainer.global_rank}: " if trainer.world_size > 1 else ""
        say = rank_zero_info.__wrapped__  # type: ignore[attr-defined]  # each process may have a size of its own
        say(
            "%sout of memory with %d samples at once in batch %d of epoch %d: it goes on in micro-batches of %d; to "
            "begin with that, write `Trainer(micro_batch_size=%d)`",
            who,
            failed_with,
            progress.batch_idx,
            progress.epoch,
            self.size,
            self.size,
        )

    # -- before and after ---------------------------------------------------------------------------------------------

    def begin_run(self, trainer: Trainer) -> None:
        """A run of ``fit`` begins."""
        self._check(trainer)
        self._has_warned = False
        trainer.when_torn_down(self._let_go)

    def anew(self) -> MicroBatches:
        """The same for another model, without the size that was found."""
        return MicroBatches(None if self.is_automatic else self.size, self.is_automatic)

    def _let_go(self) -> None:
        self._watched = None

    def _check(self, trainer: Trainer) -> None:
        """Check that the module and the strategy allow a batch to be run in parts.

        Raises:
            MisconfigurationException: they do not.
        """
        module, strategy = trainer.lightning_module, trainer.strategy
        asked = f"`Trainer(micro_batch_size={'auto' if self.is_automatic else self.size!r})`"
        if not module.automatic_optimization:
            raise MisconfigurationException(
                f"{asked} does nothing in manual optimization, where `training_step` goes backward itself. Leave it "
                "out, and split the batch there: `for part in batch.split(size): self.manual_backward(...)`."
            )
        if strategy.world_size == 1 and not strategy.forward_is_collective:
            return
        if strategy.forward_is_collective or written(strategy, "exchange_gradients", Strategy) is None:
            raise MisconfigurationException(
                f"{asked} with {type(strategy).__name__}: its processes must all make the same number of passes, and "
                "each may need another number of micro-batches. Leave it out and write smaller batches with "
                "`accumulate_grad_batches`, or `strategy='ddp'`."
            )
        if getattr(strategy.model, "static_graph", False):
            raise MisconfigurationException(
                f"{asked} with `static_graph=True`, which wants the same backward pass in each step, and gradients of "
                "micro-batches are exchanged in a pass of their own. Leave out one of the two."
            )
        shared = [name for name, layer in module.named_modules() if isinstance(layer, nn.SyncBatchNorm)]
        if shared or trainer.layer_sync is not None:
            raise MisconfigurationException(
                f"{asked} with layers that share their statistics between processes"
                f"{f' ({shared[0]})' if shared else ''}: these must all make the same number of passes, and each may "
                "need another number of micro-batches. Leave out one of the two."
            )

    def resume(self, size: int | None) -> None:
        """Go on with the size that a run has found; one that the user has fixed stays."""
        if self.is_automatic:
            self.size = size


class _Step:
    """One attempt to run the parts of a batch."""

    def __init__(
        self, trainer: Trainer, call: Plan, logs: LogsOfParts, moment: Moment | None, clears_gradients: bool
    ) -> None:
        self._trainer, self._call, self._logs, self._moment = trainer, call, logs, moment
        self._clears_gradients = clears_gradients

    def run(self, parts: list[tuple[Any, int]]) -> tuple[Tensor | None, dict[str, Any]]:
        trainer, call, window = self._trainer, self._call, self._trainer.window
        batch_idx = trainer.progress.batch_idx
        share, total = window.begin_parts(trainer.progress), sum(samples for _, samples in parts)
        if not parts:
            window.loss_of_part(None, share)
            self._clear_gradients()
            return None, {}
        counts = _counted(trainer, parts)
        losses: list[Tensor] = []
        outputs: list[tuple[dict[str, Any], int]] = []
        for place, (part, samples) in enumerate(parts):
            self._logs.begin(place, counts[place])
            fraction = samples / total if total else 1 / len(parts)
            loss, output = window.loss_of_part(call.step_of_part(part, batch_idx), share * fraction)
            self._clear_gradients()
            if loss is None:
                continue
            outputs.append((output, samples))
            losses.append(loss.detach())
            call.on_before_backward(loss)
            call.backward(loss)
            call.on_after_backward()
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum() if losses else None
        return loss, _merged(outputs)

    def _clear_gradients(self) -> None:
        """Once in a window, after the first forward pass."""
        if not self._clears_gradients:
            return
        self._clears_gradients = False
        optimizer, progress = self._trainer.optimizer, self._trainer.progress
        self._call.on_before_zero_grad(optimizer)
        self._call.optimizer_zero_grad(progress.epoch, progress.batch_idx, optimizer)
        if self._moment is not None:
            self._moment.gradients_are_cleared()


def _split(trainer: Trainer, batch: Any, size: int) -> list[tuple[Any, int]]:
    """The parts of the batch, by the module's own ``split_batch`` if it has one."""
    module = trainer.lightning_module
    own = getattr(module, "split_batch", None)
    if own is None:
        samples = _samples_in_loader(trainer)
        return split(batch, size, samples) if size < _ALL else [(batch, length_of(batch, samples))]
    parts = list(own(batch, size))
    good = all(isinstance(one, tuple) and len(one) == 2 and _is_number(one[1]) for one in parts)
    if not parts or not good:
        wrong = next((one for one in parts if not (isinstance(one, tuple) and len(one) == 2)), parts)
        raise MisconfigurationException(
            f"`{type(module).__name__}.split_batch` returned {described(wrong)}; it must return pairs: a part of the "
            "batch, and the number of samples in it, such as `[(batch[:8], 8), (batch[8:], 3)]`."
        )
    return parts


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _samples_in_loader(trainer: Trainer) -> int | None:
    """How many samples the loader has put into the batch, where it says so."""
    try:
        indices = trainer.data.batch_indices
    except TypeError:  # a sampler that gives something else than lists of indices
        return None
    return None if indices is None else len(indices)


def _counted(trainer: Trainer, parts: list[tuple[Any, int]]) -> list[float | None]:
    """How many samples ``self.log`` counts each part as, so that all together count as the batch does; None for the
    batch itself, which is counted when somebody asks.
    """
    if len(parts) == 1:
        return [None]
    total = sum(samples for _, samples in parts)
    try:
        whole = trainer.data.batch_size()
    except MisconfigurationException:  # there is no tensor
        whole = total
    return [samples if whole == total else samples * whole / total for _, samples in parts]


def _merged(outputs: list[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """What the parts gave for ``on_train_batch_end``, as one."""
    if len(outputs) < 2:
        return outputs[0][0] if outputs else {}
    names = dict.fromkeys(name for output, _ in outputs for name in output)
    merged = {
        name: _merged_values([(output[name], samples) for output, samples in outputs if name in output])
        for name in names
    }
    if "loss_sum" in merged and "weight" in merged:
        for name in ("loss_sum", "weight"):
            merged[name] = sum(output[name] for output, _ in outputs)
        merged["loss"] = merged["loss_sum"] / merged["weight"]
    else:
        merged["loss"] = _mean([(output["loss"], samples) for output, samples in outputs])
    return merged


def _merged_values(values: list[tuple[Any, int]]) -> Any:
    """One value of those of the parts, each with its samples: the mean of numbers, and one after the other what has an
    entry for each sample; else a list of what the parts gave.
    """
    found = [value for value, _ in values]
    if all(isinstance(value, Mapping) for value in found):
        names = dict.fromkeys(name for value in found for name in value)
        return {name: _merged_values([(value[name], n) for value, n in values if name in value]) for name in names}
    if all(isinstance(value, Tensor) for value in found):
        if all(value.ndim and value.shape[0] == samples for value, samples in values):
            return torch.cat(found)
        if all(value.numel() == 1 and value.is_floating_point() for value in found):
            return _mean(values)
    elif all(isinstance(value, list) and len(value) == samples for value, samples in values):
        return [entry for value in found for entry in value]
    elif all(isinstance(value, float) for value in found):
        return _mean(values)
    return found


def _mean(values: list[tuple[Any, int]]) -> Any:
    return sum(value * samples for value, samples in values) / sum(samples for _, samples in values)


def _warn_of_batch_norms(module: nn.Module) -> None:
    names = [name for name, layer in module.named_modules() if isinstance(layer, _BatchNorm) and layer.training]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        rank_zero_warn(
            f"{type(module).__name__} is trained in micro-batches, and its {names[0]}{more} normalizes by the samples "
            "that it sees at once: the numbers are not those of the whole batch. Use GroupNorm or LayerNorm, switch "
            "the layer to `eval()`, or leave `micro_batch_size` out."
        )
