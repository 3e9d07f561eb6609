"""StochasticWeightAveraging, compared with a loop written by hand on ``torch.optim.swa_utils``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_avg_fn, update_bn
from torch.utils.data import DataLoader

from fulmen import Callback, LightningModule, Trainer, seed_everything
from fulmen.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from fulmen.utilities.exceptions import MisconfigurationException

from .averaging import BATCHES, Net, assert_same, fit, loader, weights_of


class Scheduled(Net):
    """Trained with a rate that falls from step to step."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


class SaveAt(Callback):
    """Saves when so many batches are trained, and ends the run there."""

    def __init__(self, path: Any, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.path)
        raise InterruptedError


def by_hand(
    first: int, epochs: int = 6, batches_per_step: int = 1, rate: float = 0.05, norm: bool = True, **kwargs: Any
) -> tuple[dict[str, Tensor], list[float]]:
    """Train in a plain loop that averages from epoch ``first`` on, counted from 0; the weights, and all rates."""
    seed_everything(1, verbose=False)
    net, rates = Scheduled(norm), []
    averaged, configured = AveragedModel(net, **kwargs), net.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for epoch in range(epochs):
        if epoch == first:
            late = SWALR(optimizer, rate, anneal_epochs=2)
        for number, batch in enumerate(loader(), 1):
            rates.append(optimizer.param_groups[0]["lr"])
            size = min(batches_per_step, BATCHES - (number - 1) // batches_per_step * batches_per_step)
            (net.loss(batch) / size).backward()
            if number % batches_per_step == 0 or number == BATCHES:
                optimizer.step()
                optimizer.zero_grad()
                if epoch < first:
                    scheduler.step()
        if epoch >= first:
            averaged.update_parameters(net)
            late.step()
    update_bn(loader(), averaged)
    return weights_of(averaged.module), rates


def own_order() -> Any:
    """A loader that shuffles with a generator of its own."""
    data = loader().dataset
    return DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(7))


def swa(start: Any = 4, **kwargs: Any) -> StochasticWeightAveraging:
    return StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=start, annealing_epochs=2, **kwargs)


def trained(*callbacks: Any, **arguments: Any) -> Any:
    return fit(*callbacks, **{"model": Scheduled, "max_epochs": 6, **arguments})


@pytest.mark.parametrize(("start", "first"), [(4, 3), (0.7, 3), (1, 0), (0.0, 0), (1.0, 5)])
def test_weights_and_rates_are_those_of_a_loop_by_hand(start: Any, first: int):
    rates = Rates()
    weights, expected = by_hand(first)
    model = trained(swa(start), rates)

    assert_same(weights_of(model), weights)
    assert rates.seen == expected


def test_own_average_and_device_are_used():
    weights, _ = by_hand(3, avg_fn=get_ema_avg_fn(0.7))
    assert_same(weights_of(trained(swa(avg_fn=get_ema_avg_fn(0.7), device=None))), weights)


@pytest.mark.parametrize("batches_per_step", [2, 3])
def test_accumulation_is_left_as_it_is(batches_per_step: int):
    weights, _ = by_hand(3, batches_per_step=batches_per_step)
    model = trained(swa(), accumulate_grad_batches=batches_per_step)

    assert_same(weights_of(model), weights)
    assert model.trainer.accumulate_grad_batches == batches_per_step


def test_run_has_as_many_epochs_and_steps_as_it_was_told():
    model = trained(swa())

    assert (model.trainer.current_epoch, model.trainer.global_step) == (6, 6 * BATCHES)


@pytest.mark.parametrize(
    "limit",
    [
        dict(max_epochs=-1, max_steps=5 * BATCHES),
        dict(max_epochs=100, max_steps=5 * BATCHES),
        dict(max_epochs=9, callbacks=lambda: EarlyStopping("val_loss", stopping_threshold=100.0), min_epochs=5),
    ],
)
def test_run_that_ends_otherwise_has_the_average_too(limit: dict[str, Any]):
    arguments = dict(limit)
    more = [arguments.pop("callbacks")()] if "callbacks" in limit else []
    weights, _ = by_hand(3, epochs=5, norm=False)
    model = trained(
        swa(), *more, model=lambda: Scheduled(norm=False), validation=loader(1) if more else None, **arguments
    )

    assert model.trainer.current_epoch == 5
    if more:
        weights = weights_of(trained(swa(), max_epochs=5, model=lambda: Scheduled(norm=False), validation=loader(1)))
    assert_same(weights_of(model), weights)


def test_run_that_ends_before_the_averaging_keeps_its_weights():
    assert_same(weights_of(trained(swa(9))), weights_of(trained()))


def test_frozen_batch_norms_keep_their_statistics():
    class Frozen(Scheduled):
        def on_train_start(self) -> None:
            self.net[1].eval()
            self.net[1].running_mean.fill_(0.5)

    model = trained(swa(), model=Frozen)
    assert torch.equal(model.net[1].running_mean, torch.full((6,), 0.5))
    assert model.net[1].momentum == 0.1


def test_pass_for_batch_norms_logs_nothing_and_counts_nothing():
    class Logging(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, on_epoch=True)
            return loss

    plain, averaged = (trained(*own, model=Logging) for own in ([], [swa(6)]))
    logged = [{name: float(value) for name, value in m.trainer.logged_metrics.items()} for m in (plain, averaged)]
    assert logged[0] == logged[1]


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [3, 14, 15, 17, 18, 20, 24, 29])
def test_run_goes_on_exactly_after_any_batch(tmp_path, batches: int):
    arguments: dict[str, Any] = dict(accumulate_grad_batches=2)
    whole = trained(swa(), train=loader(shuffle=True), **arguments)
    with pytest.raises(InterruptedError):
        trained(swa(), SaveAt(tmp_path / "k.ckpt", batches), train=loader(shuffle=True), **arguments)
    resumed = trained(swa(), path=tmp_path / "k.ckpt", train=loader(shuffle=True), seed=5, **arguments)

    assert_same(weights_of(resumed), weights_of(whole))
    assert str(resumed.trainer.lr_scheduler_configs[0].scheduler.state_dict()) == str(
        whole.trainer.lr_scheduler_configs[0].scheduler.state_dict()
    )


@pytest.mark.filterwarnings("ignore:.*the state of callbacks that this run does not have")
@pytest.mark.parametrize("files", [dict(), dict(save_last=True), dict(monitor="val_loss")])
def test_run_that_has_ended_goes_on_exactly_from_its_last_file(tmp_path, files: dict[str, Any]):
    arguments: dict[str, Any] = dict(validation=loader(1))
    whole = trained(swa(), train=own_order(), **arguments)
    writer = ModelCheckpoint(dirpath=tmp_path, **files)
    ended = trained(swa(), writer, train=own_order(), max_epochs=5, enable_checkpointing=True, **arguments)
    path = writer.last_model_path or writer.best_model_path

    assert_same(dict(Scheduled.load_from_checkpoint(path).state_dict()), dict(ended.state_dict()))
    resumed = trained(swa(), path=path, train=own_order(), seed=5, **arguments)
    assert_same(weights_of(resumed), weights_of(whole))


@pytest.mark.filterwarnings("ignore:.*the state of callbacks that this run does not have")
def test_run_that_has_nothing_left_to_train_has_the_average(tmp_path):
    ended = trained(swa(), ModelCheckpoint(dirpath=tmp_path, save_last=True), enable_checkpointing=True)
    with pytest.warns(UserWarning, match="nothing to train"):
        again = trained(swa(), path=tmp_path / "last.ckpt", seed=5)

    assert_same(weights_of(again), weights_of(ended))


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        dict(swa_lrs=-1.0),
        dict(swa_lrs=[]),
        dict(swa_lrs=[0.1, 0.0]),
        dict(swa_lrs=None),
        dict(swa_epoch_start=0),
        dict(swa_epoch_start=1.5),
        dict(swa_epoch_start="late"),
        dict(annealing_epochs=-1),
        dict(annealing_strategy="step"),
        dict(avg_fn=3),
        dict(device=3),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any]):
    [(name, _)] = arguments.items()
    with pytest.raises(MisconfigurationException, match=rf"StochasticWeightAveraging\({name}="):
        StochasticWeightAveraging(**{"swa_lrs": 0.1, **arguments})


class TwoSchedulers(Net):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [
            torch.optim.lr_scheduler.StepLR(optimizer, 1),
            torch.optim.lr_scheduler.StepLR(optimizer, 2),
        ]


class Manual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("callback", "arguments", "message"),
    [
        (lambda: swa(), dict(model=TwoSchedulers), "one scheduler, and `configure_optimizers` returned 2"),
        (lambda: swa(), dict(model=Manual), "manual optimization"),
        (lambda: swa(0.5), dict(max_epochs=-1, max_steps=3), "fraction of `max_epochs`, which is -1"),
        (lambda: StochasticWeightAveraging([0.1, 0.2]), {}, "2 rates for 1 parameter groups"),
    ],
)
def test_runs_that_cannot_be_averaged_are_refused(callback: Any, arguments: dict[str, Any], message: str):
    with pytest.raises(MisconfigurationException, match=message):
        trained(callback(), **arguments)


def test_weights_can_be_copied_and_averaged_by_hand():
    one, other, count = Net(), Net(), torch.tensor(1)
    expected = (one.net[0].weight + other.net[0].weight) / 2
    StochasticWeightAveraging.update_parameters(one, other, count, StochasticWeightAveraging.avg_fn)
    StochasticWeightAveraging.transfer_weights(one, other)

    torch.testing.assert_close(other.net[0].weight, expected)
    assert count == 2


class Counting(nn.Module):
    """Counts its calls, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.layer(x)


def test_buffers_are_those_of_the_end_of_training(tmp_path: Any) -> None:
    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.counting = Counting()

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return self.counting(batch).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    module = Module()
    Trainer(
        accelerator="cpu",
        max_epochs=5,
        callbacks=StochasticWeightAveraging(0.01, swa_epoch_start=2),
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(module, DataLoader(list(torch.ones(6, 2)), batch_size=2))  # type: ignore[arg-type]
    assert module.counting.calls == 15
