"""From the Trainer's arguments to the parts of a run: pure functions, each checking what it reads."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from fulmen.callbacks.callback import Callback
from fulmen.callbacks.checkpoint import Checkpoint
from fulmen.callbacks.model_checkpoint import ModelCheckpoint
from fulmen.callbacks.model_summary import ModelSummary
from fulmen.callbacks.progress.progress_bar import ProgressBar, default_progress_bar
from fulmen.callbacks.rich_model_summary import RichModelSummary
from fulmen.callbacks.timer import Timer
from fulmen.core.hooks import HOOKS
from fulmen.loggers.csv_logs import CSVLogger
from fulmen.loggers.logger import DummyLogger, Logger
from fulmen.loggers.tensorboard import TensorBoardLogger
from fulmen.loops.progress import Limits
from fulmen.plugins.environments.requeue import Requeue
from fulmen.plugins.environments.slurm import SLURMEnvironment
from fulmen.profilers.base import PassThroughProfiler
from fulmen.profilers.profiler import Profiler
from fulmen.utilities.enums import GradClipAlgorithmType
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.interval import Interval, parse_duration, parse_interval
from fulmen.utilities.rank_zero import rank_zero_warn
from fulmen.utilities.text import a_kind, shown

if TYPE_CHECKING:
    from fulmen.trainer.micro_batches import MicroBatches

_STAGES = ("train", "validate", "test", "predict")
LIMIT_NAMES = {
    "train": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}


@dataclass(slots=True)
class DataFlags:
    """How much of the data is used.

    Attributes:
        limits: the most batches of each stage: a number of them (int) or a fraction of all (float).
        overfit_batches: the same for training and validation alike, without shuffling; 0 is off.
        num_sanity_val_steps: validation batches before training, ``-1`` for all.
        reload_dataloaders_every_n_epochs: ask for the training and validation loaders anew so often; 0 for never.
        is_trial: ``fast_dev_run``: the limits are those of each process.
    """

    limits: dict[str, int | float] = field(default_factory=lambda: dict.fromkeys(_STAGES, 1.0))
    overfit_batches: int | float = 0.0
    num_sanity_val_steps: int = 2
    reload_dataloaders_every_n_epochs: int = 0
    is_trial: bool = False


@dataclass(frozen=True, slots=True)
class ValidationInterval:
    """``val_check_interval``: one of a fraction of the epoch, a number of training batches, or an :class:`Interval`."""

    fraction: float | None = None
    batches: int | None = None
    interval: Interval | None = None


def whole_number(name: str, value: Any, least: int) -> int:
    """Check that an argument is a whole number not below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        advice = {"max_epochs": "; -1 means no limit", "max_steps": "; -1 means no limit"}.get(name, "")
        advice = "; -1 means all" if name == "num_sanity_val_steps" else advice
        if isinstance(value, str) and value.strip().isdecimal():
            advice = f". Write `{name}={value.strip()}`, without quotes"
        elif name == "accumulate_grad_batches" and isinstance(value, Mapping):
            advice = f". For a schedule pass the callback `GradientAccumulationScheduler(scheduling={value!r})`"
        raise MisconfigurationException(f"`{name}={value!r}`: must be a whole number from {least}{advice}.")
    return value


def refuse_class(name: str, value: Any, error: type[Exception] = MisconfigurationException) -> None:
    """Refuse a class where an object of it is meant.

    Raises:
        Exception: of the type ``error``, if ``value`` is a class.
    """
    if isinstance(value, type):
        kind = value.__name__
        raise error(f"`{name}` got the class {kind} instead of an instance. Write `{kind}(...)`.")


def truth(name: str, value: Any, default: bool) -> bool:
    """Check that an argument is True, False or None (the default)."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise MisconfigurationException(f"`{name}={value!r}`: must be True or False.")
    return value


def batches(name: str, value: int | float | None, default: int | float = 1.0) -> int | float:
    """Check a limit: a fraction from 0.0 to 1.0, or a whole number of batches."""
    if value is None:
        return default
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and not math.isnan(value)
    if good and isinstance(value, float) and value > 1.0:
        good = value == int(value)
        value = int(value) if good else value
    if not good:
        raise MisconfigurationException(
            f"`{name}={value!r}`: must be a fraction from 0.0 to 1.0, or a whole number of batches from 0 (1 means one "
            "batch, 1.0 all)."
        )
    return value


def validation_interval(value: Any, every_n_epochs: int | None) -> ValidationInterval:
    """Read ``val_check_interval`` in any of its forms."""
    default = value is None
    if default:
        value = 1.0
    if isinstance(value, bool):
        raise _bad_interval(value)
    if isinstance(value, (str, timedelta, Mapping)):
        try:
            interval = parse_interval(value)
        except MisconfigurationException as error:
            raise MisconfigurationException(f"`val_check_interval={value!r}`: {error}") from None
        return (
            ValidationInterval(batches=int(interval.count))
            if interval.unit == "batch"
            else ValidationInterval(interval=interval)
        )
    if isinstance(value, float) and not (0.0 <= value <= 1.0) and value == int(value):
        value = int(value)
    if isinstance(value, int):
        if value < 1:
            raise _bad_interval(value)
        return ValidationInterval(batches=value)
    if not isinstance(value, float) or not 0.0 < value <= 1.0:
        raise _bad_interval(value)
    if every_n_epochs is None and not default:
        raise MisconfigurationException(
            f"`val_check_interval={value}` is a fraction of an epoch, but with `check_val_every_n_epoch=None` epochs "
            "do not matter. Give a number of batches, such as `val_check_interval=1000`, or a time, such as '30min'."
        )
    return ValidationInterval(fraction=value)


def _bad_interval(value: Any) -> MisconfigurationException:
    return MisconfigurationException(
        f"`val_check_interval={value!r}`: must be a fraction of the epoch above 0.0 and up to 1.0, a whole number of "
        "batches from 1, steps or epochs such as '500step' or '2epoch', or a time such as '30min', '00:00:30:00' or a "
        "timedelta."
    )


def limits(max_epochs: Any, min_epochs: Any, max_steps: Any, min_steps: Any, has_timer: bool) -> tuple[Limits, bool]:
    """When to stop. The second value says that nobody set a limit, so that 1000 epochs were taken."""
    if max_epochs is not None:
        whole_number("max_epochs", max_epochs, -1)
    whole_number("max_steps", max_steps, -1)
    if min_epochs is not None:
        whole_number("min_epochs", min_epochs, 0)
    if min_steps is not None:
        whole_number("min_steps", min_steps, 0)
    for least, most, name in ((min_epochs, max_epochs, "epochs"), (min_steps, max_steps, "steps")):
        if least is not None and most is not None and -1 < most < least:
            rank_zero_warn(
                f"`min_{name}={least}` is more than `max_{name}={most}`, which ends training: it is ignored. "
                f"Write `max_{name}={least}` or more."
            )
    unlimited = max_epochs is None and max_steps == -1 and not has_timer
    return Limits(
        max_epochs=1000 if unlimited else -1 if max_epochs is None else max_epochs,
        max_steps=max_steps,
        min_epochs=(1 if min_steps is not None else 0) if min_epochs is None else min_epochs,
        min_steps=0 if min_steps is None else min_steps,
    ), unlimited


def root_dir(value: Any) -> str:
    """Where files go: the given folder or URL, ``~`` written out, or the working directory."""
    if value is None:
        return os.getcwd()
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"`default_root_dir={value!r}`: must be a path.")
    path = os.fspath(value)
    return path if "://" in path else os.path.normpath(os.path.expanduser(path))


# -- where it runs ----------------------------------------------------------------------------------------------------


def requeue(plugins: list[Any]) -> Requeue | None:
    """What has the job started again: the plugin that was passed, or SLURM where the job is one of its own."""
    passed = next((plugin for plugin in plugins if isinstance(plugin, Requeue)), None)
    return SLURMEnvironment() if passed is None and SLURMEnvironment.detect() else passed


# -- who listens ------------------------------------------------------------------------------------------------------


def loggers(value: Any, directory: str) -> list[Logger]:
    """``logger=`` as a list; by default TensorBoard where it is installed, else CSV files."""
    if value is None or value is True:
        installed = any(importlib.util.find_spec(name) is not None for name in ("tensorboard", "tensorboardX"))
        job = SLURMEnvironment.job_id()  # which a job keeps when it is started again, and shares with no other
        return [(TensorBoardLogger if installed else CSVLogger)(directory, version=job)]
    if value is False:
        return []
    several = isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    found: list[Any] = list(value) if several else [value]
    for logger in found:
        refuse_class("logger", logger, TypeError)
        if not isinstance(logger, Logger) and not callable(getattr(logger, "log_metrics", None)):
            raise TypeError(
                f"`logger={shown(logger)}`: must be a Logger, such as `CSVLogger('logs')`, a list of them, True or "
                f"False, not {a_kind(logger)}."
            )
    return found


def dummy_loggers(found: list[Logger]) -> list[Logger]:
    """What takes the loggers' place when nothing may be written."""
    return [DummyLogger()] if found else []


#: each is imported when it is asked for
_PROFILERS = {
    "time": "time_spent:TimeProfiler",
    "simple": "simple:SimpleProfiler",
    "advanced": "advanced:AdvancedProfiler",
    "pytorch": "pytorch:PyTorchProfiler",
    "xla": "xla:XLAProfiler",
}


def profiler(value: Any) -> Profiler:
    """The profiler that ``profiler=`` names."""
    if value is None:
        return PassThroughProfiler()
    if isinstance(value, Profiler):
        return value
    refuse_class("profiler", value)
    if isinstance(value, str) and value.lower() in _PROFILERS:
        home, name = _PROFILERS[value.lower()].split(":")
        return getattr(importlib.import_module(f"fulmen.profilers.{home}"), name)()
    raise MisconfigurationException(
        f"`profiler={value!r}`: must be {', '.join(map(repr, _PROFILERS))}, or a Profiler; None for nothing."
    )


def callbacks(
    value: Any, *, checkpointing: bool, timer: Timer | None, progress_bar: bool, summary: bool, given: dict[str, Any]
) -> list[Callback]:
    """The callbacks in calling order: those given, and those that the ``enable_*`` arguments and other packages add.

    Args:
        given: the ``enable_*`` arguments as the user wrote them, to tell a contradiction from a default.
    """
    found: list[Callback] = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    refuse_no_callbacks("`callbacks` got", found)
    for flag, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        same = [type(callback).__name__ for callback in found if isinstance(callback, kind)]
        if same and given[flag] is False:
            raise MisconfigurationException(
                f"`{flag}=False` contradicts the callback {same[0]} that was passed. Leave out one of the two."
            )
    bars = [type(callback).__name__ for callback in found if isinstance(callback, ProgressBar)]
    if len(bars) > 1:
        raise MisconfigurationException(f"`callbacks` has {len(bars)} progress bars: {bars}. Pass one.")
    if checkpointing and not any(isinstance(callback, Checkpoint) for callback in found):
        found.append(ModelCheckpoint())
    if timer is not None and not any(isinstance(callback, Timer) for callback in found):
        found.append(timer)
    if progress_bar and not bars:
        found.append(default_progress_bar())
    if summary and not any(isinstance(callback, ModelSummary) for callback in found):
        found.append(RichModelSummary())
    from fulmen.callbacks.external import external_callbacks  # of use here alone

    for place, added in external_callbacks():
        refuse_no_callbacks(f"{place} gave", added)
        found += added
    return ordered(found)


def refuse_no_callbacks(source: str, found: list[Any]) -> None:
    """Check that all of these are callbacks: objects with at least one hook.

    Raises:
        MisconfigurationException: one of them is a class, or has none.
    """
    for callback in found:
        if isinstance(callback, type):
            raise MisconfigurationException(
                f"{source} {shown(callback)} instead of an instance. Write `{callback.__name__}(...)`."
            )
        if isinstance(callback, Callback) or any(hasattr(callback, hook.name) for hook in HOOKS):
            continue
        if callback is None:
            advice = "Leave it out, or was a `return` forgotten?"
        elif callable(callback):
            advice = "For a function write `LambdaCallback(on_train_start=function)`."
        else:
            advice = "Derive it from `fulmen.Callback` and pass an instance."
        raise MisconfigurationException(
            f"{source} {shown(callback)}, which is no callback: it has none of the hooks. {advice}"
        )


def ordered(found: list[Callback]) -> list[Callback]:
    """Callbacks that search come first, the batch size before the learning rate, which depends on it; those that write
    checkpoints come last, so that they save what the others did.
    """
    unique_states(found)
    return sorted(found, key=lambda callback: getattr(type(callback), "_calling_place", 0))


def unique_states(found: list[Callback]) -> None:
    """Two callbacks with a state must differ in their key, or one would overwrite the other in a checkpoint."""
    seen: dict[str, Callback] = {}
    for callback in found:
        own = getattr(type(callback), "state_dict", Callback.state_dict)  # a mock of a Callback has none in its class
        if not isinstance(callback, Callback) or own is Callback.state_dict:
            continue
        key = callback.state_key
        if key in seen and seen[key] is not callback:
            raise RuntimeError(
                f"two callbacks of the class {type(callback).__name__} have the same `state_key` {key!r}, so only one "
                "of their states could be saved. Pass one, or define a property `state_key` that tells them apart."
            )
        seen[key] = callback


def duration(value: Any) -> timedelta:
    """Read ``max_time``."""
    try:
        return parse_duration(value)
    except MisconfigurationException as error:
        raise MisconfigurationException(f"`max_time={value!r}`: {error}") from None


# -- checks of the rest -----------------------------------------------------------------------------------------------


def fast_dev_run(value: Any) -> bool | int:
    """How many batches of each stage a trial run has; False if it is no trial run."""
    if isinstance(value, bool):
        return value
    number = whole_number("fast_dev_run", value, 0)
    return number if number > 1 else bool(number)


def clipping(value: Any, algorithm: Any) -> tuple[int | float | None, GradClipAlgorithmType | None]:
    """Check how gradients are clipped."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise TypeError(f"`gradient_clip_val={value!r}`: must be a number or None.")
    if value is not None and not value >= 0:
        raise MisconfigurationException(
            f"`gradient_clip_val={value!r}`: must not be negative, nor NaN; 0 or None switches it off."
        )
    kind = GradClipAlgorithmType.from_str(algorithm) if isinstance(algorithm, str) else None
    if algorithm is not None and kind is None:
        raise MisconfigurationException(f"`gradient_clip_algorithm={algorithm!r}`: must be 'norm' or 'value'.")
    return value, kind  # type: ignore[return-value]


def micro_batches(value: Any) -> MicroBatches | None:
    """What runs a training batch in parts, as ``micro_batch_size=`` says; None if nothing does."""
    if value is None:
        return None
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        advice = ""
        if isinstance(value, str) and value.strip().isdecimal():
            advice = f" Write `micro_batch_size={value.strip()}`, without quotes."
        raise MisconfigurationException(
            f"`micro_batch_size={shown(value)}`: must be the most samples that are run at once, a whole number from 1; "
            f"'auto', to have it found when memory is short; or None, to run each batch as a whole.{advice}"
        )
    from fulmen.trainer.micro_batches import MicroBatches  # of use here alone

    return MicroBatches(None if value == "auto" else value, is_automatic=value == "auto")


def set_determinism(deterministic: Any, benchmark: Any) -> None:
    """Choose torch's algorithms, for the whole process."""
    if deterministic not in (None, True, False, "warn"):
        raise MisconfigurationException(f"`deterministic={deterministic!r}`: must be True, False, 'warn' or None.")
    if deterministic is not None:
        torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what torch's own error asks for
        if benchmark is None:
            benchmark = False
        elif benchmark:
            rank_zero_warn(
                "`deterministic` and `benchmark=True` contradict each other: benchmarking may choose differently."
            )
    if benchmark is not None:
        if not isinstance(benchmark, bool):
            raise MisconfigurationException(f"`benchmark={benchmark!r}`: must be True, False or None.")
        torch.backends.cudnn.benchmark = benchmark


def nodes(number: Any) -> int:
    """Check the number of machines."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"`num_nodes={number!r}`: must be a whole number from 1.")
    return number


def warn_of_ignored(sync_batchnorm: Any, model_registry: Any) -> None:
    """Say which arguments have no effect."""
    if truth("sync_batchnorm", sync_batchnorm, False):
        rank_zero_warn("`sync_batchnorm=True` does nothing with one process.")
    if model_registry is not None:
        rank_zero_warn(f"`model_registry={model_registry!r}` is ignored: Fulmen has no model registry.")


def data_flags(
    limits: dict[str, Any], overfit_batches: Any, num_sanity_val_steps: Any, reload_every: Any, fast_dev_run: int
) -> DataFlags:
    """Check how much of the data is used.

    Args:
        limits: the ``limit_*_batches`` as given, by stage.
        fast_dev_run: batches of each stage in a trial run; 0 if it is none.
    """
    if overfit_batches and limits["validate"] == 0:
        rank_zero_warn(f"`overfit_batches={overfit_batches}` also sets validation; `limit_val_batches=0` is ignored.")
    overfit = batches("overfit_batches", overfit_batches)
    checked = {stage: batches(LIMIT_NAMES[stage], limit) for stage, limit in limits.items()}
    if fast_dev_run:
        few = ("test", "predict") if overfit else _STAGES
        checked.update(dict.fromkeys(few, fast_dev_run))
        num_sanity_val_steps = 0
    return DataFlags(
        limits=checked,
        overfit_batches=overfit,
        num_sanity_val_steps=2
        if num_sanity_val_steps is None
        else whole_number("num_sanity_val_steps", num_sanity_val_steps, -1),
        reload_dataloaders_every_n_epochs=whole_number("reload_dataloaders_every_n_epochs", reload_every, 0),
        is_trial=bool(fast_dev_run),
    )
