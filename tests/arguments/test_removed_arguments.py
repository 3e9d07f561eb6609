"""The Trainer's arguments of Lightning 1: written in today's way where that does the same, else the line to write."""

from __future__ import annotations

import inspect
import shlex
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from fulmen import LightningModule, Trainer
from fulmen.accelerators import AcceleratorRegistry, CPUAccelerator
from fulmen.callbacks import ModelCheckpoint, ModelSummary, NonFiniteGuard, TQDMProgressBar
from fulmen.callbacks.progress.progress_bar import ProgressBar
from fulmen.strategies import StrategyRegistry
from fulmen.strategies.ddp import DDPStrategy
from fulmen.trainer.removed_arguments import modern_arguments
from fulmen.utilities.warnings import LightningDeprecationWarning


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.steps_of_fits: list[int] = []

    def on_train_start(self) -> None:
        self.steps_of_fits.append(self.global_step)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().mean()

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(4, 1))  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def made(folder: Path, **arguments: Any) -> tuple[Trainer, str]:
    """A Trainer, and the one warning that it gives."""
    with pytest.warns(LightningDeprecationWarning) as given:
        trainer = Trainer(default_root_dir=folder, logger=False, **arguments)
    assert len(given) == 1
    assert given[0].filename == __file__
    return trainer, str(given[0].message)


def kinds(trainer: Trainer) -> set[type]:
    return {type(callback) for callback in trainer.callbacks}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"gpus": 0}, "Trainer(accelerator='cpu')"),
        ({"gpus": "0", "accelerator": "cpu"}, "Trainer(accelerator='cpu')"),
        ({"gpus": 0, "accelerator": None}, "Trainer(accelerator='cpu')"),
        ({"progress_bar_refresh_rate": 0}, "Trainer(enable_progress_bar=False)"),
        ({"checkpoint_callback": False}, "Trainer(enable_checkpointing=False)"),
        ({"weights_summary": None}, "Trainer(enable_model_summary=False)"),
        ({"replace_sampler_ddp": False}, "Trainer(use_distributed_sampler=False)"),
        ({"reload_dataloaders_every_epoch": True}, "Trainer(reload_dataloaders_every_n_epochs=1)"),
        ({"terminate_on_nan": True}, "Trainer(callbacks=[NonFiniteGuard()])"),
        ({"weights_summary": "full"}, "Trainer(callbacks=[ModelSummary(max_depth=-1)])"),
        ({"progress_bar_refresh_rate": 20}, "Trainer(callbacks=[TQDMProgressBar(refresh_rate=20)])"),
        (
            {"progress_bar_refresh_rate": 20, "process_position": 1},
            "Trainer(callbacks=[TQDMProgressBar(refresh_rate=20, process_position=1)])",
        ),
        ({"process_position": 1}, "Trainer(callbacks=[TQDMProgressBar(process_position=1)])"),
        ({"max_steps": None}, "Trainer(max_steps=-1)"),
        ({"distributed_backend": "ddp", "num_processes": 1}, "Trainer(strategy='ddp')"),
        ({"accelerator": "ddp"}, "Trainer(strategy='ddp')"),
        ({"accelerator": "ddp_cpu"}, "Trainer(accelerator='cpu', strategy='ddp_spawn')"),
        ({"resume_from_checkpoint": "a.ckpt"}, "trainer.fit(model, ckpt_path='a.ckpt')"),
        ({"auto_lr_find": True}, "Tuner(trainer).lr_find(model)"),
        ({"auto_scale_batch_size": "binsearch"}, "Tuner(trainer).scale_batch_size(model)"),
        ({"amp_backend": "native"}, "leave it out"),
        ({"gpus": None}, "leave it out"),
        ({"strategy": None, "devices": None}, "leave it out"),
        ({"num_processes": 1, "weights_summary": "top", "track_grad_norm": -1}, "leave it out"),
    ],
    ids=str,
)
def test_former_argument_is_taken_and_the_warning_shows_the_line(
    tmp_path: Path, arguments: dict[str, Any], line: str
) -> None:
    _, message = made(tmp_path, **arguments)

    assert line in message
    for name in arguments.keys() - {"accelerator"}:
        assert name in message


def test_former_arguments_do_what_they_did(tmp_path: Path) -> None:
    keeps = ModelCheckpoint()
    trainer, message = made(
        tmp_path,
        gpus=0,
        progress_bar_refresh_rate=0,
        weights_summary="full",
        terminate_on_nan=True,
        checkpoint_callback=keeps,
        replace_sampler_ddp=False,
        reload_dataloaders_every_epoch=True,
        max_steps=None,
    )

    assert trainer.accelerator.name() == "cpu"
    assert {ModelSummary, NonFiniteGuard, ModelCheckpoint} <= kinds(trainer)
    assert keeps in trainer.callbacks
    assert not [callback for callback in trainer.callbacks if isinstance(callback, ProgressBar)]
    assert trainer.use_distributed_sampler is False
    assert trainer.max_steps == -1
    assert "ModelCheckpoint(...)" in message


def test_callbacks_of_former_arguments_stand_beside_those_that_are_given(tmp_path: Path) -> None:
    keeps = ModelCheckpoint()
    trainer, message = made(tmp_path, callbacks=[keeps], progress_bar_refresh_rate=7)

    assert keeps in trainer.callbacks
    [bar] = [callback for callback in trainer.callbacks if isinstance(callback, TQDMProgressBar)]
    assert bar.refresh_rate == 7
    assert "callbacks=[..., TQDMProgressBar(refresh_rate=7)]" in message


def test_processes_on_the_cpu_are_devices(tmp_path: Path) -> None:
    trainer, message = made(tmp_path, accelerator="ddp_cpu", num_processes=2)

    assert "Trainer(accelerator='cpu', strategy='ddp_spawn', devices=2)" in message
    assert trainer.num_devices == 2
    assert isinstance(trainer.strategy, DDPStrategy)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"track_grad_norm": 2}, "`self.log_dict(grad_norm(self, norm_type=2))` in `on_before_optimizer_step`"),
        ({"stochastic_weight_avg": True}, "StochasticWeightAveraging"),
        ({"weights_save_path": "a"}, "ModelCheckpoint(dirpath='a')"),
        ({"flush_logs_every_n_steps": 10}, "CSVLogger('logs', flush_logs_every_n_steps=10)"),
        ({"multiple_trainloader_mode": "min_size"}, "CombinedLoader(loaders, 'min_size')"),
        ({"prepare_data_per_node": False}, "prepare_data_per_node = False"),
        ({"amp_backend": "apex"}, "precision='16-mixed'"),
        ({"amp_level": "O2"}, "precision='16-mixed'"),
        ({"log_gpu_memory": "all"}, "callbacks=[DeviceStatsMonitor()]"),
        ({"move_metrics_to_cpu": True}, "self.log(name, value.cpu())"),
        ({"auto_select_gpus": True}, "devices='auto'"),
        ({"ipus": 8}, "accelerator='auto'"),
        ({"accelerator": "dp"}, "strategy='ddp'"),
        ({"strategy": "dp"}, "strategy='ddp'"),
        ({"strategy": "ddp_sharded"}, "strategy='fsdp'"),
        ({"distributed_backend": "horovod"}, "torchrun"),
    ],
    ids=str,
)
def test_former_argument_that_nothing_replaces_is_refused_with_the_line_to_write(
    tmp_path: Path, arguments: dict[str, Any], line: str
) -> None:
    with pytest.raises(TypeError) as raised:
        Trainer(default_root_dir=tmp_path, **arguments)

    assert line in str(raised.value)
    assert next(iter(arguments)) in str(raised.value)


def test_all_that_is_gone_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"(?s)track_grad_norm.*weights_save_path"):
        Trainer(default_root_dir=tmp_path, track_grad_norm=2, weights_save_path="a", gpus=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"gpus": 0, "tpu_cores": 8},
        {"gpus": 0, "accelerator": "gpu"},
        {"accelerator": "ddp", "strategy": "fsdp"},
        {"checkpoint_callback": False, "enable_checkpointing": True},
    ],
    ids=str,
)
def test_contradictions_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="contradicts"):
        Trainer(default_root_dir=tmp_path, **arguments)


def test_gpus_ask_for_gpus(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has one")
    with (
        pytest.warns(LightningDeprecationWarning, match=r"Trainer\(accelerator='gpu', devices=2\)"),
        pytest.raises(Exception, match="accelerator='gpu'"),
    ):
        Trainer(default_root_dir=tmp_path, gpus=2)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"gpus": "0,1"}, {"accelerator": "gpu", "devices": "0,1"}),
        ({"gpus": [1], "accelerator": "cuda"}, {"accelerator": "cuda", "devices": [1]}),
        ({"gpus": 2, "num_processes": 2}, {"accelerator": "gpu", "devices": 2}),
        ({"gpus": "0", "num_processes": 2}, {"accelerator": "cpu", "devices": 2}),
        ({"gpus": 2, "accelerator": "ddp"}, {"accelerator": "gpu", "devices": 2, "strategy": "ddp"}),
        (
            {"gpus": -1, "accelerator": None, "strategy": "fsdp_native"},
            {"accelerator": "gpu", "devices": -1, "strategy": "fsdp"},
        ),
        ({"tpu_cores": 8}, {"accelerator": "tpu", "devices": 8}),
    ],
    ids=str,
)
def test_devices_that_this_machine_may_not_have_are_written_in_todays_way(
    then: dict[str, Any], now: dict[str, Any]
) -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}
    with pytest.warns(LightningDeprecationWarning):
        assert modern_arguments("Trainer", then, defaults) == (now, {})


def test_accelerator_of_ones_own_may_have_a_name_of_that_time(tmp_path: Path) -> None:
    AcceleratorRegistry.register("horovod", CPUAccelerator)
    try:
        trainer = Trainer(default_root_dir=tmp_path, accelerator="horovod", logger=False)
    finally:
        AcceleratorRegistry.remove("horovod")
    assert isinstance(trainer.accelerator, CPUAccelerator)


def test_strategy_of_ones_own_may_have_a_name_of_that_time(tmp_path: Path) -> None:
    StrategyRegistry.register("horovod", DDPStrategy, "mine")
    try:
        trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", strategy="horovod", logger=False)
    finally:
        StrategyRegistry.remove("horovod")
    assert isinstance(trainer.strategy, DDPStrategy)


def test_former_value_in_the_environment_is_taken_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_TRAINER_ACCELERATOR", "ddp_cpu")
    trainer, _ = made(tmp_path)

    assert isinstance(trainer.strategy, DDPStrategy)


def test_signature_shows_todays_arguments_only() -> None:
    names = set(inspect.signature(Trainer).parameters)

    assert "accelerator" in names
    assert not names & {"gpus", "resume_from_checkpoint", "auto_lr_find"}


# -- resume_from_checkpoint -------------------------------------------------------------------------------------------


def checkpoint_of_four_steps(folder: Path) -> Path:
    trainer = Trainer(default_root_dir=folder, max_epochs=1, **QUIET)
    trainer.fit(Line())
    trainer.save_checkpoint(folder / "four.ckpt")
    return folder / "four.ckpt"


QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def test_resume_from_checkpoint_is_where_the_first_fit_goes_on(tmp_path: Path) -> None:
    path = checkpoint_of_four_steps(tmp_path)
    with pytest.warns(LightningDeprecationWarning):
        trainer = Trainer(default_root_dir=tmp_path, max_epochs=2, resume_from_checkpoint=path, **QUIET)
    first, second = Line(), Line()

    trainer.fit(first)
    trainer.fit(second)

    assert (first.steps_of_fits, second.steps_of_fits) == ([4], [0])


def test_path_that_fit_is_given_wins_over_resume_from_checkpoint(tmp_path: Path) -> None:
    path = checkpoint_of_four_steps(tmp_path)
    with pytest.warns(LightningDeprecationWarning):
        trainer = Trainer(default_root_dir=tmp_path, max_epochs=2, resume_from_checkpoint="missing.ckpt", **QUIET)
    first, second = Line(), Line()

    trainer.fit(first, ckpt_path=path)
    trainer.fit(second)

    assert (first.steps_of_fits, second.steps_of_fits) == ([4], [0])


def test_resume_from_a_checkpoint_that_is_missing_fails_in_fit(tmp_path: Path) -> None:
    with pytest.warns(LightningDeprecationWarning):
        trainer = Trainer(default_root_dir=tmp_path, max_epochs=1, resume_from_checkpoint="missing.ckpt", **QUIET)

    with pytest.raises(FileNotFoundError, match=r"missing\.ckpt"):
        trainer.fit(Line())


# -- as options -------------------------------------------------------------------------------------------------------


def options(line: str) -> Namespace:
    return Trainer.add_argparse_args(ArgumentParser()).parse_args(shlex.split(line))


def test_former_options_are_taken_and_have_the_defaults_of_that_time() -> None:
    args = options("--gpus 0,1 --progress_bar_refresh_rate 0 --weights_summary None --track_grad_norm 2 --tpu_cores 8")

    assert (args.gpus, args.progress_bar_refresh_rate, args.weights_summary) == ("0,1", 0, None)
    assert (args.track_grad_norm, args.tpu_cores) == (2.0, 8)
    args = options("")
    assert (args.gpus, args.num_processes, args.weights_summary, args.auto_lr_find) == (None, 1, "top", False)


def test_former_options_are_not_in_the_help() -> None:
    text = Trainer.add_argparse_args(ArgumentParser()).format_help()

    assert "--accelerator" in text
    assert "--gpus" not in text
    assert "--weights_summary" not in text


def test_former_options_that_are_not_written_change_nothing(tmp_path: Path) -> None:
    args = options(f"--max_epochs 2 --accelerator cpu --default_root_dir {tmp_path}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer = Trainer.from_argparse_args(args)

    assert trainer.max_epochs == 2


def test_former_options_that_are_written_are_taken_with_one_warning(tmp_path: Path) -> None:
    args = options(f"--gpus 0 --progress_bar_refresh_rate 0 --checkpoint_callback False --default_root_dir {tmp_path}")
    with pytest.warns(LightningDeprecationWarning) as given:
        trainer = Trainer.from_argparse_args(args)

    assert len(given) == 1
    expected = "Trainer(enable_checkpointing=False, accelerator='cpu', enable_progress_bar=False)"
    assert expected in str(given[0].message)
    assert given[0].filename == __file__
    assert not trainer.checkpoint_callbacks


def test_option_of_ones_own_with_a_name_of_that_time_comes_first() -> None:
    parser = ArgumentParser()
    parser.add_argument("--gpus", type=int, default=0, help="mine")

    text = Trainer.add_argparse_args(parser).format_help()

    assert "mine" in text


def test_subclass_with_arguments_of_its_own_offers_those() -> None:
    class Mine(Trainer):
        def __init__(self, width: int = 3, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    assert Mine.add_argparse_args(ArgumentParser()).parse_args([]) == Namespace(width=3)


# -- tune -------------------------------------------------------------------------------------------------------------


def test_tune_without_anything_to_search_says_so(tmp_path: Path) -> None:
    trainer = Trainer(default_root_dir=tmp_path, **QUIET)

    with pytest.warns(LightningDeprecationWarning, match=r"does nothing.*Tuner\(trainer\)\.lr_find\(model\)"):
        assert trainer.tune(Line()) == {}


class Rated(Line):
    def __init__(self, lr: float = 1e-5, batch_size: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(64, 1), batch_size=self.hparams.batch_size)  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def test_tune_searches_the_batch_size_and_then_the_rate_as_the_trainer_was_told(tmp_path: Path) -> None:
    with pytest.warns(LightningDeprecationWarning):
        trainer = Trainer(
            default_root_dir=tmp_path, auto_scale_batch_size="power", auto_lr_find="lr", max_epochs=1, **QUIET
        )
    module = Rated()

    with pytest.warns(LightningDeprecationWarning, match=r"scale_batch_size\(model\).*lr_find\(model\)"):
        results = trainer.tune(module, scale_batch_size_kwargs={"max_trials": 2}, lr_find_kwargs={"num_training": 20})

    assert results["scale_batch_size"] == module.hparams.batch_size > 2
    assert results["lr_find"].suggestion() == module.hparams.lr != 1e-5
