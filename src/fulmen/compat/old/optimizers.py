"""``training_step(self, batch, batch_idx, optimizer_idx)``: several optimizers, which automatic optimization steps one
after another, and batches that are trained on in parts along time (``truncated_bptt_steps``).

It is manual optimization, with the steps that Lightning 1 made for each optimizer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulmen.callbacks.callback import Callback
from fulmen.compat.old.messages import tell
from fulmen.core.module import LightningModule
from fulmen.core.optimizer import unfolded_optimizers
from fulmen.loops.accumulation import Window
from fulmen.loops.plan import written
from fulmen.utilities.apply_func import apply_to_collection
from fulmen.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulmen.compat.old.outputs import Outputs
    from fulmen.trainer.trainer import Trainer
    from fulmen.trainer.translation import Translation


def wants_turns(module: LightningModule) -> bool:
    """Whether ``training_step`` is written for optimizers in turn, or for parts of a batch along time."""
    if not module.automatic_optimization or not callable(module.training_step):
        return False
    return bool({"optimizer_idx", "hiddens"} & set(_names(module.training_step)))


def take_turns(trainer: Trainer, translation: Translation, outputs: Outputs) -> None:
    """Train ``module`` as :func:`wants_turns` says, for the length of this run."""
    module = trainer.lightning_module
    turns = OptimizersInTurn(module, outputs)
    translation.taken |= {"optimizer_idx", "automatic_optimization"}
    for name in ("training_step", "configure_optimizers", "lr_scheduler_step"):
        translation.replace(module, name, getattr(turns, name))
    translation.replace(module, "_automatic_optimization", False)
    translation.replace(module, "_automatic_schedulers", True)
    translation.replace(module, "_optimizer_in_turn", 0)
    translation.last.setdefault("on_before_optimizer_step", []).append((turns, turns.clip_gradients))
    for owner, empty, place in _owners(trainer):
        hook = written(owner, "on_train_batch_end", empty)
        if hook is not None:
            translation.replace(owner, "on_train_batch_end", functools.partial(_with_all, outputs, hook, place))
    name = type(module).__name__
    if "optimizer_idx" in turns.names:
        tell(
            f"`{name}.training_step(..., optimizer_idx)`",
            "Set `self.automatic_optimization = False`, and for each of `self.optimizers()` write `opt.zero_grad()`, "
            "`self.manual_backward(loss)` and `opt.step()` in `training_step(self, batch, batch_idx)`.",
        )
    if turns.split_size:
        tell(
            f"`{name}.truncated_bptt_steps`",
            "Set `self.automatic_optimization = False`, and step the optimizer after each part of the sequence in "
            "`training_step(self, batch, batch_idx)`.",
        )


def _owners(trainer: Trainer) -> Iterator[tuple[Any, type, int]]:
    """Who may have written a hook for several optimizers, and how many arguments come before those of the module."""
    yield trainer.lightning_module, LightningModule, 0
    for callback in trainer.callbacks:
        if isinstance(callback, Callback) and not type(callback).__module__.startswith("fulmen."):
            yield callback, Callback, 2


def _with_all(outputs: Outputs, hook: Callable[..., Any], place: int, *args: Any) -> Any:
    """``on_train_batch_end`` with the outputs of all optimizers."""
    return hook(*args[:place], outputs.take_of_batch(args[place]), *args[place + 1 :])


class OptimizersInTurn:
    """What stands for the ``training_step`` of a module whose optimizers have turns.

    Args:
        module: the module; what it has written is called.
        outputs: gets what ``training_step`` returned for each optimizer.
    """

    def __init__(self, module: LightningModule, outputs: Outputs) -> None:
        self._module, self._outputs = module, outputs
        self._step, self._configure = module.training_step, module.configure_optimizers
        self.names = _names(self._step)
        self._optimizer_step = written(module, "optimizer_step", LightningModule)
        self._clip = written(module, "configure_gradient_clipping", LightningModule)
        self._zero_grad = module.optimizer_zero_grad
        self._scheduler_step = module.lr_scheduler_step
        self._frequencies: list[int] | None = None
        self._every: dict[int, int] = {}  #: after how many batches a scheduler is stepped
        self._hiddens: Any = None
        self.split_size: int = getattr(module, "truncated_bptt_steps", 0) or 0

    # -- the optimizers -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """The optimizers and schedulers, without what only Lightning 1 knew: the frequencies of optimizers."""
        returned: Any = self._configure()
        dicts: Any = [returned] if isinstance(returned, Mapping) else returned
        if isinstance(dicts, (list, tuple)) and dicts and all(isinstance(item, Mapping) for item in dicts):
            given = [item.get("frequency") for item in dicts]
            self._frequencies = [int(number) for number in given if number is not None] or None
            if self._frequencies is not None and len(self._frequencies) != len(given):
                raise MisconfigurationException(
                    f"`configure_optimizers` returned the frequencies {given} of its optimizers: give one to each of "
                    "them, or to none."
                )
            returned = [{key: value for key, value in item.items() if key != "frequency"} for item in dicts]
        optimizers, entries = unfolded_optimizers(returned)
        if not optimizers:
            return None
        return optimizers, [self._entry(entry) for entry in entries]

    def _entry(self, entry: Any) -> dict[str, Any]:
        """A scheduler's entry; it is asked after each batch whether it is due."""
        entry = dict(entry) if isinstance(entry, Mapping) else {"scheduler": entry}
        entry.pop("opt_idx", None)
        if entry.get("interval") == "step":
            self._every[id(entry.get("scheduler"))] = int(entry.pop("frequency", 1))
        return entry

    def in_turn(self, batch_idx: int) -> list[int]:
        """The numbers of the optimizers that are stepped with this batch."""
        number = len(self._module.trainer.optimizers)
        if self._frequencies is None:
            return list(range(number))
        ends = list(accumulate(self._frequencies))
        place = batch_idx % ends[-1]
        return [next(index for index, end in enumerate(ends) if place < end)]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a scheduler, if it is due and its optimizer's turn."""
        trainer = self._module.trainer
        batch_idx = trainer.progress.batch_idx
        owner = getattr(scheduler, "optimizer", None)
        index = next((i for i, optimizer in enumerate(trainer.optimizers) if optimizer is owner), None)
        if index is not None and index not in self.in_turn(batch_idx):
            return
        if (batch_idx + 1) % self._every.get(id(scheduler), 1):
            return
        self._scheduler_step(scheduler, metric)

    # -- a batch ------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Train on a batch: all its parts, with all optimizers whose turn it is."""
        module = self._module
        optimizers = module.trainer.optimizers
        self._hiddens = None
        results: list[list[dict[str, Any]]] = []
        for part in self._parts(batch):
            results.append([])
            for index in self.in_turn(batch_idx):
                vars(module)["_optimizer_in_turn"] = index
                alone = module.toggled_optimizer(optimizers[index]) if len(optimizers) > 1 else nullcontext()
                with alone:
                    result = self._train(part, batch_idx, index)
                if result:
                    results[-1].append(result)
        results = [of_part for of_part in results if of_part]
        several = len(optimizers) > 1
        of_parts = [of_part if several else of_part[0] for of_part in results]
        self._outputs.of_batch = of_parts if self.split_size else of_parts[0] if of_parts else {}
        return results[-1][-1] if results else None

    def _parts(self, batch: Any) -> Sequence[Any]:
        if not self.split_size:
            return [batch]
        split = getattr(self._module, "tbptt_split_batch", None) or split_along_time
        return split(batch, self.split_size)

    def _train(self, batch: Any, batch_idx: int, index: int) -> dict[str, Any]:
        """Forward, backward and step with one optimizer; returns what ``training_step`` did, without its graph."""
        trainer = self._module.trainer
        progress, call = trainer.progress, trainer.plan
        optimizer = trainer.optimizers[index]
        result: dict[str, Any] = {}

        def closure() -> Tensor | None:
            nonlocal result
            output = self._call_step(batch, batch_idx, index)
            window = Window()
            window.size = self._batches_in_window(batch_idx)
            loss, result = window.loss_of_part(output, 1.0)
            result.pop("hiddens", None)
            if progress.starts_accumulation:
                call.on_before_zero_grad(optimizer)
                self._zero_grad(progress.epoch, batch_idx, optimizer)
            if loss is not None:
                call.on_before_backward(loss)
                call.backward(loss)
                call.on_after_backward()
            return loss

        if progress.accumulating:
            with trainer.strategy.no_backward_sync():
                closure()
        elif self._optimizer_step is None:
            trainer.wrapped_optimizers[index].step(closure=closure)
        else:
            self._optimizer_step(progress.epoch, batch_idx, trainer.wrapped_optimizers[index], closure)
        return result

    def _batches_in_window(self, batch_idx: int) -> int:
        progress = self._module.trainer.progress
        size = progress.accumulate_grad_batches
        return int(min(size, max(1, progress.num_batches - (batch_idx - batch_idx % size))))

    def _call_step(self, batch: Any, batch_idx: int, index: int) -> Any:
        arguments = {"optimizer_idx": index, "hiddens": self._hiddens}
        if len(self._module.trainer.optimizers) == 1:
            del arguments["optimizer_idx"]
        if not self.split_size:
            del arguments["hiddens"]
        output = self._step(batch, batch_idx, **{n: value for n, value in arguments.items() if n in self.names})
        if self.split_size and output is not None:
            if not isinstance(output, Mapping) or "hiddens" not in output:
                raise MisconfigurationException(
                    f"`{type(self._module).__name__}.truncated_bptt_steps` is {self.split_size}, but `training_step` "
                    "returned no `hiddens`. Return {'loss': loss, 'hiddens': hiddens}."
                )
            self._hiddens = apply_to_collection(output["hiddens"], Tensor, Tensor.detach)
        return output

    def clip_gradients(self, optimizer: Any) -> None:
        """Clip before a step, after all who look at the gradients."""
        trainer = self._module.trainer
        if self._clip is not None or trainer.gradient_clip_val:
            clip = self._clip or self._module.configure_gradient_clipping
            clip(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)


def split_along_time(batch: Any, split_size: int) -> list[list[Any]]:
    """Parts of ``split_size`` moments of a batch of sequences: tensors of (sample, time, ...), or lists of sequences.

    Anything else in the batch is in each of the parts.
    """
    items = list(batch) if isinstance(batch, (list, tuple)) else [batch]
    lengths = [len(item[0]) for item in items if isinstance(item, (Tensor, Sequence))]
    if not lengths or any(length != lengths[0] for length in lengths):
        raise MisconfigurationException(
            f"a batch with sequences of the lengths {lengths} cannot be split along time. Write "
            "`tbptt_split_batch(self, batch, split_size)` in the module, which returns a list of parts."
        )

    def part(item: Any, start: int) -> Any:
        if isinstance(item, Tensor):
            return item[:, start : start + split_size]
        return [sequence[start : start + split_size] for sequence in item] if isinstance(item, Sequence) else item

    return [[part(item, start) for item in items] for start in range(0, lengths[0], split_size)]


def _names(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)
