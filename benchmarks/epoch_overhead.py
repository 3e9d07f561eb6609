"""What an epoch costs beside the loop written by hand: 10 batches of training, then 5 of validation, one linear layer.

Target: Fulmen with everything off at most 1 ms over the plain loop. With all defaults on, an epoch also writes a
checkpoint.

    python benchmarks/epoch_overhead.py [--quick] [--json] [--contenders fulmen lightning]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

from contenders import installed, one_layer
from measuring import Clock, Result, as_json, interleave, output_to, quiet, table

TITLES = {
    "lean": "Epochs of 10 + 5 batches, everything off: an epoch (target: fulmen <= +1 ms)",
    "defaults": "Epochs of 10 + 5 batches, all defaults on: an epoch",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer epochs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--contenders", nargs="+", default=["fulmen", "lightning", "ignite"])
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the process's time, all threads")
    parser.add_argument("--output", choices=["null", "pty"], default="null", help="where bars draw")
    arguments = parser.parse_args()
    quiet()
    task = one_layer(batches=10, val_batches=5, epochs=30 if arguments.quick else 300)
    now = time.process_time if arguments.clock == "cpu" else time.perf_counter
    results: dict[str, list[Result]] = {}
    for name in arguments.only:
        runs: dict[str, Callable[[Clock], None]] = {
            contender: partial(lambda train, clock: train(task, clock, name == "defaults"), train)  # noqa: B023
            for contender, train in installed().items()
            if contender in ("plain loop", *arguments.contenders)
        }
        with output_to(arguments.output):
            results[name] = interleave(runs, 10, now)
        if not arguments.json:
            print(table(TITLES[name], results[name], unit="ms"), flush=True)
    if arguments.json:
        print(as_json(results))


if __name__ == "__main__":
    main()
