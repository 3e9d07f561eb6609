"""What was logged before a checkpoint counts after it, whatever its kind: each against the run that never stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import classification

from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import EarlyStopping, GradientAccumulationScheduler, LearningRateMonitor, ModelCheckpoint
from fulmen.loggers import CSVLogger, Logger

BATCHES, EPOCHS, STOP = 5, 2, 3


class Rows(Logger):
    """Keeps the rows in memory, as a logger of a user's that knows nothing of resuming."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    name = version = property(lambda self: "rows")  # type: ignore[assignment]

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Model(LightningModule):
    """One number per batch, and whatever ``logs(self, batch_idx)`` does with it."""

    def __init__(self, logs: Callable[[Model, int], None], **parts: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(1, 1)
        self.logs = logs
        self.value = torch.zeros(())
        for name, part in parts.items():
            setattr(self, name, part)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.value = batch[0].mean()
        self.logs(self, batch_idx)
        return self.layer(batch[0]).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Validated(Model):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val", batch[0].mean() + self.layer.weight.sum())


class StopHere(BaseException):
    pass


class SaveAndStop(Callback):
    def __init__(self, path: Any, batch: int = STOP) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.boundary.defer(lambda: self.save(trainer))

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise StopHere


def loader(batches: int = BATCHES) -> DataLoader:
    return DataLoader(TensorDataset(torch.linspace(0.1, 1.7, 2 * batches)[:, None] ** 3), batch_size=2)


def fit(model: Model, callbacks: Any = (), resume: Any = None, **flags: Any) -> Trainer:
    options = {"max_epochs": EPOCHS, "log_every_n_steps": 2, "logger": Rows(), "enable_checkpointing": False, **flags}
    val = options.pop("val", None)
    trainer = Trainer(
        accelerator="cpu", callbacks=[*callbacks], enable_progress_bar=False, enable_model_summary=False, **options
    )
    try:
        trainer.fit(model, loader(), val, ckpt_path=resume)
    except StopHere:
        assert resume is None
    return trainer


def rows(trainer: Trainer) -> list[Any]:
    return trainer.logger.rows  # type: ignore[union-attr]


def assert_goes_on_exactly(tmp_path: Any, make: Callable[[], Model], batch: int = STOP, **flags: Any) -> None:
    """The rows of a run that stopped after ``batch`` and of its resumption are those of the run that never stopped."""
    whole = fit(make(), **flags)
    stopped = fit(make(), [SaveAndStop(tmp_path / "k.ckpt", batch)], **flags)
    resumed = fit(make(), resume=tmp_path / "k.ckpt", **flags)

    assert rows(resumed)
    assert rows(stopped) + rows(resumed) == rows(whole)
    for window in ("callback_metrics", "logged_metrics", "progress_bar_metrics"):
        assert getattr(resumed, window) == getattr(whole, window)


@pytest.mark.parametrize("options", [{}, {"on_step": True}, {"prog_bar": True}, {"logger": False}, {"batch_size": 7}])
@pytest.mark.parametrize("reduction", ["mean", "sum", "min", "max", torch.mean, max])
def test_value_of_an_epoch_counts_what_was_logged_before_the_checkpoint(tmp_path, reduction, options):
    def logs(model: Model, batch_idx: int) -> None:
        model.log("value", -model.value, on_epoch=True, reduce_fx=reduction, **options)
        model.log("other", 1.0)

    assert_goes_on_exactly(tmp_path, lambda: Model(logs))


@pytest.mark.parametrize("kind", [float, torch.tensor, lambda v: torch.tensor(v, dtype=torch.half), int, bool])
def test_value_of_any_type_keeps_its_type(tmp_path, kind):
    def logs(model: Model, batch_idx: int) -> None:
        model.log("value", kind(model.value.item()), on_epoch=True, prog_bar=True)

    assert_goes_on_exactly(tmp_path, lambda: Model(logs))


def test_number_of_numpy_is_saved_as_plain_data(tmp_path):
    import numpy as np

    def logs(model: Model, batch_idx: int) -> None:
        model.log("value", np.float64(model.value.item()), on_epoch=True, prog_bar=True)

    assert_goes_on_exactly(tmp_path, lambda: Model(logs))
    torch.load(tmp_path / "k.ckpt", weights_only=True)


def test_weights_of_batches_count(tmp_path):
    def logs(model: Model, batch_idx: int) -> None:
        model.log("value", model.value, on_epoch=True, batch_size=batch_idx + 1)
        model.log("tensor", model.value, on_epoch=True, batch_size=torch.tensor(batch_idx + 1))

    assert_goes_on_exactly(tmp_path, lambda: Model(logs))


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_value_that_is_not_logged_again_is_in_the_row_of_the_epoch_and_of_the_next_due_step(tmp_path, batch):
    def logs(model: Model, batch_idx: int) -> None:
        if batch_idx == 0:
            model.log("first", model.value, on_step=True, on_epoch=True)
            model.log("of_first_step", model.value)

    assert_goes_on_exactly(tmp_path, lambda: Model(logs), batch)


def test_value_of_a_step_that_is_not_due_in_this_epoch_is_written_in_the_next(tmp_path):
    def logs(model: Model, batch_idx: int) -> None:
        if batch_idx == 4 and model.current_epoch == 0:
            model.log("late", model.value)

    assert_goes_on_exactly(tmp_path, lambda: Model(logs), 5, log_every_n_steps=7)


def test_value_that_is_logged_in_another_way_after_the_resume_begins_anew_with_a_warning(tmp_path):
    fit(Model(lambda m, _: m.log("value", m.value, on_epoch=True)), [SaveAndStop(tmp_path / "k.ckpt")], max_epochs=1)
    with pytest.warns(UserWarning, match="'value', .*another way.*rest alone"):
        resumed = fit(
            Model(lambda m, _: m.log("value", m.value, on_epoch=True, reduce_fx="sum")),
            resume=tmp_path / "k.ckpt",
            max_epochs=1,
        )

    expected = sum(batch[0].mean().double() for batch in list(loader())[STOP:])
    assert resumed.callback_metrics["value"] == expected.float()


def test_settings_that_do_not_touch_the_value_may_change_with_the_resume(tmp_path):
    whole = fit(Model(lambda m, _: m.log("value", m.value, on_epoch=True)), max_epochs=1)
    fit(Model(lambda m, _: m.log("value", m.value, on_epoch=True)), [SaveAndStop(tmp_path / "k.ckpt")], max_epochs=1)
    resumed = fit(
        Model(lambda m, _: m.log("value", m.value, on_epoch=True, prog_bar=True)),
        resume=tmp_path / "k.ckpt",
        max_epochs=1,
    )

    assert resumed.callback_metrics["value_epoch"] == whole.callback_metrics["value_epoch"]
    assert "value_epoch" in resumed.progress_bar_metrics


def test_value_logged_with_two_settings_after_the_resume_is_still_an_error(tmp_path):
    def logs(model: Model, batch_idx: int) -> None:
        model.log("value", model.value, prog_bar=batch_idx == 4)

    fit(Model(logs), [SaveAndStop(tmp_path / "k.ckpt")])
    with pytest.raises(Exception, match="logged there with `prog_bar=False` before"):
        fit(Model(logs), resume=tmp_path / "k.ckpt")


def test_several_validation_loaders_in_mid_epoch_go_on_exactly(tmp_path):
    def logs(model: Model, batch_idx: int) -> None:
        seen = model.trainer.callback_metrics.get("val/dataloader_idx_1")
        model.log("seen", -1.0 if seen is None else seen, on_epoch=True)

    options: dict[str, Any] = {"val": [loader(2), loader(3)], "val_check_interval": 2}
    assert_goes_on_exactly(tmp_path, lambda: Validated(logs), **options)


class Records(Callback):
    """What a callback reads after each batch."""

    def __init__(self) -> None:
        self.read: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.read.append({**trainer.callback_metrics, **trainer.progress_bar_metrics})


def test_callback_reads_after_the_resume_what_a_validation_logged_before(tmp_path):
    def logs(model: Model, batch_idx: int) -> None:
        model.log("bar", model.value, prog_bar=True)

    flags: dict[str, Any] = {"val": loader(2), "val_check_interval": 3, "check_val_every_n_epoch": 1}
    whole, resumed = Records(), Records()
    fit(Validated(logs), [whole], **flags)
    fit(Validated(logs), [SaveAndStop(tmp_path / "k.ckpt", 4)], **flags)
    fit(Validated(logs), [resumed], resume=tmp_path / "k.ckpt", **flags)

    assert "val" in resumed.read[0]
    assert resumed.read == whole.read[4:]


def test_value_that_only_the_opening_of_the_resumed_run_logs_is_forgotten(tmp_path):
    class Opening(Model):
        def on_train_start(self) -> None:
            if self.trainer.ckpt_path:
                self.log("opening", 1.0)

    def logs(model: Model, batch_idx: int) -> None:
        model.log("value", model.value, on_epoch=True)

    assert_goes_on_exactly(tmp_path, lambda: Opening(logs))


# -- metric objects ----------------------------------------------------------------------------------------------------


def targets(model: Model) -> tuple[Tensor, Tensor]:
    scores = torch.stack([model.value.sin(), model.value.cos(), model.value]).reshape(1, 3)
    return scores, torch.tensor([int(model.value * 100) % 3])


def collection() -> Any:
    return torchmetrics.MetricCollection(
        [classification.MulticlassPrecision(3), classification.MulticlassRecall(3), classification.MulticlassF1Score(3)]
    )


METRICS: dict[str, tuple[Callable[[], Any], Callable[[Model], tuple[Any, ...]]]] = {
    "mean": (torchmetrics.MeanMetric, lambda m: (m.value,)),
    "double": (lambda: torchmetrics.SumMetric().set_dtype(torch.float64), lambda m: (m.value.double(),)),
    "lists": (torchmetrics.CatMetric, lambda m: (m.value,)),
    "confusion": (lambda: classification.MulticlassConfusionMatrix(3), targets),
    "collection": (collection, targets),
    "composition": (lambda: torchmetrics.MeanMetric() + 2 * torchmetrics.MaxMetric(), lambda m: (m.value,)),
    "extremes": (lambda: torchmetrics.MinMaxMetric(torchmetrics.MeanMetric()), lambda m: (m.value,)),
    "running": (lambda: torchmetrics.wrappers.Running(torchmetrics.SumMetric(), window=3), lambda m: (m.value,)),
    "by class": (lambda: torchmetrics.ClasswiseWrapper(classification.MulticlassAccuracy(3, average=None)), targets),
    "pearson": (
        torchmetrics.PearsonCorrCoef,
        lambda m: (torch.stack([m.value, m.value**2]), torch.stack([m.value.sin(), m.value.cos()])),
    ),
}


class ByHand(Model):
    """Updates a metric by hand, and notes what it computes after each batch."""

    def __init__(self, metric: Any, inputs: Callable[[Model], tuple[Any, ...]]) -> None:
        super().__init__(lambda model, _: model.update(), metric=metric)  # type: ignore[attr-defined]
        self.inputs = inputs
        self.computed: list[Any] = []

    def update(self) -> None:
        self.metric.update(*self.inputs(self))
        self.computed.append(self.metric.compute())

    def on_train_epoch_end(self) -> None:
        self.metric.reset()


@pytest.mark.filterwarnings("ignore:The variance of predictions")
@pytest.mark.parametrize("batch", [STOP, BATCHES + 1])
@pytest.mark.parametrize("kind", METRICS)
def test_metric_that_is_updated_by_hand_goes_on_bit_for_bit(tmp_path, kind, batch):
    make, inputs = METRICS[kind]
    whole, stopped, resumed = (ByHand(make(), inputs) for _ in range(3))
    fit(whole)
    fit(stopped, [SaveAndStop(tmp_path / "k.ckpt", batch)])
    fit(resumed, resume=tmp_path / "k.ckpt")

    assert len(resumed.computed) == BATCHES * EPOCHS - batch
    torch.testing.assert_close(resumed.computed, whole.computed[batch:], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("batch", [1, 3, 5, 7])
def test_metric_that_is_logged_goes_on_exactly(tmp_path, batch):
    def logs(model: Model, batch_idx: int) -> None:
        model.mean(model.value)
        if batch_idx < 4:  # not after the last of the stops
            model.log("mean", model.mean, on_step=True, on_epoch=True)
            model.log("in_a_list", model.several[1], on_step=False, on_epoch=True)
        model.several[1].update(model.value)

    def make() -> Model:
        several = nn.ModuleList([torchmetrics.MaxMetric(), torchmetrics.MinMetric()])
        return Model(logs, mean=torchmetrics.MeanMetric(), several=several)

    assert_goes_on_exactly(tmp_path, make, batch)


def test_metric_tracker_has_all_its_epochs_again(tmp_path):
    class Tracking(Model):
        def on_train_epoch_start(self) -> None:
            if self.tracker.n_steps <= self.current_epoch:
                self.tracker.increment()

    def make() -> Tracking:
        tracker = torchmetrics.wrappers.MetricTracker(
            torchmetrics.MinMaxMetric(torchmetrics.MeanMetric()), maximize=True
        )
        return Tracking(lambda model, _: model.tracker.update(model.value), tracker=tracker)

    whole, resumed = make(), make()
    fit(whole)
    fit(make(), [SaveAndStop(tmp_path / "k.ckpt", BATCHES + 2)])
    fit(resumed, resume=tmp_path / "k.ckpt")

    assert resumed.tracker.n_steps == EPOCHS
    torch.testing.assert_close(resumed.tracker.compute_all(), whole.tracker.compute_all(), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:the checkpoint holds the state of callbacks")
def test_metric_that_a_sanity_check_has_updated_is_as_it_was(tmp_path):
    class Checking(Model):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.total.update(batch[0].sum())

    def make() -> Checking:
        return Checking(lambda *_: None, total=torchmetrics.SumMetric())

    whole, resumed, options = make(), make(), {"val": loader(2), "num_sanity_val_steps": 2}
    fit(whole, **{**options, "num_sanity_val_steps": 0})
    saves = ModelCheckpoint(tmp_path, "e", save_on_train_epoch_end=True)
    fit(make(), [saves], max_epochs=1, **{**options, "num_sanity_val_steps": 0, "enable_checkpointing": True})
    fit(resumed, resume=tmp_path / "e.ckpt", **options)

    assert resumed.total.compute() == whole.total.compute()


def test_wrapper_that_only_a_sanity_check_has_used_is_as_it_was(tmp_path):
    class Checking(Model):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if self.trainer.sanity_checking:
                self.extremes.update(batch[0].sum())
                self.extremes.compute()

    def make() -> Checking:
        return Checking(lambda *_: None, extremes=torchmetrics.MinMaxMetric(torchmetrics.MeanMetric()))

    saves = ModelCheckpoint(tmp_path, "e", save_on_train_epoch_end=True)
    flags: dict[str, Any] = {"val": loader(2), "enable_checkpointing": True}
    fit(make(), [saves], max_epochs=1, num_sanity_val_steps=0, **flags)
    resumed = make()
    fit(resumed, [ModelCheckpoint(tmp_path / "other")], resume=tmp_path / "e.ckpt", num_sanity_val_steps=2, **flags)

    assert resumed.extremes.max_val == -float("inf")


class Stateless:
    """A metric of a user's own that cannot say what it has seen."""

    def __init__(self) -> None:
        self.reset()

    def update(self, value: float) -> None:
        self.total += value

    def compute(self) -> float:
        return self.total

    def reset(self) -> None:
        self.total = 0.0


class Stateful(Stateless):
    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


def logs_own(model: Model, batch_idx: int) -> None:
    model.own["total"].update(model.value.item())
    if batch_idx == 0:
        model.log("own", model.own["total"], on_epoch=True, on_step=False)
    model.log("value", model.value)


def test_metric_of_the_users_own_with_a_state_goes_on_exactly(tmp_path):
    assert_goes_on_exactly(tmp_path, lambda: Model(logs_own, own={"total": Stateful()}))


def test_metric_without_a_state_is_told_before_training(tmp_path):
    class Refuses(Callback):
        def on_train_start(self, *args: Any) -> None:
            raise StopHere

    def fits(**flags: Any) -> None:
        fit(Model(logs_own, own={"total": Stateless()}), [Refuses()], **flags)

    with pytest.warns(UserWarning, match=r"rest alone: own\.total \(Stateless\)\. Give them `state_dict\(\)`"):
        fits(enable_checkpointing=True, default_root_dir=tmp_path)
    fits()  # nobody saves, so nobody resumes


def test_metric_whose_state_is_not_plain_is_left_out_with_a_warning(tmp_path):
    class Odd(Stateful):
        def state_dict(self) -> dict[str, Any]:
            return {"total": self}

    with pytest.warns(UserWarning, match=r"metric own\.total \(Odd\) is not saved"):
        fit(Model(logs_own, own={"total": Odd()}), [SaveAndStop(tmp_path / "k.ckpt")])
    torch.load(tmp_path / "k.ckpt", weights_only=True)


def test_metric_of_another_kind_begins_anew_with_a_warning(tmp_path):
    def logs(model: Model, batch_idx: int) -> None:
        model.metric.update(model.value)

    fit(Model(logs, metric=torchmetrics.CatMetric()), [SaveAndStop(tmp_path / "k.ckpt")], max_epochs=1)
    model = Model(logs, metric=torchmetrics.MeanMetric())
    with pytest.warns(UserWarning, match="metric is of another kind of metric than the MeanMetric"):
        fit(model, resume=tmp_path / "k.ckpt", max_epochs=1)
    assert model.metric.update_count == BATCHES - STOP


def test_checkpoint_of_a_run_with_metrics_is_plain_data(tmp_path):
    make, inputs = METRICS["collection"]
    fit(ByHand(make(), inputs), [SaveAndStop(tmp_path / "k.ckpt")])
    saved = torch.load(tmp_path / "k.ckpt", weights_only=True)["resume"]["module_metrics"]
    assert {"metric", "metric.MulticlassPrecision", "metric.MulticlassF1Score"} <= saved.keys()
    assert saved["metric.MulticlassPrecision"]["update_count"] == STOP


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_learning_rate_monitor_keeps_all_rates(tmp_path):
    def monitor() -> LearningRateMonitor:
        return LearningRateMonitor(log_momentum=True, log_weight_decay=True)

    def logs(*args: Any) -> None: ...

    whole, resumed = monitor(), monitor()
    fit(Model(logs), [whole])
    fit(Model(logs), [monitor(), SaveAndStop(tmp_path / "k.ckpt")])
    fit(Model(logs), [resumed], resume=tmp_path / "k.ckpt")

    assert whole.lrs["lr-SGD"]
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("batch", [3, 7])
def test_accumulation_scheduler_goes_on_in_its_window(tmp_path, batch):
    def logs(model: Model, batch_idx: int) -> None:
        model.log("weight", model.layer.weight.sum(), on_epoch=True)
        model.log("step", float(model.global_step), on_epoch=False)

    def scheduled() -> list[Callback]:
        return [GradientAccumulationScheduler({0: 2, 1: 4})]

    whole, stopped, resumed = Model(logs), Model(logs), Model(logs)
    all_rows = rows(fit(whole, scheduled()))
    first = rows(fit(stopped, [*scheduled(), SaveAndStop(tmp_path / "k.ckpt", batch)]))
    assert first + rows(fit(resumed, scheduled(), resume=tmp_path / "k.ckpt")) == all_rows
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


class Stops(Callback):
    """Sets ``should_stop`` at one batch, once in the life of a run."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batch:
            trainer.should_stop = True


def logs_value(model: Model, batch_idx: int) -> None:
    model.log("value", model.value, on_step=True, on_epoch=True)


@pytest.mark.parametrize("minimum", [2, None])
def test_wish_to_stop_from_before_the_checkpoint_is_heeded(tmp_path, minimum):
    flags: dict[str, Any] = {"max_epochs": 4, "min_epochs": minimum}
    whole = fit(Model(logs_value), [Stops(2)], **flags)
    stopped = fit(Model(logs_value), [Stops(2), SaveAndStop(tmp_path / "k.ckpt", 3 if minimum else 2)], **flags)
    resumed = fit(Model(logs_value), [Stops(2)], resume=tmp_path / "k.ckpt", **flags)

    assert whole.current_epoch == resumed.current_epoch == (minimum or 1)
    assert rows(stopped) + rows(resumed) == rows(whole)


def test_run_that_ended_in_mid_epoch_by_its_steps_still_ends_the_epoch(tmp_path):
    flags: dict[str, Any] = {"max_epochs": -1, "max_steps": STOP}
    whole = fit(Model(logs_value), **flags)
    stopped = fit(Model(logs_value), [SaveAndStop(tmp_path / "k.ckpt", STOP)], **flags)
    resumed = fit(Model(logs_value), resume=tmp_path / "k.ckpt", **flags)

    assert "value_epoch" in rows(resumed)[-1][1]
    assert rows(stopped) + rows(resumed) == rows(whole)


def early_stopped(tmp_path: Any) -> tuple[Any, dict[str, Any]]:
    """A checkpoint of a run that an EarlyStopping has ended, and its flags."""
    flags: dict[str, Any] = {"max_epochs": 9, "enable_checkpointing": True}
    saves = ModelCheckpoint(tmp_path, "e", save_last=True)
    trainer = fit(Model(logs_value), [EarlyStopping("value_epoch", patience=2), saves], **flags)
    assert trainer.current_epoch == 3
    return saves.last_model_path, {**flags, "enable_checkpointing": False}


@pytest.mark.filterwarnings("ignore:the checkpoint holds the state of callbacks")
def test_run_that_early_stopping_has_ended_stays_ended(tmp_path):
    path, flags = early_stopped(tmp_path)
    with pytest.warns(UserWarning, match=r"should_stop` was set in the run that .*last\.ckpt.*more patience"):
        trainer = fit(Model(logs_value), [EarlyStopping("value_epoch", patience=2)], resume=path, **flags)
    assert trainer.current_epoch == 3


@pytest.mark.filterwarnings("ignore:the checkpoint holds the state of callbacks")
def test_run_that_early_stopping_has_ended_goes_on_with_more_patience(tmp_path):
    path, flags = early_stopped(tmp_path)
    trainer = fit(Model(logs_value), [EarlyStopping("value_epoch", patience=5)], resume=path, **flags)
    assert trainer.current_epoch == 6


@pytest.mark.filterwarnings("ignore:the checkpoint holds the state of callbacks")
def test_run_that_early_stopping_has_ended_goes_on_without_it(tmp_path):
    path, flags = early_stopped(tmp_path)
    assert fit(Model(logs_value), resume=path, **flags).current_epoch == 9


# -- loggers -----------------------------------------------------------------------------------------------------------


class Rewinding(Rows):
    """A logger of a user's that can go back, and keeps its rows beyond the life of a run."""

    def __init__(self, kept: list[Any]) -> None:
        self.rows = kept

    def state_dict(self) -> dict[str, Any]:
        return {"rows": len(self.rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del self.rows[state["rows"] :]


class LaterStop(SaveAndStop):
    """Goes on for two batches after the checkpoint."""

    def save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_batch_end(trainer, *args)
        if trainer.progress.total_batches == self.batch + 2:
            raise StopHere


def test_loggers_of_users_go_back_each_to_its_own_state(tmp_path):
    whole = rows(fit(Model(logs_value)))
    first, second = [("own", {})], []

    def loggers() -> list[Logger]:
        return [Rewinding(first), CSVLogger(tmp_path, name="", version="run"), Rewinding(second)]

    fit(Model(logs_value), [LaterStop(tmp_path / "k.ckpt")], logger=loggers())
    assert len(second) > 2
    fit(Model(logs_value), resume=tmp_path / "k.ckpt", logger=loggers())

    assert second == whole
    assert first == [("own", {}), *whole]
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == len(whole) + 1


def test_loggers_of_another_class_at_that_place_are_left_alone(tmp_path):
    fit(Model(logs_value), [LaterStop(tmp_path / "k.ckpt")], logger=[CSVLogger(tmp_path, version=0)])
    kept: list[Any] = [("own", {})]
    fit(Model(logs_value), resume=tmp_path / "k.ckpt", logger=[Rewinding(kept)])
    assert kept[0] == ("own", {})


def test_logger_of_a_user_has_saved_its_rows_before_a_checkpoint_counts_them(tmp_path):
    class Buffered(Rewinding):
        """Brings its rows to their place when it is told to save."""

        def __init__(self, kept: list[Any]) -> None:
            self.kept, self.rows = kept, []

        def save(self) -> None:
            self.kept += self.rows
            self.rows = []

        def state_dict(self) -> dict[str, Any]:
            return {"rows": len(self.kept)}

    class LogsAndSaves(SaveAndStop):
        def save(self, trainer: Trainer) -> None:
            trainer.logger.log_metrics({"by_hand": 1.0}, step=2)  # type: ignore[union-attr]
            super().save(trainer)

    kept: list[Any] = []
    fit(Model(logs_value), [LogsAndSaves(tmp_path / "k.ckpt")], logger=[Buffered(kept)])
    state = torch.load(tmp_path / "k.ckpt", weights_only=True)["resume"]["loggers"][0]["state"]
    assert state == {"rows": len(kept)}
    assert kept[-1] == (2, {"by_hand": 1.0})


def test_rows_are_on_the_disk_before_a_checkpoint_counts_them(tmp_path):
    class Reads(SaveAndStop):
        def save(self, trainer: Trainer) -> None:
            trainer.logger.log_metrics({"by_hand": 1.0}, step=2)  # type: ignore[union-attr]
            trainer.save_checkpoint(self.path)
            self.text = (tmp_path / "run" / "metrics.csv").read_text()
            raise StopHere

    reads = Reads(tmp_path / "k.ckpt")
    fit(Model(logs_value), [reads], logger=CSVLogger(tmp_path, name="", version="run"))
    state = torch.load(tmp_path / "k.ckpt", weights_only=True)["resume"]["loggers"][0]["state"]
    assert "by_hand" in reads.text
    assert len(reads.text.splitlines()) == 1 + state["rows"]
