"""``optimizer_idx``: several optimizers in automatic optimization give the numbers of a loop written by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule

pytestmark = [
    pytest.mark.usefixtures("enabled"),
    pytest.mark.filterwarnings("ignore::fulmen.utilities.warnings.LightningDeprecationWarning"),
]
BATCHES = list(torch.randn(7, 4, 2, generator=torch.Generator().manual_seed(1)))


class GAN(LightningModule):
    """Two losses, two optimizers; noise is the same in each run."""

    frequencies: tuple[int, int] | None = None
    skips: frozenset[tuple[int, int]] = frozenset()  # (batch, optimizer) whose step returns None

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator, self.discriminator = nn.Linear(3, 2), nn.Linear(2, 1)
        self.calls: list[tuple[int, int]] = []

    def loss(self, batch: Tensor, index: int) -> Tensor:
        fake = self.generator(torch.ones(len(batch), 3))
        if index == 0:
            return softplus(-self.discriminator(fake)).mean()
        return (softplus(-self.discriminator(batch)) + softplus(self.discriminator(fake.detach()))).mean()

    def training_step(self, batch: Tensor, batch_idx: int, optimizer_idx: int) -> Any:
        self.calls.append((batch_idx, optimizer_idx))
        frozen = self.discriminator if optimizer_idx == 0 else self.generator
        assert not any(parameter.requires_grad for parameter in frozen.parameters())
        if (batch_idx, optimizer_idx) in self.skips:
            return None
        loss = self.loss(batch, optimizer_idx)
        self.log(f"loss_{optimizer_idx}", loss)
        return {"loss": loss}

    def made_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.SGD(self.generator.parameters(), lr=0.5, momentum=0.9),
            torch.optim.Adam(self.discriminator.parameters(), lr=0.1),
        ]

    def configure_optimizers(self) -> Any:
        optimizers = self.made_optimizers()
        if self.frequencies is None:
            return optimizers, []
        return [{"optimizer": one, "frequency": often} for one, often in zip(optimizers, self.frequencies)]


def by_hand(model: GAN, epochs: int = 1, accumulate: int = 1, clip: float | None = None) -> GAN:
    """What Lightning 1 did, optimizer by optimizer."""
    optimizers = model.made_optimizers()
    parts = (model.generator, model.discriminator)
    kept: list[list[Tensor | None]] = [[None for _ in part.parameters()] for part in parts]
    for _ in range(epochs):
        for batch_idx, batch in enumerate(BATCHES):
            turns = [0, 1]
            if model.frequencies is not None:
                turns = [int(batch_idx % sum(model.frequencies) >= model.frequencies[0])]
            size = min(accumulate, len(BATCHES) - batch_idx + batch_idx % accumulate)
            for index in turns:
                parameters = list(parts[index].parameters())
                for parameter, grad in zip(parameters, kept[index]):
                    parameter.grad = grad
                if batch_idx % accumulate == 0:
                    optimizers[index].zero_grad()
                if (batch_idx, index) not in model.skips:
                    loss = model.loss(batch, index) / size
                    grads = torch.autograd.grad(loss, parameters)
                    for parameter, grad in zip(parameters, grads):
                        parameter.grad = grad if parameter.grad is None else parameter.grad + grad
                if (batch_idx + 1) % accumulate == 0 or batch_idx + 1 == len(BATCHES):
                    if clip:
                        nn.utils.clip_grad_norm_(parameters, clip)
                    optimizers[index].step()
                kept[index] = [parameter.grad for parameter in parameters]
    return model


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(one.state_dict().items(), other.state_dict().values()):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.01])
def test_two_optimizers_in_turn_give_the_weights_of_the_loop_by_hand(
    quiet: Any, accumulate: int, clip: float | None
) -> None:
    model = GAN()
    trainer = quiet(max_epochs=2, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    trainer.fit(model, BATCHES)
    assert_same(model, by_hand(GAN(), 2, accumulate, clip))
    assert trainer.global_step == 2 * 2 * -(-len(BATCHES) // accumulate)  # of both optimizers
    assert {"loss_0", "loss_1"} <= trainer.callback_metrics.keys()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.automatic_optimization


def test_frequencies_give_each_optimizer_its_batches(quiet: Any) -> None:
    class Often(GAN):
        frequencies = (2, 1)

    model = Often()
    quiet().fit(model, BATCHES)
    assert model.calls == [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0), (5, 1), (6, 0)]
    assert_same(model, by_hand(Often()))


def test_a_frequency_for_one_of_two_optimizers_is_an_error(quiet: Any) -> None:
    class Half(GAN):
        def configure_optimizers(self) -> Any:
            first, second = self.made_optimizers()
            return [{"optimizer": first, "frequency": 1}, {"optimizer": second}]

    with pytest.raises(Exception, match=r"the frequencies \[1, None\]"):
        quiet().fit(Half(), BATCHES)


def test_a_step_that_returns_none_skips_that_optimizer(quiet: Any) -> None:
    class Skipping(GAN):
        skips = frozenset({(1, 0), (4, 1)})

    model = Skipping()
    quiet().fit(model, BATCHES)
    assert_same(model, by_hand(Skipping()))


def test_one_optimizer_gets_no_number_as_there_is_no_other(quiet: Any) -> None:
    class One(GAN):
        def training_step(self, batch: Tensor, batch_idx: int, optimizer_idx: int | None = None) -> Any:
            self.calls.append((batch_idx, -1 if optimizer_idx is None else optimizer_idx))
            return self.loss(batch, 0)

        def configure_optimizers(self) -> Any:
            return self.made_optimizers()[0]

    model = One()
    quiet().fit(model, BATCHES)
    assert model.calls == [(index, -1) for index in range(len(BATCHES))]


def test_own_steps_get_the_arguments_of_that_time(quiet: Any) -> None:
    class OwnSteps(GAN):
        def optimizer_step(
            self,
            epoch: int,
            batch_idx: int,
            optimizer: Any,
            optimizer_idx: int,
            optimizer_closure: Any,
            on_tpu: bool = True,
            using_native_amp: bool = True,
            using_lbfgs: bool = True,
        ) -> None:
            assert (on_tpu, using_native_amp, using_lbfgs) == (False, False, False)
            assert optimizer.optimizer is self.trainer.optimizers[optimizer_idx]
            if optimizer_idx == 1 and batch_idx % 2:
                optimizer_closure()  # without a step
            elif optimizer_idx == 1:
                optimizer.step(closure=optimizer_closure)
            else:
                super().optimizer_step(epoch, batch_idx, optimizer, optimizer_idx, optimizer_closure, on_tpu=on_tpu)  # type: ignore[call-arg]

        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int) -> None:  # type: ignore[override]
            self.seen.append(("zero", optimizer_idx))
            optimizer.zero_grad()

        def configure_gradient_clipping(  # type: ignore[override]
            self, optimizer: Any, optimizer_idx: int, gradient_clip_val: Any, gradient_clip_algorithm: Any
        ) -> None:
            self.seen.append(("clip", optimizer_idx, gradient_clip_val))
            super().configure_gradient_clipping(optimizer, optimizer_idx, gradient_clip_val, gradient_clip_algorithm)  # type: ignore[call-arg]

        def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:  # type: ignore[override]
            self.seen.append(("before", optimizer_idx))

        def backward(self, loss: Tensor, optimizer: Any, optimizer_idx: int) -> None:  # type: ignore[override]
            assert optimizer is self.trainer.optimizers[optimizer_idx]
            super().backward(loss, optimizer, optimizer_idx)

    model = OwnSteps()
    model.seen = []  # type: ignore[assignment]
    trainer = quiet(limit_train_batches=2, gradient_clip_val=0.5)
    trainer.fit(model, BATCHES)
    step = [("before", 0), ("clip", 0, 0.5)]
    assert model.seen == [
        ("zero", 0),
        *step,
        ("zero", 1),
        ("before", 1),
        ("clip", 1, 0.5),
        ("zero", 0),
        *step,
        ("zero", 1),
    ]
    assert trainer.global_step == 3


def test_schedulers_step_with_the_turns_of_their_optimizers(quiet: Any) -> None:
    class Scheduled(GAN):
        frequencies = (2, 1)

        def configure_optimizers(self) -> Any:
            optimizers = self.made_optimizers()
            halves = [torch.optim.lr_scheduler.StepLR(one, 1, 0.5) for one in optimizers]
            return [
                {
                    "optimizer": optimizers[index],
                    "frequency": self.frequencies[index],
                    "lr_scheduler": {"scheduler": halves[index], "interval": "step", "frequency": 2, "opt_idx": index},
                }
                for index in (0, 1)
            ]

        def lr_scheduler_step(self, scheduler: Any, optimizer_idx: int, metric: Any) -> None:  # type: ignore[override]
            self.calls.append((self.trainer.progress.batch_idx, 10 + optimizer_idx))
            super().lr_scheduler_step(scheduler, optimizer_idx, metric)  # type: ignore[call-arg]

    model = Scheduled()
    trainer = quiet()
    trainer.fit(model, BATCHES)
    assert [call for call in model.calls if call[1] >= 10] == [(1, 10), (3, 10), (5, 11)]
    assert [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers] == [0.125, 0.05]


def test_a_run_that_goes_on_in_mid_epoch_gives_the_same_weights(quiet: Any, tmp_path: Path) -> None:
    whole = GAN()
    quiet(max_epochs=2, accumulate_grad_batches=2).fit(whole, BATCHES)

    class Saving(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:  # in the middle of an accumulation window, too
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    quiet(accumulate_grad_batches=2, callbacks=Saving()).fit(GAN(), BATCHES)
    rest = GAN()
    quiet(max_epochs=2, accumulate_grad_batches=2).fit(rest, BATCHES, ckpt_path=tmp_path / "middle.ckpt")
    assert rest.calls[0] == (3, 0)
    assert_same(rest, whole)


# -- along time -------------------------------------------------------------------------------------------------------


class Recurrent(LightningModule):
    truncated_bptt_steps = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.RNN(1, 3, batch_first=True), nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int, hiddens: Any) -> Any:
        x, y = batch
        out, hiddens = self.cell(x, hiddens)
        return {"loss": (self.head(out) - y).square().mean(), "hiddens": hiddens}

    def training_epoch_end(self, outputs: Any) -> None:
        self.ends = outputs

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_parts_along_time_give_the_weights_of_the_loop_by_hand(quiet: Any) -> None:
    x = torch.randn(6, 5, 1, generator=torch.Generator().manual_seed(2))
    loader = DataLoader(list(zip(x, x.roll(1, 1))), batch_size=3)  # type: ignore[arg-type]
    model, expected = Recurrent(), Recurrent()
    trainer = quiet()
    trainer.fit(model, loader)
    optimizer = expected.configure_optimizers()
    for given, wanted in loader:
        hiddens = None
        for start in (0, 2, 4):
            batch = given[:, start : start + 2], wanted[:, start : start + 2]
            result = expected.training_step(batch, 0, hiddens)
            hiddens = result["hiddens"].detach()
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
    assert_same(model, expected)
    assert trainer.global_step == 6
    assert [[list(part) for part in batch] for batch in model.ends] == [[["loss"]] * 3] * 2


def test_own_way_to_split_along_time_is_used(quiet: Any) -> None:
    class Own(Recurrent):
        def tbptt_split_batch(self, batch: Any, split_size: int) -> Any:
            assert split_size == 2
            return [batch]

    trainer = quiet()
    trainer.fit(Own(), [(torch.ones(1, 5, 1), torch.ones(1, 5, 1))])
    assert trainer.global_step == 1


def test_sequences_of_different_lengths_cannot_be_split_and_the_error_says_how(quiet: Any) -> None:
    with pytest.raises(Exception, match=r"lengths \[5, 4\].*tbptt_split_batch\(self, batch, split_size\)"):
        quiet().fit(Recurrent(), [(torch.ones(1, 5, 1), torch.ones(1, 4, 1))])


def test_a_step_without_hiddens_is_an_error_that_says_what_to_return(quiet: Any) -> None:
    class Forgetful(Recurrent):
        def training_step(self, batch: Any, batch_idx: int, hiddens: Any) -> Any:
            return super().training_step(batch, batch_idx, hiddens)["loss"]

    with pytest.raises(Exception, match=r"Return \{'loss': loss, 'hiddens': hiddens\}"):
        quiet().fit(Forgetful(), [(torch.ones(1, 5, 1), torch.ones(1, 5, 1))])


def test_the_length_of_parts_may_be_the_trainers(quiet: Any) -> None:
    class Plain(Recurrent):
        truncated_bptt_steps = 0

    trainer = quiet(truncated_bptt_steps=2)
    trainer.fit(Plain(), [(torch.ones(1, 5, 1), torch.ones(1, 5, 1))])
    assert trainer.global_step == 3


# -- several processes ------------------------------------------------------------------------------------------------

_PROGRAM = """
import sys, torch, pytorch_lightning as pl
from torch.utils.data import DataLoader

class Two(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx, optimizer_idx):
        hidden = self.a(batch)
        return hidden.square().mean() if optimizer_idx == 0 else (self.b(hidden.detach()) - 1).square().mean()

    def training_epoch_end(self, outputs):
        assert [len(batch) for batch in outputs] == [2, 2, 2]

    def validation_step(self, batch, batch_idx):
        return batch.sum()

    def validation_epoch_end(self, outputs):
        self.log("sum", torch.stack(outputs).sum(), sync_dist=True, reduce_fx="sum")

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.a, self.b)]

if __name__ == "__main__":
    devices = int(sys.argv[1])
    data = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", devices=devices, gradient_clip_val=0.05, **quiet)
    trainer.fit(model := Two(), DataLoader(data, batch_size=4 // devices), DataLoader(data, batch_size=1))
    if trainer.is_global_zero:
        weights = [round(value, 5) for parameter in model.parameters() for value in parameter.flatten().tolist()]
        print("found", trainer.global_step, weights, round(trainer.callback_metrics["sum"].item(), 4))
"""


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    found = []
    for devices in ("1", "2"):
        command = [sys.executable, "-W", "ignore", "-m", "fulmen.compat", "program.py", devices]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        found.append([line for line in done.stdout.splitlines() if line.startswith("found")])
        assert len(found[-1]) == 1, done.stdout + done.stderr
    assert found[0] == found[1]
