"""Batches that are run in parts: what is the same as with whole ones, and what happens when memory is short."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.distributed.regression import ByLBFGS, Regression, SteppingItself, quiet, samples, weights_of
from tests.trainer.means import rows
from tests.trainer.memory_limit import MemoryLimit
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAccuracy

from fulmen import Callback, Trainer
from fulmen.loggers import CSVLogger
from fulmen.utilities.exceptions import MisconfigurationException

BATCH, SAMPLES = 8, 30  # four batches, the last one of six samples


def loader(**arguments: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples(SAMPLES)), **{"batch_size": BATCH, **arguments})


def one_by_one(batches: list[Any]) -> DataLoader[Any]:
    """A loader of batches that are there already."""
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def fit(module: Any, data: Any = None, **arguments: Any) -> Trainer:
    trainer = Trainer(**quiet(**arguments))
    trainer.fit(module, loader() if data is None else data)
    return trainer


class ByMomentum(Regression):
    """Sensitive to the scale of gradients, unlike Adam."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Sums(ByMomentum):
    """Only some of the elements count."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        counts = batch[0][:, :1] > -0.5
        return {"loss_sum": (self.error(batch) * counts).sum(), "weight": counts.sum()}


class Dicts(ByMomentum):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": super().training_step(batch, batch_idx), "rows": batch[0], "size": len(batch[0])}


class SkippingBatches(ByMomentum):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


# -- the same as with whole batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", [ByMomentum, Sums, Dicts, SkippingBatches, SteppingItself])
def test_weights_trained_in_micro_batches_are_those_of_whole_batches(kind: Any, accumulate: int, size: int) -> None:
    whole, parts = kind(), kind()
    fit(whole, accumulate_grad_batches=accumulate)
    fit(parts, accumulate_grad_batches=accumulate, micro_batch_size=size)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=1e-14)


@pytest.mark.parametrize("arguments", [{"gradient_clip_val": 0.05}, {"gradient_clip_val": 0.01, "max_steps": 5}])
def test_clipped_gradients_are_those_of_whole_batches(arguments: dict[str, Any]) -> None:
    whole, parts = ByMomentum(), ByMomentum()
    fit(whole, **arguments)
    fit(parts, micro_batch_size=3, **arguments)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.stack(parts.norms), torch.stack(whole.norms))


def test_closure_of_lbfgs_runs_all_micro_batches() -> None:
    whole, parts = ByLBFGS(), ByLBFGS()
    fit(whole, max_epochs=1)
    fit(parts, max_epochs=1, micro_batch_size=3)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=1e-10)


def test_scaled_losses_in_half_precision_give_the_gradients_of_whole_batches() -> None:
    whole, parts = ByMomentum(torch.float32), ByMomentum(torch.float32)
    data = [tuple(tensor.float() for tensor in batch) for batch in loader()]
    fit(whole, data, precision="16-mixed", gradient_clip_val=0.5)
    trainer = fit(parts, data, precision="16-mixed", gradient_clip_val=0.5, micro_batch_size=3)
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=2e-3)
    assert trainer.scaler.is_enabled()


def test_compiled_step_runs_in_micro_batches() -> None:
    class Logging(ByMomentum):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.error(batch).mean()
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

    whole, parts = Logging(), Logging()
    reference = fit(whole)
    trainer = fit(parts, micro_batch_size=3, compile={"backend": "eager"})
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=1e-14)
    torch.testing.assert_close(trainer.callback_metrics["loss"], reference.callback_metrics["loss"])


@pytest.mark.parametrize("size", [BATCH, 100, "auto"])
def test_batches_that_are_small_enough_are_run_bit_for_bit_as_they_are(size: Any) -> None:
    whole, parts = ByMomentum(), ByMomentum()
    fit(whole, accumulate_grad_batches=3)
    trainer = fit(parts, accumulate_grad_batches=3, micro_batch_size=size)
    assert torch.equal(weights_of(parts), weights_of(whole))
    assert torch.equal(torch.stack(parts.losses), torch.stack(whole.losses))
    assert trainer.micro_batch_size == (None if size == "auto" else size)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_micro_batches_without_a_loss_leave_out_their_samples(accumulate: int) -> None:
    class Choosy(ByMomentum):
        """Skips the micro-batch that begins with the first sample of all."""

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if torch.equal(batch[0][0], first) else super().training_step(batch, batch_idx)

    first = samples(SAMPLES)[0][0]
    inputs, targets = samples(SAMPLES)
    parts = Choosy()
    fit(parts, [(inputs[:8], targets[:8]), (inputs[8:13], targets[8:13])], max_epochs=1, micro_batch_size=3)
    by_hand = ByMomentum()
    optimizer = by_hand.configure_optimizers()
    for begin, end in ((3, 8), (8, 13)):
        optimizer.zero_grad()
        by_hand.error((inputs[begin:end], targets[begin:end])).mean().backward()
        optimizer.step()
    torch.testing.assert_close(weights_of(parts), weights_of(by_hand), rtol=0, atol=1e-14)


def test_batch_without_any_loss_makes_no_update_and_warns() -> None:
    class Forgetful(ByMomentum):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None

    module = Forgetful()
    before = weights_of(module).clone()
    with pytest.warns(UserWarning, match=r"returned None for every batch of the epoch \(4\)"):
        fit(module, max_epochs=1, micro_batch_size=3)
    assert torch.equal(weights_of(module), before)


def test_loss_and_loss_sum_in_one_batch_are_refused() -> None:
    class Mixed(ByMomentum):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            return loss if len(batch[0]) == 2 else {"loss_sum": loss * 3, "weight": 3}

    with pytest.raises(MisconfigurationException, match="a mean cannot be added to a sum"):
        fit(Mixed(), micro_batch_size=3)


# -- how often what is called ------------------------------------------------------------------------------------------


def test_step_runs_for_each_micro_batch_and_hooks_of_the_batch_run_once() -> None:
    class Noting(ByMomentum):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[tuple[int, int]] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.steps.append((batch_idx, len(batch[0])))
            return super().training_step(batch, batch_idx)

    class Counting(Callback):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def on_train_batch_start(self, *arguments: Any, **named: Any) -> None:
            self.calls.append("start")

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.calls.append(f"end {batch_idx}: {len(batch[0])} samples, step {trainer.global_step}")

        def on_before_zero_grad(self, *arguments: Any, **named: Any) -> None:
            self.calls.append("zero")

        def on_before_backward(self, *arguments: Any, **named: Any) -> None:
            self.calls.append("backward")

    module, counting = Noting(), Counting()
    fit(module, max_epochs=1, limit_train_batches=2, micro_batch_size=5, callbacks=[counting])
    assert module.steps == [(0, 5), (0, 3), (1, 5), (1, 3)]
    assert counting.calls == [
        *("start", "zero", "backward", "backward", "end 0: 8 samples, step 1"),
        *("start", "zero", "backward", "backward", "end 1: 8 samples, step 2"),
    ]


class Ends(Callback):
    def __init__(self) -> None:
        self.outputs: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.outputs.append(outputs)


def outputs_of(module: Any, **arguments: Any) -> Any:
    ends = Ends()
    fit(module, max_epochs=1, limit_train_batches=1, callbacks=[ends], **arguments)
    return ends.outputs[0]


@pytest.mark.parametrize("kind", [ByMomentum, Sums, Dicts])
def test_end_of_batch_gets_the_loss_of_the_whole_batch(kind: Any) -> None:
    whole, parts = outputs_of(kind()), outputs_of(kind(), micro_batch_size=3)
    assert parts.keys() == whole.keys()
    torch.testing.assert_close(parts["loss"], whole["loss"])


def test_end_of_batch_gets_what_the_steps_returned_as_one() -> None:
    class More(ByMomentum):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            mean = batch[0].mean()
            more = {"rows": batch[0], "mean": mean, "number": float(mean), "names": [*map(str, batch[1].flatten())]}
            return {"loss": super().training_step(batch, batch_idx), "more": more, "size": len(batch[0])}

    outputs = outputs_of(More(), micro_batch_size=3)
    inputs, targets = (tensor[:BATCH] for tensor in samples(SAMPLES))
    assert torch.equal(outputs["more"]["rows"], inputs)
    torch.testing.assert_close(outputs["more"]["mean"], inputs.mean())
    assert outputs["more"]["number"] == pytest.approx(float(inputs.mean()))
    assert outputs["more"]["names"] == [*map(str, targets.flatten())]
    assert outputs["size"] == [3, 3, 2]


# -- what is logged ----------------------------------------------------------------------------------------------------


class Logging(ByMomentum):
    def __init__(self) -> None:
        super().__init__()
        self.average, self.accuracy = MeanMetric(), BinaryAccuracy()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.error(batch).mean()
        largest, total = batch[0].max(), batch[0].sum()
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("number", float(batch[1].mean()))
        self.log("largest", largest, on_step=True, on_epoch=True, reduce_fx="max")
        self.log("total", total, on_step=True, on_epoch=True, reduce_fx="sum")
        self.log("positive", (batch[0] > 0).double().mean(), batch_size=4 * len(batch[0]), on_step=True, on_epoch=True)
        self.average(batch[0])
        self.accuracy(batch[0][:, 0] > 0, batch[1][:, 0] > 0)
        self.log("average", self.average, on_step=False, on_epoch=True)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss


def logged_by(module: Any, path: Any, **arguments: Any) -> list[dict[str, float]]:
    fit(module, logger=CSVLogger(path), log_every_n_steps=1, **arguments)
    return rows(path)


def test_logged_values_are_those_of_whole_batches(tmp_path: Any) -> None:
    whole = logged_by(Logging(), tmp_path / "whole")
    parts = logged_by(Logging(), tmp_path / "parts", micro_batch_size=3)
    assert len(whole) == len(parts) == 2 * (4 + 1)
    for one, other in zip(parts, whole):
        assert one == pytest.approx(other, rel=1e-6)


# -- memory that is short ----------------------------------------------------------------------------------------------


class Everything(Logging):
    """Random numbers of all kinds, and buffers, beside what it logs.

    Args:
        most: the samples for which the memory is enough.
        place: where in the network it is short.
    """

    def __init__(self, most: int, place: int = 2, in_backward: bool = False) -> None:
        super().__init__()
        self.net.insert(2, nn.Dropout(0.3))
        self.net.insert(2, nn.BatchNorm1d(8).double())
        self.net.insert(place, MemoryLimit(most, in_backward))
        self.noise = torch.Generator().manual_seed(5)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        noise = torch.randn(inputs.shape, generator=self.noise, dtype=inputs.dtype)
        return super().training_step((inputs + 0.1 * noise, targets), batch_idx)


@pytest.mark.filterwarnings("ignore:Everything is trained in micro-batches")
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_run_that_was_short_of_memory_is_bit_equal_to_one_that_began_smaller(
    place: str, accumulate: int, tmp_path: Any
) -> None:
    def run(size: Any, name: str, data: Any = None) -> tuple[Tensor, list[dict[str, float]], Any]:
        module = Everything(2, 4, place == "backward")
        torch.manual_seed(1)
        trainer = Trainer(
            **quiet(
                logger=CSVLogger(tmp_path / name),
                log_every_n_steps=1,
                accumulate_grad_batches=accumulate,
                micro_batch_size=size,
            )
        )
        trainer.fit(module, data or loader())
        return weights_of(module), rows(tmp_path / name), (trainer.micro_batch_size, module.state_dict())

    found, smaller = run("auto", "auto"), run(2, "two")
    assert torch.equal(found[0], smaller[0])
    assert found[1] == smaller[1]
    assert found[2][0] == 2
    assert all(torch.equal(value, smaller[2][1][name]) for name, value in found[2][1].items())


def test_memory_that_gets_short_in_the_middle_of_a_window_keeps_its_gradients() -> None:
    class Tightening(ByMomentum):
        """Short of memory in the backward pass of the second batch, when some gradients are added to already."""

        def __init__(self) -> None:
            super().__init__()
            self.net.insert(2, MemoryLimit(100, in_backward=True))

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.net[2].most = 3 if batch_idx == 1 else 100

    inputs, targets = samples(16)
    found, by_hand = Tightening(), Tightening()
    batches = [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]
    trainer = fit(found, batches, max_epochs=1, accumulate_grad_batches=2, micro_batch_size="auto")
    assert trainer.micro_batch_size == 3
    optimizer = by_hand.configure_optimizers()
    parts = [(slice(0, 4), 1.0), *((slice(start, start + 3), 0.25) for start in range(4, 16, 3))]
    for part, weight in parts:
        (by_hand.error((inputs[part], targets[part])).mean() * weight / 2).backward()
    optimizer.step()
    torch.testing.assert_close(weights_of(found), weights_of(by_hand), rtol=0, atol=1e-15)


class Limited(ByMomentum):
    def __init__(self, most: int = 3) -> None:
        super().__init__()
        self.net.insert(2, MemoryLimit(most))


def test_nothing_of_a_failed_attempt_is_in_memory_when_the_batch_is_run_again() -> None:
    class Watched(Limited):
        """Looks at each step whether what the one before has kept for its backward pass is still there."""

        def __init__(self) -> None:
            super().__init__()
            self.before: list[Any] = []
            self.left: list[int] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.left.append(sum(not memory.expired() for memory in self.before))
            hidden = self.net[1](self.net[0](batch[0]))
            self.before = [StorageWeakRef(hidden.untyped_storage())]
            return self.net[3](self.net[2](hidden)).square().mean()

    module = Watched()
    fit(module, max_epochs=1, limit_train_batches=1, micro_batch_size="auto")
    assert module.left[:3] == [0, 0, 0]  # the whole, a half and a quarter
    assert len(module.left) == 6


def test_one_line_says_which_size_was_found(caplog: Any) -> None:
    with caplog.at_level("INFO", "fulmen"):
        fit(Limited(), micro_batch_size="auto")
    assert [message for message in caplog.messages if "memory" in message] == [
        "out of memory with 8 samples at once in batch 0 of epoch 0: it goes on in micro-batches of 2; to begin with "
        "that, write `Trainer(micro_batch_size=2)`"
    ]


@pytest.mark.parametrize(("size", "most", "advice"), [("auto", 0, "a single sample"), (6, 3, "micro_batch_size=3")])
def test_memory_that_stays_short_raises_with_what_to_do(size: Any, most: int, advice: str) -> None:
    with pytest.raises(RuntimeError, match="allocate") as raised:
        fit(Limited(most), micro_batch_size=size)
    assert advice in raised.value.__notes__[0]


def test_memory_that_is_short_with_a_batch_that_cannot_be_split_raises_with_the_reason() -> None:
    inputs, targets = samples(8)

    class Odd(Limited):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step((batch["inputs"], batch["targets"]), batch_idx)

    with pytest.raises(RuntimeError, match="allocate") as raised:
        fit(
            Odd(), one_by_one([{"inputs": inputs, "targets": targets, "other": torch.ones(5)}]), micro_batch_size="auto"
        )
    assert "batch['inputs']` has 8 entries and `batch['other']` 5" in raised.value.__notes__[0]


def test_other_errors_are_raised_at_once() -> None:
    class Broken(ByMomentum):
        calls = 0

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.calls += 1
            raise RuntimeError("something else")

    module = Broken()
    with pytest.raises(RuntimeError, match="something else"):
        fit(module, micro_batch_size="auto")
    assert module.calls == 1


def test_size_that_was_found_stays_for_the_same_model_and_not_for_another() -> None:
    trainer, module = Trainer(**quiet(micro_batch_size="auto", max_epochs=-1, max_steps=2)), Limited()
    trainer.fit(module, loader())
    assert trainer.micro_batch_size == 2
    trainer.max_steps = 4
    trainer.fit(module, loader())
    assert trainer.micro_batch_size == 2
    trainer.max_steps = 2
    trainer.fit(ByMomentum(), loader())
    assert trainer.micro_batch_size is None


@pytest.mark.filterwarnings("ignore:Everything is trained in micro-batches")
def test_resumed_run_goes_on_with_the_size_that_was_found(tmp_path: Any) -> None:
    class Saves(Callback):
        def on_train_batch_end(self, trainer: Any, *arguments: Any, **named: Any) -> None:
            if trainer.progress.total_batches == 2:  # in the middle of a window
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    arguments = {"accumulate_grad_batches": 3, "micro_batch_size": "auto"}
    through, resumed = Everything(3), Everything(3)
    fit(through, callbacks=[Saves()], **arguments)
    steps = count_steps(resumed)
    trainer = Trainer(**quiet(**arguments))
    trainer.fit(resumed, loader(), ckpt_path=tmp_path / "middle.ckpt")
    assert torch.equal(weights_of(resumed), weights_of(through))
    assert trainer.micro_batch_size == 2
    assert len(steps) == 4 + 3 + 3 * 4 + 3  # no step failed again


def count_steps(module: Any) -> list[int]:
    steps: list[int] = []
    step = module.training_step

    def counted(batch: Any, batch_idx: int) -> Any:
        steps.append(batch_idx)
        return step(batch, batch_idx)

    module.training_step = counted
    return steps


def test_fixed_size_stays_when_a_run_is_resumed_that_had_found_another(tmp_path: Any) -> None:
    fit(Limited(), max_epochs=1, micro_batch_size="auto").save_checkpoint(tmp_path / "one.ckpt")
    trainer = Trainer(**quiet(micro_batch_size=1))
    trainer.fit(Limited(), loader(), ckpt_path=tmp_path / "one.ckpt")
    assert trainer.micro_batch_size == 1


# -- what is refused, and what is warned of ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "8", "automatic"])
def test_wrong_size_is_refused(size: Any) -> None:
    with pytest.raises(MisconfigurationException, match=r"micro_batch_size=.*: must be the most samples") as raised:
        Trainer(**quiet(micro_batch_size=size))
    assert ("without quotes" in str(raised.value)) == (size == "8")


def test_manual_optimization_is_refused() -> None:
    module = ByMomentum()
    module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match=r"micro_batch_size='auto'\)` does nothing in manual"):
        fit(module, micro_batch_size="auto")


class Normalized(ByMomentum):
    def __init__(self) -> None:
        super().__init__()
        self.net.insert(1, nn.BatchNorm1d(8).double())


def test_batch_norm_in_micro_batches_warns_once() -> None:
    with pytest.warns(UserWarning, match=r"net\.1 normalizes by the samples that it sees at once") as caught:
        fit(Normalized(), micro_batch_size=4)
    assert len(caught) == 1


@pytest.mark.parametrize("size", [BATCH, "auto"])
def test_batch_norm_in_whole_batches_does_not_warn(size: Any) -> None:
    fit(Normalized(), micro_batch_size=size)


# -- how a batch is split ----------------------------------------------------------------------------------------------


def test_module_may_split_its_batches_itself() -> None:
    class Graphs(ByMomentum):
        """Its batch is an object of its own."""

        def split_batch(self, batch: Any, size: int) -> Iterator[tuple[Any, int]]:
            for start in range(0, len(batch["rows"]), size):
                part = batch["rows"][start : start + size]
                yield {"rows": part, "edges": batch["edges"]}, len(part)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            inputs = torch.stack([row[0] for row in batch["rows"]])
            return super().training_step((inputs, torch.stack([row[1] for row in batch["rows"]])), batch_idx)

    data = one_by_one([{"rows": list(zip(*batch)), "edges": torch.ones(3)} for batch in loader()])
    whole, parts, found = Graphs(), Graphs(), Graphs()
    found.net.insert(2, MemoryLimit(3))
    fit(whole, data)
    fit(parts, data, micro_batch_size=3)
    trainer = fit(found, data, micro_batch_size="auto")
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=1e-14)
    torch.testing.assert_close(weights_of(found), weights_of(whole), rtol=0, atol=1e-14)
    assert trainer.micro_batch_size == 2


def test_split_batch_that_returns_no_pairs_is_refused() -> None:
    class Wrong(ByMomentum):
        def split_batch(self, batch: Any, size: int) -> Any:
            return list(batch[0].split(size))

    with pytest.raises(MisconfigurationException, match=r"`Wrong.split_batch` returned .* must return pairs"):
        fit(Wrong(), micro_batch_size=3)
