"""The inside of Lightning's trainer that packages reach for, row by row of the table."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import fulmen
from fulmen import Callback, LightningModule, Trainer
from fulmen.callbacks import EarlyStopping, ModelCheckpoint
from fulmen.trainer.views import OF_CLASSES, OVERRIDDEN, TABLE, View

from . import views_run

ACTIONS = ("run", "setup_data", "log_metrics", "_print_results", "dump_checkpoint", "save_checkpoint")
OFFERED = [row for row in TABLE if row.read is not None]
#: what gives a value: actions are tested one by one below
CHAINS = [
    row.path
    for row in OFFERED
    if row.path.split(".")[-1] not in ACTIONS and not row.path.startswith(("_checkpoint_connector.re", "_callback"))
]
RECORD = json.loads(Path(__file__).with_name("views_of_lightning.json").read_text())
AT_EPOCH_START = "until the first batch of an epoch Lightning has the counters of the epoch before"
BOTH = "`fit` and `validate` share what they know of a stage's loaders"
#: where the value is another one than Lightning's, by the chain and the hook, and why
DIFFERENCES = {
    ("fit_loop.batch_idx", "on_train_epoch_start"): AT_EPOCH_START,
    ("fit_loop.epoch_loop.batch_idx", "on_train_epoch_start"): AT_EPOCH_START,
    ("fit_loop.epoch_loop.batch_progress", "on_train_epoch_start"): AT_EPOCH_START,
    ("fit_loop.epoch_loop.automatic_optimization", "on_train_epoch_start"): AT_EPOCH_START,
    ("fit_loop.done", "on_train_epoch_end"): "the epoch is not counted yet",
    ("fit_loop.epoch_progress.current.completed", "on_train_epoch_end"): "Lightning counts the last epoch earlier",
    ("fit_loop.max_batches", "_epoch_end 2"): "the loaders of `fit` are let go with its run",
    ("fit_loop.epoch_loop.val_loop", "_epoch_end 2"): "the loaders of `fit` are let go with its run",
    ("validate_loop", ""): BOTH,
    ("test_loop", "on_predict_epoch_end"): "the loaders of a verb are let go with its run",
    ("_evaluation_loop", "_epoch_end 2"): "there is one evaluation, that of the verb",
    ("fit_loop.current_epoch", ""): "it is of Lightning 1",
    ("fit_loop.global_step", ""): "it is of Lightning 1",
    ("predict_loop.epoch_batch_indices", ""): "Lightning keeps them for a writer alone",
    ("_results", ""): "there is one set of values, not one for each loop",
}


@functools.cache
def read_here() -> dict[str, dict[str, Any]]:
    return views_run.values(fulmen, CHAINS)


def differs_by_design(chain: str, moment: str) -> bool:
    return any(chain.startswith(start) and hook in moment for start, hook in DIFFERENCES)


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_the_table_gives_what_lightning_gives_at_each_moment_of_a_run(chain: str) -> None:
    wrong = [
        (moment, read_here()[moment][chain], value)
        for (of, moment), value in views_run.told(RECORD).items()
        if of == chain and not differs_by_design(chain, moment) and read_here()[moment][chain] != value
    ]
    assert chain in RECORD
    assert not wrong, "at, here, in Lightning:\n" + "\n".join(map(str, wrong))


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_of_the_table_resolves_within_a_run(chain: str) -> None:
    at = {moment: of_all[chain] for moment, of_all in read_here().items() if "on_predict_epoch_end" in moment}
    assert "AttributeError" not in at.values()


# -- what is not offered ----------------------------------------------------------------------------------------------


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def train_dataloader(self) -> Any:
        return DataLoader(torch.ones(6, 2), batch_size=2)  # type: ignore[arg-type]


def trainer_for(folder: Path, *callbacks: Any, **arguments: Any) -> Trainer:
    arguments = {"max_epochs": 2, "enable_checkpointing": False, **arguments}
    return Trainer(
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks],
        default_root_dir=folder,
        **arguments,
    )


@pytest.mark.parametrize("row", [row for row in TABLE if row.read is None], ids=lambda row: row.path)
def test_a_row_that_is_not_offered_says_what_to_write(row: Any, tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    with pytest.raises(AttributeError, match=r"Here it is") as caught:
        functools.reduce(getattr, row.path.split("."), trainer)
    assert row.modern in str(caught.value)


def test_a_name_that_is_in_no_row_is_an_error_that_points_to_the_list(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    with pytest.raises(
        AttributeError, match=r"trainer\.fit_loop\.epoch_loop\.batch_progres` is not there.*batch_progress"
    ):
        _ = trainer.fit_loop.epoch_loop.batch_progres
    assert not hasattr(trainer.fit_loop, "prefetcher")


def test_a_loop_that_is_put_in_the_place_of_ours_is_refused(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    with pytest.raises(AttributeError, match="Write a hook"):
        trainer.fit_loop = object()  # type: ignore[assignment,misc]
    with pytest.raises(AttributeError, match="epoch_loop"):
        trainer.fit_loop.epoch_loop = object()


def test_a_view_lists_what_it_has_and_equals_another_of_the_same_place(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    assert {"max_epochs", "epoch_loop", "epoch_progress"} <= set(dir(trainer.fit_loop))
    assert trainer.fit_loop.epoch_loop == trainer.fit_loop.epoch_loop != trainer.fit_loop
    assert isinstance(trainer.fit_loop, View)


# -- writes -----------------------------------------------------------------------------------------------------------


def test_max_epochs_set_through_the_loop_ends_the_training_there(tmp_path: Path) -> None:
    class Longer(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.fit_loop.max_epochs = 3

    trainer = trainer_for(tmp_path, Longer(), max_epochs=1)
    trainer.fit(Model())
    assert (trainer.current_epoch, trainer.max_epochs) == (3, 3)


def test_a_program_that_sets_where_the_run_stands_goes_on_from_there(tmp_path: Path) -> None:
    seen = []

    class Further(Model):
        def on_train_start(self) -> None:
            loop = self.trainer.fit_loop
            loop.epoch_progress.current.completed = 5
            loop.epoch_progress.current.processed = 5
            loop.epoch_loop.manual_optimization.optim_step_progress.total.completed = 70
            loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 70
            loop.epoch_loop.batch_progress.total.ready = 81
            loop.epoch_loop.batch_progress.total.completed = 80
            loop.epoch_loop._batches_that_stepped = 70
            seen.append((self.current_epoch, self.global_step, loop.epoch_loop.total_batch_idx))

    trainer = trainer_for(tmp_path, max_epochs=6)
    trainer.fit(Further())
    assert seen == [(5, 70, 80)]
    assert (trainer.current_epoch, trainer.global_step, trainer.progress.batches_that_stepped) == (6, 73, 73)


def test_the_place_in_the_epoch_cannot_be_set(tmp_path: Path) -> None:
    class Back(Model):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.trainer.fit_loop.epoch_loop.batch_progress.current.ready = 7

    with pytest.raises(AttributeError, match=r"cannot be set.*trainer\.progress\.batches_done"):
        trainer_for(tmp_path).fit(Back())


def test_a_step_that_a_program_counts_itself_in_manual_optimization_counts_once(tmp_path: Path) -> None:
    class Manual(Model):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer = self.optimizers().optimizer
            optimizer.zero_grad()
            self.manual_backward(self.layer(batch).sum())
            optimizer.step()

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed += 1

    trainer = trainer_for(tmp_path)
    with pytest.warns(UserWarning, match="counted already"):
        trainer.fit(Manual())
    assert trainer.global_step == 6


def test_callbacks_appended_and_should_stop_work_in_the_middle_of_a_run(tmp_path: Path) -> None:
    heard = []

    class Listener(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            heard.append(trainer.global_step)
            trainer.should_stop = True

    class Model2(Model):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.trainer.callbacks.append(Listener())

    trainer_for(tmp_path).fit(Model2())
    assert heard == [3]  # from the next batch on


def test_optimizers_set_through_the_strategy_are_stepped_from_the_next_epoch_on(tmp_path: Path) -> None:
    class Switch(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                assert trainer.strategy.optimizers == trainer.optimizers
                trainer.strategy.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=0.0)]

    class Weights(Model):
        def on_train_epoch_end(self) -> None:
            kept.append(self.layer.weight.detach().clone())

    kept: list[torch.Tensor] = []
    trainer_for(tmp_path, Switch(), max_epochs=2).fit(Weights())
    assert torch.equal(kept[0], kept[1])


# -- actions ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_put_back_piece_by_piece_within_a_run(tmp_path: Path) -> None:
    path, seen = tmp_path / "first.ckpt", []

    class Return(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: Model) -> None:
            files, optimizer = trainer._checkpoint_connector, trainer.optimizers[0]
            momentum = optimizer.state[pl_module.layer.weight]["momentum_buffer"]
            if trainer.current_epoch == 0:
                trainer.save_checkpoint(path)
                seen.append((pl_module.layer.weight.detach().clone(), momentum.clone()))
            else:
                files.resume_start(checkpoint_path=path)
                assert files._loaded_checkpoint["global_step"] == 3
                files.restore_datamodule()
                files.restore_model()
                files.restore_precision_plugin_state()
                files.restore_optimizers_and_schedulers()
                files.resume_end()
                momentum = optimizer.state[pl_module.layer.weight]["momentum_buffer"]
                seen.append((pl_module.layer.weight.detach().clone(), momentum.clone()))
                assert files._loaded_checkpoint == {}

    trainer_for(tmp_path, Return()).fit(Model())
    assert all(torch.equal(*pair) for pair in zip(*seen))


def test_dump_checkpoint_gives_what_a_file_holds(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path)
    trainer.fit(Model())
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    dumped = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    assert dumped.keys() == torch.load(tmp_path / "saved.ckpt", weights_only=True).keys()


def test_the_table_of_results_can_be_replaced_by_one_of_the_programs_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[Any] = []

    class Tested(Model):
        def on_test_start(self) -> None:
            self.trainer._evaluation_loop._print_results = lambda results, stage: printed.append((results, stage))

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.log("loss", 1.0)

        def test_dataloader(self) -> Any:
            return self.train_dataloader()

    results = trainer_for(tmp_path).test(Tested())
    assert printed == [(results, "test")]
    assert "loss" not in capsys.readouterr().out


def test_values_sent_through_the_logger_view_reach_the_loggers(tmp_path: Path) -> None:
    from fulmen.loggers import CSVLogger

    class Logs(Model):
        def on_train_start(self) -> None:
            self.trainer._logger_connector.log_metrics({"a": 2.0}, step=7)

    trainer = Trainer(logger=CSVLogger(tmp_path), max_steps=1, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Logs())
    assert Path(trainer.log_dir, "metrics.csv").read_text() == "a,step\n2.0,7\n"  # type: ignore[arg-type]


def test_callbacks_are_put_into_calling_order_as_the_trainer_does(tmp_path: Path) -> None:
    first, second = ModelCheckpoint(tmp_path), EarlyStopping("loss")
    reordered = trainer_for(tmp_path)._callback_connector._reorder_callbacks([first, second])
    assert reordered == [second, first]


def test_setup_data_asks_for_the_training_loader_in_configure_optimizers(tmp_path: Path) -> None:
    lengths = []

    class Asks(Model):
        def configure_optimizers(self) -> Any:
            self.trainer.fit_loop.setup_data()
            lengths.append(len(self.trainer.train_dataloader))
            return super().configure_optimizers()

    trainer_for(tmp_path).fit(Asks())
    assert lengths == [3]


# -- names of other classes, and the page -----------------------------------------------------------------------------


def an_object_of(owner: str, folder: Path) -> Any:
    from fulmen import LightningDataModule
    from fulmen.cli import LightningCLI
    from fulmen.loggers import CSVLogger
    from fulmen.loggers.csv_logs import ExperimentWriter
    from fulmen.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
    from fulmen.tuner import Tuner

    made: dict[str, Any] = {
        "LightningModule": Model,
        "LightningDataModule": LightningDataModule,
        "Callback": Callback,
        "Strategy": lambda: trainer_for(folder).strategy,
        "DDPStrategy": DDPStrategy,
        "FSDPStrategy": FSDPStrategy,
        "ModelParallelStrategy": ModelParallelStrategy,
        "ModelCheckpoint": ModelCheckpoint,
        "EarlyStopping": lambda: EarlyStopping("loss"),
        "CSVLogger": lambda: CSVLogger(folder),
        "ExperimentWriter": lambda: ExperimentWriter(str(folder)),
        "LightningCLI": lambda: LightningCLI,
        "Tuner": lambda: Tuner(trainer_for(folder)),
    }
    return made[owner]()


@pytest.mark.parametrize("row", [*OF_CLASSES, *OVERRIDDEN], ids=lambda row: row.path)
def test_a_name_that_the_table_gives_a_class_is_there(row: Any, tmp_path: Path) -> None:
    owner, _, name = row.path.partition(".")
    assert row.users or name == "_current_fx_name"
    assert hasattr(an_object_of(owner, tmp_path), name)


def test_the_name_of_the_hook_that_is_called_can_be_asked_for(tmp_path: Path) -> None:
    class Asks(Model):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            names.add(self._current_fx_name)
            return super().training_step(batch, batch_idx)

        def on_train_start(self) -> None:
            names.add(self._current_fx_name)

    names: set[Any] = set()
    trainer_for(tmp_path).fit(Asks())
    assert names == {"training_step", "on_train_start"}


def test_the_page_shows_the_tables() -> None:
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("generate_internals", docs / "generate_internals.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert (docs / "internals.md").read_text() == generator.page(), "run `python docs/generate_internals.py`"
