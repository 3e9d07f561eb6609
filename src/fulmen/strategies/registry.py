"""Strategies by name, as ``Trainer(strategy="ddp")`` takes them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fulmen.strategies.ddp import DDPStrategy
from fulmen.strategies.strategy import Strategy


class _StrategyRegistry(dict[str, dict[str, Any]]):
    """Names, each with the class of a strategy, a description and the arguments that it is made with."""

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
        if not isinstance(name, str):
            raise TypeError(f"StrategyRegistry.register({name!r}): the name must be a string.")
        if name in self and not override:
            raise ValueError(f"the strategy {name!r} is there already. Write `override=True` to replace it.")

        def enter(strategy: Callable[..., Strategy]) -> Callable[..., Strategy]:
            self[name] = {
                "strategy": strategy,
                "strategy_name": name,
                "description": description,
                "init_params": init_params,
            }
            return strategy

        return enter if strategy is None else enter(strategy)

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        """A new strategy of that name; ``default``, if given, where there is none.

        Raises:
            KeyError: there is none, and no default.
        """
        if name in self:
            return self[name]["strategy"](**self[name]["init_params"])
        if default is not None:
            return default
        raise KeyError(f"there is no strategy {name!r}. Known are {', '.join(sorted(self))}.")

    def remove(self, name: str) -> None:
        """Forget a name."""
        self.pop(name)

    def available_strategies(self) -> list[str]:
        """All names."""
        return list(self)

    def __str__(self) -> str:
        return f"strategies: {', '.join(self)}"


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
