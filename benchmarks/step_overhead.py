"""What a training step costs beside the loop written by hand.

Targets: Fulmen lean at most 15 us over the plain loop, with all defaults on at most 40 us, and a small GPT within 1 %.
All contenders train in one process, a stretch of steps each in turn. "Over plain (paired)" is the median of what a
stretch took longer than the plain loop's in the same turn: it holds on a busy machine too.

    python benchmarks/step_overhead.py [--quick] [--json] [--only lean] [--contenders fulmen lightning]
    python benchmarks/step_overhead.py --where fulmen --only defaults     # where the time of one contender goes
"""

from __future__ import annotations

import argparse
import io
import pstats
import time
from collections.abc import Callable
from functools import partial

from contenders import Contender, Task, installed, one_layer, small_gpt
from measuring import Clock, ProfilingClock, Result, as_json, interleave, output_to, quiet, table

TITLES = {
    "lean": "One layer, everything off: a step (target: fulmen <= +15 us)",
    "defaults": "One layer, all defaults on, one logged value: a step (target: fulmen <= +40 us)",
    "gpt": "Small GPT (width 128, 4 blocks, 8 x 128 tokens), everything off: a step (target: fulmen within 1 %)",
}


def task_and_stretch(name: str, quick: bool) -> tuple[Task, int]:
    """What to train, and how many steps make one stretch."""
    if name == "gpt":
        return small_gpt(batches=12 if quick else 60), 1
    return one_layer(batches=1_501 if quick else 10_001), 50  # 50 steps hold one write to the logger


def measure(name: str, contenders: dict[str, Contender], arguments: argparse.Namespace) -> list[Result]:
    task, stretch = task_and_stretch(name, arguments.quick)
    now = time.process_time if arguments.clock == "cpu" else time.perf_counter
    runs: dict[str, Callable[[Clock], None]] = {
        contender: partial(lambda train, clock: train(task, clock, name == "defaults"), train)
        for contender, train in contenders.items()
    }
    with output_to(arguments.output):
        return interleave(runs, stretch, now, per=stretch)


def where(name: str, contender: Contender, arguments: argparse.Namespace) -> str:
    """Calls and time per step of every function that the contender calls, the dearest first."""
    steps = 20 if name == "gpt" else 1000
    task = small_gpt(steps + 12) if name == "gpt" else one_layer(steps + 102)
    clock = ProfilingClock(first=10 if name == "gpt" else 100, last=steps + (10 if name == "gpt" else 100))
    with output_to(arguments.output):
        contender(task, clock, name == "defaults")
    stats = pstats.Stats(clock.profile, stream=io.StringIO())
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined]
    total = sum(row[1][1] for row in rows) / steps
    lines = [f"\n{name}: {total:.1f} calls per step", f"{'calls':>8} {'own us':>8} {'with inner':>10}  function"]
    for (file, line, function), (_, calls, own, inner, _) in rows[: arguments.lines]:
        place = "/".join(file.split("/")[-2:])
        lines.append(
            f"{calls / steps:8.2f} {own / steps * 1e6:8.2f} {inner / steps * 1e6:10.2f}  {place}:{line} {function}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--contenders", nargs="+", default=list(installed()), help="the plain loop is always there")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the process's time, all threads")
    parser.add_argument("--output", choices=["null", "pty"], default="null", help="where bars draw")
    parser.add_argument("--where", metavar="CONTENDER", help="instead: calls and time per step of one contender")
    parser.add_argument("--lines", type=int, default=40, help="how many functions --where shows")
    arguments = parser.parse_args()
    quiet()
    contenders = {name: each for name, each in installed().items() if name in ("plain loop", *arguments.contenders)}
    if arguments.where:
        for name in arguments.only:
            print(where(name, installed()[arguments.where], arguments))
        return
    results: dict[str, list[Result]] = {}
    for name in arguments.only:
        results[name] = measure(name, contenders, arguments)
        if not arguments.json:
            print(table(TITLES[name], results[name]), flush=True)
    if arguments.json:
        print(as_json(results))


if __name__ == "__main__":
    main()
