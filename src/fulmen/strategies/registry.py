"""Strategies by name, as ``Trainer(strategy="ddp")`` takes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fulmen.strategies.ddp import DDPStrategy
from fulmen.strategies.strategy import Strategy
from fulmen.utilities.registry import Registry


class _StrategyRegistry(Registry):
    kind, plural = "strategy", "strategies"
    reserved = ("auto", "single_device")

    def register(
        self,
        name: str,
        strategy: Callable[..., Strategy] | None = None,
        description: str = "",
        override: bool = False,
        **init_params: Any,
    ) -> Any:
        """Give a strategy a name; without ``strategy`` this is a decorator of its class.

        Args:
            name: what ``Trainer(strategy=...)`` will call it.
            strategy: its class. None: the decorated one.
            description: one line for people.
            override: take the place of one that has the name.
            init_params: what it is made with.

        Raises:
            TypeError: ``name`` is no string.
            ValueError: the name is taken.
        """
        return self.enter(name, strategy, description, override, init_params)

    def available_strategies(self) -> list[str]:
        """All names."""
        return list(self)


StrategyRegistry = _StrategyRegistry()
for _name, _start_method in (("ddp", "popen"), ("ddp_spawn", "spawn"), ("ddp_fork", "fork"), ("ddp_notebook", "spawn")):
    _what = f"the whole model on each process, gradients averaged; processes by {_start_method}"
    StrategyRegistry.register(_name, DDPStrategy, _what, start_method=_start_method)
    for _unused in (False, True):
        StrategyRegistry.register(
            f"{_name}_find_unused_parameters_{str(_unused).lower()}",
            DDPStrategy,
            f"{_what}; {'looking' if _unused else 'not looking'} for parameters that a step does not use",
            start_method=_start_method,
            find_unused_parameters=_unused,
        )


def _at_first_use(module: str, name: str) -> Callable[..., Strategy]:
    """The strategy ``name``, whose module is imported when somebody asks for it."""

    def make(**arguments: Any) -> Strategy:
        return getattr(importlib.import_module(f"fulmen.strategies.{module}"), name)(**arguments)

    return make


_FSDP = _at_first_use("fsdp", "FSDPStrategy")
StrategyRegistry.register("fsdp", _FSDP, "parameters, gradients and optimizer state spread over the processes")
StrategyRegistry.register("fsdp_cpu_offload", _FSDP, "the same, kept in the memory of the host", cpu_offload=True)
StrategyRegistry.register(
    "model_parallel",
    _at_first_use("model_parallel", "ModelParallelStrategy"),
    "a mesh of processes, data parallel and tensor parallel, for a module that says how it is spread",
)

_XLA = _at_first_use("xla", "XLAStrategy")
StrategyRegistry.register("xla", _XLA, "several devices of torch_xla, gradients averaged")
StrategyRegistry.register("xla_debug", _XLA, "the same, with the names of operations in its programs", debug=True)
for _name in ("single_xla", "single_tpu"):
    _ONE = _at_first_use("single_xla", "SingleDeviceXLAStrategy")
    StrategyRegistry.register(_name, _ONE, "one device of torch_xla")

_DEEPSPEED = _at_first_use("deepspeed", "DeepSpeedStrategy")
_CPU: dict[str, Any] = {"offload_optimizer": True}
_NVME = {"remote_device": "nvme", "offload_params_device": "nvme", "offload_optimizer_device": "nvme"}
_STAGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("", "the engine of DeepSpeed, stage 2", {}),
    ("_stage_1", "the engine of DeepSpeed: optimizer state spread over the processes", {"stage": 1}),
    ("_stage_2", "the engine of DeepSpeed: and gradients", {"stage": 2}),
    ("_stage_2_offload", "the same, with the optimizer on the host", {"stage": 2, **_CPU}),
    ("_stage_3", "the engine of DeepSpeed: and parameters", {"stage": 3}),
    ("_stage_3_offload", "the same, kept on the host", {"stage": 3, **_CPU, "offload_parameters": True}),
    ("_stage_3_offload_nvme", "the same, kept on a disk", {"stage": 3, **_CPU, "offload_parameters": True, **_NVME}),
)
for _suffix, _what, _arguments in _STAGES:
    StrategyRegistry.register(f"deepspeed{_suffix}", _DEEPSPEED, _what, **_arguments)
