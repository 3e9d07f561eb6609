"""How the processes of a job are started: the open class of all launchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


class Launcher:
    """Starts the processes of a job.

    Attributes:
        spawns: the whole run happens in new processes, by :meth:`run`; else :meth:`start` starts the others, and this
            process is one of the job.
    """

    spawns: bool = False

    def start(self) -> None:
        """Start the other processes, once: they run the same program."""

    def run(self, trainer: Trainer, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function(*args)`` in new processes, and bring back what it returned on rank 0."""
        raise NotImplementedError(f"{type(self).__name__} starts the other processes by `start`, not by `run`")

    def kill(self) -> None:
        """End the processes that were started."""
