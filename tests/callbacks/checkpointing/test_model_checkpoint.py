"""ModelCheckpoint in real runs: four epochs of three batches, with known values, unless a test says otherwise."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.checkpointing import trigger
from fulmen.callbacks.early_stopping import EarlyStopping
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.demos.boring_classes import BoringModel
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.exceptions import MisconfigurationException

NAN = float("nan")


def _stem(path: str) -> str:
    return Path(path).stem if path else ""


# -- the outcomes that Lightning 2.6 was recorded to have; where ours differ, the reason stands beside it ---------
# A `last` that Lightning does not write is the final state, when none of the best files holds it.

_ONE_PER_EPOCH = ["epoch=0-step=3", "epoch=1-step=6", "epoch=2-step=9", "epoch=3-step=12"]
_OUTCOMES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str], str]] = {
    "default": ({}, {}, ["epoch=3-step=12"], "epoch=3-step=12"),
    "monitor": ({"monitor": "v"}, {}, ["epoch=1-step=6", "last"], "epoch=1-step=6"),
    "monitor and no last": ({"monitor": "v", "save_last": False}, {}, ["epoch=1-step=6"], "epoch=1-step=6"),
    "two greatest": (
        {"monitor": "v", "mode": "max", "save_top_k": 2},
        {},
        ["epoch=0-step=3", "epoch=3-step=12"],
        "epoch=3-step=12",
    ),
    "all": ({"save_top_k": -1}, {}, _ONE_PER_EPOCH, "epoch=3-step=12"),
    "last alone": ({"save_top_k": 0, "save_last": True}, {}, ["last"], ""),
    "names with metrics": (
        {"monitor": "v", "save_top_k": -1, "filename": "m-{epoch:02d}-{v:.2f}-{step}"},
        {},
        [
            "m-epoch=00-v=3.00-step=3",
            "m-epoch=01-v=1.00-step=6",
            "m-epoch=02-v=2.00-step=9",
            "m-epoch=03-v=4.00-step=12",
        ],
        "m-epoch=01-v=1.00-step=6",
    ),
    "names without": (
        {"monitor": "v", "filename": "m-{epoch:02d}-{v:.2f}", "auto_insert_metric_name": False},
        {},
        ["last", "m-01-1.00"],
        "m-01-1.00",
    ),
    "one name, all": ({"filename": "c", "save_top_k": -1}, {}, ["c"], "c"),
    "one name, ranked": (
        {"filename": "c", "monitor": "v", "save_top_k": 2},
        {},
        ["c", "c-v1", "last"],
        "c-v1",
    ),
    "two steps": (
        {"every_n_train_steps": 2, "save_top_k": -1},
        {},
        [
            "epoch=0-step=2",
            "epoch=1-step=4",
            "epoch=1-step=6",
            "epoch=2-step=8",
            "epoch=3-step=10",
            "epoch=3-step=12",
        ],
        "epoch=3-step=12",
    ),
    "two epochs": (
        {"every_n_epochs": 2, "save_top_k": -1},
        {},
        ["epoch=1-step=6", "epoch=3-step=12"],
        "epoch=3-step=12",
    ),
    "no time": (
        {"train_time_interval": timedelta(0), "save_top_k": -1},
        {},
        [f"epoch={(step - 1) // 3}-step={step}" for step in range(1, 13)],
        "epoch=3-step=12",
    ),
    "validation every other epoch": (
        {"monitor": "v", "save_top_k": -1},
        {"check_val_every_n_epoch": 2},
        ["epoch=1-step=6", "epoch=3-step=12"],
        "epoch=3-step=12",
    ),
    "validation after each batch": (
        {"monitor": "v"},
        {"val_check_interval": 0.5},
        ["epoch=0-step=2", "last"],
        "epoch=0-step=2",
    ),
    "validation after two batches": (
        {"monitor": "v", "save_top_k": -1},
        {"val_check_interval": 2},
        ["epoch=0-step=2", "epoch=1-step=5", "epoch=2-step=8", "epoch=3-step=11", "last"],
        "epoch=1-step=5",
    ),
    "a link": (
        {"monitor": "v", "save_top_k": 2, "save_last": "link"},
        {},
        ["epoch=1-step=6", "epoch=2-step=9", "last"],
        "epoch=1-step=6",
    ),
    "never": ({"every_n_train_steps": 0, "save_top_k": -1}, {}, [], ""),
    # Lightning saves epoch 0 not at all here, and ranks each later file by the score of the epoch before
    "monitor and as many steps as an epoch has": (
        {"monitor": "v", "every_n_train_steps": 3, "save_top_k": -1},
        {},
        _ONE_PER_EPOCH,
        "epoch=1-step=6",
    ),
}


@pytest.mark.parametrize(
    ("policy_arguments", "trainer_arguments", "files", "best"), _OUTCOMES.values(), ids=_OUTCOMES.keys()
)
def test_run_with_recorded_settings_leaves_the_recorded_files(
    fit, policy, left, policy_arguments, trainer_arguments, files, best
):
    checkpoint = policy(**policy_arguments)
    fit(checkpoint, values=[3.0, 1.0, 2.0, 4.0] * 3, **trainer_arguments)

    assert list(left()) == files
    assert _stem(checkpoint.best_model_path) == best


def test_scores_of_a_run_are_announced(fit, policy):
    checkpoint = policy(monitor="v", save_top_k=2)
    fit(checkpoint)

    assert checkpoint.best_model_score == 1.0
    assert {_stem(path): score for path, score in checkpoint.best_k_models.items()} == {
        "epoch=1-step=6": 1.0,
        "epoch=2-step=9": 2.0,
    }
    assert (_stem(checkpoint.kth_best_model_path), checkpoint.kth_value) == ("epoch=2-step=9", 2.0)
    assert checkpoint.current_score == 2.0  # of the last file that was saved, not of the last epoch


def test_score_that_is_nan_is_never_kept_before_a_number(fit, policy, left):
    fit(policy(monitor="v", save_top_k=2), values=[NAN, 1.0, NAN, 0.0])

    assert list(left()) == ["epoch=1-step=6", "epoch=3-step=12"]


# -- last -------------------------------------------------------------------------------------------------------------


def test_last_of_a_run_that_ended_holds_the_final_state_though_the_best_was_earlier(fit, policy, left):
    checkpoint = policy(monitor="v", save_last=True)
    fit(checkpoint, values=[3.0, 0.0, 2.0, 4.0])

    assert left() == {"epoch=1-step=6": (1, 6), "last": (4, 12)}
    assert _stem(checkpoint.last_model_path) == "last"


def test_last_between_two_triggers_holds_the_state_of_the_newest_trigger(fit, policy, left):
    seen = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            seen.append(left().get("last"))

    fit(policy(monitor="v", save_last=True), Look(), values=[1.0, 2.0, 3.0, 4.0])

    assert seen == [None, (0, 3), (1, 6), (2, 9)]


def test_last_when_steps_do_not_divide_the_run_is_the_end_of_it(fit, policy, left):
    fit(policy(every_n_train_steps=5, save_last=True))

    assert left() == {"epoch=3-step=10": (3, 10), "last": (4, 12)}


def test_last_is_safe_while_the_first_metric_is_still_to_come(fit, policy, left, scored):
    seen = []

    class Look(scored):
        def on_validation_start(self) -> None:
            seen.append(left())

    fit(policy(monitor="v", every_n_train_steps=2, save_last=True), model=Look([1.0]), max_epochs=1)

    assert seen == [{"last": (0, 2)}]
    assert left() == {"epoch=0-step=3": (0, 3), "last": (1, 3)}


def test_last_as_link_points_to_the_newest_file_by_a_relative_path(fit, policy, left):
    checkpoint = policy(save_last="link")
    fit(checkpoint)

    assert left() == {"epoch=3-step=12": (3, 12), "last": "epoch=3-step=12.ckpt"}
    assert torch.load(checkpoint.last_model_path, weights_only=True)["global_step"] == 12


def test_last_as_link_without_any_other_file_is_a_file(fit, policy, left):
    fit(policy(save_last="link", save_top_k=0))

    assert left() == {"last": (4, 12)}


class InPlace(TorchCheckpointIO):
    """Writes straight to the path, through a link if there is one."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.save(checkpoint, path)


def test_last_as_link_becomes_a_file_again_without_touching_what_it_pointed_to(fit, policy, left):
    fit(policy(save_last="link", filename="a"), max_epochs=1)
    linked = policy(save_last=True, filename="b", enable_version_counter=False)
    with pytest.warns(UserWarning, match="not empty"):
        fit(linked, max_epochs=2, plugins=InPlace())

    assert left() == {"a": (0, 3), "b": (1, 6), "last": (2, 6)}


def test_last_with_metrics_in_its_name_replaces_the_one_before(fit, policy, left):
    checkpoint = policy(save_last=True, save_top_k=0)
    checkpoint.CHECKPOINT_NAME_LAST = "{epoch}-last"
    fit(checkpoint, max_epochs=2)

    assert left() == {"epoch=2-last": (2, 6)}


def test_last_of_a_second_run_in_the_folder_gets_a_version(fit, policy, left):
    fit(policy(save_last=True))
    with pytest.warns(UserWarning, match="is not empty"):
        fit(policy(save_last=True))

    assert list(left()) == ["epoch=3-step=12", "epoch=3-step=12-v1", "last", "last-v1"]


def test_version_counter_switched_off_writes_over(fit, policy, left):
    fit(policy(filename="c"), max_epochs=1)
    with pytest.warns(UserWarning, match="is not empty"):
        fit(policy(filename="c", enable_version_counter=False), max_epochs=2)

    assert left() == {"c": (1, 6)}


# -- when -------------------------------------------------------------------------------------------------------------


def test_metric_that_belongs_to_the_step_is_waited_for(fit, policy):
    checkpoint = policy(monitor="v", every_n_train_steps=2, save_top_k=-1)
    fit(checkpoint, values=[3.0, 1.0], max_epochs=2, limit_train_batches=2)

    assert {_stem(path): score.item() for path, score in checkpoint.best_k_models.items()} == {
        "epoch=0-step=2": 3.0,
        "epoch=1-step=4": 1.0,
    }


def test_metric_of_the_whole_training_epoch_is_waited_for(fit, policy, scored):
    class TrainLoss(scored):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("number", float(self.current_epoch), on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    checkpoint = policy(monitor="number", every_n_train_steps=3, save_top_k=-1)
    fit(checkpoint, model=TrainLoss([0.0] * 4))

    assert {_stem(path): score.item() for path, score in checkpoint.best_k_models.items()} == {
        "epoch=0-step=3": 0.0,
        "epoch=1-step=6": 1.0,
        "epoch=2-step=9": 2.0,
        "epoch=3-step=12": 3.0,
    }


def test_metric_of_a_training_step_is_the_one_of_that_step(fit, policy, scored):
    class StepLoss(scored):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("number", float(batch_idx), on_step=True, on_epoch=False)
            return super().training_step(batch, batch_idx)

    checkpoint = policy(monitor="number", every_n_train_steps=1, save_top_k=-1)
    fit(checkpoint, model=StepLoss([0.0]), max_epochs=1)

    assert [score.item() for score in checkpoint.best_k_models.values()] == [0.0, 1.0, 2.0]


def test_optimizers_that_the_user_steps_directly_are_saved_too(fit, policy, left):
    class TwoAtOnce(BoringModel):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.mine = [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

        def configure_optimizers(self) -> Any:
            return self.mine

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.layer(batch).sum().backward()
            for optimizer in self.mine:
                optimizer.step()
                optimizer.zero_grad()

    fit(policy(save_top_k=-1), model=TwoAtOnce(), max_epochs=2, limit_train_batches=3, limit_val_batches=0)

    assert len(left()) == 2


def test_optimizers_that_nobody_counts_are_saved_too(fit, policy, left):
    class Uncounted(BoringModel):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.unknown = torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.layer(batch).sum().backward()
            self.unknown.step()

    fit(policy(save_top_k=-1), model=Uncounted(), max_epochs=2, limit_train_batches=3, limit_val_batches=0)

    assert left() == {"epoch=0-step=0": (0, 0), "epoch=1-step=0": (1, 0)}


def test_module_with_attributes_of_any_name_is_saved_as_it_is(fit, policy):
    class Named(BoringModel):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.saved_models = {0: {"layer.weight": torch.zeros(2, 32)}}

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.layer(batch).sum())
            optimizer.step()

    model, checkpoint = Named(), policy(every_n_train_steps=2)
    fit(checkpoint, model=model, max_epochs=1, limit_train_batches=2, limit_val_batches=0)
    content = torch.load(checkpoint.best_model_path, weights_only=True)

    assert torch.equal(content["state_dict"]["layer.weight"], model.layer.weight)


def test_steps_are_counted_and_not_batches_when_gradients_accumulate(fit, policy, left):
    fit(
        policy(every_n_train_steps=1, save_top_k=-1),
        model=BoringModel(),
        max_epochs=1,
        limit_train_batches=5,
        limit_val_batches=0,
        accumulate_grad_batches=2,
    )

    assert list(left()) == ["epoch=0-step=1", "epoch=0-step=2", "epoch=0-step=3"]


def test_time_that_is_over_within_an_accumulation_window_waits_for_its_step(fit, policy, left, monkeypatch):
    class Clock:
        seconds = 0.0

        def monotonic(self) -> float:
            return self.seconds

    class TenSecondsPerBatch(BoringModel):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            clock.seconds += 10

    clock = Clock()
    monkeypatch.setattr(trigger, "time", clock)
    fit(
        policy(train_time_interval="30s", save_top_k=-1),
        model=TenSecondsPerBatch(),
        max_epochs=1,
        limit_train_batches=8,
        limit_val_batches=0,
        accumulate_grad_batches=4,
    )

    assert list(left()) == ["epoch=0-step=1", "epoch=0-step=2"]


def test_validations_within_an_accumulation_window_do_not_save_the_same_weights_again(fit, policy, left, scored):
    fit(
        policy(monitor="v", save_top_k=-1, save_on_train_epoch_end=False),
        model=scored([4.0, 3.0, 2.0, 1.0], num_batches=4),
        max_epochs=1,
        val_check_interval=1,
        accumulate_grad_batches=2,
    )

    assert list(left()) == ["epoch=0-step=1", "epoch=0-step=2"]


def test_hook_that_is_called_twice_at_one_position_writes_once(fit, policy):
    class Twice(BoringModel):
        def on_train_epoch_end(self) -> None:
            checkpoint.on_train_epoch_end(self.trainer, self)  # and the trainer calls it afterwards

    checkpoint = policy()
    disk = FullDisk(-1, checkpoint)
    fit(checkpoint, model=Twice(), max_epochs=2, limit_train_batches=1, limit_val_batches=0, plugins=disk)

    assert len(disk.announced) == 2


def test_time_interval_as_text_is_read(policy):
    assert policy(train_time_interval="30min").state_key == policy(train_time_interval=timedelta(minutes=30)).state_key


def test_step_as_monitor_keeps_the_newest_ones(fit, policy, left):
    fit(policy(monitor="step", mode="max", save_top_k=2))

    assert list(left()) == ["epoch=2-step=9", "epoch=3-step=12"]


def test_run_that_stops_early_in_mid_epoch_ranks_by_the_validation_it_stopped_at(fit, policy, scored):
    checkpoint = policy(monitor="v", every_n_train_steps=1, save_top_k=-1)
    stop = EarlyStopping("v", stopping_threshold=2.0)
    fit(checkpoint, stop, model=scored([5.0, 1.0], num_batches=5), val_check_interval=2)

    assert {_stem(path): score.item() for path, score in checkpoint.best_k_models.items()} == {
        "epoch=0-step=2": 5.0,
        "epoch=0-step=3": 5.0,
        "epoch=0-step=4": 1.0,
    }


def test_fast_dev_run_writes_nothing(fit, policy, left):
    fit(policy(save_last=True), values=[1.0], fast_dev_run=True)

    assert left() == {}


def test_sanity_check_is_not_a_validation_to_save_at(fit, policy, left):
    fit(policy(save_on_train_epoch_end=False), num_sanity_val_steps=1, max_epochs=1)

    assert list(left()) == ["epoch=0-step=3"]


def test_saving_at_validations_that_never_come_warns(fit, policy, left):
    with pytest.warns(UserWarning, match="nothing is saved before its end"):
        fit(policy(save_on_train_epoch_end=False), limit_val_batches=0, max_epochs=1)

    assert left() == {"epoch=0-step=3": (1, 3)}


def test_run_without_validation_and_with_a_rare_one_asked_for_saves_each_epoch(fit, policy, left):
    fit(policy(), limit_val_batches=0, check_val_every_n_epoch=5, max_epochs=2)

    assert list(left()) == ["epoch=1-step=6"]


def test_default_policy_asks_nothing_after_a_batch():
    assert ModelCheckpoint().on_train_batch_end is None
    assert ModelCheckpoint(every_n_train_steps=1).on_train_batch_end is not None


def test_subclass_with_its_own_batch_hook_is_still_called(fit, tmp_path):
    heard = []

    class Own(ModelCheckpoint):
        def on_train_batch_end(self, *arguments: Any) -> None:
            heard.append(arguments[-1])
            super().on_train_batch_end(*arguments)

    fit(Own(tmp_path), max_epochs=1)

    assert heard == [0, 1, 2]


def test_monitor_that_was_not_logged_is_an_error_that_names_what_was(fit, policy):
    with pytest.raises(MisconfigurationException, match=r"monitor='loss'.*'epoch', 'step', 'v'"):
        fit(policy(monitor="loss"))


def test_monitor_that_is_missing_before_any_validation_warns_once(fit, policy, left):
    with pytest.warns(UserWarning, match="monitor='v'") as warned:
        fit(policy(monitor="v"), limit_val_batches=0)

    assert len(warned) == 1
    assert left() == {"last": (4, 12)}


def test_name_with_a_metric_that_was_not_logged_warns_once(fit, policy, left):
    with pytest.warns(UserWarning, match="asks for 'nope'") as warned:
        fit(policy(filename="{epoch}-{nope}"))

    assert len(warned) == 1
    assert list(left()) == ["epoch=3-nope=0"]


# -- exceptions -------------------------------------------------------------------------------------------------------


class Breaks(BoringModel):
    """Raises in the training step after so many steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == self.after:
            raise RuntimeError("broken")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ({}, {"epoch=0-step=3": (0, 3), "epoch=1-step=4": (1, 4)}),
        ({"save_last": True}, {"epoch=0-step=3": (0, 3), "epoch=1-step=4": (1, 4), "last": (1, 4)}),
        ({"save_top_k": 0}, {"epoch=1-step=4": (1, 4)}),
        ({"every_n_train_steps": 2}, {"epoch=1-step=4": (1, 4)}),
        ({"save_on_exception": False}, {"epoch=0-step=3": (0, 3)}),
    ],
)
def test_run_that_breaks_off_leaves_where_it_was(fit, policy, left, arguments, files):
    checkpoint = policy(**{"save_on_exception": True, **arguments})
    with pytest.raises(RuntimeError, match="broken"):
        fit(checkpoint, model=Breaks(after=4), limit_train_batches=3, limit_val_batches=0)

    assert left() == files


def test_run_that_breaks_off_before_training_leaves_nothing(fit, policy, left):
    class NoOptimizer(BoringModel):
        def configure_optimizers(self) -> Any:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(policy(save_on_exception=True), model=NoOptimizer())

    assert left() == {}


class FullDisk(TorchCheckpointIO):
    """Fails from the given write on; notes what the policy announces while it writes."""

    def __init__(self, good_writes: int, checkpoint: ModelCheckpoint | None = None) -> None:
        self.good_writes = good_writes
        self.checkpoint = checkpoint
        self.announced: list[str] = []

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        if self.checkpoint is not None:
            self.announced.append(_stem(self.checkpoint.best_model_path))
        if self.good_writes == 0:
            raise OSError("no space left")
        self.good_writes -= 1
        super().save_checkpoint(checkpoint, path, storage_options)


def test_file_that_cannot_be_written_raises_and_leaves_earlier_ones_alone(fit, policy, left):
    checkpoint = policy(monitor="v")
    with pytest.raises(OSError, match="no space left"):
        fit(checkpoint, values=[3.0, 2.0, 1.0], plugins=FullDisk(2))

    assert left() == {"epoch=1-step=6": (1, 6)}
    assert _stem(checkpoint.best_model_path) == "epoch=1-step=6"
    assert checkpoint.best_model_score == 2.0


def test_file_is_announced_only_once_it_is_written(fit, policy):
    checkpoint = policy()
    disk = FullDisk(-1, checkpoint)
    fit(checkpoint, plugins=disk, max_epochs=2)

    assert disk.announced == ["", "epoch=0-step=3"]
    assert _stem(checkpoint.best_model_path) == "epoch=1-step=6"


# -- state ------------------------------------------------------------------------------------------------------------


def test_file_counts_itself_among_those_it_says_are_kept(fit, policy):
    checkpoint = policy(monitor="v", save_last=True)
    fit(checkpoint, values=[1.0], max_epochs=1)
    state = torch.load(checkpoint.best_model_path, weights_only=True)["callbacks"][checkpoint.state_key]

    assert state["best_model_path"] == checkpoint.best_model_path
    assert state["last_model_path"] == checkpoint.last_model_path
    assert state["best_k_models"] == {checkpoint.best_model_path: 1.0}


def test_resumed_run_goes_on_with_the_ranking_and_does_not_save_at_once(fit, policy, left):
    fit(policy(monitor="v", save_top_k=2, save_last=True), values=[3.0, 1.0], max_epochs=2)
    before = left()
    resumed = policy(monitor="v", save_top_k=2, save_last=True)
    fit(resumed, values=[2.0, 4.0], ckpt_path=str(Path(resumed.dirpath) / "last.ckpt"))

    assert list(before) == ["epoch=0-step=3", "epoch=1-step=6", "last"]
    assert left() == {"epoch=1-step=6": (1, 6), "epoch=2-step=9": (2, 9), "last": (4, 12)}
    assert resumed.best_model_score == 1.0


def test_resumed_run_counts_its_steps_from_the_beginning_of_the_first(fit, policy, left):
    first = policy(every_n_train_steps=2)
    fit(first, max_steps=4)
    fit(policy(every_n_train_steps=2, save_top_k=-1), ckpt_path=first.best_model_path, max_steps=7)

    assert list(left()) == ["epoch=1-step=4", "epoch=1-step=6", "epoch=2-step=7"]


def test_resumed_run_does_not_save_again_what_it_began_with(fit, policy, left):
    first = policy()
    fit(first, max_epochs=1)
    fit(policy(save_top_k=-1), ckpt_path=first.best_model_path, max_epochs=2)

    assert left() == {"epoch=0-step=3": (0, 3), "epoch=1-step=6": (1, 6)}


def test_resumed_run_keeps_the_file_that_it_began_with(fit, policy, left):
    first = policy(monitor="v")
    fit(first, values=[3.0], max_epochs=1)
    fit(policy(monitor="v"), values=[1.0], max_epochs=2, ckpt_path=first.best_model_path)

    assert list(left()) == ["epoch=0-step=3", "epoch=1-step=6"]


def test_resumed_run_in_a_moved_folder_finds_its_files_there(fit, policy, tmp_path):
    fit(policy(monitor="v", save_top_k=2, save_last=True), values=[3.0, 1.0], max_epochs=2)
    moved = tmp_path / "moved"
    os.rename(tmp_path / "checkpoints", moved)
    resumed = policy(dirpath=moved, monitor="v", save_top_k=2, save_last=True)
    fit(resumed, values=[5.0], max_epochs=3, ckpt_path=str(moved / "last.ckpt"))

    assert resumed.best_model_path == str(moved / "epoch=1-step=6.ckpt")
    assert {os.path.dirname(path) for path in resumed.best_k_models} == {str(moved)}
    assert resumed.last_model_path == str(moved / "last.ckpt")


def test_resumed_run_in_another_folder_still_names_the_files_that_stayed_and_never_deletes_them(
    fit, policy, left, tmp_path
):
    first = policy(monitor="v", save_last=True)
    fit(first, values=[1.0], max_epochs=1)
    resumed = policy(dirpath=tmp_path / "other", monitor="v", save_last=True)
    fit(resumed, values=[2.0, 0.5], max_epochs=3, ckpt_path=str(first.last_model_path))

    assert resumed.best_model_path == str(tmp_path / "other" / "epoch=2-step=9.ckpt")
    assert left() == {"epoch=0-step=3": (0, 3), "last": (1, 3)}
    assert left(tmp_path / "other") == {"epoch=2-step=9": (2, 9), "last": (3, 9)}


def test_state_whose_files_are_gone_is_forgotten_with_a_warning(tmp_path):
    first = ModelCheckpoint(tmp_path / "gone", monitor="v")
    first.best_k_models = {str(tmp_path / "gone" / "a.ckpt"): torch.tensor(1.0)}
    first.best_model_path = str(tmp_path / "gone" / "a.ckpt")
    second = ModelCheckpoint(tmp_path / "new", monitor="v")
    with pytest.warns(UserWarning, match="neither folder"):
        second.load_state_dict(first.state_dict())

    assert (second.best_model_path, second.best_k_models, second.kth_value) == ("", {}, float("inf"))


def test_state_of_an_unused_policy_has_the_keys_of_lightning():
    assert ModelCheckpoint(monitor="v", mode="max").state_dict() == {
        "monitor": "v",
        "best_model_score": None,
        "best_model_path": "",
        "current_score": None,
        "dirpath": None,
        "best_k_models": {},
        "kth_best_model_path": "",
        "kth_value": torch.tensor(-float("inf")),
        "last_model_path": "",
    }


def test_state_key_tells_policies_apart():
    keys = {
        ModelCheckpoint(**arguments).state_key
        for arguments in ({}, {"monitor": "v"}, {"every_n_epochs": 2}, {"train_time_interval": "1h"}, {"verbose": True})
    }

    assert len(keys) == 4
    assert ModelCheckpoint().state_key == (
        "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
        "'train_time_interval': None}"
    )


def test_policy_of_another_training_begins_anew_and_keeps_the_files_of_the_first(fit, policy, left, scored):
    checkpoint = policy(monitor="v")
    trainer = fit(checkpoint, values=[1.0], max_epochs=1)
    with pytest.warns(UserWarning, match="is not empty"):
        trainer.fit(scored([2.0]))

    assert list(left()) == ["epoch=0-step=3", "epoch=0-step=3-v1"]
    assert (_stem(checkpoint.best_model_path), checkpoint.best_model_score) == ("epoch=0-step=3-v1", 2.0)


# -- files ------------------------------------------------------------------------------------------------------------


def test_folder_by_default_is_below_the_root_without_a_logger(fit, tmp_path):
    checkpoint = ModelCheckpoint()
    fit(checkpoint, max_epochs=1, default_root_dir=tmp_path)

    assert checkpoint.best_model_path == str(tmp_path / "checkpoints" / "epoch=0-step=3.ckpt")
    assert os.path.exists(checkpoint.best_model_path)


def test_folder_by_default_is_the_loggers(fit, tmp_path):
    checkpoint = ModelCheckpoint()
    fit(checkpoint, max_epochs=1, logger=CSVLogger(tmp_path, name="runs", version=7))

    assert checkpoint.dirpath == str(tmp_path / "runs" / "version_7" / "checkpoints")


def test_weights_only_files_hold_no_training_state(fit, policy):
    checkpoint = policy(save_weights_only=True)
    fit(checkpoint, max_epochs=1)
    content = torch.load(checkpoint.best_model_path, weights_only=True)

    assert "state_dict" in content
    assert not {"optimizer_states", "lr_schedulers", "callbacks"} & content.keys()


def test_slash_in_a_name_makes_a_folder(fit, policy, left):
    fit(policy(filename="e{epoch}/s", auto_insert_metric_name=False), max_epochs=1)

    assert left() == {"e0/s": (0, 3)}


def test_loggers_hear_of_every_file_once_it_is_there(fit, policy, tmp_path):
    heard = []

    class Listening(CSVLogger):
        def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
            heard.append((_stem(checkpoint_callback.best_model_path), _stem(checkpoint_callback.last_model_path)))

    fit(policy(save_last=True), max_epochs=1, logger=Listening(tmp_path))

    assert heard == [("epoch=0-step=3", ""), ("epoch=0-step=3", "last"), ("epoch=0-step=3", "last")]


def test_verbose_policy_says_what_is_kept_and_what_is_not(fit, policy, caplog):
    with caplog.at_level(logging.INFO, logger="fulmen"):
        fit(policy(monitor="v", verbose=True), values=[1.0, 2.0], max_epochs=2)
    said = [record.message for record in caplog.records if "v=" in record.message]

    assert "step 3: saved" in said[0]
    assert "v=2 is not among the best 1" in said[1]


def test_yaml_lists_the_kept_files(fit, policy):
    checkpoint = policy(monitor="v", save_top_k=2)
    fit(checkpoint)
    checkpoint.to_yaml()
    written = yaml.safe_load((Path(checkpoint.dirpath) / "best_k_models.yaml").read_text())

    assert {_stem(path): score for path, score in written.items()} == {"epoch=1-step=6": 1.0, "epoch=2-step=9": 2.0}


def test_last_file_of_a_folder_is_found(fit, policy, tmp_path):
    checkpoint = policy(save_last=True)
    trainer = fit(checkpoint, max_epochs=1)

    assert checkpoint.last_checkpoint_candidates(trainer) == [checkpoint.last_model_path]


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"save_last": "copy"}, ValueError, "save_last='copy'"),
        ({"save_last": "link", "dirpath": "memory://x"}, ValueError, "dirpath='memory://x'"),
        ({"mode": "most"}, MisconfigurationException, "mode='most'"),
        ({"save_top_k": 3}, MisconfigurationException, "save_top_k=3, monitor=None"),
        ({"every_n_epochs": 1, "every_n_train_steps": 1}, MisconfigurationException, "more than one rhythm"),
    ],
)
def test_constructor_with_what_cannot_be_names_it(arguments, error, named):
    with pytest.raises(error, match=named):
        ModelCheckpoint(**arguments)


def test_policy_that_was_not_run_has_nothing_to_show(policy):
    checkpoint = policy()

    assert (checkpoint.best_model_path, checkpoint.best_model_score, checkpoint.last_model_path) == ("", None, "")
    assert isinstance(checkpoint, Callback)
    assert not isinstance(checkpoint, nn.Module)
