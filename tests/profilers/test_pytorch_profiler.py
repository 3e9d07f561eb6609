"""PyTorchProfiler: which steps are recorded, what is in the traces, and that none is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerAction, schedule

from fulmen.demos.boring_classes import BoringModel
from fulmen.profilers import PyTorchProfiler
from fulmen.utilities.exceptions import MisconfigurationException


def profiler_in(folder: Path, **arguments) -> PyTorchProfiler:
    return PyTorchProfiler(**{"dirpath": folder, "filename": "report", **arguments})


def traces(folder: Path, step: str = "training_step") -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"*-{step}*.pt.trace.json"))]


def marks(trace: dict) -> list[str]:
    """The names that were marked in the program, in order."""
    events = [event for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    return [event["name"] for event in sorted(events, key=lambda event: event["ts"])]


def steps(trace: dict) -> list[int]:
    return [int(name.partition("#")[2]) for name in marks(trace) if name.startswith("ProfilerStep#")]


def fit(trainer_of, profiler, batches: int, **arguments) -> None:
    trainer = trainer_of(**{"max_epochs": 1, "limit_val_batches": 0, "profiler": profiler, **arguments})
    trainer.fit(BoringModel(), torch.utils.data.DataLoader(torch.ones(batches, 32)))


@pytest.mark.parametrize(
    ("batches", "recorded"), [(1, [0]), (2, [0]), (3, [2]), (4, [2, 3]), (5, [2, 3, 4]), (9, [2, 3, 4])]
)
def test_default_schedule_records_three_steps_after_two_or_what_there_is(batches, recorded, trainer_of, tmp_path):
    fit(trainer_of, profiler_in(tmp_path), batches)
    (trace,) = traces(tmp_path)
    assert steps(trace) == recorded
    assert f"training_step: {len(recorded)} of {batches} steps recorded" in (tmp_path / "fit-report.txt").read_text()


def test_trace_shows_the_actions_of_a_step_and_the_modules_by_name(trainer_of, tmp_path):
    fit(trainer_of, profiler_in(tmp_path), 5)
    (trace,) = traces(tmp_path)
    names = marks(trace)
    assert names.count("[LightningModule]BoringModel.training_step") == 3
    assert names.count("[module]torch.nn.modules.linear.Linear: layer") == 3
    assert names.count("[LightningModule]BoringModel.backward") == 3
    assert names.count("[Optimizer]SGD.step") == 3
    operators = {event["name"] for event in trace["traceEvents"] if event.get("cat") == "cpu_op"}
    assert {"aten::linear", "aten::mm"} <= operators


def test_trace_without_names_of_modules(trainer_of, tmp_path):
    fit(trainer_of, profiler_in(tmp_path, record_module_names=False), 5)
    (trace,) = traces(tmp_path)
    assert not [name for name in marks(trace) if name.startswith("[module]")]


def test_table_counts_the_operators_of_the_recorded_steps_alone(trainer_of, tmp_path):
    profiler = profiler_in(tmp_path, schedule=schedule(wait=1, warmup=1, active=2, repeat=2))
    fit(trainer_of, profiler, 10)
    counts = {event.key: event.count for event in profiler.averages["training_step"]}
    assert counts["aten::linear"] == 4
    assert [steps(trace) for trace in traces(tmp_path)] == [[2, 3], [6, 7]]


def test_trace_that_a_run_raises_in_is_not_lost(trainer_of, tmp_path):
    class Raising(BoringModel):
        def training_step(self, batch, batch_idx):
            output = super().training_step(batch, batch_idx)
            if batch_idx == 3:
                raise KeyError("batch 3")
            return output

    model = Raising()
    with pytest.raises(KeyError):
        trainer_of(max_epochs=1, profiler=profiler_in(tmp_path)).fit(model)
    (trace,) = traces(tmp_path)
    assert steps(trace) == [2, 3]
    assert "aten::linear" in (tmp_path / "fit-report.txt").read_text()
    assert not model.layer._forward_hooks
    assert not model.layer._forward_pre_hooks


def test_module_that_raises_leaves_no_mark_open(trainer_of, tmp_path):
    class Raising(BoringModel):
        def training_step(self, batch, batch_idx):
            try:
                self.layer(batch[:, :3])
            except RuntimeError:
                self.open = len(profiler._inside)
                return super().training_step(batch, batch_idx)

    profiler, model = profiler_in(tmp_path), Raising()
    trainer_of(max_steps=5, limit_val_batches=0, profiler=profiler).fit(model)
    assert marks(traces(tmp_path)[0]).count("[module]torch.nn.modules.linear.Linear: layer") == 6
    assert model.open == 0


def test_validation_is_recorded_by_itself_and_the_sanity_check_does_not_count(trainer_of, tmp_path):
    profiler = profiler_in(tmp_path)
    trainer = trainer_of(max_epochs=1, limit_train_batches=6, limit_val_batches=5, profiler=profiler)
    trainer.fit(BoringModel())
    assert [steps(trace) for trace in traces(tmp_path)] == [[2, 3, 4]]
    assert [steps(trace) for trace in traces(tmp_path, "validation_step")] == [[2, 3, 4]]
    assert "validation_step: 3 of 5 steps recorded" in (tmp_path / "fit-report.txt").read_text()


def test_validation_while_training_is_recorded_is_within_that_trace(trainer_of, tmp_path):
    profiler = profiler_in(tmp_path)
    trainer = trainer_of(
        max_epochs=1,
        limit_train_batches=5,
        limit_val_batches=3,
        val_check_interval=3,
        num_sanity_val_steps=0,
        profiler=profiler,
    )
    trainer.fit(BoringModel())
    (trace,) = traces(tmp_path)
    assert steps(trace) == [2, 3, 4]
    assert marks(trace).count("[LightningModule]BoringModel.validation_step") == 3
    assert traces(tmp_path, "validation_step") == []


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_other_verbs_record_their_steps(verb, trainer_of, tmp_path):
    profiler = profiler_in(tmp_path)
    trainer = trainer_of(limit_val_batches=5, limit_test_batches=5, limit_predict_batches=5, profiler=profiler)
    getattr(trainer, verb)(BoringModel())
    (trace,) = traces(tmp_path, {"validate": "validation"}.get(verb, verb) + "_step")
    assert steps(trace) == [2, 3, 4]
    assert f"{verb.upper()} Profiler Report" in (tmp_path / f"{verb}-report.txt").read_text()


def test_schedule_that_leaves_nothing_is_said_with_the_number_of_steps(trainer_of, tmp_path):
    profiler = profiler_in(tmp_path, schedule=schedule(wait=50, warmup=1, active=3))
    with pytest.warns(
        UserWarning, match=r"recorded nothing of training_step: .* any of the 5 steps .* with fewer steps"
    ):
        fit(trainer_of, profiler, 5)
    assert "recorded nothing of training_step" in (tmp_path / "fit-report.txt").read_text()
    assert traces(tmp_path) == []


def test_traces_go_to_who_asked_for_them_instead_of_to_files(trainer_of, tmp_path):
    ready = []
    profiler = profiler_in(tmp_path, on_trace_ready=lambda done: ready.append(len(done.events())))
    fit(trainer_of, profiler, 5)
    assert len(ready) == 1
    assert ready[0] > 0
    assert traces(tmp_path) == []


def test_error_of_who_takes_the_trace_ends_the_run_with_that_error(trainer_of, tmp_path):
    def full(done):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fit(trainer_of, profiler_in(tmp_path, on_trace_ready=full), 9)


def test_trace_is_read_by_the_plugin_of_tensorboard(trainer_of, tmp_path):
    fit(trainer_of, profiler_in(tmp_path, filename=None), 5)
    (path,) = tmp_path.glob("*.json")
    worker, moment, *ending = path.name.split(".")
    assert (worker, ending) == ("fit-training_step", ["pt", "trace", "json"])
    assert int(moment) > 0


def test_nothing_is_exported_when_it_is_not_wanted(trainer_of, tmp_path):
    fit(trainer_of, profiler_in(tmp_path, export_to_chrome=False), 5)
    assert [path.name for path in tmp_path.iterdir()] == ["fit-report.txt"]


def test_stacks_for_flame_graphs_are_written(trainer_of, tmp_path):
    fit(trainer_of, profiler_in(tmp_path, export_to_flame_graph=True, export_to_chrome=False), 5)
    (path,) = tmp_path.glob("fit-report-training_step.*.stack")
    assert any("forward_backward" in line for line in path.read_text().splitlines())


def test_memory_shapes_and_columns_of_the_table(trainer_of, tmp_path):
    profiler = profiler_in(
        tmp_path,
        profile_memory=True,
        group_by_input_shapes=True,
        sort_by_key="self_cpu_memory_usage",
        row_limit=4,
        table_kwargs={"max_name_column_width": 12},
    )
    fit(trainer_of, profiler, 5)
    lines = (tmp_path / "fit-report.txt").read_text().splitlines()
    head = next(line for line in lines if "CPU Mem" in line)
    assert "Input Shapes" in head
    rules = [number for number, line in enumerate(lines) if line.startswith("---")]
    assert rules[2] - rules[1] - 1 == 4
    assert max(len(line[:12].strip()) for line in lines[rules[1] + 1 : rules[2]]) <= 12


def test_second_run_records_anew(trainer_of, tmp_path):
    profiler = profiler_in(tmp_path)
    for _ in range(2):
        fit(trainer_of, profiler, 5)
        assert {event.key: event.count for event in profiler.averages["training_step"]}["aten::linear"] == 3
    assert len(traces(tmp_path)) == 2


def test_report_goes_to_the_screen_and_traces_to_the_log_dir(trainer_of, tmp_path, capsys):
    fit(trainer_of, "pytorch", 5)
    assert "training_step: 3 of 5 steps recorded" in capsys.readouterr().out
    assert len(traces(tmp_path)) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"sort_by_key": "speed"}, MisconfigurationException, "sort_by_key='speed'.*cpu_time_total"),
        ({"metric": "speed"}, MisconfigurationException, "metric='speed'.*self_cpu_time_total"),
        ({"schedule": 3}, MisconfigurationException, "schedule=3.*torch.profiler.schedule"),
        ({"schedule": lambda step: 1}, MisconfigurationException, "gave 1 for step 0"),
        ({"with_stacks": True}, MisconfigurationException, "with_stacks=True.*with_stack"),
        ({"table_kwargs": {"sort_by": "count"}}, KeyError, "sort_by_key"),
        ({"table_kwargs": {"rows": 1}}, KeyError, "row_limit"),
    ],
)
def test_bad_argument_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        PyTorchProfiler(**arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it works there")
def test_marks_for_tools_of_nvidia_need_its_gpu(trainer_of):
    with pytest.raises(MisconfigurationException, match="emit_nvtx=True"):
        trainer_of(max_steps=1, profiler=PyTorchProfiler(emit_nvtx=True)).fit(BoringModel())


def test_action_never_started_is_refused():
    with pytest.raises(ValueError, match="'a' was stopped but never started"):
        PyTorchProfiler().stop("a")


def test_schedule_may_be_any_function_of_the_step(trainer_of, tmp_path):
    def third(step: int) -> ProfilerAction:
        return ProfilerAction.RECORD_AND_SAVE if step == 3 else ProfilerAction.NONE

    fit(trainer_of, profiler_in(tmp_path, schedule=third), 6)
    assert [steps(trace) for trace in traces(tmp_path)] == [[3]]
