"""What a trainer says of itself, and the table of an evaluation's results."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fulmen.callbacks.timer import Timer
from fulmen.strategies.single_device import SingleDeviceStrategy
from fulmen.trainer.flags import DataFlags

if TYPE_CHECKING:
    from fulmen.trainer.trainer import Trainer


def explanation(trainer: Trainer) -> str:
    """A page that says what a run with the trainer's arguments does."""
    rows = [
        ("device", _where(trainer)),
        ("precision", trainer.precision),
        ("stops", _stops(trainer)),
        ("validates", _validates(trainer)),
        ("steps", _steps(trainer)),
        ("logs", _logs(trainer)),
        ("checkpoints", _checkpoints(trainer)),
        ("data", _data(trainer._data_flags)),
        ("files", str(trainer.log_dir)),
        ("callbacks", ", ".join(type(callback).__name__ for callback in trainer.callbacks) or "none"),
    ]
    if trainer.fast_dev_run:
        rows.insert(0, ("fast_dev_run", f"{int(trainer.fast_dev_run)} batches of each stage, nothing is written"))
    lines = [f"{name:<14}{text}" for name, text in rows]
    if trainer.lightning_module is not None:
        lines += ["", f"plan for {type(trainer.lightning_module).__name__}", *str(trainer.plan).splitlines()]
    return "\n".join(lines)


def headline(trainer: Trainer) -> str:
    """One line that says what begins."""
    writes = (trainer.loggers or trainer.checkpoint_callbacks) and not trainer.fast_dev_run
    files = f"files in {trainer.log_dir}" if writes else "writes nothing"
    return f"fit on {_where(trainer)} in {trainer.precision}; stops {_stops(trainer)}; {files}"


def _where(trainer: Trainer) -> str:
    strategy, world = trainer.strategy, trainer.world_size
    if world == 1:
        kind = type(strategy)
        return f"{strategy.root_device}" + ("" if kind is SingleDeviceStrategy else f" ({kind.__name__})")
    machines = f" on {trainer.num_nodes} machines" if trainer.num_nodes > 1 else ""
    each = "on the CPU" if strategy.root_device.type == "cpu" else f"each on a {strategy.root_device.type}"
    return f"{world} processes{machines}, {each} ({type(strategy).__name__})"


def _stops(trainer: Trainer) -> str:
    limits = []
    if trainer.max_epochs != -1:
        limits.append(f"after {_many(trainer.max_epochs, 'epoch')}")
    if trainer.max_steps != -1:
        limits.append(f"after {_many(trainer.max_steps, 'step')}")
    limits += [f"when {type(callback).__name__} says so" for callback in trainer.early_stopping_callbacks]
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]
    limits += [_time_of(timer) for timer in timers if timer.time_remaining() is not None]
    text = ", or ".join(limits) or "never by itself"
    if trainer.min_epochs or trainer.min_steps:
        text += f"; not before {_many(trainer.min_epochs, 'epoch')} and {_many(trainer.min_steps, 'step')}"
    return text


def _time_of(timer: Timer) -> str:
    seconds = round(timer.time_remaining() + timer.time_elapsed())  # type: ignore[operator]
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    name = "max_time" if timer.is_max_time else type(timer).__name__
    return f"after {days:02d}:{hours:02d}:{minutes:02d}:{seconds % 60:02d} ({name})"


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _validates(trainer: Trainer) -> str:
    every, given = trainer.check_val_every_n_epoch, trainer._validation_interval
    sanity = trainer._data_flags.num_sanity_val_steps
    check = {0: "", -1: "; all of it before training"}.get(sanity, f"; {sanity} batches of it before training")
    if given.interval is not None:
        return f"every {given.interval}{check}"
    what = f"every {given.batches} batches" if given.batches is not None else "at its end"
    if given.fraction is not None and given.fraction != 1.0:
        what = f"after each {given.fraction:g} of it"
    if every is None:
        return f"{what}, counted over epochs{check}"
    return f"in every epoch, {what}{check}" if every == 1 else f"in every {every}th epoch, {what}{check}"


def _steps(trainer: Trainer) -> str:
    batches = trainer.accumulate_grad_batches
    text = "after every batch" if batches == 1 else f"after every {batches} batches, and at the end of an epoch"
    if trainer.micro_batches is not None:
        size = trainer.micro_batch_size
        text += f"; each run in micro-batches of {size}" if size else "; each run in micro-batches when memory is short"
    if trainer.gradient_clip_val:
        text += f"; gradients clipped by {trainer.gradient_clip_algorithm or 'norm'} to {trainer.gradient_clip_val:g}"
    return text


def _logs(trainer: Trainer) -> str:
    if not trainer.loggers:
        return "nowhere"
    names = ", ".join(type(logger).__name__ for logger in trainer.loggers)
    every = trainer.log_every_n_steps
    return f"to {names}, " + (f"every {every} steps, the first and the last one" if every else "epochs only")


def _checkpoints(trainer: Trainer) -> str:
    found = []
    for callback in trainer.checkpoint_callbacks:
        monitor = getattr(callback, "monitor", None)
        by = f"(monitor={monitor!r}, mode={getattr(callback, 'mode', None)!r})" if monitor else ""
        found.append(type(callback).__name__ + by)
    return ", ".join(found) or "none"


def _data(flags: DataFlags) -> str:
    if flags.overfit_batches:
        return f"the same {flags.overfit_batches} of training and validation batches every time"
    limited = [
        f"{stage} {limit}" for stage, limit in flags.limits.items() if not (limit == 1.0 and isinstance(limit, float))
    ]
    return "all batches" if not limited else "limited to " + ", ".join(limited)


def evaluation_table(stage: str, results: list[dict[str, float]]) -> str:
    """The results of a validation or a test as a table: a row for each name, a column for each loader."""
    from rich.console import Console
    from rich.table import Table

    def plain(name: str) -> str:
        return name.split("/dataloader_idx_")[0]

    names = sorted({plain(name) for result in results for name in result})
    if not names:
        return ""
    table = Table(title=None)
    table.add_column(f"{stage.capitalize()} metric", style="cyan")
    for index in range(len(results)):
        table.add_column(f"DataLoader {index}", justify="right")
    for name in names:
        values = [{plain(key): value for key, value in result.items()}.get(name) for result in results]
        table.add_row(name, *("" if value is None else f"{value:.6g}" for value in values))
    out = io.StringIO()
    width = max(80, 20 + 20 * len(results))
    Console(file=out, width=width, markup=False, highlight=False).print(table)
    return out.getvalue().rstrip()
