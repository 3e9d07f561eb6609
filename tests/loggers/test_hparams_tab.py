"""TensorBoard's tab HPARAMS, as TensorBoard itself answers what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers import TensorBoardLogger


def table(folder: Path, *metrics: str) -> dict[str, tuple[dict[str, Any], dict[str, float]]]:
    """The hyperparameters and the metrics of each run in ``folder``."""
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    backend = backend_context.Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))
    columns = [api_pb2.ColParams(metric=api_pb2.MetricName(tag=tag)) for tag in metrics]
    ask = api_pb2.ListSessionGroupsRequest(slice_size=9, allowed_statuses=[0, 1, 2, 3], col_params=columns)
    answer = list_session_groups.Handler(context.RequestContext(), backend, "", ask).run()
    return {
        group.name: (
            {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()},
            {value.name.tag: value.value for value in group.metric_values},
        )
        for group in answer.session_groups
    }


class Model(BoringModel):
    def __init__(self, lr: float, sizes: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        self.log("hp_metric", self.hparams["lr"] * 8 + batch_idx)
        return super().training_step(batch, batch_idx)


class Silent(BoringModel):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()


def run(trainer_of: Any, folder: Path, model: BoringModel, name: str, **options: Any) -> Any:
    logger = TensorBoardLogger(folder, name="", version=name, **options)
    trainer = trainer_of(
        logger=logger,
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=0,
        limit_test_batches=1,
        log_every_n_steps=1,
    )
    trainer.fit(model)
    return trainer


def test_runs_stand_side_by_side_with_their_last_metric(trainer_of, tmp_path):
    run(trainer_of, tmp_path, Model(0.125), "a")
    run(trainer_of, tmp_path, Model(0.25), "b")
    run(trainer_of, tmp_path, Silent(0.5), "c")
    assert table(tmp_path, "hp_metric") == {
        "a": ({"lr": 0.125, "sizes": "[1, 2]"}, {"hp_metric": 2.0}),
        "b": ({"lr": 0.25, "sizes": "[1, 2]"}, {"hp_metric": 3.0}),
        "c": ({"lr": 0.5}, {"hp_metric": -1.0}),
    }


def test_a_test_leaves_the_metric_of_the_fit(trainer_of, tmp_path):
    model = Model(0.125)
    run(trainer_of, tmp_path, model, "a").test(model, verbose=False)
    later = TensorBoardLogger(tmp_path, name="", version="a")  # in a program of its own
    trainer_of(logger=later, limit_test_batches=1).test(model, verbose=False)
    assert table(tmp_path, "hp_metric")["a"][1] == {"hp_metric": 2.0}


@pytest.mark.parametrize("prefix", ["", "own"])
def test_metrics_that_are_given_follow_what_is_logged_later(trainer_of, tmp_path, prefix):
    logger = TensorBoardLogger(tmp_path, name="", version="a", default_hp_metric=False, prefix=prefix)
    logger.log_hyperparams({"lr": 0.5, "net": {"width": 8}}, {"acc": 0.0, "f1": 0.0})
    logger.log_metrics({"acc": 0.75, "f1": 0.5}, step=9)
    logger.finalize("success")
    before = f"{prefix}-" if prefix else ""
    assert table(tmp_path, f"{before}acc", f"{before}f1")["a"] == (
        {"lr": 0.5, "net/width": 8.0},
        {f"{before}acc": 0.75, f"{before}f1": 0.5},
    )
