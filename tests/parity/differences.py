"""Where we differ from Lightning on purpose: the only edits that a recording gets before we are compared with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

#: A logger's row: its name, its step, its values.
_ROW = re.compile(r"(\w+) step (\d+): (.*)")


@dataclass(frozen=True, slots=True)
class Difference:
    """One decided difference.

    Attributes:
        reason: why ours is right, in one sentence.
        recorded: whole lines of the recording, just enough to be found.
        ours: the lines that stand there in our run.
        times: how often ``recorded`` occurs in the recording.
        only: which one of them is edited, from 1; None for all of them.
    """

    reason: str
    recorded: str
    ours: str
    times: int = 1
    only: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One decided difference that changes so many lines that they are derived instead of listed.

    Attributes:
        reason: why ours is right, in one sentence.
        edit: gives the lines of our run from those of the recording; it must change something in each of its scenarios.
        scenarios: where it applies.
    """

    reason: str
    edit: Callable[[list[str]], list[str]]
    scenarios: frozenset[str]


def expected(scenario: str, recording: str) -> list[str]:
    """The lines of a recording as they would be if Lightning had decided as we did.

    Raises:
        AssertionError: something in the tables does not apply to the recording (any more).
    """
    lines = recording.splitlines()
    for rule in RULES:
        if scenario in rule.scenarios:
            edited = rule.edit(lines)
            assert edited != lines, f"{scenario}: a rule changes nothing here: {rule.reason}"
            lines = edited
    for difference in DIFFERENCES.get(scenario, ()):
        lines, found = _edited(lines, difference)
        assert found == difference.times, (
            f"{scenario}: the table of differences expects these lines {difference.times} times in the recording, "
            f"they are there {found} times:\n{difference.recorded}"
        )
    return lines


def _edited(lines: list[str], difference: Difference) -> tuple[list[str], int]:
    """``lines`` after one difference, and how often its recorded lines were found."""
    recorded = difference.recorded.splitlines()
    result: list[str] = []
    place = found = 0
    while place < len(lines):
        if lines[place : place + len(recorded)] == recorded:
            found += 1
            result += difference.ours.splitlines() if difference.only in (None, found) else recorded
            place += len(recorded)
        else:
            result.append(lines[place])
            place += 1
    return result, found


def _evaluation_on_the_training_clock(lines: list[str]) -> list[str]:
    """Rows of evaluation steps get the x of the evaluation's epoch row, which follows, and their own x as a column."""
    result, stage = [], "val"
    for place, line in enumerate(lines):
        stage = {"== test": "test", "== fit": "val", "== validate": "val"}.get(line, stage)
        row = _ROW.fullmatch(line)
        if row and not _has_epoch(row[3]):
            clock = next(m[2] for m in map(_ROW.fullmatch, lines[place:]) if m and m[1] == row[1] and _has_epoch(m[3]))
            values = sorted([*row[3].split(", "), f"{stage}_batch={row[2]}"])
            line = f"{row[1]} step {clock}: {', '.join(values)}"
        result.append(line)
    return result


def _has_epoch(values: str) -> bool:
    return any(value.startswith("epoch=") for value in values.split(", "))


def _asked_when_restored(lines: list[str]) -> list[str]:
    return [ours for line in lines for ours in (line, *["CB.state_dict"] * (line == "CB.load_state_dict"))]


def _asked_before_the_epoch(lines: list[str]) -> list[str]:
    first = lines.index("CB.on_train_epoch_start", lines.index("CB.load_state_dict"))
    return [*lines[:first], "CB.state_dict", *lines[first:]]


_OPENING = "What the hooks that open a run do to a callback's state is found and taken back: they did so before."

RULES: tuple[Rule, ...] = (
    Rule(
        _OPENING,
        _asked_when_restored,
        frozenset(
            f"resume_{name}"
            for name in (
                "after_an_epoch",
                "after_an_epoch.light",
                "when_all_is_done",
                "beyond_max_epochs",
                "in_mid_epoch",
                "in_mid_epoch.light",
                "from_a_validation_in_mid_epoch",
                "from_a_validation_at_the_end_of_an_epoch",
                "in_mid_window",
                "manual_optimization",
            )
        ),
    ),
    Rule(
        _OPENING,
        _asked_before_the_epoch,
        frozenset({"resume_after_an_epoch", "resume_after_an_epoch.light", "resume_manual_optimization"}),
    ),
    Rule(
        "Values of evaluation steps stand at the training clock, with a count of their own beside them, so that a "
        "logger's step never goes back.",
        _evaluation_on_the_training_clock,
        frozenset(
            f"log_{name}"
            for name in (
                "forks_in_validation",
                "places_in_validation",
                "every_second_step",
                "log_every_zero_steps",
                "accumulation",
                "validation_twice_per_epoch",
                "validation_every_second_epoch",
                "sanity_check",
                "manual_optimization",
                "same_name_twice_in_a_step",
                "same_name_in_training_and_validation",
                "names_that_come_and_go",
                "metric_objects",
                "several_val_loaders",
                "epoch_value_read_by_a_scheduler_and_a_checkpoint",
                "validate_and_test",
                "validate_after_fit",
                "fit_again",
                "resumed",
                "two_loggers",
                "calls_of_a_logger",
            )
        ),
    ),
)

_WINDOW = "The loss is divided by the number of batches that are really in the window."
_DETACHED = "All outputs of a training step are detached, so that a callback that keeps them keeps no graph."
_LAST_BATCH = "At the start of an epoch no batch has come yet, so it cannot be the last one."
_FIRST_AND_LAST = "The first and the last step are always logged, so that a short run has a curve."
_STEPS = "The frequency of a scheduler with interval step counts optimizer steps, not batches of an epoch."
_NONE = "A batch that is None is treated like a training_step that returned None: the other hooks are called."
_EXACT = "A checkpoint also holds what a run needs to go on exactly, under a key of its own."
_BOUNDARY = "A checkpoint is written at the end of the step, so that a run goes on from it exactly."
_RESUMED_EPOCH = "Those who prepare something in on_train_epoch_start need it in a resumed epoch, too."
_DATA = "A resumed run goes on with the next batch of the data and ends like the run that never stopped."
_LAST = "The last checkpoint is the last state, also when only the epoch was counted since."
_FINAL = "The state at the end of a run is saved, if no checkpoint holds it."
_ONCE = "A value is written once, at the step in which it was logged."
_TYPE = "What a user can get wrong in a setting is a MisconfigurationException."


def _ends_in_last(arguments: str, best: str) -> Difference:
    """The best file is not of the last step, and so the final state is in ``last.ckpt``."""
    return Difference(
        _FINAL,
        f"{arguments}: ['{best}'] best '{best}' last '' score 1.0",
        f"{arguments}: {sorted([best, 'last.ckpt'])} best '{best}' last 'last.ckpt' score 1.0",
    )


def _weight(reason: str, recorded: str, ours: str) -> Difference:
    return Difference(reason, f"weight {recorded}", f"weight {ours}")


def _error(reason: str, misuse: str, recorded: str, ours: str) -> Difference:
    return Difference(reason, f"{misuse} -> {recorded}", f"{misuse} -> {ours}")


def _clock(batches: str) -> Difference:
    line = "  clock in on_train_epoch_start: epoch 1 step 2 last {} stage train train_mode True grad True"
    rest = f" inference False batches {batches}"
    return Difference(_LAST_BATCH, line.format(True) + rest, line.format(False) + rest)


def _outputs(loss: str, extra: str) -> Difference:
    line = f"outputs dict {{'loss': 'tensor {loss} requires_grad=False', 'extra': 'tensor {extra} requires_grad="
    return Difference(_DETACHED, line + "True'}", line + "False'}")


_TWO_OF_THREE = _weight(_WINDOW, "0.50517 -0.264468", "0.529634 -0.242114")
_LONG_WINDOW = _weight(_WINDOW, "0.522164 -0.245119", "0.536686 -0.242117")
_THREE_STEPS = _weight(_WINDOW, "0.509924 -0.27944", "0.557763 -0.236082")
_RESUMED = Difference(
    _RESUMED_EPOCH,
    "CB.on_train_start\nCB.on_train_batch_start(2)",
    "CB.on_train_start\nCB.on_train_epoch_start\nCB.state_dict\nCB.on_train_batch_start(2)",
)
_RESUMED_AT_3 = Difference(
    _RESUMED_EPOCH,
    "CB.on_train_start\nCB.on_train_batch_start(3)",
    "CB.on_train_start\nCB.on_train_epoch_start\nCB.state_dict\nCB.on_train_batch_start(3)",
)
_RESUMED_WEIGHT = _weight(_DATA, "0.463237 -0.380405", "0.585355 -0.237006")

#: scenario -> its differences, edited into the recording in this order
DIFFERENCES: dict[str, tuple[Difference, ...]] = {
    # accumulation
    "accumulate_two_of_three": (_TWO_OF_THREE,),
    "accumulate_two_of_three.light": (_TWO_OF_THREE,),
    "accumulate_more_than_an_epoch": (_LONG_WINDOW,),
    "accumulate_more_than_an_epoch.light": (_LONG_WINDOW,),
    "accumulate_until_max_steps": (_THREE_STEPS,),
    "accumulate_until_max_steps.light": (_THREE_STEPS,),
    "accumulate_iterable_without_length": (_weight(_WINDOW, "0.529634 -0.242114", "0.578562 -0.197405"),),
    "training_step_returns_none_while_accumulating": (_weight(_WINDOW, "0.558965 -0.202096", "0.616878 -0.155152"),),
    # what the hooks see
    "clock_in_fit": (_clock("2 [2] [2]"),),
    "clock_in_fit.light": (_clock("2 [2] [2]"),),
    "clock_in_accumulation": (
        _clock("3 [1] [1]"),
        _weight(_WINDOW, "0.557736 -0.235752", "0.647957 -0.153667"),
    ),
    "outputs_of_train_batches": (
        _outputs("0.925506", "1.85101"),
        _outputs("0.450633", "1.80253"),
        _weight(_WINDOW, "0.479282 -0.290445", "0.477859 -0.294069"),
    ),
    "manual_raw_optimizer": (
        Difference(
            "Steps of an optimizer count, and are announced, also when the user steps it directly.",
            "CB.on_after_backward\ntorch.SGD.step",
            "CB.on_after_backward\nCB.on_before_optimizer_step(SGD)\ntorch.SGD.step",
            times=2,
        ),
        Difference(
            "Steps of an optimizer count also when the user steps it directly.", "global_step 0", "global_step 2"
        ),
    ),
    "max_epochs_and_steps_left_out": (
        Difference(
            "The trainer's limits are numbers from the start: they do not change their type when fit begins.",
            "max_epochs None min_epochs None",
            "max_epochs -1 min_epochs 0",
        ),
    ),
    # a batch that is None
    "none_batch": (
        Difference(
            _NONE,
            "CB.on_train_batch_end(1)",
            "CB.on_train_batch_start(1)\nM.on_train_batch_start(1)\nM.optimizer_step(0,1,SGD) begin\n"
            "torch.SGD.step begin\nCB.on_before_zero_grad(SGD)\nM.on_before_zero_grad(SGD)\n"
            "M.optimizer_zero_grad(0,1,SGD)\ntorch.SGD.zero_grad\nCB.on_before_optimizer_step(SGD)\n"
            "M.on_before_optimizer_step(SGD)\nM.configure_gradient_clipping(SGD)\ntorch.SGD.step end\n"
            "M.optimizer_step(0,1,SGD) end\nCB.on_train_batch_end(1)",
        ),
        Difference(_NONE, "global_step 2", "global_step 3"),
    ),
    "none_batch.light": (
        Difference(
            _NONE,
            "CB.on_train_batch_end(1)",
            "CB.on_train_batch_start(1)\nCB.on_before_zero_grad(SGD)\ntorch.SGD.zero_grad\n"
            "CB.on_before_optimizer_step(SGD)\ntorch.SGD.step\nCB.on_train_batch_end(1)",
        ),
        Difference(_NONE, "global_step 2", "global_step 3"),
    ),
    # schedulers
    "scheduler_every_second_step": (
        Difference(
            _STEPS,
            "M.optimizer_step(1,0,SGD) end",
            "M.optimizer_step(1,0,SGD) end\nM.lr_scheduler_step(StepLR)\ntorch.StepLR.step",
        ),
        Difference(
            _STEPS,
            "M.optimizer_step(1,1,SGD) end\nM.lr_scheduler_step(StepLR)\ntorch.StepLR.step",
            "M.optimizer_step(1,1,SGD) end",
        ),
        Difference(
            _STEPS,
            "M.optimizer_step(1,2,SGD) end",
            "M.optimizer_step(1,2,SGD) end\nM.lr_scheduler_step(StepLR)\ntorch.StepLR.step",
        ),
        Difference(_STEPS, "lr 0.025\nweight 0.517949 -0.291281", "lr 0.0125\nweight 0.511939 -0.293767"),
    ),
    "scheduler_every_second_step.light": (
        Difference(_STEPS, "CB.on_train_batch_end(0)", "torch.StepLR.step\nCB.on_train_batch_end(0)", times=2, only=2),
        Difference(_STEPS, "torch.StepLR.step\nCB.on_train_batch_end(1)", "CB.on_train_batch_end(1)", times=2, only=2),
        Difference(_STEPS, "CB.on_train_batch_end(2)", "torch.StepLR.step\nCB.on_train_batch_end(2)", times=2, only=2),
        Difference(_STEPS, "lr 0.025\nweight 0.517949 -0.291281", "lr 0.0125\nweight 0.511939 -0.293767"),
    ),
    "scheduler_every_second_step_while_accumulating": (
        Difference(_STEPS, "torch.StepLR.step\nCB.on_train_batch_end(1)", "CB.on_train_batch_end(1)", times=2, only=1),
        Difference(_STEPS, "torch.StepLR.step\nCB.on_train_batch_end(3)", "CB.on_train_batch_end(3)", times=2, only=2),
        Difference(_STEPS, "CB.on_train_batch_end(4)", "torch.StepLR.step\nCB.on_train_batch_end(4)", times=2, only=2),
        Difference(_STEPS, "lr 0.00625\nweight 0.51704 -0.258758", "lr 0.0125\nweight 0.583216 -0.200646"),
    ),
    # files
    "max_steps_in_mid_epoch": (
        Difference(
            _LAST,
            "CB.on_train_end\nM.on_train_end",
            "CB.on_train_end\nCB.state_dict\nCB.on_save_checkpoint\nM.on_save_checkpoint\nM.on_train_end",
        ),
    ),
    "max_steps_in_mid_epoch.light": (
        Difference(
            _LAST,
            "CB.on_train_end\nCB.on_fit_end",
            "CB.on_train_end\nCB.state_dict\nCB.on_save_checkpoint\nCB.on_fit_end",
        ),
    ),
    "validate_twice_per_epoch": (
        Difference(
            _BOUNDARY,
            "CB.state_dict\nCB.on_save_checkpoint\nM.on_save_checkpoint\nM.on_validation_end",
            "M.on_validation_end\nCB.state_dict\nCB.on_save_checkpoint\nM.on_save_checkpoint",
            times=4,
        ),
        Difference(
            _FINAL,
            "CB.on_train_end\nM.on_train_end",
            "CB.on_train_end\nCB.state_dict\nCB.on_save_checkpoint\nM.on_save_checkpoint\nM.on_train_end",
        ),
        Difference(_FINAL, "file epoch=1-step=9.ckpt", "file epoch=1-step=10.ckpt"),
    ),
    "validate_twice_per_epoch.light": (
        Difference(
            _FINAL,
            "CB.on_train_end\nCB.on_fit_end",
            "CB.on_train_end\nCB.state_dict\nCB.on_save_checkpoint\nCB.on_fit_end",
        ),
        Difference(_FINAL, "file epoch=1-step=9.ckpt", "file epoch=1-step=10.ckpt"),
    ),
    "files_kept": (
        _ends_in_last("{'monitor': 'v'}", "epoch=1-step=4.ckpt"),
        _ends_in_last("{'filename': 'm-{epoch:02d}-{v:.2f}-{step}', 'monitor': 'v'}", "m-epoch=01-v=1.00-step=4.ckpt"),
        _ends_in_last(
            "{'filename': 'm-{epoch:02d}-{v:.2f}', 'auto_insert_metric_name': False, 'monitor': 'v'}", "m-01-1.00.ckpt"
        ),
        _ends_in_last("{'monitor': 'v', 'save_on_train_epoch_end': False}", "epoch=1-step=4.ckpt"),
        _ends_in_last("{'monitor': 'v', 'save_weights_only': True}", "epoch=1-step=4.ckpt"),
        Difference(
            _FINAL,
            "{'every_n_train_steps': 3, 'save_top_k': -1}: ['epoch=1-step=3.ckpt', 'epoch=2-step=6.ckpt'] "
            "best 'epoch=2-step=6.ckpt' last '' score None",
            "{'every_n_train_steps': 3, 'save_top_k': -1}: ['epoch=1-step=3.ckpt', 'epoch=2-step=6.ckpt', "
            "'epoch=3-step=8.ckpt'] best 'epoch=3-step=8.ckpt' last '' score None",
        ),
    ),
    # again, and resuming
    "fit_again_with_another_model": (
        Difference(
            "The state of a run is made anew for another model: it is trained, too.",
            "M.train_dataloader\nCB.on_fit_end",
            "M.train_dataloader\nCB.on_train_start\nCB.on_train_epoch_start\n"
            + "".join(
                f"CB.on_train_batch_start({batch_idx})\nM.training_step({batch_idx})\nCB.on_before_zero_grad(SGD)\n"
                "torch.SGD.zero_grad\nCB.on_before_backward\ntorch.backward\nCB.on_after_backward\n"
                f"CB.on_before_optimizer_step(SGD)\ntorch.SGD.step\nCB.on_train_batch_end({batch_idx})\n"
                for batch_idx in range(2)
            )
            + "CB.on_validation_start\nCB.on_validation_epoch_start\nCB.on_validation_batch_start(0)\n"
            "M.validation_step(0)\nCB.on_validation_batch_end(0)\nCB.on_validation_epoch_end\n"
            "CB.on_validation_end\nCB.on_train_epoch_end\nCB.on_train_end\nCB.on_fit_end",
        ),
        _weight("The state of a run is made anew for another model.", "0.5 -0.25", "0.461738 -0.323505"),
    ),
    "resume_beyond_max_epochs": (
        Difference(
            "A checkpoint beyond the limits is refused before the clock is set to it.",
            "global_step 6\ncurrent_epoch 2",
            "global_step 0\ncurrent_epoch 0",
        ),
    ),
    "resume_in_mid_epoch": (
        Difference(
            _RESUMED_EPOCH,
            "M.on_train_start",
            "M.on_train_start\nCB.on_train_epoch_start\nM.on_train_epoch_start\nCB.state_dict",
        ),
        _RESUMED_WEIGHT,
    ),
    "resume_in_mid_epoch.light": (_RESUMED, _RESUMED_WEIGHT),
    "resume_from_a_validation_in_mid_epoch": (
        _RESUMED,
        _weight(_DATA, "0.503395 -0.364441", "0.614245 -0.232488"),
    ),
    "resume_from_a_validation_at_the_end_of_an_epoch": (
        Difference(
            _RESUMED_EPOCH,
            "CB.on_train_start\nCB.on_train_epoch_end",
            "CB.on_train_start\nCB.on_train_epoch_start\nCB.state_dict\nCB.on_train_epoch_end",
        ),
    ),
    # logging
    **{
        f"log_{name}": (
            Difference(_FIRST_AND_LAST, f"== fit\n{row}", f"== fit\nlogger step 0: epoch=0 (int), train_step=1\n{row}"),
        )
        for name, row in {
            "every_second_step": "logger step 1: epoch=0 (int), train_step=2",
            "every_third_step_across_epochs": "logger step 2: epoch=0 (int), train_step=3",
            "last_values_at_an_early_stop": "logger step 1: epoch=0 (int), train_step=2",
        }.items()
    },
    "log_every_second_step_until_max_steps": (
        Difference(_FIRST_AND_LAST, "== fit", "== fit\nlogger step 0: epoch=0 (int), train_step=1"),
        Difference(
            _FIRST_AND_LAST,
            "logger step 4: epoch=1 (int), train_epoch=11",
            "logger step 4: epoch=1 (int), train_step=11\nlogger step 4: epoch=1 (int), train_epoch=11",
        ),
    ),
    "log_accumulation_every_second_step": (
        Difference(_FIRST_AND_LAST, "== fit", "== fit\nlogger step 0: epoch=0 (int), train_step=2"),
    ),
    "log_every_fiftieth_step_of_four": (
        Difference(
            _FIRST_AND_LAST,
            "  logged_metrics: train_step=1",
            "  logged_metrics: train_step=1\nlogger step 0: epoch=0 (int), train_step=1",
        ),
        Difference(
            _FIRST_AND_LAST,
            "  logged_metrics: train_step=12",
            "  logged_metrics: train_step=12\nlogger step 3: epoch=1 (int), train_step=12",
        ),
    ),
    "log_manual_optimization": (
        Difference(
            _FIRST_AND_LAST,
            "  logged_metrics: train_step=1",
            "  logged_metrics: train_step=1\nlogger step 0: epoch=0 (int), train_step=1",
        ),
    ),
    "log_names_that_come_and_go": (
        Difference(
            _ONCE,
            "logger step 2: epoch=0 (int), first_epoch_step=3, second_batch_step=2",
            "logger step 2: epoch=0 (int), first_epoch_step=3",
        ),
        Difference(
            _ONCE,
            "logger step 2: first_epoch_step=3, second_batch_step=2, val_batch=2",
            "logger step 2: first_epoch_step=3, val_batch=2",
        ),
        Difference(
            _ONCE,
            "in on_train_batch_end(2)\nlogger step 5: epoch=1 (int), second_batch_step=2",
            "in on_train_batch_end(2)",
        ),
        Difference(
            _ONCE,
            "in on_validation_batch_end(2)\nlogger step 5: second_batch_step=2, val_batch=5",
            "in on_validation_batch_end(2)",
        ),
        Difference(
            _ONCE,
            "in on_validation_batch_end(1)\nlogger step 5: second_batch_step=2, val_batch=4",
            "in on_validation_batch_end(1)\nlogger step 5: second_batch_step=2, val_batch=3",
        ),
    ),
    "log_large_numbers": (
        Difference(
            "A sum is kept in double precision.",
            "logger step 2: epoch=0 (int), sum=5.03316e+07",
            "logger step 2: epoch=0 (int), sum=5.03317e+07",
        ),
        *(
            Difference(
                "A sum is kept in double precision.",
                f"  {window}: int=1.67772e+07, sum=5.03316e+07",
                f"  {window}: int=1.67772e+07, sum=5.03317e+07",
            )
            for window in ("callback_metrics", "logged_metrics")
        ),
    ),
    "log_resumed": tuple(
        Difference(
            "The validation batches of a resumed run are counted on, as in the run that never stopped.",
            f"logger step 5: val_batch={batch}, val_step={value}",
            f"logger step 5: val_batch={batch + 3}, val_step={value}",
        )
        for batch, value in enumerate((11, 12, 13))
    ),
    "log_calls_of_a_logger": (
        Difference(
            "Those who watch the metrics at the end of an epoch come when its values are known and written.",
            "logger.after_save_checkpoint\nlogger step 2: epoch=0 (int), train_epoch=2\nlogger.save",
            "logger step 2: epoch=0 (int), train_epoch=2\nlogger.save\nlogger.after_save_checkpoint",
        ),
        Difference(
            "Before a checkpoint counts the rows of the loggers, they are on the disk.",
            "logger.save\nlogger.after_save_checkpoint",
            "logger.save\nlogger.save\nlogger.after_save_checkpoint",
        ),
    ),
    "stream_shorter_than_its_limit": (
        Difference(
            "`val_check_interval=1.0` is the end of the epoch, wherever the stream really ends.",
            "CB.on_train_batch_end(2)\nCB.on_train_epoch_end",
            "CB.on_train_batch_end(2)\nCB.on_validation_start\nCB.on_validation_epoch_start\n"
            "CB.on_validation_batch_start(0)\nM.validation_step(0)\nCB.on_validation_batch_end(0)\n"
            "CB.on_validation_batch_start(1)\nM.validation_step(1)\nCB.on_validation_batch_end(1)\n"
            "CB.on_validation_epoch_end\nCB.on_validation_end\nCB.on_train_epoch_end",
            times=2,
        ),
    ),
    "save_by_hand": (
        Difference(
            _EXACT,
            "mine.ckpt ['callbacks', 'epoch', 'global_step', 'loops', 'lr_schedulers', 'optimizer_states', "
            "'state_dict'] epoch 1 step 2",
            "mine.ckpt ['callbacks', 'epoch', 'global_step', 'loops', 'lr_schedulers', 'optimizer_states', 'resume', "
            "'state_dict'] epoch 1 step 2",
        ),
    ),
    "resume_in_mid_window": (
        _RESUMED_AT_3,
        Difference(
            "The resumed run ends with the weights of the run that was never interrupted.",
            "weight 0.483231 -0.318465",
            "weight 0.555092 -0.242793",
        ),
    ),
    "optimizer_step_written_without_calling_the_closure": (
        Difference(
            "A step whose closure was never called is an error and is not counted.", "global_step 1", "global_step 0"
        ),
    ),
    "log_same_name_twice_with_other_settings": (
        Difference(
            "What was logged before an exception can be read after it.",
            "in the end of fit",
            "in the end of fit\n  callback_metrics: twice=1, twice_step=1\n  logged_metrics: twice_step=1",
        ),
    ),
    "errors": (
        _error(
            "A loss without a graph is told at once, in our words.",
            "fit: training_step returns a loss without graph",
            "RuntimeError",
            "MisconfigurationException",
        ),
        _error(
            "A loss of two numbers is told at once, in our words.",
            "fit: training_step returns a loss of two numbers",
            "RuntimeError",
            "MisconfigurationException",
        ),
        _error(
            "An object of the wrong kind is a TypeError.",
            "fit: scheduler: an object that is none",
            "AttributeError",
            "TypeError",
        ),
        _error(
            "What Lightning 1 took is taken where it has one meaning, with a warning that shows the line.",
            "Trainer: max_steps=None",
            "TypeError",
            "nothing is raised",
        ),
        _error(_TYPE, "Trainer: max_time={'nonsense': 1}", "TypeError", "MisconfigurationException"),
        _error(_TYPE, "Trainer: limit_predict_batches='half'", "TypeError", "MisconfigurationException"),
        _error(_TYPE, "log: name that is no text", "TypeError", "MisconfigurationException"),
    ),
}

#: Scenarios and misuses in which we are still wrong, and why. They are expected to fail; take the line out when it is
#: mended (one that passes unexpectedly fails the tests).
PENDING: dict[str, str] = {
    "resume_from_the_last_batch_of_an_epoch": "The validation that was due after the saved batch is left out.",
    "Trainer: strategy='fsdp' without CUDA": "The strategy is not there yet, with or without CUDA.",
}


def scenario_params(names: Iterable[str], prefix: str = "") -> list[Any]:
    """The names as pytest's parameters; those that are pending are expected to fail."""
    return [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=PENDING[prefix + name]))
        if prefix + name in PENDING
        else name
        for name in names
    ]
