"""Metrics logged as their documentation shows it for Lightning: objects, collections, values, resets."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MeanSquaredError, MetricCollection, MetricTracker, MinMaxMetric, SumMetric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassRecall,
)


def batches(n=24, size=5):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=size)


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Linear(4, 3)

    def loss(self, batch):
        x, y = batch
        logits = self.net(x)
        return torch.nn.functional.cross_entropy(logits, y), logits.softmax(-1), y

    def training_step(self, batch, batch_idx):
        return self.loss(batch)[0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **options):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        max_epochs=options.pop("max_epochs", 2),
        logger=options.pop("logger", False),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )


def test_metric_object_is_computed_over_the_epoch_and_reset(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.accuracy = MulticlassAccuracy(3, average="micro")
            self.seen = SumMetric()

        def training_step(self, batch, batch_idx):
            loss, probabilities, y = self.loss(batch)
            self.accuracy(probabilities, y)
            self.seen.update(len(y))
            self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
            self.log("seen", self.seen, on_step=False, on_epoch=True)
            return loss

    model, run = Model(), trainer(tmp_path)
    run.fit(model, batches())
    assert run.callback_metrics["seen"] == 24
    assert 0 < run.callback_metrics["accuracy_epoch"] < 1
    assert "accuracy_step" in run.callback_metrics
    assert model.accuracy.update_count == 0
    assert model.seen.update_count == 0


def test_collection_is_logged_at_once(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            metrics = MetricCollection({"f1": MulticlassF1Score(3), "recall": MulticlassRecall(3)})
            self.train_metrics, self.val_metrics = metrics.clone(prefix="train_"), metrics.clone(prefix="val_")

        def training_step(self, batch, batch_idx):
            loss, probabilities, y = self.loss(batch)
            self.log_dict(self.train_metrics(probabilities, y))
            return loss

        def validation_step(self, batch, batch_idx):
            _, probabilities, y = self.loss(batch)
            self.val_metrics.update(probabilities, y)

        def on_validation_epoch_end(self):
            self.log_dict(self.val_metrics.compute())
            self.val_metrics.reset()

    run = trainer(tmp_path)
    run.fit(Model(), batches(), batches())
    assert {"train_f1", "train_recall", "val_f1", "val_recall"} <= {*run.callback_metrics}


def test_collection_with_compute_groups_is_logged_as_objects(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.metrics = MetricCollection([MulticlassF1Score(3), MulticlassRecall(3)], compute_groups=True)

        def validation_step(self, batch, batch_idx):
            _, probabilities, y = self.loss(batch)
            self.metrics(probabilities, y)
            self.log_dict(self.metrics)

    model, run = Model(), trainer(tmp_path)
    (result,) = run.validate(model, batches(), verbose=False)
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    expected = MulticlassF1Score(3)(model.net(x).softmax(-1), y)
    assert result["MulticlassF1Score"] == pytest.approx(expected.item())


def test_metrics_in_containers_are_found_by_their_attribute(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.metrics = torch.nn.ModuleDict({"mean": MeanMetric(), "list": torch.nn.ModuleList([MeanMetric()])})

        def test_step(self, batch, batch_idx):
            for metric in (self.metrics["mean"], self.metrics["list"][0]):
                metric.update(batch[0].sum())
            self.log("mean", self.metrics["mean"])
            self.log("listed", self.metrics["list"][0])

    (result,) = trainer(tmp_path).test(Model(), batches(), verbose=False)
    assert result["mean"] == result["listed"]


def test_metric_that_is_no_attribute_is_refused(tmp_path):
    class Model(Classifier):
        def training_step(self, batch, batch_idx):
            metric = MeanMetric()
            metric.update(1.0)
            self.log("mean", metric)
            return self.loss(batch)[0]

    with pytest.raises(Exception, match="attribute"):
        trainer(tmp_path).fit(Model(), batches())


def test_metric_that_is_early_stoppings_monitor_stops_the_run(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.error = MeanSquaredError()

        def validation_step(self, batch, batch_idx):
            self.error.update(torch.ones(2), torch.zeros(2))
            self.log("error", self.error)

    stop = L.pytorch.callbacks.EarlyStopping("error", patience=1)
    run = trainer(tmp_path, max_epochs=10, callbacks=[stop])
    run.fit(Model(), batches(), batches())
    assert run.current_epoch == 2


def test_state_is_kept_out_of_checkpoints_unless_it_is_persistent(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.forgets, self.keeps = SumMetric(), SumMetric()
            self.keeps.persistent(True)

        def training_step(self, batch, batch_idx):
            self.keeps.update(1)
            return self.loss(batch)[0]

    model, run = Model(), trainer(tmp_path)
    run.fit(model, batches())
    run.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=False)["state_dict"]
    assert "keeps.sum_value" in state
    assert "forgets.sum_value" not in state


def test_tracker_follows_a_metric_over_epochs(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.tracker = MetricTracker(MulticlassAccuracy(3), maximize=True)

        def on_validation_epoch_start(self):
            self.tracker.increment()

        def validation_step(self, batch, batch_idx):
            _, probabilities, y = self.loss(batch)
            self.tracker.update(probabilities, y)

        def on_validation_epoch_end(self):
            self.log("best", self.tracker.best_metric())

    model, run = Model(), trainer(tmp_path, num_sanity_val_steps=0)
    run.fit(model, batches(), batches())
    assert model.tracker.n_steps == 2
    assert run.callback_metrics["best"] == pytest.approx(model.tracker.compute_all().max().item())


def test_wrapper_and_matrix_are_computed_at_the_epochs_end(tmp_path):
    class Model(Classifier):
        def __init__(self):
            super().__init__()
            self.range = MinMaxMetric(MulticlassAccuracy(3))
            self.matrix = MulticlassConfusionMatrix(3)

        def validation_step(self, batch, batch_idx):
            _, probabilities, y = self.loss(batch)
            self.range.update(probabilities, y)
            self.matrix.update(probabilities, y)

        def on_validation_epoch_end(self):
            self.log_dict(self.range.compute())
            self.total = int(self.matrix.compute().sum())
            self.matrix.reset()

    model, run = Model(), trainer(tmp_path)
    (result,) = run.validate(model, batches(), verbose=False)
    assert {"raw", "min", "max"} <= {*result}
    assert model.total == 24


def test_two_processes_reduce_a_metric_over_all_samples(tmp_path):
    run = trainer(tmp_path, strategy="ddp_spawn", devices=2)
    (result,) = run.validate(Counting(), batches(), verbose=False)
    assert result["seen"] == 24


class Counting(Classifier):
    def __init__(self):
        super().__init__()
        self.seen = SumMetric()

    def validation_step(self, batch, batch_idx):
        self.seen.update(len(batch[0]))
        self.log("seen", self.seen)
