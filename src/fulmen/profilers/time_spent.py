"""Where the wall time of a run went: every moment counts for one part alone, so the parts add up to the whole."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen.profilers.profiler import Profiler
from fulmen.utilities.rank_zero import rank_zero_only
from fulmen.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from torch import nn

_OTHER, _VALIDATION, _CHECKPOINTS, _LOGGING = "other", "validation", "checkpoints", "logging"
_CALLBACKS, _HOOKS = "callbacks", "hooks of the module"
_SET_UP, _OPTIMIZER, _STRATEGY, _DATA, _TRANSFER = (
    "set-up",
    "optimizer step",
    "strategy",
    "data wait",
    "transfer to device",
)
#: the parts in the order of a step; what users measure themselves comes before the last
_ORDER = (
    _SET_UP,
    _DATA,
    _TRANSFER,
    "forward",
    "backward",
    _OPTIMIZER,
    _HOOKS,
    _CALLBACKS,
    _LOGGING,
    _CHECKPOINTS,
    _VALIDATION,
    _STRATEGY,
)
_OF_MODULE = {
    **dict.fromkeys(("training_step", "validation_step", "test_step", "predict_step"), "forward"),
    "backward": "backward",
    **dict.fromkeys(
        ("optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "lr_scheduler_step"), _OPTIMIZER
    ),
}
_OF_TRAINER = {
    "set_up": _SET_UP,
    **dict.fromkeys(("save_checkpoint", "load_checkpoint", "finish_checkpoints"), _CHECKPOINTS),
    **dict.fromkeys(("validation", "sanity_check"), _VALIDATION),
}
_OF_KIND = {"[Optimizer": _OPTIMIZER, "[Metrics": _LOGGING, "[Strategy": _STRATEGY}
#: parts of a smaller share of the run are left out, and those within a part from this one on told apart
_SHOWN, _WORTH_A_ROW = 0.0005, 0.01
#: waiting for data for this share of a run of this many seconds is worth a word
_MUCH_WAITING, _LONG_RUN = 0.2, 2.0


@dataclass(slots=True)
class _Row:
    """One line of the report; ``inner`` are those that it consists of."""

    name: str
    nanoseconds: int = 0
    inner: dict[str, int] = field(default_factory=dict)


class TimeProfiler(Profiler):
    """Report at a run's end where its time went: waiting for data, forward, backward, optimizer steps, callbacks,
    logging, checkpoints, validation. ``Trainer(profiler="time")``.

    Each moment counts for the innermost part that runs, and for that alone, so the parts add up to the whole. A block
    of your own, ``with trainer.profiler.profile("load images"): ...``, is a part of its own. The time is that of the
    main thread of one process, by the clock on the wall. Nothing is synchronised: an accelerator that works on while
    Python goes ahead is paid for where Python waits for it, most often in ``backward``, ``optimizer step`` or
    ``logging``.

    Args:
        dirpath: where the report is written; None for the trainer's ``log_dir``.
        filename: the report's name; None prints it on rank 0.
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None) -> None:
        super().__init__(dirpath, filename)
        self._spent: dict[tuple[str, str], int] = {}
        self._keys: dict[tuple[tuple[str, str], str], tuple[str, str]] = {}
        self._blocks: dict[str, _Block] = {}
        self._stack: list[tuple[str, tuple[str, str]]] = []
        self._current = (_OTHER, "")
        self._since: int | None = None
        self._thread: int | None = None
        self._device = "cpu"

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        super().setup(stage, local_rank, log_dir)
        self._spent.clear()
        self._stack.clear()
        self._current, self._thread, self._device = (_OTHER, ""), threading.get_ident(), "cpu"
        self._since = time.perf_counter_ns()

    def watch(self, module: nn.Module) -> None:
        self._device = next((parameter.device.type for parameter in module.parameters()), "cpu")

    def profile(self, action_name: str) -> AbstractContextManager[str]:  # type: ignore[override]  # it costs less
        return self._blocks.get(action_name) or self._blocks.setdefault(action_name, _Block(self, action_name))

    def start(self, action_name: str) -> None:
        if self._since is None:
            if self._spent:  # the run is reported; what comes now is no part of it
                return
            self.setup(self._stage or "", self._local_rank, self._log_dir)
        if threading.get_ident() != self._thread:  # it goes on beside what is measured here
            return
        outer = self._current
        key = self._keys.get((outer, action_name))
        if key is None:
            key = self._keys[outer, action_name] = _key_within(outer, *_part_of(action_name))
        self._stack.append((action_name, outer))
        self._go_on(key)

    def stop(self, action_name: str) -> None:
        if (self._since is None and self._spent) or self._thread not in (None, threading.get_ident()):
            return
        place = len(self._stack) - 1
        while place >= 0 and self._stack[place][0] != action_name:  # an exception leaves actions open
            place -= 1
        if place < 0:
            raise ValueError(f"The action {action_name!r} was stopped but never started: call start({action_name!r}).")
        outer = self._stack[place][1]
        del self._stack[place:]
        self._go_on(outer)

    def _go_on(self, key: tuple[str, str]) -> None:
        now = time.perf_counter_ns()
        assert self._since is not None
        self._spent[self._current] = self._spent.get(self._current, 0) + now - self._since
        self._since, self._current = now, key

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def nanoseconds(self) -> dict[str, int]:
        """The time of each part so far, in the order of the report; the values add up to the whole."""
        return {row.name: row.nanoseconds for row in self._rows()}

    def _rows(self) -> list[_Row]:
        if self._since is not None:
            self._go_on(self._current)
        rows: dict[str, _Row] = {}
        for (part, inner), spent in self._spent.items():
            row = rows.setdefault(part, _Row(part))
            row.nanoseconds += spent
            row.inner[inner] = row.inner.get(inner, 0) + spent
        own = [name for name in rows if name not in _ORDER and name != _OTHER]
        return [rows[name] for name in (*_ORDER, *own, _OTHER) if name in rows]

    def _lines(self) -> tuple[str, list[tuple[str, int, float]], list[str]]:
        """The title, the lines (a name, indented within its part; nanoseconds; the share), and remarks."""
        rows = self._rows()
        whole = sum(row.nanoseconds for row in rows) or 1
        lines: list[tuple[str, int, float]] = []
        for row in rows:
            if row.nanoseconds / whole < _SHOWN:
                continue
            lines.append((row.name, row.nanoseconds, row.nanoseconds / whole))
            inner = sorted(row.inner.items(), key=lambda item: -item[1])
            for name, spent in inner:
                if name and len(inner) + (row.name == _CALLBACKS) > 1 and spent / whole >= _WORTH_A_ROW:
                    lines.append((f"  {name}", spent, spent / whole))
        lines.append(("whole", whole, 1.0))
        rank = f", rank {self._local_rank}" if self._local_rank is not None else ""
        remarks = []
        if self._device != "cpu":
            remarks.append(
                f"Times are those of Python: work that was handed to {self._device} counts where Python waits for it."
            )
        waited = next((row.nanoseconds for row in rows if row.name == _DATA), 0) / whole
        if waited >= _MUCH_WAITING and whole / 1e9 >= _LONG_RUN:
            remarks.append(
                f"{waited:.0%} of the time was spent waiting for data: more workers, `DataLoader(num_workers=...)`, "
                "load ahead."
            )
        return f"Where the time of {self._stage or 'the run'} went{rank}", lines, remarks

    def summary(self) -> str:
        if self._since is None and not self._spent:
            return ""
        title, lines, remarks = self._lines()
        width = max(len(name) for name, _, _ in lines)
        texts = [f"{name:<{width}}  {_duration(spent):>9}  {share:>6.1%}" for name, spent, share in lines]
        rule = "-" * len(texts[0])
        return "\n".join(["", title, rule, *texts[:-1], rule, texts[-1], *remarks, ""])

    def describe(self) -> None:
        if self.filename is not None or self._since is None or not _draw(self._lines):
            super().describe()
        else:
            self.teardown(self._stage)

    def teardown(self, stage: str | None) -> None:
        self._stack.clear()
        self._go_on_if_running()
        self._since = self._thread = None

    def _go_on_if_running(self) -> None:
        if self._since is not None:
            self._go_on((_OTHER, ""))


class _Block(AbstractContextManager[str]):
    """What is measured as ``action``."""

    __slots__ = ("action", "profiler")

    def __init__(self, profiler: TimeProfiler, action: str) -> None:
        self.profiler, self.action = profiler, action

    def __enter__(self) -> str:
        self.profiler.start(self.action)
        return self.action

    def __exit__(self, *raised: Any) -> None:
        self.profiler.stop(self.action)


@rank_zero_only
def _draw(lines_of: Any) -> bool:
    """Draw the report if there is a terminal, or a notebook; whether it was."""
    with isolate_rng(include_cuda=False):  # rich draws a random number when it is imported
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        return False
    title, lines, remarks = lines_of()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(title)
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    table.add_column("", min_width=20)
    for name, spent, share in lines[:-1]:
        style = "dim" if name.startswith(" ") or share < _WORTH_A_ROW else ""
        bar = Text("" if name.startswith(" ") else _bar(share), style="cyan")
        table.add_row(name, _duration(spent), f"{share:.1%}", bar, style=style)
    table.add_section()
    name, spent, share = lines[-1]
    table.add_row(name, _duration(spent), f"{share:.1%}", "", style="bold")
    console.print()
    console.print(table)
    for remark in remarks:
        console.print(Text(remark, style="yellow"))
    return True


def _bar(share: float) -> str:
    """A bar of up to 20 characters, drawn to an eighth of one."""
    full, rest = divmod(round(160 * share), 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[rest].strip()


def _part_of(action: str) -> tuple[str, str]:
    """The part that an action counts for, and who it is within that part."""
    kind, bracket, name = action.partition("]")
    if not action.startswith("[") or not bracket:
        return _OF_TRAINER.get(action, action), ""
    owner, _, hook = name.rpartition(".")
    if kind == "[Data":
        return (_DATA if hook == "next" else _TRANSFER), ""
    if kind == "[LightningModule" and hook in _OF_MODULE:
        return _OF_MODULE[hook], ""
    if kind in ("[LightningModule", "[LightningDataModule"):
        return _HOOKS, f"{owner}.{hook}"
    if kind == "[Callback":
        who = owner.partition("{")[0]
        return (_CHECKPOINTS, "") if "Checkpoint" in who else (_CALLBACKS, who)
    return (_OF_KIND[kind], "") if kind in _OF_KIND else (action, "")


def _key_within(outer: tuple[str, str], part: str, who: str) -> tuple[str, str]:
    """What counts, when ``part`` begins within ``outer``."""
    if outer[0] in (_CHECKPOINTS, _LOGGING):  # who saves or writes asks others on the way
        return outer
    if part == _CHECKPOINTS:
        return _CHECKPOINTS, ""
    if outer[0] == _VALIDATION:
        return _VALIDATION, part
    return (_VALIDATION, _OTHER) if part == _VALIDATION else (part, who)


def _duration(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if seconds >= 3600:
        return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02} h"
    if seconds >= 100:
        return f"{int(seconds // 60)}:{int(seconds % 60):02} min"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} µs"
