"""Marks for TensorBoard's profile of a TPU, by ``torch_xla``."""

from __future__ import annotations

from typing import Any

from fulmen.profilers.profiler import Profiler
from fulmen.utilities.imports import require


class XLAProfiler(Profiler):
    """Mark the steps of a run for the profiler of ``torch_xla``, which TensorBoard captures from a port while the run
    goes on: ``tensorboard --logdir=...``, tab *Profile*, *Capture profile*, ``localhost:9012``.

    Args:
        port: where the profiler's server listens.

    Raises:
        ModuleNotFoundError: ``torch_xla`` is not installed.
    """

    STEP_FUNCTIONS = {"training_step", "validation_step", "test_step", "predict_step"}
    RECORD_FUNCTIONS = STEP_FUNCTIONS | {"backward"}

    def __init__(self, port: int = 9012) -> None:
        require("torch_xla", "XLAProfiler")
        super().__init__()
        self.port = port
        self._server: Any = None
        self._steps: dict[str, int] = {}
        self._open: dict[str, Any] = {}

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        if self._server is None:
            self._server = _tracing().start_server(self.port)

    def start(self, action_name: str) -> None:
        hook = action_name.rpartition(".")[2]
        if hook not in self.RECORD_FUNCTIONS:
            return
        if hook in self.STEP_FUNCTIONS:
            number = self._steps[hook] = self._steps.get(hook, -1) + 1
            trace = _tracing().StepTrace(action_name, step_num=number)
        else:
            trace = _tracing().Trace(action_name)
        trace.__enter__()
        self._open[action_name] = trace

    def stop(self, action_name: str) -> None:
        trace = self._open.pop(action_name, None)
        if trace is not None:
            trace.__exit__(None, None, None)

    def teardown(self, stage: str | None) -> None:
        for action_name in list(self._open):  # an exception leaves actions open
            self.stop(action_name)


def _tracing() -> Any:
    from torch_xla.debug import profiler  # type: ignore[import-not-found]

    return profiler
