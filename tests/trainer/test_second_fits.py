"""A trainer that is used again: another model begins at zero, the same one goes on, and evaluations leave no trace."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from resuming import Model, Noisy, loader
from torch.utils.data import DataLoader

from fulmen import Callback, LightningDataModule, Trainer, seed_everything
from fulmen.callbacks import EarlyStopping, GradientAccumulationScheduler, LearningRateMonitor, ModelCheckpoint, Timer
from fulmen.loggers import Logger


class Rows(Logger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    @property
    def name(self) -> str:
        return "rows"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


class Evaluated(Model):
    def configure_optimizers(self) -> Any:
        (optimizer,), (per_step, plateau) = super().configure_optimizers()
        return [optimizer], [per_step, {**plateau, "interval": "epoch", "frequency": 1, "strict": False}]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch[1])


def loaders(**options: Any) -> tuple[Any, Any]:
    return loader(**options), DataLoader(Noisy(4), batch_size=2)


def model_of(seed: int) -> Evaluated:
    seed_everything(seed, verbose=False)
    return Evaluated()


def weights_of(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def random_state() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


def counters(trainer: Trainer) -> dict[str, Any]:
    return {**trainer.progress.state_dict(), "accumulate": trainer.accumulate_grad_batches}


def everything(tmp_path: Any, **flags: Any) -> Trainer:
    """A trainer with callbacks of every kind that keeps something."""
    return Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=Rows(),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[
            EarlyStopping("val_loss", patience=2, min_delta=1e9),
            ModelCheckpoint(tmp_path, "{step}", monitor="val_loss", save_top_k=-1),
            LearningRateMonitor(),
            GradientAccumulationScheduler({1: 2}),
            Timer("00:00:10:00"),
        ],
        **flags,
    )


def callback_of(trainer: Trainer, kind: type) -> Any:
    return next(callback for callback in trainer.callbacks if type(callback) is kind)


def what_callbacks_keep(trainer: Trainer) -> Any:
    saving = callback_of(trainer, ModelCheckpoint)
    scores = [value.item() for value in saving.best_k_models.values()]
    stopping, rates = callback_of(trainer, EarlyStopping), callback_of(trainer, LearningRateMonitor)
    return stopping.state_dict(), scores, saving.best_model_score, rates.lrs


@pytest.mark.filterwarnings("ignore:.*is not empty")
@pytest.mark.parametrize("before", ["fit", "resumed fit", "exception"])
def test_another_model_is_trained_as_by_a_new_trainer(tmp_path, before):
    def fit(trainer: Trainer) -> Evaluated:
        model = model_of(5)
        trainer.fit(model, *loaders())
        return model

    fresh = everything(tmp_path / "fresh")
    wanted = fit(fresh)
    used = everything(tmp_path / "used")
    first = model_of(1)
    if before == "exception":
        first.on_train_batch_start = lambda batch, batch_idx: 1 / (3 - batch_idx)  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            used.fit(first, *loaders())
    else:
        used.fit(first, *loaders())
    if before == "resumed fit":
        used.fit(first, *loaders(), ckpt_path=tmp_path / "used" / "step=7.ckpt")
    used.logger.rows.clear()  # type: ignore[union-attr]
    model = fit(used)

    assert counters(used) == counters(fresh)
    torch.testing.assert_close(model.state_dict(), wanted.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(used.optimizers[0].state_dict(), fresh.optimizers[0].state_dict(), rtol=0, atol=0)
    assert model.seen == wanted.seen
    assert used.logger.rows == fresh.logger.rows  # type: ignore[union-attr]
    assert used.callback_metrics == fresh.callback_metrics
    assert what_callbacks_keep(used) == what_callbacks_keep(fresh)
    timer = callback_of(used, Timer)
    assert timer.time_elapsed() == pytest.approx(timer.end_time() - timer.start_time())


def test_time_of_a_resumed_fit_is_not_that_of_another_model(trainer_of, tmp_path):
    timer = Timer("00:00:10:00", verbose=False)
    trainer = trainer_of(max_epochs=1, callbacks=timer)
    trainer.fit(first := model_of(1), *loaders())
    timer._train_time_before = 1000.0  # as if the run before had taken long
    trainer.save_checkpoint(tmp_path / "long.ckpt")
    trainer.max_epochs = 2
    with pytest.warns(UserWarning, match="a Timer whose time is used up"):
        trainer.fit(first, *loaders(), ckpt_path=tmp_path / "long.ckpt")
    assert trainer.current_epoch == 1

    trainer.fit(second := model_of(2), *loaders())

    assert len(second.seen) == 14
    assert timer.time_elapsed() < 100


def test_datamodule_of_the_first_model_has_no_part_in_the_second(trainer_of):
    class Data(LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[str] = []

        def setup(self, stage: str) -> None:
            self.calls.append(stage)

        def train_dataloader(self) -> Any:
            return loader()

        def val_dataloader(self) -> Any:
            return DataLoader(Noisy(4), batch_size=2)

    trainer, data = trainer_of(max_epochs=1), Data()
    trainer.fit(first := model_of(1), datamodule=data)
    trainer.max_epochs = 2
    trainer.fit(first, *loaders())  # the same model: the data is still its own
    assert data.calls == ["fit", "fit"]
    trainer.fit(model_of(2), *loaders())
    assert data.calls == ["fit", "fit"]
    assert trainer.datamodule is None


def test_same_model_goes_on_where_it_stopped_and_says_so(trainer_of, caplog):
    trainer = trainer_of(max_epochs=1)
    model = model_of(1)
    trainer.fit(model, *loaders())
    trainer.max_epochs = 3
    with caplog.at_level("INFO"):
        trainer.fit(model, *loaders())

    assert trainer.current_epoch == 3
    assert len(model.seen) == trainer.global_step == 21
    (said,) = [record.getMessage() for record in caplog.records if "goes on" in record.getMessage()]
    assert said == (
        "the same model goes on: 1 epoch and 7 steps are done; its optimizers and schedulers are made anew. "
        "To begin at zero, use another Trainer; to go on exactly, `fit(ckpt_path=...)`"
    )


def test_same_model_with_nothing_left_to_do_is_told(trainer_of):
    trainer = trainer_of(max_epochs=1)
    model = model_of(1)
    trainer.fit(model, *loaders())
    weights, state = weights_of(model), random_state()
    with pytest.warns(UserWarning, match="nothing to train: 1 epochs and 7 steps are done.*Set `trainer.max_epochs`"):
        trainer.fit(model, *loaders())
    torch.testing.assert_close(weights_of(model), weights, rtol=0, atol=0)
    assert len(model.seen) == 7
    assert random_state() == state


@pytest.mark.filterwarnings("ignore:.*shuffles, which")
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluations_in_between_leave_weights_random_numbers_and_loaders_alone(trainer_of, workers):
    def program(evaluates: bool) -> tuple[Any, ...]:
        trainer, model = trainer_of(max_epochs=1), model_of(1)
        train, validation = loaders(num_workers=workers, persistent_workers=workers > 0)
        other = loader(generator=torch.Generator().manual_seed(3))
        trainer.fit(model, train, validation)
        order = [model.seen]
        for epochs in (2, 3):
            if evaluates:
                modes = [child.training for child in model.modules()]
                trainer.validate(model, validation, verbose=False)
                trainer.test(model, loader(num_workers=workers), verbose=False)
                trainer.predict(model, other)
                assert [child.training for child in model.modules()] == modes
            trainer.max_epochs = epochs
            trainer.fit(model, train, validation)
        order.append(random_state())
        if evaluates:
            trainer.test(model, validation, verbose=False)
        return order, weights_of(model), counters(trainer), random_state()

    with_them, without = program(True), program(False)
    assert with_them[0] == without[0]
    torch.testing.assert_close(with_them[1], without[1], rtol=0, atol=0)
    assert with_them[2:] == without[2:]


def test_evaluation_does_not_undo_the_random_numbers_that_a_model_draws(trainer_of):
    class Samples(Evaluated):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.rand(())

    trainer, model = trainer_of(), Samples()
    first, second = (trainer.predict(model, loader(shuffle=False)) for _ in range(2))
    assert first != second


@pytest.mark.parametrize("end", [RuntimeError, KeyboardInterrupt])
def test_fit_after_one_that_broke_off_trains_its_epoch_from_the_beginning(trainer_of, end):
    class Breaks(Callback):
        broken = False

        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if trainer.current_epoch == 1 and trainer.progress.batch_idx == 3 and not self.broken:
                self.broken = True
                raise end

    trainer, model = trainer_of(max_epochs=2, callbacks=Breaks(), accumulate_grad_batches=3), model_of(1)
    train, validation = loaders()
    with pytest.raises(SystemExit if end is KeyboardInterrupt else end):
        trainer.fit(model, train, validation)
    assert len(model.seen) == 11
    model.seen.clear()
    trainer.fit(model, train, validation)

    assert len(model.seen) == 7
    assert sorted(place for batch in model.seen for place in batch[0]) == list(range(14))
    assert trainer.current_epoch == 2


@pytest.mark.filterwarnings("ignore:.*is not empty")
def test_fit_from_one_file_twice_gives_the_same_twice(tmp_path):
    trainer = everything(tmp_path)
    model = model_of(1)
    trainer.fit(model, *loaders())
    found = []
    for seed in (2, 3):
        seed_everything(seed, verbose=False)
        trainer.logger.rows.clear()  # type: ignore[union-attr]
        model.seen.clear()
        trainer.fit(model, *loaders(), ckpt_path=tmp_path / "step=7.ckpt")
        stopping = callback_of(trainer, EarlyStopping).state_dict()
        found.append((weights_of(model), counters(trainer), list(trainer.logger.rows), list(model.seen), stopping))  # type: ignore[union-attr]

    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    assert found[0][1:] == found[1][1:]
    assert found[0][3]


def test_fit_after_a_resumed_one_goes_on_after_it(trainer_of, tmp_path):
    trainer = trainer_of(max_epochs=2)
    trainer.fit(model := model_of(1), *loaders())
    trainer.save_checkpoint(tmp_path / "two.ckpt")

    other = trainer_of(max_epochs=3)
    other.fit(resumed := model_of(2), *loaders(), ckpt_path=tmp_path / "two.ckpt")
    other.max_epochs = 5
    other.fit(resumed, *loaders())

    assert other.current_epoch == 5
    assert other.global_step == 35
    assert len(resumed.seen) == 21
    assert len(model.seen) == 14


@pytest.mark.filterwarnings("ignore")  # names of files are taken
def test_nobody_keeps_the_first_model_when_another_is_trained(tmp_path):
    trainer = everything(tmp_path, val_check_interval=2)
    first = model_of(1)
    data = loaders(num_workers=1, persistent_workers=True)
    trainer.fit(first, *data)
    trainer.test(first, data[1], verbose=False)
    trainer.fit(model_of(2), *data)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None, gc.get_referrers(gone())
