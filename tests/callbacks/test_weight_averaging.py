"""WeightAveraging and EMAWeightAveraging, compared with loops written by hand on ``torch.optim.swa_utils``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn, update_bn

from fulmen import Callback, Trainer, seed_everything
from fulmen.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from fulmen.utilities.exceptions import MisconfigurationException

from .averaging import BATCHES, Net, Shared, assert_same, fit, loader, weights_of


def by_hand(
    averages: Callable[[int], bool] = lambda step: True,
    model: type[Net] = Net,
    batches_per_step: int = 1,
    epochs: int = 3,
    **kwargs: Any,
) -> tuple[Net, AveragedModel]:
    """Train in a plain loop; returns the model and its average."""
    seed_everything(1, verbose=False)
    net = model()
    averaged, optimizer = AveragedModel(net, **kwargs), net.configure_optimizers()
    step = 0
    for _ in range(epochs):
        for number, batch in enumerate(loader(), 1):
            (
                net.loss(batch) / min(batches_per_step, BATCHES - (number - 1) // batches_per_step * batches_per_step)
            ).backward()
            if number % batches_per_step == 0 or number == BATCHES:
                optimizer.step()
                optimizer.zero_grad()
                if averages(step):
                    averaged.update_parameters(net)
                step += 1
    return net, averaged


def average_in(path: Any) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


class Raising(Net):
    error: BaseException = ValueError("broken")

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1 and self.trainer.global_step > 7:
            raise self.error
        super().validation_step(batch, batch_idx)


class Stopped(Raising):
    error = KeyboardInterrupt()


class Interrupted(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self.trainer.global_step > 7:
            signal.raise_signal(signal.SIGTERM)
        super().validation_step(batch, batch_idx)


class Warming(Shared):
    """Its buffer, which no file has, follows from the epoch; the average of it does not."""

    def on_train_epoch_start(self) -> None:
        self.scale.fill_(1 + 0.1 * self.current_epoch)


class TrainedWith(Callback):
    """Notes the weights before each training step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(weights_of(pl_module))


class SaveAfterBatch(Callback):
    """Saves when so many batches are trained, and ends the run there."""

    def __init__(self, path: Any, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.path)
        raise InterruptedError


class EveryThirdStep(WeightAveraging):
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % 3 == 1


class EpochEnds(WeightAveraging):
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= 1


# -- the same numbers as by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("callback", "kwargs", "averages"),
    [
        (lambda: WeightAveraging(), {"use_buffers": True}, lambda step: True),
        (lambda: WeightAveraging(use_buffers=False), {}, lambda step: True),
        (lambda: EveryThirdStep(), {"use_buffers": True}, lambda step: step % 3 == 1),
        (lambda: EpochEnds(), {"use_buffers": True}, lambda step: step in (9, 14)),
        (
            lambda: WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9)),
            {"use_buffers": True, "multi_avg_fn": get_ema_multi_avg_fn(0.9)},
            lambda step: True,
        ),
        (
            lambda: EMAWeightAveraging(decay=0.9, update_every_n_steps=2, update_starting_at_step=3),
            {"use_buffers": True, "avg_fn": get_ema_avg_fn(0.9)},
            lambda step: step >= 3 and step % 2 == 0,
        ),
    ],
)
def test_average_is_that_of_a_loop_by_hand(callback: Any, kwargs: Any, averages: Any):
    _, averaged = by_hand(averages, **kwargs)
    assert_same(weights_of(fit(callback())), weights_of(averaged.module))


@pytest.mark.parametrize("batches_per_step", [2, 3])
def test_average_counts_optimizer_steps_and_not_batches(batches_per_step: int):
    asked: list[int] = []

    class Asked(WeightAveraging):
        def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
            if step_idx is not None:
                asked.append(step_idx)
            return step_idx is not None and step_idx > 1

    _, averaged = by_hand(lambda step: step > 1, batches_per_step=batches_per_step, use_buffers=True)
    model = fit(Asked(), accumulate_grad_batches=batches_per_step)

    assert_same(weights_of(model), weights_of(averaged.module))
    assert asked == list(range(model.trainer.global_step))


def test_shared_weights_are_averaged_once():
    _, averaged = by_hand(model=Shared, use_buffers=True)
    model = fit(WeightAveraging(), model=Shared)

    assert_same(weights_of(model), weights_of(averaged.module))
    assert model.twice[0].weight is model.twice[1].weight


def test_training_goes_on_with_its_own_weights():
    plain, averaged = TrainedWith(), TrainedWith()
    fit(plain, validation=loader(2), val_check_interval=2)
    fit(averaged, WeightAveraging(), validation=loader(2), val_check_interval=2)

    assert len(plain.seen) == len(averaged.seen) == 3 * BATCHES
    for one, other in zip(plain.seen, averaged.seen):
        assert_same(one, other)


def test_statistics_of_batch_norms_are_set_after_training_as_by_hand():
    _, averaged = by_hand()
    update_bn(loader(), averaged)
    model = fit(WeightAveraging(use_buffers=False))
    update_bn(loader(), model)

    assert_same(weights_of(model), weights_of(averaged.module))


def test_weights_stay_those_of_training_when_none_were_averaged():
    assert_same(weights_of(fit(EMAWeightAveraging(update_starting_at_step=100))), weights_of(fit()))


def test_second_fit_begins_a_new_average():
    callback = WeightAveraging()
    fit(callback)
    _, averaged = by_hand(use_buffers=True)
    assert_same(weights_of(fit(callback)), weights_of(averaged.module))


# -- validation -------------------------------------------------------------------------------------------------------


def test_validation_runs_with_the_average():
    model = fit(WeightAveraging(), validation=loader(1), check_val_every_n_epoch=3)
    _, averaged = by_hand(use_buffers=True)

    assert_same(model.validated[0], weights_of(averaged.module))


def test_validation_before_the_first_update_runs_with_the_weights_of_training():
    model = fit(EMAWeightAveraging(update_starting_at_step=7), validation=loader(1))
    plain = fit(validation=loader(1))

    assert_same(model.validated[0], plain.validated[0])
    assert not torch.equal(model.validated[1]["net.0.weight"], plain.validated[1]["net.0.weight"])


@pytest.mark.parametrize("kind", [Raising, Stopped])
def test_weights_of_training_are_back_when_validation_fails(tmp_path, kind: Any):
    callbacks = [Callback(), WeightAveraging()]
    callbacks[0].on_exception = lambda trainer, module, error: trainer.save_checkpoint(tmp_path / "k.ckpt")
    made = []
    with pytest.raises((ValueError, SystemExit)):
        fit(
            *callbacks,
            model=type("Kept", (kind,), {"setup": lambda self, stage: made.append(self)}),
            validation=loader(2),
        )

    plain, averaged = (fit(*own, validation=loader(2), max_epochs=2) for own in ([], [WeightAveraging()]))
    assert_same(weights_of(made[0]), weights_of(plain))
    saved = torch.load(tmp_path / "k.ckpt", weights_only=True)
    assert_same(saved["current_model_state"], dict(plain.state_dict()))
    assert_same(saved["state_dict"], dict(averaged.state_dict()))


def test_run_that_a_signal_ends_within_validation_goes_on_exactly(tmp_path):
    files = dict(dirpath=tmp_path, save_last=True)
    whole = fit(WeightAveraging(), validation=loader(2))
    with pytest.raises(SystemExit):
        fit(
            WeightAveraging(),
            ModelCheckpoint(**files),
            model=Interrupted,
            validation=loader(2),
            enable_checkpointing=True,
        )
    resumed = fit(
        WeightAveraging(),
        ModelCheckpoint(**files),
        path=tmp_path / "last.ckpt",
        validation=loader(2),
        seed=5,
        enable_checkpointing=True,
    )

    assert_same(weights_of(resumed), weights_of(whole))
    assert len(resumed.validated) == 4
    for one, other in zip(resumed.validated, whole.validated[2:]):
        assert_same(one, other)


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 4, 5, 7, 8, 10, 12])
@pytest.mark.parametrize("kind", [EveryThirdStep, lambda: EMAWeightAveraging(decay=0.7), EpochEnds])
def test_run_goes_on_exactly_after_any_batch(tmp_path, batches: int, kind: Any):
    arguments: dict[str, Any] = dict(accumulate_grad_batches=2, val_check_interval=2, model=Warming)
    whole = fit(kind(), train=loader(shuffle=True), validation=loader(1), **arguments)
    with pytest.raises(InterruptedError):
        fit(
            kind(),
            SaveAfterBatch(tmp_path / "k.ckpt", batches),
            train=loader(shuffle=True),
            validation=loader(1),
            **arguments,
        )
    resumed = fit(
        kind(), train=loader(shuffle=True), validation=loader(1), path=tmp_path / "k.ckpt", seed=5, **arguments
    )

    assert_same(weights_of(resumed), weights_of(whole))
    assert resumed.validated
    for one, other in zip(resumed.validated[::-1], whole.validated[::-1]):
        assert_same(one, other)


def test_run_goes_on_exactly_from_a_file_that_a_callback_before_it_wrote(tmp_path):
    class Early(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.progress.total_batches == 7:
                trainer.save_checkpoint(tmp_path / "k.ckpt")

    whole = fit(Early(), WeightAveraging())
    assert_same(weights_of(fit(WeightAveraging(), path=tmp_path / "k.ckpt", seed=5)), weights_of(whole))


def test_run_goes_on_exactly_from_a_file_that_a_callback_after_it_wrote_at_the_end_of_an_epoch(tmp_path):
    class Late(Callback):
        def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "k.ckpt")

    whole = fit(EpochEnds(), Late())
    assert_same(weights_of(fit(EpochEnds(), path=tmp_path / "k.ckpt", seed=5)), weights_of(whole))


def test_run_goes_on_exactly_from_the_file_of_a_run_that_had_ended(tmp_path):
    first = fit(WeightAveraging(), max_epochs=2)
    first.trainer.save_checkpoint(tmp_path / "k.ckpt")

    assert_same(average_in(tmp_path / "k.ckpt"), dict(first.state_dict()))
    assert_same(weights_of(fit(WeightAveraging(), path=tmp_path / "k.ckpt")), weights_of(fit(WeightAveraging())))


def test_run_that_has_nothing_left_to_train_has_the_average(tmp_path):
    ended = fit(WeightAveraging())
    ended.trainer.save_checkpoint(tmp_path / "k.ckpt")
    with pytest.warns(UserWarning, match="nothing to train"):
        again = fit(WeightAveraging(), path=tmp_path / "k.ckpt")

    assert_same(weights_of(again), weights_of(ended))


def test_checkpoint_has_the_average_that_was_validated(tmp_path):
    files = ModelCheckpoint(dirpath=tmp_path, monitor="val_loss")
    model = fit(WeightAveraging(), files, validation=loader(1), enable_checkpointing=True)

    saved = average_in(files.best_model_path)
    epoch = int(files.best_model_path.split("epoch=")[1][0])
    assert_same({name: model.validated[epoch][name] for name in saved}, saved)
    loaded = Net.load_from_checkpoint(files.best_model_path)
    assert_same(dict(loaded.state_dict()), saved)


def test_file_of_weights_only_has_the_average(tmp_path):
    files = ModelCheckpoint(dirpath=tmp_path, save_weights_only=True)
    model = fit(WeightAveraging(), files, enable_checkpointing=True)

    assert_same(average_in(files.best_model_path), dict(model.state_dict()))
    assert "current_model_state" not in torch.load(files.best_model_path, weights_only=True)


@pytest.mark.parametrize("callbacks", [[], [WeightAveraging()]])
@pytest.mark.filterwarnings("ignore:.*the state of callbacks that this run does not have")
def test_test_runs_with_the_average_of_a_file(tmp_path, callbacks: Any):
    trained = fit(WeightAveraging())
    trained.trainer.save_checkpoint(tmp_path / "k.ckpt")
    model = Net()
    options = dict(accelerator="cpu", logger=False, enable_progress_bar=False)
    Trainer(callbacks=callbacks, **options).test(model, loader(1), ckpt_path=tmp_path / "k.ckpt", verbose=False)

    assert_same(model.validated[0], weights_of(trained))


def test_average_begins_when_the_file_has_none(tmp_path):
    with pytest.raises(InterruptedError):
        fit(SaveAfterBatch(tmp_path / "k.ckpt", 7), accumulate_grad_batches=3)
    with pytest.warns(UserWarning, match="averaged no weights"):
        model = fit(WeightAveraging(), path=tmp_path / "k.ckpt", accumulate_grad_batches=3)

    seed_everything(1, verbose=False)
    _, averaged = by_hand(lambda step: step > 1, batches_per_step=3, use_buffers=True)
    assert_same(weights_of(model), weights_of(averaged.module))


def test_weights_can_be_had_between_two_steps():
    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            before = weights_of(pl_module)
            with callback.averaged_weights(pl_module):
                self.seen = weights_of(pl_module)
            assert_same(weights_of(pl_module), before)

    callback, look = WeightAveraging(), Look()
    fit(callback, look)
    _, averaged = by_hand(use_buffers=True)

    assert_same(look.seen, weights_of(averaged.module))


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WeightAveraging(decay=0.9), TypeError, r"WeightAveraging\(decay=0.9\).*avg_fn, multi_avg_fn"),
        (lambda: WeightAveraging(avg_fn=max, multi_avg_fn=max), MisconfigurationException, "Pass one"),
        (lambda: EMAWeightAveraging(avg_fn=max), MisconfigurationException, "contradicts `decay`"),
        (lambda: EMAWeightAveraging(decay=1.5), ValueError, "decay"),
        (lambda: EMAWeightAveraging(update_every_n_steps=-1), MisconfigurationException, "update_every_n_steps=-1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make: Any, error: Any, message: str):
    with pytest.raises(error, match=message):
        make()


def test_parameters_that_come_and_go_are_refused():
    class Grown(Net):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.more = torch.nn.Linear(1, 1)

    with pytest.raises(MisconfigurationException, match=r"'more\.bias' came or went"):
        fit(WeightAveraging(), model=Grown)
