"""Where a number that is not finite comes from: the operation, the line and the samples."""

from __future__ import annotations

import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from fulmen.callbacks.nonfinite import all_finite, gradients_of
from fulmen.loops.plan import nobody
from fulmen.utilities.apply_func import apply_to_collection
from fulmen.utilities.data import extract_batch_size
from fulmen.utilities.seed import collect_rng_states, restore_rng_states

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer

#: the most samples that are tried one by one
MOST_SAMPLES = 512

_INSIDE = tuple(os.path.dirname(os.path.abspath(file)) + os.sep for file in (torch.__file__, os.path.dirname(__file__)))


class BeforeBatch:
    """What must be put back to train on a batch once more: generators and buffers."""

    def __init__(self, trainer: Trainer, batch: Any) -> None:
        self.batch, self.batch_idx = batch, trainer.progress.batch_idx
        self.indices = trainer.data.batch_indices
        self._generators = collect_rng_states()
        self._buffers = {name: buffer.clone() for name, buffer in trainer.lightning_module.named_buffers()}

    def restore(self, trainer: Trainer) -> None:
        """Put it back, and clear the gradients."""
        restore_rng_states(self._generators)
        with torch.no_grad():
            for name, buffer in trainer.lightning_module.named_buffers():
                if name in self._buffers:
                    buffer.copy_(self._buffers[name])
        for parameter in trainer.lightning_module.parameters():
            parameter.grad = None


@dataclass(slots=True)
class Origin:
    """Where it comes from.

    Attributes:
        operation: what made the first number that is not finite; ``""`` if that is not known.
        line: file, line and text of the call; ``""`` if that is not known.
        backward: it came up in backward; ``line`` is the call whose derivative was taken.
        infinity: operation and line of what made an infinity before the NaN; None if nothing did.
        samples: positions in the batch of the samples that suffice to make it come up; None if that is not known.
    """

    operation: str = ""
    line: str = ""
    backward: bool = False
    infinity: tuple[str, str] | None = None
    samples: list[int] | None = None


def find_origin(trainer: Trainer, before: BeforeBatch, step: Callable[[Any, int], Any]) -> Origin:
    """Train on the batch again, and look at what each operation makes. In automatic optimization the weights stay;
    whatever else the step changes in the module is changed once more.

    Args:
        step: ``training_step`` as the loop calls it.
    """
    forward, backward = FirstBadOperation(), FirstBadDerivative()
    automatic, samples, loss = trainer.lightning_module.automatic_optimization, None, None
    with _without_hooks(trainer, backward.watch), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before.restore(trainer)
        # an exception that comes of numbers that are not finite is no answer
        with suppress(Exception), torch.autograd.set_detect_anomaly(True, check_nan=False):
            with forward:
                loss = _loss_in(step(before.batch, before.batch_idx))
            if loss is not None and automatic:
                backward.watch(loss)
                trainer.plan.backward(loss)
        if automatic:
            samples = _guilty_samples(trainer, before, step)
    if forward.nan[0]:
        return Origin(*forward.nan, False, forward.infinity if forward.infinity[0] else None, samples)
    if backward.operation and (loss is None or bool(torch.isfinite(loss).all())):
        return Origin(backward.operation, backward.line, True, None, samples)
    if forward.infinity[0]:
        return Origin(*forward.infinity, False, None, samples)
    return Origin(backward.operation, backward.line, True, None, samples)


@contextmanager
def _without_hooks(trainer: Trainer, watch: Callable[[Tensor], None]) -> Iterator[None]:
    """Nobody hears of the steps in between; ``watch`` gets the losses of manual optimization. Values are logged as in
    ``training_step``."""
    plan, metrics = trainer.plan, trainer.metrics
    hooks: dict[str, Any] = dict.fromkeys(("on_after_backward", "on_before_optimizer_step"), nobody)
    hooks["on_before_backward"] = watch
    before = {name: getattr(plan, name) for name in hooks}
    outer, metrics.hook = metrics.hook, "training_step"
    vars(plan).update(hooks)
    try:
        yield
    finally:
        vars(plan).update(before)
        metrics.hook = outer


def _loss_in(output: Any) -> Tensor | None:
    if isinstance(output, dict):
        output = output.get("loss_sum", output.get("loss"))
    return output if isinstance(output, Tensor) else None


# -- forward ----------------------------------------------------------------------------------------------------------


class FirstBadOperation(TorchFunctionMode):
    """Remembers the first call that made NaN of numbers that were none, and the last one before it that made infinity
    of finite ones: an earlier one may be meant, as in the mask of an attention."""

    def __init__(self) -> None:
        super().__init__()
        self.nan = self.infinity = ("", "")  #: operation and line

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = [args, kwargs or {}]
        if self.nan[0]:
            return func(*args, **(kwargs or {}))
        # an operation in place leaves nothing of its input
        before = [one.clone() for one in _numbers(arguments)] if _is_in_place(func) else None
        result = func(*args, **(kwargs or {}))
        self._look(func, result, arguments if before is None else before)
        return result

    def _look(self, func: Any, result: Any, arguments: Any) -> None:
        outputs = list(_numbers(result))
        for test in (torch.isnan, torch.isinf):
            if not any(_has(test, one) for one in outputs):
                continue
            if not any(_has(test, one) for one in _numbers(arguments)):
                line = _line_outside(traceback.extract_stack())
                if line and test is torch.isnan:
                    self.nan = (_name_of(func), line)
                elif line:
                    self.infinity = (_name_of(func), line)
            return


def _is_in_place(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _numbers(collection: Any) -> Iterator[Tensor]:
    found: list[Tensor] = []
    apply_to_collection(collection, Tensor, found.append)
    for tensor in found:
        if tensor.is_floating_point() and not tensor.is_sparse and tensor.device.type != "meta":
            yield tensor.detach()


def _has(test: Callable[[Tensor], Tensor], tensor: Tensor) -> bool:
    return bool(test(tensor).any())


def _name_of(func: Any) -> str:
    return resolve_name(func) or getattr(func, "__name__", str(func))


def _line_outside(stack: traceback.StackSummary) -> str:
    """The innermost line of the user's."""
    for frame in reversed(stack):
        if not frame.filename.startswith((*_INSIDE, "<")):
            return f"{_short(frame.filename)}:{frame.lineno}: {frame.line}"
    return ""


def _short(path: str) -> str:
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


# -- backward ---------------------------------------------------------------------------------------------------------

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in .*\n +(?P<text>.*)')


class FirstBadDerivative:
    """Remembers the first operation that was given finite derivatives and made others. The forward must have been run
    with anomaly detection, which notes the lines."""

    def __init__(self) -> None:
        self.operation = self.line = ""

    def watch(self, loss: Tensor) -> None:
        """Look at all operations behind ``loss`` when it goes backward."""
        seen: set[Any] = set()
        waiting = [loss.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
            node.register_hook(partial(self._look, node))

    def _look(self, node: Any, made: tuple[Any, ...], given: tuple[Any, ...]) -> None:
        if self.operation or not any(_is_bad(one) for one in made) or any(_is_bad(one) for one in given):
            return
        self.operation = re.sub(r"\d+$", "", node.name().rpartition("::")[2])
        frames = [one for one in _FRAME.finditer("".join(node.metadata.get("traceback_", ())))]
        for frame in reversed(frames):
            if not frame["file"].startswith((*_INSIDE, "<")):
                self.line = f"{_short(frame['file'])}:{frame['line']}: {frame['text'].strip()}"
                break


def _is_bad(gradient: Tensor | None) -> bool:
    return gradient is not None and not gradient.is_sparse and not bool(torch.isfinite(gradient).all())


# -- samples ----------------------------------------------------------------------------------------------------------


def _guilty_samples(trainer: Trainer, before: BeforeBatch, step: Callable[[Any, int], Any]) -> list[int] | None:
    """The samples that suffice for a loss or a gradient that is not finite: each in a batch of copies of it, so that at
    its own place it meets the same random numbers. None if that tells nothing."""
    try:
        size = len(before.indices) if before.indices is not None else extract_batch_size(before.batch)
        if not 1 < size <= MOST_SAMPLES:
            return None
        guilty = [place for place in range(size) if not _is_finite(trainer, before, step, [place] * size)]
    except Exception:  # a batch of a kind of its own, or a step that cannot do with copies
        return None
    return guilty if len(guilty) < size else None


def _is_finite(trainer: Trainer, before: BeforeBatch, step: Callable[[Any, int], Any], places: list[int]) -> bool:
    """Whether the step is finite with the samples at ``places`` alone."""
    before.restore(trainer)
    loss = _loss_in(step(_with_samples(before.batch, places), before.batch_idx))
    if loss is None:
        return True
    trainer.plan.backward(loss)
    return all_finite([loss.detach()], gradients_of(list(trainer.lightning_module.parameters())))


def _with_samples(batch: Any, places: list[int]) -> Any:
    """The batch with the samples at ``places``."""

    def pick(tensor: Tensor) -> Tensor:
        return tensor[places] if tensor.dim() and len(tensor) == len(places) else tensor

    return apply_to_collection(batch, Tensor, pick)
