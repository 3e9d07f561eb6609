"""What `self.log` gives equals the arithmetic done by hand over the same values."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from fulmen import Callback, LightningModule
from fulmen.loggers import CSVLogger

from .means import BATCHES, BY_SAMPLE, MEANS, VALUES, Mean, Vector, rows, values, with_name

pytestmark = pytest.mark.filterwarnings("ignore:.*but no validation data")  # most of these tests train only


# -- over an epoch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduce_fx", "expected"),
    [
        ("mean", BY_SAMPLE),
        ("avg", BY_SAMPLE),
        (torch.mean, BY_SAMPLE),
        ("sum", sum(MEANS)),
        (sum, sum(MEANS)),
        ("min", min(MEANS)),
        (torch.min, min(MEANS)),
        ("max", max(MEANS)),
        (max, max(MEANS)),
    ],
)
@pytest.mark.parametrize("as_number", [False, True])
def test_epoch_value_equals_the_arithmetic(trainer_of, reduce_fx, expected, as_number):
    def logs(module, value, batch_idx):
        module.log("x", value.item() if as_number else value, on_step=False, on_epoch=True, reduce_fx=reduce_fx)

    trainer = trainer_of(max_epochs=2)
    trainer.fit(Mean(logs), values())

    assert trainer.callback_metrics["x"].item() == pytest.approx(expected, rel=1e-7)
    (result,) = trainer.validate(Mean(logs), values(), verbose=False)
    assert result == {"x": pytest.approx(expected, rel=1e-7)}


def test_epoch_mean_of_many_values_is_exact_where_single_precision_is_not(trainer_of):
    numbers = torch.full((3000,), 0.1)
    numbers[0] = 1e6

    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True)

    (result,) = trainer_of().validate(Mean(logs), DataLoader(Vector(numbers), batch_size=1), verbose=False)

    assert result["x"] == pytest.approx(float(numbers.double().mean()), rel=1e-7)


def test_epoch_mean_weighs_by_what_batch_size_says(trainer_of):
    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True, batch_size=batch_idx + 1)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Mean(logs), values())

    expected = sum(mean * (index + 1) for index, mean in enumerate(MEANS)) / 6
    assert trainer.callback_metrics["x"].item() == pytest.approx(expected, rel=1e-7)


class Graphs(Vector):
    """Samples as graph libraries give them: a batch is one object, whose first tensor is no longer than its edges."""

    class Batch:
        def __init__(self, numbers):
            self.edges, self.numbers = torch.zeros(2, 17), numbers

        def __iter__(self):
            yield "edges", self.edges
            yield "numbers", self.numbers

        def mean(self):
            return self.numbers.mean()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(VALUES)


class Nothing:
    """A batch without any tensor that could be found."""

    def __init__(self, samples):
        self.samples = samples

    def mean(self):
        return torch.stack(self.samples).mean()


@pytest.mark.parametrize(
    "loader",
    [
        pytest.param(lambda: values(), id="ragged"),
        pytest.param(lambda: values(collate_fn=lambda s: Graphs.Batch(torch.stack(s))), id="graphs"),
        pytest.param(lambda: values(collate_fn=Nothing), id="no_tensor"),
        pytest.param(
            lambda: DataLoader(
                Vector(VALUES), batch_sampler=[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]], collate_fn=Nothing
            ),
            id="own_batches",
        ),
        pytest.param(
            lambda: DataLoader(
                Vector(VALUES), batch_sampler=BatchSampler(SequentialSampler(VALUES), 4, False), collate_fn=Nothing
            ),
            id="batch_sampler",
        ),
        pytest.param(lambda: DataLoader(BATCHES, batch_size=None), id="no_batching"),
        pytest.param(lambda: DataLoader(Stream(), batch_size=4), id="iterable_dataset"),
        pytest.param(lambda: DataLoader(Stream(), batch_size=4, num_workers=1), id="iterable_dataset_in_a_worker"),
        pytest.param(lambda: list(BATCHES), id="list"),
    ],
)
def test_epoch_mean_weighs_by_the_samples_really_in_a_batch(trainer_of, loader):
    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Mean(logs), loader(), loader())

    assert trainer.callback_metrics["x"].item() == pytest.approx(BY_SAMPLE, rel=1e-7)
    (result,) = trainer.validate(Mean(logs), loader(), verbose=False)
    assert result["x"] == pytest.approx(BY_SAMPLE, rel=1e-7)


def test_epoch_mean_of_dict_batches_weighs_by_samples(trainer_of):
    class OfDicts(Mean):
        def value(self, batch):
            return batch["x"].mean()

    class Dicts(Vector):
        def __getitem__(self, index):
            return {"name": str(index), "x": super().__getitem__(index)}

    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(OfDicts(logs), DataLoader(Dicts(VALUES), batch_size=4))

    assert trainer.callback_metrics["x"].item() == pytest.approx(BY_SAMPLE, rel=1e-7)


def test_epoch_mean_with_workers_weighs_by_samples(trainer_of):
    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True)

    (result,) = trainer_of().validate(Mean(logs), values(num_workers=2, collate_fn=Nothing), verbose=False)

    assert result["x"] == pytest.approx(BY_SAMPLE, rel=1e-7)


@pytest.mark.parametrize("other", [lambda: values(batch_size=6), lambda: DataLoader(Stream(), batch_size=6)])
def test_epoch_mean_over_several_loaders_with_workers_weighs_by_the_samples_of_the_first(trainer_of, other):
    places = []

    class OfParts(Mean):
        def value(self, batch):
            places.append(self.trainer.data.batch_indices)
            return batch["first"].mean()

    def logs(module, value, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True)

    trainer = trainer_of(max_epochs=2)
    trainer.fit(OfParts(logs), {"first": values(num_workers=1), "other": other()})

    assert trainer.callback_metrics["x"].item() == pytest.approx(BY_SAMPLE, rel=1e-7)
    assert places == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]] * 2


def test_epoch_value_starts_anew_in_each_epoch(trainer_of):
    seen = []

    class Looks(Mean):
        def on_train_epoch_end(self):
            seen.append(self.trainer.callback_metrics["x"].item())

    def logs(module, value, batch_idx):
        module.log("x", value + module.current_epoch, on_step=False, on_epoch=True)

    trainer_of(max_epochs=3).fit(Looks(logs), values())

    assert seen == pytest.approx([BY_SAMPLE, BY_SAMPLE + 1, BY_SAMPLE + 2])


def test_value_logged_twice_in_a_step_counts_twice(trainer_of):
    def logs(module, value, batch_idx):
        module.log("x", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")
        module.log("x", 2.0, on_step=False, on_epoch=True, reduce_fx="sum")

    (result,) = trainer_of().validate(Mean(logs), values(), verbose=False)

    assert result == {"x": 9.0}


def test_value_logged_in_some_steps_only_is_averaged_over_those(trainer_of):
    def logs(module, value, batch_idx):
        if batch_idx != 1:
            module.log("x", value, on_step=False, on_epoch=True)

    (result,) = trainer_of().validate(Mean(logs), values(), verbose=False)

    assert result["x"] == pytest.approx((MEANS[0] * 4 + MEANS[2] * 3) / 7, rel=1e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("reduce_fx", ["mean", "sum", "max"])
def test_value_that_is_not_finite_is_not_hidden(trainer_of, value, reduce_fx):
    def logs(module, mean, batch_idx):
        module.log("x", value if batch_idx == 1 else mean, on_step=False, on_epoch=True, reduce_fx=reduce_fx)

    (result,) = trainer_of().validate(Mean(logs), values(), verbose=False)

    assert math.isnan(result["x"]) if math.isnan(value) else result["x"] == value


@pytest.mark.parametrize(
    "value", [True, 3, 2.5, torch.tensor(3), torch.tensor([2.5]), torch.tensor(True), torch.tensor(2.5).bfloat16()]
)
def test_value_of_any_kind_of_number_is_logged(trainer_of, value):
    def logs(module, mean, batch_idx):
        module.log("x", value, on_step=True, on_epoch=True)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Mean(logs), values())

    assert trainer.callback_metrics["x_step"].item() == float(value)
    assert trainer.callback_metrics["x_epoch"].item() == float(value)


def test_value_in_double_precision_keeps_it(trainer_of):
    value = torch.tensor(1 / 3, dtype=torch.float64)

    def logs(module, mean, batch_idx):
        module.log("x", value, on_step=False, on_epoch=True, reduce_fx="max")

    (result,) = trainer_of().validate(Mean(logs), values(), verbose=False)

    assert result["x"] == 1 / 3


# -- names ------------------------------------------------------------------------------------------------------------


def test_name_forks_only_if_logged_per_step_and_per_epoch(trainer_of, tmp_path):
    def logs(module, value, batch_idx):
        module.log("both", value, on_step=True, on_epoch=True)
        module.log("step", value, on_step=True, on_epoch=False)
        module.log("epoch", value, on_step=False, on_epoch=True)

    trainer = trainer_of(max_epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    module = Mean(lambda m, v, i: (logs(m, v, i), m.log("plain", v)), stages=["train"])
    trainer.fit(module, values())

    names = {name for row in rows(tmp_path) for name in row}
    assert names - {"epoch", "step"} == {"both_step", "both_epoch", "plain"}
    assert set(trainer.callback_metrics) == {"both", "both_step", "both_epoch", "step", "epoch", "plain"}
    assert trainer.callback_metrics["both"] == trainer.callback_metrics["both_epoch"]
    assert trainer.callback_metrics["both_step"].item() == MEANS[-1]


def test_defaults_are_per_step_in_training_and_per_epoch_in_evaluation(trainer_of, tmp_path):
    trainer = trainer_of(max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    module = Mean(lambda m, v, i: m.log("train" if m.training else "val", v))
    trainer.fit(module, values(), values())

    found = rows(tmp_path)
    assert [row["train"] for row in with_name(found, "train")] == pytest.approx(MEANS * 2)
    assert [row["val"] for row in with_name(found, "val")] == pytest.approx([BY_SAMPLE] * 2)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_results_of_several_loaders_are_one_dict_each(trainer_of, stage):
    def logs(module, value, batch_idx):
        module.log("x", value)
        module.log("both", value, on_step=True, on_epoch=True)

    results = getattr(trainer_of(), stage)(Mean(logs), [values(), list(BATCHES[:1])], verbose=False)

    assert results == [
        {"x/dataloader_idx_0": pytest.approx(BY_SAMPLE), "both_epoch/dataloader_idx_0": pytest.approx(BY_SAMPLE)},
        {"x/dataloader_idx_1": MEANS[0], "both_epoch/dataloader_idx_1": MEANS[0]},
    ]


def test_results_without_the_number_of_the_loader_stand_under_names_of_ones_own(trainer_of):
    class Own(Mean):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log(f"x{dataloader_idx}", batch.mean(), add_dataloader_idx=False)

    loaders = [values(sampler=range(4)), values(sampler=range(4, 8))]
    results = trainer_of().validate(Own(), loaders, verbose=False)

    assert results == [{"x0": MEANS[0]}, {"x1": MEANS[1]}]


def test_results_hold_what_was_logged_at_the_end_of_the_epoch(trainer_of):
    class AtEnd(Mean):
        def on_test_epoch_end(self):
            self.log("end", 7.0)

    (result,) = trainer_of().test(AtEnd(lambda m, v, i: m.log("x", v)), values(), verbose=False)

    assert result == {"x": pytest.approx(BY_SAMPLE), "end": 7.0}


def test_log_dict_logs_each_item(trainer_of):
    def logs(module, value, batch_idx):
        module.log_dict({"one": value, "two": 2.0}, on_epoch=True, on_step=False)

    (result,) = trainer_of().validate(Mean(logs), values(), verbose=False)

    assert result == {"one": pytest.approx(BY_SAMPLE), "two": 2.0}


def test_results_are_printed_as_a_table_if_verbose(trainer_of, capsys):
    trainer_of().validate(Mean(lambda m, v, i: m.log("quality", 0.125)), values())

    printed = capsys.readouterr().out
    assert "quality" in printed
    assert "0.125" in printed


# -- where it is logged from ------------------------------------------------------------------------------------------


def test_values_logged_from_callbacks_equal_those_of_the_module(trainer_of):
    class Logs(Callback):
        def on_train_start(self, trainer, pl_module):
            self.log("at_start", 1.0)

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.log("batch_start", batch.mean(), on_step=True, on_epoch=True)

        def on_before_backward(self, trainer, pl_module, loss):
            pl_module.log("before_backward", 3.0)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.log_dict({"batch_end": batch.mean()}, on_step=False, on_epoch=True)

        def on_train_epoch_end(self, trainer, pl_module):
            self.log("epoch_end", trainer.callback_metrics["batch_end"] * 2)

        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            self.log("val", batch.mean())

        def on_validation_epoch_end(self, trainer, pl_module):
            self.log("val_end", trainer.callback_metrics["val"] * 2)

    trainer = trainer_of(max_epochs=1, callbacks=Logs(), num_sanity_val_steps=0)
    trainer.fit(Mean(), values(), values())

    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert found == {
        "at_start": 1.0,
        "batch_start_step": MEANS[-1],
        "batch_start_epoch": pytest.approx(BY_SAMPLE),
        "batch_start": pytest.approx(BY_SAMPLE),
        "before_backward": 3.0,
        "batch_end": pytest.approx(BY_SAMPLE),
        "epoch_end": pytest.approx(BY_SAMPLE * 2),
        "val": pytest.approx(BY_SAMPLE),
        "val_end": pytest.approx(BY_SAMPLE * 2),
    }


def test_callback_knows_no_log_after_the_run(trainer_of):
    class Logs(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.log("x", 1.0)

    callback = Logs()
    trainer_of(max_epochs=1, callbacks=callback).fit(Mean(), values())

    assert not hasattr(callback, "log")


def test_module_within_a_module_logs_as_its_parent(trainer_of):
    class Part(LightningModule):
        def forward(self, x):
            self.log("of_part", x.mean())
            return x

    class Whole(Mean):
        def __init__(self):
            super().__init__()
            self.part = Part()

        def training_step(self, batch, batch_idx):
            self.part(batch)
            return super().training_step(batch, batch_idx)

    trainer = trainer_of(max_epochs=1)
    trainer.fit(Whole(), values())

    assert trainer.callback_metrics["of_part"].item() == MEANS[-1]


# -- the value itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_epoch", [False, True])
def test_tensor_changed_in_place_after_log_keeps_the_logged_value(trainer_of, tmp_path, on_epoch):
    counter = torch.zeros(())

    def logs(module, value, batch_idx):
        counter.fill_(batch_idx + 1)
        module.log("x", counter, on_step=True, on_epoch=on_epoch, batch_size=1)
        counter.fill_(-100.0)

    trainer = trainer_of(max_epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(Mean(logs), values())

    name = "x_step" if on_epoch else "x"
    assert [row[name] for row in with_name(rows(tmp_path), name)] == [1.0, 2.0, 3.0]
    if on_epoch:
        assert trainer.callback_metrics["x_epoch"].item() == 2.0


@pytest.mark.parametrize("reduce_fx", ["mean", "sum", "min", "max"])
def test_tensor_changed_in_place_after_log_does_not_change_the_epoch_value(trainer_of, reduce_fx):
    counter = torch.zeros(())

    def logs(module, value, batch_idx):
        counter.fill_(batch_idx + 1)
        module.log("x", counter, on_step=False, on_epoch=True, batch_size=1, reduce_fx=reduce_fx)
        counter.fill_(100.0 if reduce_fx == "max" else -100.0)

    (result,) = trainer_of().validate(Mean(logs), values(), verbose=False)

    assert result["x"] == {"mean": 2.0, "sum": 6.0, "min": 1.0, "max": 3.0}[reduce_fx]


def test_callback_metrics_read_earlier_do_not_change_later(trainer_of):
    kept = []

    class Keeps(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            kept.append(trainer.callback_metrics["x"])

    trainer_of(max_epochs=1, callbacks=Keeps()).fit(Mean(lambda m, v, i: m.log("x", v)), values())

    assert [value.item() for value in kept] == MEANS


def test_progress_bar_metrics_are_only_those_asked_for(trainer_of):
    seen = []

    class Looks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(dict(trainer.progress_bar_metrics))

    def logs(module, value, batch_idx):
        module.log("shown", value, prog_bar=True)
        module.log("hidden", value)

    trainer_of(max_epochs=1, callbacks=Looks()).fit(Mean(logs), values())

    assert seen == [{"shown": mean} for mean in MEANS]


def test_value_with_logger_false_is_not_written_but_can_be_monitored(trainer_of, tmp_path):
    def logs(module, value, batch_idx):
        module.log("hidden", value, logger=False)
        module.log("written", value)

    trainer = trainer_of(max_epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    trainer.fit(Mean(logs), values())

    assert not with_name(rows(tmp_path), "hidden")
    assert trainer.callback_metrics["hidden"].item() == MEANS[-1]
    assert "hidden" not in trainer.logged_metrics


# -- metric objects ---------------------------------------------------------------------------------------------------


class Accuracy:
    """A metric as one writes it at home: no base class, and it counts how it is used."""

    def __init__(self):
        self.right = self.seen = self.resets = 0

    def update(self, numbers):
        self.right, self.seen = self.right + int((numbers > 0).sum()), self.seen + len(numbers)

    def compute(self):
        return self.right / self.seen

    def reset(self):
        self.right = self.seen = 0
        self.resets += 1


class WithMetric(Mean):
    def __init__(self, metric):
        super().__init__()
        self.metric = metric

    def training_step(self, batch, batch_idx):
        self.metric.update(batch)
        self.log("positive", self.metric, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.metric.update(batch)
        self.log("positive", self.metric)


def test_home_made_metric_is_computed_over_the_epoch_and_reset(trainer_of):
    module = WithMetric(Accuracy())
    trainer = trainer_of(max_epochs=2)
    trainer.fit(module, values())

    assert trainer.callback_metrics["positive"].item() == pytest.approx(9 / 11)
    assert (module.metric.seen, module.metric.resets) == (0, 2)
    (result,) = trainer.validate(module, values(), verbose=False)
    assert result == {"positive": pytest.approx(9 / 11)}


def test_torchmetrics_object_is_computed_over_the_epoch_and_per_step(trainer_of, tmp_path):
    torchmetrics = pytest.importorskip("torchmetrics")

    class WithMean(Mean):
        def __init__(self):
            super().__init__()
            self.metric = torchmetrics.MeanMetric()

        def training_step(self, batch, batch_idx):
            self.metric(batch)
            self.log("x", self.metric, on_step=True, on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.metric.update(batch)
            self.log("val", self.metric)

    trainer = trainer_of(max_epochs=2, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    module = WithMean()
    trainer.fit(module, values())

    found = rows(tmp_path)
    assert [row["x_step"] for row in with_name(found, "x_step")] == pytest.approx(MEANS * 2)
    assert [row["x_epoch"] for row in with_name(found, "x_epoch")] == pytest.approx([float(VALUES.mean())] * 2)
    (result,) = trainer.validate(module, values(), verbose=False)
    assert result == {"val": pytest.approx(float(VALUES.mean()))}


def test_torchmetrics_collection_is_logged_by_log_dict(trainer_of):
    torchmetrics = pytest.importorskip("torchmetrics")

    class WithCollection(Mean):
        def __init__(self):
            super().__init__()
            self.metrics = torchmetrics.MetricCollection(
                {"mean": torchmetrics.MeanMetric(), "max": torchmetrics.MaxMetric()}
            )

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.metrics.update(batch)
            self.log_dict(self.metrics)

    (result,) = trainer_of().validate(WithCollection(), values(), verbose=False)

    assert result == {"mean": pytest.approx(float(VALUES.mean())), "max": 9.0}


def test_loss_logged_beside_a_metric_equals_the_loss_over_all_samples(trainer_of):
    class Learns(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def validation_step(self, batch, batch_idx):
            self.log("loss", F.mse_loss(self.layer(batch.unsqueeze(1)), batch.unsqueeze(1)))

    module = Learns()
    (result,) = trainer_of().validate(module, values(), verbose=False)

    with torch.no_grad():
        expected = F.mse_loss(module.layer(VALUES.unsqueeze(1)), VALUES.unsqueeze(1))
    assert result["loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_enable_graph_is_ignored_with_a_warning(trainer_of):
    class KeepsNothing(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch).sum()
            self.log("loss", loss, enable_graph=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = trainer_of(max_steps=1)
    with pytest.warns(UserWarning, match="never keeps its graph"):
        trainer.fit(KeepsNothing(), [torch.ones(2, 1)])

    assert not trainer.callback_metrics["loss"].requires_grad
