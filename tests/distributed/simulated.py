"""Several processes of a job as threads of this one, of which one runs at a time: for the many cases in which only the
order of the data and the exchange of plain objects matter. Each has its own random numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch

from fulmen.strategies.single_device import SingleDeviceStrategy
from fulmen.trainer.shares import Share
from fulmen.utilities.seed import collect_rng_states, restore_rng_states


class Job:
    """``world`` simulated processes; :meth:`run` calls a function in each, with its rank."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.exchanges = [0] * world  #: how often each has exchanged something
        self._turn = threading.Condition()
        self._slots: dict[int, dict[int, Any]] = {}
        self._error: BaseException | None = None

    def run(self, function: Callable[[int], Any]) -> list[Any]:
        results: list[Any] = [None] * self.world
        begin = collect_rng_states()

        def process(rank: int) -> None:
            with self._turn:
                try:
                    restore_rng_states(begin)
                    if self._error is None:
                        results[rank] = function(rank)
                except BaseException as error:
                    self._error = self._error or error
                self._turn.notify_all()

        threads = [threading.Thread(target=process, args=(rank,), daemon=True) for rank in range(self.world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if self._error is not None:
            raise self._error
        assert len(set(self.exchanges)) == 1, f"the processes exchanged {self.exchanges} times"
        return results

    def gather(self, rank: int, obj: Any) -> list[Any]:
        number = self.exchanges[rank]
        self.exchanges[rank] += 1
        slots = self._slots.setdefault(number, {})
        slots[rank] = obj
        self._turn.notify_all()
        random = collect_rng_states()
        while len(slots) < self.world and self._error is None:
            if not self._turn.wait(20):
                raise TimeoutError(f"rank {rank} waits alone for exchange {number}")
        restore_rng_states(random)
        if self._error is not None:
            raise RuntimeError("another rank has failed")
        return [slots[other] for other in range(self.world)]

    def share(self, rank: int) -> Share:
        return Share(Simulated(self, rank))


class Simulated(SingleDeviceStrategy):
    """The strategy of one of them. Parameters are not exchanged."""

    def __init__(self, job: Job, rank: int) -> None:
        super().__init__()
        self.job, self._rank = job, rank

    @property
    def world_size(self) -> int:
        return self.job.world

    @property
    def global_rank(self) -> int:
        return self._rank

    def gather_objects(self, obj: Any) -> list[Any]:
        return self.job.gather(self._rank, obj)

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        return self.job.gather(self._rank, obj)[src]

    def all_gather(self, tensor: torch.Tensor, group: Any = None, sync_grads: bool = False) -> torch.Tensor:
        return torch.stack(self.job.gather(self._rank, tensor))

    def reduce(self, tensor: Any, group: Any = None, reduce_op: str | None = "mean") -> Any:
        values = self.all_gather(torch.as_tensor(tensor))
        return values.double().mean(0) if reduce_op == "mean" else values.sum(0)

    def barrier(self, name: str | None = None) -> None:
        self.job.gather(self._rank, None)
