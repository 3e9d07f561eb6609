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

from tests.crash.comparison import differences, left_half_written, progress_of, torn
from tests.crash.moments import Moment
from tests.crash.warm import Ended, Warm, run_plainly

SCRIPT = Path(__file__).with_name("script.py")
#: what stands for the folder of the run in the arguments of a script
ROOT = "{root}"
#: the moments at which a kill hurts most, and None for any; in this order, so that every few kills have some of each
WINDOWS = (
    *("write checkpoint", None, "renamed checkpoint", "write index", "write csv", "open index"),
    *("rename checkpoint", "remove checkpoint", "write checkpoint", None, "rename index", "open csv"),
    *("removed checkpoint", "rename csv", None, "fsync checkpoint", "renamed index", "write hparams"),
    *("write checkpoint", None, "synced csv", "renamed csv", "rename hparams", "write index"),
    *("made folder", "fsync folder", None, "fsync index", "write other", "renamed hparams"),
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
    seconds_plainly: float = 0.0  #: the same with all its imports
    record: list[str] = field(default_factory=list)  #: what a run does with files, in this order

    @property
    def run_folder(self) -> Path:
        """Where every run is made, so that the paths in its files are always the same."""
        return self.folder / "disk" / "run"

    @property
    def reference(self) -> Path:
        """The run that nobody has disturbed."""
        return self.folder / "reference"

    @property
    def events(self) -> Counter[str]:
        """How often a run does each of these."""
        return Counter(self.record)

    @property
    def filled_arguments(self) -> list[str]:
        return [argument.replace(ROOT, os.fspath(self.run_folder)) for argument in self.arguments]

    def start(self, moment: Moment | None = None, kill_after: float | None = None, plainly: bool = False) -> Ended:
        """Run the script until it ends or is killed; see :meth:`Warm.run`."""
        if plainly:
            command = [sys.executable, self.warm.script, *self.filled_arguments]
            return run_plainly(command, self.folder, kill_after)
        return self.warm.run(self.filled_arguments, self.run_folder, moment, kill_after)

    def make_reference(self) -> None:
        """Run the script undisturbed; twice, if it is also to be started plainly, which must be the same."""
        self.clear()
        record = self.folder / "record.json"
        ended = self.warm.run(self.filled_arguments, self.run_folder, record=record)
        if ended.code != 0:
            raise RuntimeError(f"the script fails though nobody kills it:\n{ended.output}")
        shutil.rmtree(self.reference, ignore_errors=True)
        shutil.move(self.run_folder, self.reference)
        self.seconds = ended.seconds
        self.record = json.loads(record.read_text())["events"]
        if self.plain_share:
            self.clear()
            self.seconds_plainly = self.finish(plainly=True).seconds

    def clear(self) -> None:
        """Let the next start be the first one."""
        shutil.rmtree(self.run_folder, ignore_errors=True)
        self.run_folder.mkdir(parents=True)

    def finish(self, plainly: bool = False) -> Ended:
        """Start the script once more, undisturbed, and see that it is then the run that was never disturbed.

        Raises:
            Lost: it fails, or what it leaves is not what the undisturbed run has left.
        """
        ended = self.start(plainly=plainly)
        if ended.code != 0:
            raise Lost(f"the script ends with {ended.code}:\n{ended.output}")
        found = differences(self.run_folder, self.reference)
        found += [f"{name} is left half written" for name in left_half_written(self.run_folder)]
        if found:
            raise Lost("\n".join(["what differs from the undisturbed run:", *found[:30], ended.output]))
        return ended


def case(subject: Subject, seed: int, kills: int = 3) -> list[str]:
    """Kill one run up to ``kills`` times, each time at another moment, then let it finish, and compare.

    Returns:
        What befell it, in words, for each process that was killed.

    Raises:
        Lost: something is not as it would be if nobody had killed it.
    """
    chance, killed = random.Random(seed), []
    subject.clear()
    try:
        for number in range(kills):
            plainly = chance.random() < subject.plain_share
            window = WINDOWS[(3 * seed + number) % len(WINDOWS)]
            moment, seconds = _choose(subject, chance, window, number == 0, plainly)
            before = progress_of(subject.run_folder)
            ended = subject.start(moment, seconds, plainly)
            _check_start(before, ended)
            if not ended.was_killed:
                break
            killed.append(_words(moment, seconds))
            _check_kill(subject, before)
        before = progress_of(subject.run_folder)
        _check_start(before, subject.finish(plainly=chance.random() < subject.plain_share))
    except (Lost, TimeoutError) as error:
        words = "; ".join(killed) or "not killed"
        again = f"--seed {seed} --kills {kills} --once --plain {subject.plain_share}"
        command = f"python -m tests.crash.harness {again} {subject.warm.script} {' '.join(subject.arguments)}"
        raise Lost(f"{error}\n\nseed {seed}: {words}\nagain: {command}") from None
    return killed


def _choose(
    subject: Subject, chance: random.Random, window: str | None, first: bool, plainly: bool
) -> tuple[Moment | None, float | None]:
    """The moment of a kill, or the seconds until it.

    Args:
        window: what the process is to be killed at, if it does that.
        first: nothing was trained yet.
        plainly: it is started by itself, and can only be killed from outside.
    """
    if plainly:
        return None, chance.uniform(0.3, 0.9) * subject.seconds_plainly
    events = subject.events
    if window is None and chance.random() < 0.5:
        return None, chance.uniform(0.05, 0.8) * subject.seconds
    kind = window if window in events else chance.choice(sorted(events))
    # a run that goes on does less than a whole one
    return Moment("kill", kind, chance.randint(1, max(1, events[kind] // (1 if first else 3)))), None


def _words(moment: Moment | None, seconds: float | None) -> str:
    return f"killed after {seconds:.2f} s" if moment is None else f"killed at {moment.kind!r} number {moment.number}"


def _check_start(before: dict[str, int], ended: Ended) -> None:
    """See that a start took up the run where the newest file had it."""
    if not ended.was_killed and ended.code != 0:
        raise Lost(f"the script ends with {ended.code}:\n{ended.output}")
    path = re.search(r"going on from (.*)", ended.output)
    newest = max(before.values(), default=0)
    if path is not None and before.get(path[1]) != newest:
        raise Lost(f"of the checkpoints {before} (with the batches they have behind them) {path[1]} was taken")
    if path is None and newest and not ended.was_killed:
        raise Lost(f"of the checkpoints {before} none was taken:\n{ended.output}")


def _check_kill(subject: Subject, before: dict[str, int]) -> None:
    """See that everything is whole after a kill, and that no progress is lost."""
    broken = torn(subject.run_folder)
    if broken:
        raise Lost("\n".join(["after the kill:", *broken]))
    then, now = (max(files.values(), default=0) for files in (before, progress_of(subject.run_folder)))
    if now < then:
        raise Lost(f"there was a checkpoint after {then} batches, and now the newest is after {now}")


def campaign(subject: Subject, kills: int, seed: int, per_case: int = 3) -> Iterator[tuple[int, list[str]]]:
    """Cases with the seeds ``seed``, ``seed + 1``, ... until so many processes were killed: each seed with what
    :func:`case` says.
    """
    while kills > 0:
        killed = case(subject, seed, min(per_case, kills))
        yield seed, killed
        kills -= len(killed)
        seed += 1


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
        if options.once:
            print("; ".join(case(subject, options.seed, options.kills)), "and nothing is lost")
            return
        for seed, killed in campaign(subject, options.kills, options.seed, options.per_case):
            print(f"seed {seed}: {'; '.join(killed) or 'not killed'}", flush=True)
        print("nothing is lost")


if __name__ == "__main__":
    main()
