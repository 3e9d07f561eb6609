"""What torch itself did in each step: operators, kernels and memory, by ``torch.profiler``."""

from __future__ import annotations

import inspect
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.autograd.profiler import record_function
from torch.autograd.profiler_util import EventList, FunctionEventAvg
from torch.profiler import ProfilerAction, profile, schedule

from fulmen.profilers.profiler import Profiler
from fulmen.utilities.cloud_io import get_filesystem, is_remote, make_dirs, parent_path
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from torch import nn

_RECORDING = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
_METRICS = ("self_cpu_time_total", "self_cuda_time_total")
_OF_TORCH = tuple(name for name in inspect.signature(profile.__init__).parameters if name != "self")
_OF_TABLES = tuple(name for name in inspect.signature(EventList.table).parameters if name != "self")
#: one step of waiting, one to warm up, three that are recorded, once
_default_schedule = schedule(wait=1, warmup=1, active=3, repeat=1)


@dataclass(slots=True)
class _Stage:
    """What was recorded of one kind of step.

    Attributes:
        seen: steps that have begun.
        recorded: steps that are recorded.
        averages: the recorded operators, summed up by their keys.
        first: a record of the first step alone, for a run that ends before the default schedule records.
    """

    name: str
    seen: int = 0
    recorded: int = 0
    averages: dict[Any, FunctionEventAvg] = field(default_factory=dict)
    first: profile | None = None


class PyTorchProfiler(Profiler):
    """Record what torch does in some steps of a run by ``torch.profiler``: a table of operators at the end, and a trace
    to look at in ``chrome://tracing``, Perfetto, or TensorBoard. ``Trainer(profiler="pytorch")``.

    A step goes from the beginning of ``training_step`` (or ``validation_step``, ...) to the beginning of the next one;
    each kind of step is counted, and recorded, by itself. Steps of the sanity check do not count, nor do steps of a
    validation while training steps are being recorded: they are within that trace. What is recorded when a run ends,
    or raises, is written.

    Args:
        dirpath: where the report and the traces are written; None for the trainer's ``log_dir``.
        filename: the report's name; None prints it.
        group_by_input_shapes: whether the table tells calls with other shapes apart; sets ``record_shapes``.
        emit_nvtx: mark actions and operators for NVIDIA's tools instead of recording them: run the program under
            ``nsys profile --capture-range=cudaProfilerApi python ...``. There is no table and no trace.
        export_to_chrome: whether to write ``<stage>-[<filename>-]<step>.<time>.pt.trace.json`` for each record.
        row_limit: rows of the table; -1 for all.
        sort_by_key: the column to sort by, one of :attr:`AVAILABLE_SORT_KEYS`; None for ``"cuda_time_total"`` on a CUDA
            device, else ``"cpu_time_total"``.
        record_module_names: whether the forward passes of all sub-modules stand in the trace by name.
        table_kwargs: more arguments of torch's ``EventList.table``, such as ``max_name_column_width``.
        **profiler_kwargs: arguments of ``torch.profiler.profile``, such as ``schedule``, ``activities``,
            ``profile_memory``, ``with_stack``, ``on_trace_ready``. Without a ``schedule``: wait 1, warm up 1, record 3
            steps; the first step alone if there are fewer than three. Besides, ``export_to_flame_graph=True`` writes
            the stacks for flame graphs, of ``metric="self_cpu_time_total"`` or ``"self_cuda_time_total"``.

    Raises:
        MisconfigurationException: an argument is not known, or has a value that cannot be.
        KeyError: ``table_kwargs`` names no argument of ``EventList.table``, or one that is an argument here.
    """

    STEP_FUNCTIONS = {"training_step", "validation_step", "test_step", "predict_step"}
    AVAILABLE_SORT_KEYS = {
        "cpu_time",
        "cuda_time",
        "cpu_time_total",
        "cuda_time_total",
        "cpu_memory_usage",
        "cuda_memory_usage",
        "self_cpu_memory_usage",
        "self_cuda_memory_usage",
        "count",
    }

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        group_by_input_shapes: bool = False,
        emit_nvtx: bool = False,
        export_to_chrome: bool = True,
        row_limit: int = 20,
        sort_by_key: str | None = None,
        record_module_names: bool = True,
        table_kwargs: dict[str, Any] | None = None,
        **profiler_kwargs: Any,
    ) -> None:
        super().__init__(dirpath, filename)
        self._group_by_input_shapes = group_by_input_shapes and profiler_kwargs.get("record_shapes", True)
        self._emit_nvtx = emit_nvtx
        self._export_to_chrome = export_to_chrome
        self._row_limit = row_limit
        self._sort_by_key = sort_by_key
        self._record_module_names = record_module_names
        self._table_kwargs = dict(table_kwargs or {})
        self._export_to_flame_graph = profiler_kwargs.pop("export_to_flame_graph", False)
        self._metric = profiler_kwargs.pop("metric", _METRICS[0])
        self._schedule = profiler_kwargs.pop("schedule", None)
        self._on_trace_ready = profiler_kwargs.pop("on_trace_ready", None)
        self._profiler_kwargs = profiler_kwargs
        self._check()
        if self._group_by_input_shapes:
            profiler_kwargs["record_shapes"] = True
        if self._export_to_flame_graph:
            profiler_kwargs.setdefault("with_stack", True)
            profiler_kwargs.setdefault("experimental_config", _ExperimentalConfig(verbose=True))  # or they are empty
        self._start_anew()

    def _check(self) -> None:
        unknown = [name for name in self._profiler_kwargs if name not in _OF_TORCH]
        if unknown:
            raise MisconfigurationException(
                f"PyTorchProfiler({unknown[0]}={shown(self._profiler_kwargs[unknown[0]])}) is not known. Besides its "
                f"own arguments it takes those of torch.profiler.profile: {', '.join(_OF_TORCH)}; and "
                "export_to_flame_graph, metric."
            )
        if self._sort_by_key is not None and self._sort_by_key not in self.AVAILABLE_SORT_KEYS:
            raise MisconfigurationException(
                f"PyTorchProfiler(sort_by_key={self._sort_by_key!r}): must be one of "
                f"{', '.join(sorted(self.AVAILABLE_SORT_KEYS))}."
            )
        if self._metric not in _METRICS:
            raise MisconfigurationException(
                f"PyTorchProfiler(metric={self._metric!r}): must be {' or '.join(map(repr, _METRICS))}."
            )
        for name in self._table_kwargs:
            own = {"sort_by": "sort_by_key", "row_limit": "row_limit"}.get(name)
            if own is not None:
                raise KeyError(f"table_kwargs={{{name!r}: ...}}: write PyTorchProfiler({own}=...)")
            if name not in _OF_TABLES:
                raise KeyError(f"table_kwargs={{{name!r}: ...}} is not known: torch's table takes {_OF_TABLES}")
        if self._schedule is not None:
            first = self._schedule(0) if callable(self._schedule) else None
            if not isinstance(first, ProfilerAction):
                raise MisconfigurationException(
                    f"PyTorchProfiler(schedule={shown(self._schedule)}): must be a function from the number of a step "
                    f"to a `torch.profiler.ProfilerAction`, and gave {shown(first)} for step 0. Write "
                    "`schedule=torch.profiler.schedule(wait=1, warmup=1, active=3)`."
                )

    def _start_anew(self) -> None:
        self._stages: dict[str, _Stage] = {}
        self._stage_now: _Stage | None = None
        self._running: profile | None = None
        self._open: list[tuple[str, record_function | None]] = []
        self._module: nn.Module | None = None
        self._labels: list[Any] = []
        self._inside: list[record_function] = []
        self._is_sanity_check = False
        self._nvtx: ExitStack | None = None

    # -- a run --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        self._start_anew()
        if self._emit_nvtx and not torch.cuda.is_available():
            raise MisconfigurationException(
                "PyTorchProfiler(emit_nvtx=True) marks what runs on an NVIDIA GPU for NVIDIA's tools, and there is "
                "none here. Leave it out, and torch.profiler records what runs."
            )

    def watch(self, module: nn.Module) -> None:
        self._module = module if self._record_module_names else None

    def start(self, action_name: str) -> None:
        if action_name == "sanity_check":
            self._is_sanity_check = True
        step = action_name.rpartition(".")[2]
        if step in self.STEP_FUNCTIONS and not self._is_sanity_check:
            self._begin_step(step)
        record = None
        if self._is_recording:
            record = record_function(action_name)
            record.__enter__()
        self._open.append((action_name, record))

    def stop(self, action_name: str) -> None:
        if all(action_name != name for name, _ in self._open):
            raise ValueError(f"The action {action_name!r} was stopped but never started: call start({action_name!r}).")
        if action_name == "sanity_check":
            self._is_sanity_check = False
        name = None
        while name != action_name:  # an exception leaves actions open
            name, record = self._open.pop()
            if record is not None:
                record.__exit__(None, None, None)

    def describe(self) -> None:
        self._finish()
        for stage in self._stages.values():
            if not stage.averages:
                rank_zero_warn(_nothing_recorded(stage))
        super().describe()

    def teardown(self, stage: str | None) -> None:
        self._finish()
        self._module = None

    # -- steps --------------------------------------------------------------------------------------------------------

    @property
    def _is_recording(self) -> bool:
        running = self._running
        return self._nvtx is not None or (running is not None and running.current_action in _RECORDING)

    def _begin_step(self, name: str) -> None:
        if self._emit_nvtx:
            if self._nvtx is None:
                self._nvtx = ExitStack()
                self._nvtx.enter_context(torch.cuda.profiler.profile())
                self._nvtx.enter_context(
                    torch.autograd.profiler.emit_nvtx(record_shapes=self._profiler_kwargs.get("record_shapes", False))
                )
                self._label_modules(True)
            return
        stage, running = self._stage_now, self._running
        if stage is not None and stage.name != name:
            at_work = running is not None and running.current_action != ProfilerAction.NONE
            if at_work and stage.name == "training_step":
                return  # a validation within a trace of training
            self._close()
            stage = None
        if stage is None:
            stage = self._stage_now = self._stages.setdefault(name, _Stage(name))
            self._open_record(stage)
        elif stage.first is running and running is not None:
            self._running = None
            running.stop()
            self._open_record(stage)
        elif running is not None:
            self._running = None  # what raises on the way is not to be stopped once more: torch would crash
            with self._without_word_of_cycles(stage, running):
                running.step()
            self._running = running
        stage.seen += 1
        stage.recorded += self._is_recording
        self._label_modules(self._is_recording)

    def _without_word_of_cycles(self, stage: _Stage, running: profile) -> AbstractContextManager[None]:
        """Where torch would warn that it forgets the events of the cycle before: they are in the table already. (What
        is done at every step must not touch the filters, or warnings of the user's would come at every step.)
        """
        idle = running.current_action in (ProfilerAction.NONE, ProfilerAction.RECORD_AND_SAVE)
        if not (stage.averages and idle and running.schedule(running.step_num + 1) != ProfilerAction.NONE):
            return nullcontext()
        return _ignoring(".*Profiler clears events")

    def _open_record(self, stage: _Stage) -> None:
        """Begin to record, or to wait, at the stage's next step."""
        if stage.seen == 0 and self._schedule is None:
            stage.first = self._running = profile(schedule=_always, **self._profiler_kwargs)
        else:
            given, offset = self._schedule or _default_schedule, stage.seen
            self._running = profile(
                schedule=lambda step: given(max(step, offset)),
                on_trace_ready=lambda finished: self._keep(stage, finished),
                **self._profiler_kwargs,
            )
            self._running.step_num = offset
        self._running.start()

    def _keep(self, stage: _Stage, finished: profile) -> None:
        """Take a record that is whole: into the table, and into files."""
        if stage.first is not finished and stage.first is not None:
            stage.first, stage.recorded = None, stage.recorded - 1  # it is not needed any more
        for event in finished.key_averages(group_by_input_shape=self._group_by_input_shapes):
            key = (event.key, str(event.input_shapes) if self._group_by_input_shapes else "")
            stage.averages.setdefault(key, FunctionEventAvg()).add(event)
        if self._on_trace_ready is not None:
            self._on_trace_ready(finished)
            return
        moment = time.time_ns()
        if self._export_to_chrome:
            self._write(f".{moment}.pt.trace.json", stage.name, finished.export_chrome_trace)
        if self._export_to_flame_graph:
            self._write(f".{moment}.stack", stage.name, lambda path: finished.export_stacks(path, metric=self._metric))

    def _write(self, ending: str, name: str, export: Callable[[str], object]) -> None:
        path = self._path(ending, name)
        make_dirs(parent_path(path))
        if not is_remote(path):
            export(path)
            return
        with tempfile.TemporaryDirectory() as directory:
            beside = os.path.join(directory, "record")
            export(beside)
            with get_filesystem(path).open(path, "wb") as file:
                file.write(Path(beside).read_bytes())  # type: ignore[arg-type]

    def _close(self) -> None:
        """Let the record that runs come to its end: what it has is kept."""
        running, stage, self._running, self._stage_now = self._running, self._stage_now, None, None
        if running is None or stage is None:
            return
        self._label_modules(False)
        running.stop()

    def _finish(self) -> None:
        while self._inside:
            self._inside.pop().__exit__(None, None, None)
        while self._open:  # an exception leaves actions open
            self.stop(self._open[-1][0])
        self._close()
        self._label_modules(False)
        for stage in self._stages.values():
            if stage.first is not None:  # the default schedule has come to nothing
                first, stage.first = stage.first, None
                self._keep(stage, first)
        if self._nvtx is not None:
            nvtx, self._nvtx = self._nvtx, None
            nvtx.close()

    # -- names of modules ---------------------------------------------------------------------------------------------

    def _label_modules(self, wanted: bool) -> None:
        if wanted and not self._labels and self._module is not None:
            for name, child in self._module.named_modules():
                if name:
                    label = f"[module]{type(child).__module__}.{type(child).__qualname__}: {name}"
                    self._labels.append(child.register_forward_pre_hook(_Enter(label, self._inside)))
                    self._labels.append(child.register_forward_hook(_Leave(self._inside), always_call=True))
        elif not wanted:
            for handle in self._labels:
                handle.remove()
            self._labels.clear()

    # -- the report ---------------------------------------------------------------------------------------------------

    @property
    def averages(self) -> dict[str, EventList]:
        """What was recorded of each kind of step (``"training_step"``, ...): the operators with their summed times."""
        return {
            name: EventList(
                list(stage.averages.values()),
                use_device=_device(stage),
                profile_memory=self._profiler_kwargs.get("profile_memory", False),
                with_flops=self._profiler_kwargs.get("with_flops", False),
            )
            for name, stage in self._stages.items()
        }

    def summary(self) -> str:
        if not self._stages:
            return ""
        parts = [f"\n{(self._stage or '').upper()} Profiler Report".rstrip() + "\n"]
        for name, events in self.averages.items():
            stage = self._stages[name]
            if not events:
                parts.append(f"{_nothing_recorded(stage)}\n")
                continue
            device = _device(stage)
            key = self._sort_by_key or ("cuda_time_total" if device == "cuda" else "cpu_time_total")
            table = events.table(sort_by=key, row_limit=self._row_limit, **self._table_kwargs)
            parts.append(f"{name}: {stage.recorded} of {stage.seen} steps recorded\n{table}")
        return "\n".join(parts)


def _nothing_recorded(stage: _Stage) -> str:
    ran = "the only step that ran" if stage.seen == 1 else f"any of the {stage.seen} steps that ran"
    return (
        f"PyTorchProfiler recorded nothing of {stage.name}: its schedule does not record {ran}. Write "
        "`schedule=torch.profiler.schedule(wait=..., warmup=..., active=...)` with fewer steps before it records, or "
        "leave it out."
    )


class _Enter:
    """A hook: a module's forward begins."""

    def __init__(self, label: str, inside: list[record_function]) -> None:
        self.label, self.inside = label, inside

    def __call__(self, *args: Any) -> None:
        record = record_function(self.label)
        record.__enter__()
        self.inside.append(record)


class _Leave:
    """A hook: a module's forward has ended."""

    def __init__(self, inside: list[record_function]) -> None:
        self.inside = inside

    def __call__(self, *args: Any) -> None:
        if self.inside:
            self.inside.pop().__exit__(None, None, None)


@contextmanager
def _ignoring(message: str) -> Generator[None, None, None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=message)
        yield


def _always(step: int) -> ProfilerAction:
    return ProfilerAction.RECORD


def _device(stage: _Stage) -> str | None:
    return next((event.use_device for event in stage.averages.values() if event.use_device), None)
