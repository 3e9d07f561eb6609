"""How the processes of a job are started: the open class of all launchers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fulmen.strategies.strategy import Strategy


class Launched(Protocol):
    """Whose processes they are: a Trainer, or a Fabric."""

    @property
    def strategy(self) -> Strategy: ...

    @property
    def is_global_zero(self) -> bool: ...

    def answer_of(self, result: Any) -> dict[str, Any]:
        """In the first of the new processes: what the process that has asked needs to know, with what was done there
        and has returned ``result``.
        """
        ...

    def take_answer(self, answer: dict[str, Any]) -> Any:
        """In the process that has asked: take over what :meth:`answer_of` gave; returns what was returned there."""
        ...

    def hear_of_ctrl_c(self) -> None:
        """In the new processes: it came to the process that waits for them. Called from another thread."""
        ...


class Launcher:
    """Starts the processes of a job.

    Attributes:
        spawns: the whole run happens in new processes, by :meth:`run`; else :meth:`start` starts the others, and this
            process is one of the job.
        is_interactive_compatible: it works where there is no program to run again, as in a notebook.
    """

    spawns: bool = False
    is_interactive_compatible: bool = False

    def start(self) -> None:
        """Start the other processes, once: they run the same program."""

    def run(self, owner: Launched, function: Callable[..., Any], *args: Any) -> Any:
        """Run ``function(*args)`` in new processes, and bring back what it returned on rank 0.

        Args:
            owner: is sent to the processes, too, and takes over what they say.
        """
        raise NotImplementedError(f"{type(self).__name__} starts the other processes by `start`, not by `run`")

    def check(self) -> None:
        """See whether the processes that were started are still there.

        Raises:
            RuntimeError: one of them has ended.
        """

    def kill(self) -> None:
        """End the processes that were started."""
