"""Where a Fabric runs: which process this is, how the others are started, and what all do together."""

from __future__ import annotations

import inspect
import os
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor, nn

from fulmen.utilities.apply_func import apply_to_collection, convert_to_tensors, move_data_to_device
from fulmen.utilities.text import shown

if TYPE_CHECKING:
    from fulmen.accelerators.accelerator import Accelerator
    from fulmen.loggers.logger import Logger
    from fulmen.strategies.strategy import Strategy

T = TypeVar("T")


def _nothing(fabric: Any) -> None:
    """What is launched where the program itself goes on."""


class Processes:
    """The processes of a Fabric."""

    _strategy: Strategy
    _loggers: list[Logger]
    _is_ready: bool  #: the processes have met
    _is_launched: bool
    _is_watched: bool = False

    # -- who and where ------------------------------------------------------------------------------------------------

    @property
    def accelerator(self) -> Accelerator | None:
        return self._strategy.accelerator

    @property
    def strategy(self) -> Strategy:
        return self._strategy

    @property
    def device(self) -> torch.device:
        """This process's device."""
        return self._strategy.root_device

    @property
    def global_rank(self) -> int:
        """The number of this process among all, from 0."""
        return self._strategy.global_rank

    @property
    def local_rank(self) -> int:
        """The number of this process among those of its machine."""
        return self._strategy.local_rank

    @property
    def node_rank(self) -> int:
        """The number of this machine."""
        return self._strategy.node_rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self._strategy.world_size

    @property
    def is_global_zero(self) -> bool:
        return self._strategy.is_global_zero

    @property
    def loggers(self) -> list[Logger]:
        return self._loggers

    @property
    def logger(self) -> Logger:
        """The first logger.

        Raises:
            IndexError: there is none.
        """
        if not self._loggers:
            raise IndexError("this Fabric has no logger. Write `Fabric(loggers=CSVLogger('logs'))`.")
        return self._loggers[0]

    # -- the processes ------------------------------------------------------------------------------------------------

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Write it in a subclass, to have all of it run by :meth:`launch` when it is called."""

    def _launch_run(self, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._launch(partial(_without_fabric, run), args, kwargs)

    def launch(self, function: Callable[..., Any] = _nothing, *args: Any, **kwargs: Any) -> Any:
        """Start the processes. Needed before all else where there are several; ``fulmen run`` and torchrun have started
        them, and this then only lets them meet.

        Args:
            function: is run in all processes, as ``function(fabric, *args, **kwargs)``. Left out: the program goes on
                in all of them. Strategies that spawn, such as ``"ddp_spawn"``, need it.

        Returns:
            What the function returned, on rank 0 if this process waited for others.

        Raises:
            TypeError: ``function`` cannot be called with the Fabric, or is left out where it is needed.
            RuntimeError: the processes have been started already, and there is no function to run in them.
        """
        if not callable(function):
            raise TypeError(
                f"`fabric.launch({shown(function)})`: write a function, and its arguments after it: "
                "`fabric.launch(train, 3)`."
            )
        if function is not _nothing and not _takes_an_argument(function):
            raise TypeError(
                f"`fabric.launch({getattr(function, '__name__', function)})`: the function gets the Fabric as its "
                "first argument. Write `def train(fabric, ...):`."
            )
        if function is _nothing and self._is_launched:
            raise RuntimeError(
                "`fabric.launch()` was called a second time: its processes run already. Call it once, at the start."
            )
        return self._launch(function, args, kwargs)

    def _launch(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        launcher = None if self._is_ready else self._strategy.launcher
        if launcher is not None and launcher.spawns:
            if function is _nothing:
                raise TypeError(
                    f"`fabric.launch()` with {type(self._strategy).__name__} starts new processes, which need a "
                    "function to run. Write `fabric.launch(train)`, or `Fabric(strategy='ddp')`."
                )
            return launcher.run(self, self._run_here, function, args, kwargs)
        if launcher is not None:
            launcher.start()
        return self._run_here(function, args, kwargs)

    def _run_here(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._is_launched = True
        self._begin()
        control = self._strategy.control
        if control is None:
            return function(self, *args, **kwargs)
        if function is _nothing:
            self._watch()
            return None
        from fulmen.fabric.failure import shared

        with shared(control, partial(_save, self._loggers)):
            return function(self, *args, **kwargs)

    def _begin(self) -> None:
        if not self._is_ready:
            self._strategy.setup_environment()
            weakref.finalize(self, _save, self._loggers)  # at the latest when the program ends
            self._is_ready = True

    def _watch(self) -> None:
        """An exception that the program does not catch ends all processes."""
        control = self._strategy.control
        if control is not None and not self._is_watched:
            from fulmen.fabric.failure import watch_program

            self._is_watched = True
            watch_program(control)

    def _require_processes(self, what: str) -> None:
        """Several processes must have been started before they do anything.

        Raises:
            RuntimeError: they were not.
        """
        if self._is_ready:
            return
        from fulmen.strategies.single_device import SingleDeviceStrategy

        if not isinstance(self._strategy, SingleDeviceStrategy):
            raise RuntimeError(
                f"`fabric.{what}` was called before `fabric.launch()`, which starts the {self.world_size} processes of "
                f"{type(self._strategy).__name__}. Call `fabric.launch()` first."
            )
        self._begin()

    def answer_of(self, result: Any) -> dict[str, Any]:
        """What a function that has run in new processes brings back: what it returned."""
        return {"result": result}

    def take_answer(self, answer: dict[str, Any]) -> Any:
        """Give what :meth:`answer_of` took."""
        return answer["result"]

    def hear_of_ctrl_c(self) -> None:
        """Ctrl-C came to the process that waits for this one."""
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    # -- together -----------------------------------------------------------------------------------------------------

    @overload
    def to_device(self, obj: nn.Module) -> nn.Module: ...
    @overload
    def to_device(self, obj: Any) -> Any: ...
    def to_device(self, obj: Any) -> Any:
        """Put a module, or all tensors of a nest, onto this process's device."""
        return obj.to(self.device) if isinstance(obj, nn.Module) else move_data_to_device(obj, self.device)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """``print``, once on each machine."""
        if self.local_rank == 0:
            print(*args, **kwargs)

    def barrier(self, name: str | None = None) -> None:
        """Wait until all processes are here."""
        self._require_processes("barrier")
        self._strategy.barrier(name)

    def broadcast(self, obj: T, src: int = 0) -> T:
        """The object of process ``src``, on all."""
        self._require_processes("broadcast")
        return self._strategy.broadcast(obj, src)

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Tensors and numbers of a nest, from all processes: a new first dimension of size ``world_size``. On one
        device they stay as they are.

        Args:
            group: a process group. None: all processes.
            sync_grads: gradients go back to the processes that the tensors came from.
        """
        self._require_processes("all_gather")
        data = convert_to_tensors(data, self.device)
        return apply_to_collection(data, Tensor, self._strategy.all_gather, group=group, sync_grads=sync_grads)

    def all_reduce(self, data: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        """Tensors and numbers of a nest, reduced over all processes.

        Args:
            group: a process group. None: all processes.
            reduce_op: ``"mean"``, ``"sum"``, ``"min"`` or ``"max"``.
        """
        self._require_processes("all_reduce")
        data = convert_to_tensors(data, self.device)
        return apply_to_collection(data, Tensor, self._strategy.reduce, group=group, reduce_op=reduce_op)

    @contextmanager
    def rank_zero_first(self, local: bool = False) -> Generator[None, None, None]:
        """Rank 0 goes through the block first, the others after it.

        Args:
            local: that of each machine, as where each has a disk of its own.
        """
        self._require_processes("rank_zero_first")
        is_first = (self.local_rank if local else self.global_rank) == 0
        if not is_first:
            self.barrier()
        try:
            yield
        finally:
            if is_first:
                self.barrier()


def _without_fabric(run: Callable[..., Any], fabric: Any, *args: Any, **kwargs: Any) -> Any:
    return run(*args, **kwargs)


def _save(loggers: list[Any]) -> None:
    for logger in loggers:
        logger.save()


def _takes_an_argument(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True  # written in C, and nobody knows
    return any(parameter.kind is not inspect.Parameter.KEYWORD_ONLY for parameter in parameters)
