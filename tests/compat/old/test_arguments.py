"""Arguments, attributes and assignments of Lightning 0.x and 1.x."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fulmen import LightningModule, Trainer
from fulmen.callbacks import EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from fulmen.compat import install, old, uninstall
from fulmen.loggers.logger import DummyLogger
from fulmen.profilers import SimpleProfiler
from fulmen.utilities.warnings import LightningDeprecationWarning

silent = pytest.mark.filterwarnings("ignore::fulmen.utilities.warnings.LightningDeprecationWarning")


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().mean()

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.tested = batch_idx

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Checked(Line):
    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


def ones(number: int) -> DataLoader[Tensor]:
    return DataLoader(torch.ones(number, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "line", "attribute", "value"),
    [
        ({"max_nb_epochs": 3}, "max_epochs=3", "max_epochs", 3),
        ({"nb_sanity_val_steps": 1}, "num_sanity_val_steps=1", "num_sanity_val_steps", 1),
        ({"train_percent_check": 0.5}, "limit_train_batches=0.5", "limit_train_batches", 0.5),
        ({"row_log_interval": 7}, "log_every_n_steps=7", "log_every_n_steps", 7),
        ({"gradient_clip": 0.5}, "gradient_clip_val=0.5", "gradient_clip_val", 0.5),
        ({"print_nan_grads": True}, "leave it out", "detect_anomaly", False),
        ({"enable_pl_optimizer": True}, "leave it out", "max_steps", -1),
        ({"move_metrics_to_cpu": True}, "leave it out", "max_steps", -1),
        ({"accumulate_grad_batches": None}, "leave it out", "accumulate_grad_batches", 1),
    ],
)
def test_arguments_of_that_time_are_taken_and_the_line_of_today_is_shown(
    enabled: None, tmp_path: Path, arguments: dict[str, Any], line: str, attribute: str, value: Any
) -> None:
    with pytest.warns(LightningDeprecationWarning, match=line):
        trainer = Trainer(default_root_dir=tmp_path, logger=False, enable_checkpointing=False, **arguments)
    assert getattr(trainer, attribute) == value


@silent
def test_arguments_that_became_callbacks_add_them(enabled: None, tmp_path: Path) -> None:
    own = EarlyStopping("loss")
    trainer = Trainer(
        default_root_dir=tmp_path,
        accumulate_grad_batches={2: 3},
        early_stop_callback=own,
        weights_save_path=str(tmp_path / "weights"),
        profiler=True,
    )
    assert next(c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)).scheduling == {0: 1, 2: 3}
    assert own in trainer.callbacks
    assert trainer.checkpoint_callback.dirpath == str(tmp_path / "weights")  # type: ignore[union-attr]
    assert len([one for one in trainer.callbacks if isinstance(one, ModelCheckpoint)]) == 1
    assert isinstance(trainer.profiler, SimpleProfiler)
    assert Trainer(early_stop_callback=True, logger=False).early_stopping_callback.patience == 3  # type: ignore[union-attr]


def test_folder_of_checkpoints_beside_a_callback_is_an_error_that_says_where_it_goes(enabled: None) -> None:
    with pytest.raises(TypeError, match=r"Write `dirpath='here'` into your ModelCheckpoint"):
        Trainer(weights_save_path="here", callbacks=[ModelCheckpoint()])


def test_without_the_translation_they_are_errors(tmp_path: Path) -> None:
    for arguments in ({"max_nb_epochs": 3}, {"track_grad_norm": 2}, {"profiler": True}):
        with pytest.raises(Exception, match=next(iter(arguments))):
            Trainer(default_root_dir=tmp_path, **arguments)


@silent
def test_norms_of_gradients_are_logged(enabled: None, quiet: Any) -> None:
    model = Line()
    trainer = quiet(track_grad_norm=2, logger=DummyLogger(), max_steps=1)
    weight = model.layer.weight.item() + model.layer.bias.item()
    trainer.fit(model, ones(1))
    total = trainer.callback_metrics["grad_2.0_norm_total"].item()
    assert total == pytest.approx(abs(2 * weight) * 2**0.5, rel=1e-4)


@silent
@pytest.mark.parametrize(("mode", "batches"), [("min_size", 2), ("max_size_cycle", 4)])
def test_several_loaders_end_as_the_trainer_was_told(enabled: None, quiet: Any, mode: str, batches: int) -> None:
    class Several(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch["a"] + batch["b"], batch_idx)

        def train_dataloader(self) -> Any:
            return {"a": ones(2), "b": ones(4)}

    loaders = {"a": ones(2), "b": ones(4)}
    for given in (loaders, None):
        trainer = quiet(multiple_trainloader_mode=mode)
        trainer.fit(Several(), given)
        assert trainer.global_step == batches


def test_keywords_of_verbs_are_taken_and_shown(enabled: None, quiet: Any) -> None:
    model, trainer = Checked(), quiet()
    with pytest.warns(LightningDeprecationWarning, match=r"Write `train_dataloaders=`"):
        trainer.fit(model, train_dataloader=ones(3), val_dataloaders=ones(1))
    with pytest.warns(LightningDeprecationWarning, match=r"Write `dataloaders=`"):
        trainer.test(model, test_dataloaders=ones(2), verbose=False)
    assert (trainer.global_step, model.tested) == (3, 1)


def test_attributes_that_went_are_read_and_the_line_of_today_is_shown(enabled: None, quiet: Any) -> None:
    class Looking(Line):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.checked = self.trainer.running_sanity_check

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            assert self.trainer.train_dataloader.loaders.dataset is self.trainer.train_dataloader.dataset
            assert (self.trainer.batch_idx, self.trainer.total_batch_idx) == (batch_idx, batch_idx)
            self.log("shown", 2.0, prog_bar=True)
            return super().training_step(batch, batch_idx)

    model, trainer = Looking(), quiet()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        trainer.fit(model, ones(3), ones(1))
        assert trainer.progress_bar_dict["shown"] == model.get_progress_bar_dict()["shown"] == 2
        assert (trainer.num_gpus, trainer.on_gpu, trainer.use_amp) == (0, False, False)
        assert trainer.training_type_plugin is trainer.strategy
        assert (trainer.lr_schedulers, trainer.disable_validation) == ([], False)
    assert model.checked is False
    messages = [str(warning.message) for warning in told]
    assert len(messages) == len(set(messages))  # one for each
    assert "`trainer.running_sanity_check` is the way of Lightning 1. Write `trainer.sanity_checking`." in messages
    assert not hasattr(Trainer, "nowhere")


@silent
def test_the_search_for_a_rate_is_where_it_was(enabled: None, quiet: Any) -> None:
    for search in (lambda trainer: trainer.tuner.lr_find, lambda trainer: trainer.lr_find):
        found = search(quiet())(Line(), ones(40), num_training=20)
        assert len(found.results["lr"]) > 10


@silent
@pytest.mark.parametrize("given", [Namespace(lr=0.5), {"lr": 0.5}])
def test_hyperparameters_may_be_assigned_and_come_back_from_a_file(
    enabled: None, quiet: Any, tmp_path: Path, given: Any
) -> None:
    class Module(Line):
        def __init__(self, hparams: Any) -> None:
            super().__init__()
            self.hparams = hparams

    trainer = quiet()
    trainer.fit(model := Module(given), ones(1))
    assert model.hparams.lr == 0.5
    trainer.save_checkpoint(tmp_path / "file.ckpt")
    assert Module.load_from_checkpoint(tmp_path / "file.ckpt").hparams.lr == 0.5


def test_a_value_that_is_no_collection_cannot_be_the_hyperparameters(enabled: None) -> None:
    with pytest.raises(TypeError, match="no collection of hyperparameters"):
        Line().hparams = 3


# -- on and off -------------------------------------------------------------------------------------------------------


def test_the_aliases_switch_it_on_with_the_first_class_that_runs_something_and_off_again() -> None:
    install(children=False)
    try:
        import pytorch_lightning as pl

        assert not old.is_enabled()
        assert pl.Trainer is Trainer
        assert old.is_enabled()
    finally:
        uninstall()
    assert not old.is_enabled()
    assert not hasattr(Trainer, "running_sanity_check")
    assert not hasattr(DataLoader, "loaders")


def test_each_message_comes_once_per_program(enabled: None, quiet: Any) -> None:
    class Model(Line):
        def training_epoch_end(self, outputs: Any) -> None: ...

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", LightningDeprecationWarning)
        for _ in range(2):
            quiet(max_epochs=2).fit(Model(), ones(2))
    messages = [str(warning.message) for warning in told if warning.category is LightningDeprecationWarning]
    assert len(messages) == 1
    assert "on_train_epoch_end(self)" in messages[0]


def test_a_modern_module_costs_not_one_call_more(quiet: Any) -> None:
    def calls() -> int:
        count = 0

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal count
            count += event == "call" and "training_step" not in frame.f_code.co_name

        trainer, model = quiet(max_epochs=1, limit_val_batches=0), Line()

        def begin(batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                sys.setprofile(profile)
            if batch_idx == 12:
                sys.setprofile(None)

        model.on_train_batch_start = begin  # type: ignore[method-assign]
        trainer.fit(model, list(torch.ones(14, 1, 1)))
        return count

    calls()
    plain = calls()
    old.enable()
    try:
        assert calls() == plain
    finally:
        old.disable()
