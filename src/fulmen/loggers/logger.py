"""What every logger offers, and the logger that keeps nothing."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from fulmen.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from argparse import Namespace

    from torch import Tensor
    from torch.nn import Module

    from fulmen.callbacks.checkpoint import Checkpoint


class Logger(ABC):
    """Derive from this to send metrics and hyperparameters to a place of your own.

    Write ``name``, ``version``, ``log_metrics`` and ``log_hyperparams``; the rest has defaults. Every rank calls every
    method, so decorate those that write with :func:`~fulmen.utilities.rank_zero.rank_zero_only`.
    """

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The experiment's name; None or ``""`` if it has none."""

    @property
    @abstractmethod
    def version(self) -> int | str | None:
        """The run within the experiment: a number, any text, or None."""

    @abstractmethod
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take the values of one moment.

        Args:
            metrics: numbers by name.
            step: the place on the x axis; None if there is none.
        """

    @abstractmethod
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Take the hyperparameters of the run."""

    @property
    def experiment(self) -> Any:
        """The object of the library behind, for what this interface does not offer.

        Decorate it with :func:`rank_zero_experiment`, so that it exists on rank 0 alone.
        """
        return None

    @property
    def save_dir(self) -> str | None:
        """The directory that holds the files of all experiments, or None if there are no files."""
        return None

    @property
    def root_dir(self) -> str | None:
        """The directory that holds all versions of the experiment, or None if there are no files."""
        return None

    @property
    def log_dir(self) -> str | None:
        """The directory of this run, or None if there are no files."""
        return None

    @property
    def group_separator(self) -> str:
        """What stands between the parts of a metric's name: ``loss/dataloader_idx_0``."""
        return "/"

    def log_graph(self, model: Module, input_array: Tensor | None = None) -> None:
        """Take the graph of ``model``. Does nothing unless a logger writes it.

        Args:
            model: the model.
            input_array: an input of its ``forward``; None takes ``model.example_input_array``.
        """

    def save(self) -> None:
        """Bring to its place whatever is still in memory."""

    def state_dict(self) -> dict[str, Any]:
        """How far this logger has written, as plain data; it goes into each checkpoint, after ``save`` was called.

        The default is ``{}``: nothing is known, and a resumed run writes on below whatever is there.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where this logger was when ``state_dict`` returned ``state``: a run goes on from there.

        Whatever was written after that moment is to be taken back, by the run that was killed as well as by this one:
        it is logged again. Called just before the first batch (or epoch) that follows, and only if ``state`` is not
        empty. The state is that of the logger of this class that stood at the same place among those of its class.
        """

    def finalize(self, status: str) -> None:
        """End the run: save what is left and close what is open.

        Args:
            status: ``"success"``, ``"failed"``, or ``"finished"`` when the job was asked to stop and will continue.
        """
        self.save()

    #: where the checkpoints of a trainer's runs may be: what the folders of all its runs are in, and folders it names
    _places: tuple[str, ...] = ()

    @property
    def newest_version(self) -> int | str | None:
        """The version of the newest run of this experiment that has checkpoints, None if there is no run; ``version``
        unless a logger numbers its runs itself. Nothing is made by looking.
        """
        return self.version

    def return_to_newest_run(self) -> None:
        """Go on in the directory of the newest run of this experiment instead of a new one, if the version was left to
        the logger: for ``trainer.fit(ckpt_path="auto")``. Called before this training writes anything, though an
        evaluation may have written elsewhere before. Does nothing unless a logger numbers its runs itself.
        """

    def begin_anew(self) -> None:
        """Take back all that is in the directory of this run: an earlier start of it was killed before its first
        checkpoint, and everything is logged again. Does nothing unless a logger goes on in a directory of before.
        """

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        """Called on rank 0 after ``checkpoint_callback`` has written a checkpoint."""


def tell_all(loggers: Sequence[Any], tell: Callable[[Any], Any]) -> None:
    """Call ``tell`` with every logger, also if one of them fails.

    Raises:
        Exception: the first that one of them has raised, with a note that names the logger if there are several.
    """
    failure: Exception | None = None
    for logger in loggers:
        try:
            tell(logger)
        except Exception as error:
            if len(loggers) > 1:
                error.add_note(f"This comes from {type(logger).__name__}, one of the Trainer's {len(loggers)} loggers.")
            failure = failure or error
    if failure is not None:
        raise failure


def rank_zero_experiment(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate the body of ``experiment``: rank 0 gets what it returns, others something that swallows every call."""

    @wraps(fn)
    def experiment(self: Logger) -> Any:
        return fn(self) if rank_zero_only.rank == 0 else _Nothing()  # type: ignore[attr-defined]

    return experiment


class _Nothing:
    """Has every attribute, can be called and indexed, and does nothing."""

    def nop(self, *args: Any, **kwargs: Any) -> None:
        """Take everything, do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # pickle and copy ask for these and must hear the truth
            raise AttributeError(name)
        return self.nop

    def __getitem__(self, index: Any) -> _Nothing:
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        pass


class DummyLogger(Logger):
    """Takes everything and keeps nothing; methods it does not have are taken, too. In use during ``fast_dev_run``."""

    def __init__(self) -> None:
        self._experiment = _Nothing()

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def experiment(self) -> Any:
        return self._experiment

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getitem__(self, index: int) -> Any:
        return self._experiment

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_experiment":
            raise AttributeError(name)
        return self._experiment.nop


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def merge_dicts(
    dicts: Sequence[Mapping[str, Any]],
    agg_key_funcs: Mapping[str, Any] | None = None,
    default_func: Callable[[Sequence[float]], float] = _mean,
) -> dict[str, Any]:
    """Return one dict with, per key, one number made from that key's values in all ``dicts``.

    Args:
        dicts: dicts that may nest; a key may be missing in some of them.
        agg_key_funcs: per key the function from the list of values to one value, nested as ``dicts`` are.
        default_func: the function for all other keys; the mean unless told.
    """
    functions = agg_key_funcs or {}
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in dicts for key in each):
        values = [each[key] for each in dicts if each.get(key) is not None]
        function = functions.get(key)
        if values and isinstance(values[0], Mapping):
            merged[key] = merge_dicts(values, function, default_func)
        elif values:
            merged[key] = (function or default_func)(values)
    return merged
