from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from fulmen.loggers import TensorBoardLogger
from fulmen.utilities.rank_zero import rank_zero_only


def events_of(directory: str) -> EventAccumulator:
    return EventAccumulator(directory).Reload()


def hparams_of(directory: str) -> tuple[dict, list[str]]:
    """The hyperparameters and the names of the metrics in TensorBoard's tab HPARAMS."""
    contents = events_of(directory).PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info
    experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return values, [info.name.tag for info in experiment.metric_infos]


def test_tensorboard_numbers_read_back_with_their_steps(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": torch.tensor([0.1]), "n": 3}, step=2**40)
    logger.log_metrics({"loss": 0.25}, step=2**40 + 1)
    logger.finalize("success")
    events = events_of(logger.log_dir)
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (2**40, torch.tensor(0.1).item()),
        (2**40 + 1, 0.25),
    ]
    assert [event.value for event in events.Scalars("n")] == [3.0]


def test_tensorboard_dict_value_becomes_several_lines(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": {"train": 1.0, "val": 2.0}}, step=1)
    logger.finalize("success")
    for name, value in (("train", 1.0), ("val", 2.0)):
        assert [event.value for event in events_of(f"{logger.log_dir}/loss_{name}").Scalars("loss")] == [value]
    logger.experiment.close()


@pytest.mark.parametrize("value", ["1.5", [1.0], torch.ones(2), None])
def test_tensorboard_value_that_is_no_number_is_refused_by_name(tmp_path, value):
    with pytest.raises(ValueError, match="cannot show the metric 'loss'"):
        TensorBoardLogger(tmp_path).log_metrics({"loss": value})


def test_tensorboard_prefix_stands_before_every_name(tmp_path):
    logger = TensorBoardLogger(tmp_path, prefix="big")
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.log_hyperparams({"lr": 0.5}, metrics={"acc": 0.0})
    logger.finalize("success")
    assert events_of(logger.log_dir).Tags()["scalars"] == ["big-loss", "big-acc"]
    assert hparams_of(logger.log_dir)[1] == ["big-acc"]


def test_tensorboard_directory_has_version_and_sub_dir(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="runs", version=4, sub_dir="a")
    assert (logger.name, logger.version, logger.sub_dir) == ("runs", 4, "a")
    assert logger.save_dir == str(tmp_path)
    assert logger.root_dir == str(tmp_path / "runs")
    assert logger.log_dir == str(tmp_path / "runs" / "version_4" / "a")
    logger.finalize("success")
    assert not (tmp_path / "runs").exists()
    logger.save()
    assert any(name.startswith("events.out.tfevents") for name in os.listdir(logger.log_dir))
    assert TensorBoardLogger(tmp_path, name="runs").version == 5
    assert TensorBoardLogger(tmp_path, name=None, version="mine").log_dir == str(tmp_path / "mine")
    logger.finalize("success")


def test_tensorboard_hyperparameters_are_shown_flat_with_the_default_metric(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.5, "on": True, "net": {"width": 8, "path": Path("x")}, "sizes": [1, 2], "no": None})
    logger.finalize("success")
    values, metrics = hparams_of(logger.log_dir)
    assert values == {"lr": 0.5, "on": True, "net/width": 8.0, "net/path": "x", "sizes": "[1, 2]"}
    assert metrics == ["hp_metric"]
    assert [event.value for event in events_of(logger.log_dir).Scalars("hp_metric")] == [-1.0]


@pytest.mark.parametrize(("metrics", "names"), [(0.5, ["hp_metric"]), ({"acc": 0.5}, ["acc"])])
def test_tensorboard_hyperparameters_are_shown_with_the_metrics_given(tmp_path, metrics, names):
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    logger.log_hyperparams({"lr": 0.5})  # shows nothing, so that the metrics below are the first
    logger.log_hyperparams({"lr": 0.5}, metrics, step=7)
    logger.finalize("success")
    assert hparams_of(logger.log_dir) == ({"lr": 0.5}, names)
    assert [(event.step, event.value) for event in events_of(logger.log_dir).Scalars(names[0])] == [(7, 0.5)]


def test_tensorboard_hyperparameters_are_kept_nested_in_yaml(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.5, "net": {"width": 8}})
    logger.save()
    logger.log_hyperparams({"more": 1})
    logger.finalize("success")
    assert yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text()) == {
        "lr": 0.5,
        "net": {"width": 8},
        "more": 1,
    }


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout())
        self.frozen = nn.Dropout().eval()
        self.example_input_array = torch.ones(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.layer(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_tensorboard_graph_is_written_and_leaves_the_model_as_it_was(tmp_path):
    model = Net()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    logger = TensorBoardLogger(tmp_path, log_graph=True)
    logger.log_graph(model)
    logger.finalize("success")
    assert b"Linear" in events_of(logger.log_dir).Graph().SerializeToString()
    assert model.training
    assert model.layer[2].training
    assert not model.frozen.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_tensorboard_graph_without_an_input_warns(tmp_path):
    with pytest.warns(UserWarning, match="example_input_array"):
        TensorBoardLogger(tmp_path, log_graph=True).log_graph(nn.Linear(2, 2))


def test_tensorboard_graph_not_asked_for_writes_nothing(tmp_path):
    TensorBoardLogger(tmp_path).log_graph(Net())
    assert os.listdir(tmp_path) == []


def test_tensorboard_second_run_with_the_same_logger_goes_on_in_its_directory(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.finalize("success")
    logger.log_metrics({"loss": 2.0}, step=1)
    logger.finalize("success")
    assert [event.value for event in events_of(logger.log_dir).Scalars("loss")] == [1.0, 2.0]


def test_tensorboard_logger_can_be_pickled_in_mid_run(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    again = pickle.loads(pickle.dumps(logger))
    assert again.log_dir == logger.log_dir
    logger.finalize("success")


def test_tensorboard_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = TensorBoardLogger(tmp_path, log_graph=True)
    logger.log_metrics({"loss": 1.0})
    logger.log_hyperparams({"a": 1})
    logger.log_graph(Net())
    logger.experiment.add_text("a", "b")
    logger.save()
    logger.finalize("success")
    assert os.listdir(tmp_path) == []


def test_tensorboard_missing_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulmen\[tensorboard\]'"):
        TensorBoardLogger(tmp_path)


def test_tensorboardx_is_used_where_tensorboard_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.log_hyperparams({"lr": 0.5, "on": True})
    logger.finalize("success")
    assert type(logger.experiment).__module__.startswith("tensorboardX")
    assert [event.value for event in events_of(logger.log_dir).Scalars("loss")] == [0.5]
    assert hparams_of(logger.log_dir) == ({"lr": 0.5, "on": True}, ["hp_metric"])
