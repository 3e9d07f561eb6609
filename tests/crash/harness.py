"""Kills a training script again and again, starts it again by the same command, and compares all that it leaves in the
end with the run that nobody killed.

    python -m tests.crash.harness --seed 17
    python -m tests.crash.harness --kills 100 my_training.py --root {root} --epochs 3
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.comparison import differences, furthest, left_half_written, torn
from tests.crash.moments import Moment
from tests.crash.warm import Ended, Warm, run_plainly

SCRIPT = Path(__file__).with_name("script.py")
#: what stands for the folder of the run in the arguments of a script
ROOT = "{root}"
#: the moments at which a kill hurts most; the other half of the kills is spread over the whole time
WINDOWS = (
    *("write checkpoint", "fsync checkpoint", "rename checkpoint", "renamed checkpoint"),
    *("remove checkpoint", "removed checkpoint"),
    *("open index", "write index", "fsync index", "rename index", "renamed index"),
    *("open csv", "write csv", "synced csv", "rename csv", "renamed csv"),
    *("write hparams", "rename hparams", "renamed hparams"),
    *("made folder", "fsync folder", "write other"),
)


class Lost(AssertionError):
    """A killed run did not become the run that was not killed."""


@dataclass(slots=True)
class Subject:
    """A script, and the run of it that nobody has disturbed.

    Attributes:
        warm: what starts it.
        folder: everything is below it.
        arguments: of the script, with :data:`ROOT` for the folder of its run.
        plain_share: how many of the starts are by ``python script.py``, with all its imports.
    """

    warm: Warm
    folder: Path
    arguments: Sequence[str]
    plain_share: float = 0.0
    seconds: float = 0.0  #: that a run takes
    events: Counter[str] = field(default_factory=Counter)  #: what a run does with files

    @property
    def run_folder(self) -> Path:
        """Where every run is made, so that the paths in its files are always the same."""
        return self.folder / "disk" / "run"

    @property
    def reference(self) -> Path:
        """The run that nobody has disturbed."""
        return self.folder / "reference"

    @property
    def filled_arguments(self) -> list[str]:
        return [argument.replace(ROOT, os.fspath(self.run_folder)) for argument in self.arguments]

    def start(self, moment: Moment | None = None, kill_after: float | None = None, plainly: bool = False) -> Ended:
        """Run the script until it ends or is killed; see :meth:`Warm.run`."""
        if plainly:
            command = [sys.executable, self.warm.script, *self.filled_arguments]
            return run_plainly(command, self.run_folder.parent, kill_after)
        return self.warm.run(self.filled_arguments, self.run_folder, moment, kill_after)

    def make_reference(self) -> None:
        """Run the script undisturbed."""
        self.clear()
        record = self.folder / "record.json"
        ended = self.warm.run(self.filled_arguments, self.run_folder, record=record)
        if ended.code != 0:
            raise RuntimeError(f"the script fails though nobody kills it:\n{ended.output}")
        shutil.rmtree(self.reference, ignore_errors=True)
        self.run_folder.rename(self.reference)
        self.seconds = ended.seconds
        self.events = Counter(json.loads(record.read_text())["events"])

    def clear(self) -> None:
        """Let the next start be the first one."""
        shutil.rmtree(self.run_folder, ignore_errors=True)
        self.run_folder.mkdir(parents=True)

    def finish(self, plainly: bool = False) -> Ended:
        """Start the script as often as it takes; once, that is, as nobody kills it any more.

        Raises:
            Lost: it fails, or what it leaves is not what the undisturbed run has left.
        """
        before = furthest(self.run_folder)
        ended = self.start(plainly=plainly)
        if ended.code != 0:
            raise Lost(f"the script ends with {ended.code}:\n{ended.output}")
        self.check_went_on(ended, before)
        self.check_same()
        return ended

    def check_went_on(self, ended: Ended, batches: int) -> None:
        """See that a start took up the run where the newest file had it: after so many ``batches``."""
        match = re.search(r"going on from (.*)", ended.output)
        path = Path(match[1]) if match else None
        if path is None and batches:
            raise Lost(f"there was a checkpoint after {batches} batches, and the run began anew:\n{ended.output}")

    def check_same(self) -> None:
        """See that the run is the undisturbed one.

        Raises:
            Lost: it is not.
        """
        found = differences(self.run_folder, self.reference)
        if found:
            raise Lost("\n".join(["what differs from the undisturbed run:", *found[:30]]))


@dataclass(slots=True)
class Outcome:
    """How a case went: what befell the run, in words, one for each start that was killed."""

    kills: list[str] = field(default_factory=list)


def case(subject: Subject, seed: int, kills: int = 3) -> Outcome:
    """Kill one run up to ``kills`` times, each time at another moment, then let it finish, and compare.

    Raises:
        Lost: something is not as it would be if nobody had killed it.
    """
    chance, outcome = random.Random(seed), Outcome()
    subject.clear()
    try:
        for number in range(kills):
            before = furthest(subject.run_folder)
            plainly = chance.random() < subject.plain_share
            moment, seconds = _choose(subject, chance, first=number == 0)
            ended = subject.start(moment, seconds, plainly)
            if not ended.was_killed:
                if ended.code != 0:
                    raise Lost(f"the script ends with {ended.code}:\n{ended.output}")
                break
            outcome.kills.append(_words(moment, seconds))
            broken = torn(subject.run_folder)
            if broken:
                raise Lost("\n".join(["after the kill:", *broken]))
            now = furthest(subject.run_folder)
            if now < before:
                raise Lost(f"there was a checkpoint after {before} batches, and now the newest is after {now}")
        subject.finish(plainly=chance.random() < subject.plain_share)
        parts = left_half_written(subject.run_folder)
        if parts:
            raise Lost(f"half written files are left: {parts}")
    except (Lost, TimeoutError) as error:
        shown = " ".join(subject.arguments)
        again = f"python -m tests.crash.harness --seed {seed} --kills {kills} --once"
        raise Lost(f"{error}\n\nseed {seed} with {shown}: {'; '.join(outcome.kills)}\nagain: {again}") from None
    return outcome


def _choose(subject: Subject, chance: random.Random, first: bool) -> tuple[Moment | None, float | None]:
    """The moment of a kill, or the seconds until it."""
    if chance.random() < 0.3:
        return None, chance.uniform(0.05, subject.seconds)
    kind = chance.choice([kind for kind in WINDOWS if subject.events[kind]])
    if chance.random() < 0.2:
        kind = chance.choice(sorted(subject.events))
    # a run that goes on does less than a whole one
    number = chance.randint(1, max(1, subject.events[kind] // (1 if first else 3)))
    return Moment("kill", kind, number), None


def _words(moment: Moment | None, seconds: float | None) -> str:
    return f"killed after {seconds:.2f} s" if moment is None else f"killed at {moment.kind!r} number {moment.number}"


def campaign(subject: Subject, kills: int, seed: int, per_case: int = 3) -> list[Outcome]:
    """Cases with the seeds ``seed``, ``seed + 1``, ... until so many processes were killed."""
    outcomes: list[Outcome] = []
    while (done := sum(len(outcome.kills) for outcome in outcomes)) < kills:
        outcomes.append(case(subject, seed + len(outcomes), min(per_case, kills - done)))
    return outcomes


@contextmanager
def subject_of(
    script: str | os.PathLike[str], arguments: Sequence[str], plain_share: float = 0.0, folder: Path | None = None
) -> Iterator[Subject]:
    """A script whose undisturbed run is there.

    Args:
        folder: where to work. None: a temporary folder, in memory if that is possible, which is removed.
    """
    fast = Path("/dev/shm")  # a kill is no power failure: what the system has in memory stays
    place = fast if os.access(fast, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="crash-", dir=place) as temporary, Warm(script) as warm:
        subject = Subject(warm, folder or Path(temporary), arguments, plain_share)
        subject.make_reference()
        yield subject


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    parser.add_argument("--kills", type=int, default=10, help="processes to kill in all")
    parser.add_argument("--per-case", type=int, default=3, help="kills of one run before it may finish")
    parser.add_argument("--once", action="store_true", help="one case with all the kills")
    parser.add_argument("--plain", type=float, default=0.0, help="share of the starts by `python script.py`")
    parser.add_argument("script", nargs="?", default=os.fspath(SCRIPT))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=f"of the script; {ROOT} is the folder of a run")
    options = parser.parse_args()
    with subject_of(options.script, options.arguments or ["--root", ROOT], options.plain) as subject:
        print(f"the undisturbed run takes {subject.seconds:.1f} s and touches files {subject.events.total()} times")
        per_case = options.kills if options.once else options.per_case
        done, seed = 0, options.seed
        while done < options.kills:
            outcome = case(subject, seed, min(per_case, options.kills - done))
            done += len(outcome.kills)
            print(f"seed {seed}: {'; '.join(outcome.kills)}: nothing lost", flush=True)
            seed += 1
            if options.once:
                break


if __name__ == "__main__":
    main()
