"""The workers: they run the trials of a study, each in a process of its own, until the search is over."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fulmen.search.arguments import Template
from fulmen.search.study import state_counts
from fulmen.search.trial import LOG, RESULT, SECONDS_TO_END, STORAGE_VARIABLE, TASK, write_whole
from fulmen.utilities.exceptions import MisconfigurationException

#: a trial that is killed so often, by somebody else than the search, has failed
MOST_STARTS = 3
#: by these a process is ended from outside; others tell of its own mistake
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM))
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(slots=True)
class Running:
    """A trial that runs.

    Attributes:
        trial: Optuna's.
        process: that runs it.
        folder: its log directory.
        place: which worker it is.
        began: by ``time.monotonic()``.
    """

    trial: Any
    process: subprocess.Popen[bytes]
    folder: Path
    place: int
    began: float


@dataclass(slots=True)
class Plan:
    """What a search does.

    Attributes:
        template: the arguments of ``fulmen fit``.
        folder: of the search.
        study: Optuna's.
        storage: its URL.
        monitor: the metric.
        direction: ``"minimize"`` or ``"maximize"``.
        value: ``"last"`` or ``"best"``.
        pruner: its name or description.
        sampler: makes the sampler for the trial of a number.
        trials: how many there shall be in the study, failed ones included; None: no limit.
        seconds: after which no more trial begins; None: no limit.
        workers: how many run at once.
        lock: of :func:`hold`.
        whole: a whole configuration of the search.
    """

    template: Template
    folder: Path
    study: Any
    storage: str
    monitor: str
    direction: str
    value: str
    pruner: str
    sampler: Callable[[int], Any]
    trials: int | None
    seconds: float | None
    workers: int
    lock: IO[str] | None
    whole: dict[str, Any]


@dataclass(slots=True)
class Workers:
    """Runs the trials of ``plan``; ``look`` is called again and again, with the trials that run.

    Attributes:
        exhausted: the sampler has nothing more to propose.
    """

    plan: Plan
    look: Callable[[Workers], None]
    say: Callable[[str], None]
    finished: Callable[[Any, str], None]
    running: list[Running] = field(default_factory=list)
    exhausted: bool = False
    began: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        """Until there are enough trials or the time is over.

        Raises:
            MisconfigurationException: the metric was not logged, which no other trial would change.
            KeyboardInterrupt: the user wants it to end; the trials that ran are continued by the next search.
        """
        try:
            self._take_up()
            while True:
                self._settle_those_that_ended()
                while len(self.running) < self.plan.workers and self._may_begin():
                    self._begin()
                self.look(self)
                if not self.running:
                    return
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            self.end()

    def end(self) -> None:
        """End the trials that run; they save their state."""
        for one in self.running:
            one.process.terminate()
        deadline = time.monotonic() + SECONDS_TO_END
        for one in self.running:
            try:
                one.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            _close(one.process)
        ended = self.running.copy()
        self.running.clear()
        for one in ended:
            if (one.folder / RESULT).exists():  # it came to its end meanwhile
                self._settle(one)

    # -- beginning ----------------------------------------------------------------------------------------------------

    def _take_up(self) -> None:
        """The trials that an earlier search has left: told if they are over, else continued."""
        import optuna

        for frozen in self.plan.study.get_trials(deepcopy=False):
            if frozen.state.name != "RUNNING" or frozen.user_attrs.get("folder", str(self._folder)) != str(
                self._folder
            ):
                continue
            self.plan.study.sampler = self.plan.sampler(frozen.number)  # for what it had not chosen yet
            trial = optuna.trial.Trial(self.plan.study, frozen._trial_id)
            folder = self._folder_of(trial)
            if (folder / RESULT).exists():
                self._tell(trial, folder)
                continue
            while len(self.running) >= self.plan.workers:
                self._settle_those_that_ended()
                self.look(self)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            self.say(f"trial {trial.number} goes on where an earlier search has left it")
            self._start(trial)

    @property
    def _folder(self) -> Path:
        return self.plan.folder.resolve()

    def _folder_of(self, trial: Any) -> Path:
        return self._folder / f"trial_{trial.number}"

    def _may_begin(self) -> bool:
        plan = self.plan
        if self.exhausted or (plan.seconds is not None and time.monotonic() - self.began >= plan.seconds):
            return False
        if plan.trials is None:
            return True
        counts = state_counts(plan.study.get_trials(deepcopy=False))
        return sum(counts.values()) - counts["waiting"] < plan.trials

    def _begin(self) -> None:
        study = self.plan.study
        study.sampler = self.plan.sampler(len(study.get_trials(deepcopy=False)))
        if getattr(study.sampler, "is_exhausted", lambda study: False)(study):
            self.exhausted = True
            return
        trial = study.ask()
        trial.set_user_attr("folder", str(self._folder))
        self._start(trial)

    def _start(self, trial: Any) -> None:
        plan, folder = self.plan, self._folder_of(trial)
        folder.mkdir(parents=True, exist_ok=True)
        labels = {one.name: one.suggest(trial) for one in plan.template.dimensions.values()}
        words = plan.template.words(labels)
        task = {
            "arguments": [*words, *within_folder(folder, words, plan.whole)],
            "parameters": labels,
            "study": plan.study.study_name,
            "trial_id": trial._trial_id,
            "monitor": plan.monitor,
            "direction": plan.direction,
            "value": plan.value,
            "pruner": plan.pruner,
        }
        write_whole(folder / TASK, json.dumps(task, indent=1))
        place = next(place for place in range(plan.workers) if place not in {one.place for one in self.running})
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fulmen.search.trial", str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(place, plan),
                start_new_session=True,  # Ctrl-C is for the search alone, which then ends its trials
                pass_fds=[]
                if plan.lock is None
                else [plan.lock.fileno()],  # the folder is in use as long as the trial lives
            )
        self.running.append(Running(trial, process, folder, place, time.monotonic()))

    # -- ending -------------------------------------------------------------------------------------------------------

    def _settle_those_that_ended(self) -> None:
        for ended in [one for one in self.running if one.process.poll() is not None]:
            self.running.remove(ended)
            self._settle(ended)

    def _settle(self, ended: Running) -> None:
        """A trial's process has ended."""
        _close(ended.process)
        if (ended.folder / RESULT).exists():
            self._tell(ended.trial, ended.folder)
            return
        code = ended.process.returncode
        number = -code if code < 0 else code - 128
        starts = ended.trial.user_attrs.get("killed", 0) + 1
        if number in _FROM_OUTSIDE and starts < MOST_STARTS:
            ended.trial.set_user_attr("killed", starts)
            self.say(f"trial {ended.trial.number} was ended by {signal.Signals(number).name}, and goes on")
            self._start(ended.trial)
            return
        last = last_line(ended.folder / LOG)
        if number in _FROM_OUTSIDE:
            reason = f"ended by {signal.Signals(number).name} {starts} times"
            reason += " (out of memory?)" if number == signal.SIGKILL else ""
        elif code < 0:
            reason = f"crashed by {_name_of(number)}{f': {last}' if last else ''}"
        else:
            reason = last or f"exit code {code}"
        self._fail(ended.trial, reason, ended.folder)

    def _tell(self, trial: Any, folder: Path) -> None:
        """Record what a trial has left in its folder."""
        try:
            result = json.loads((folder / RESULT).read_text())
            state = result["state"]
        except (ValueError, KeyError, OSError) as error:
            self._fail(trial, f"{RESULT} cannot be read ({error})", folder)
            return
        if state == "complete":
            self._record(trial, "complete", result["value"])
        elif state == "pruned":
            self._record(trial, "pruned")
        else:
            self._fail(trial, result.get("error") or last_line(folder / LOG), folder)
            if result.get("missing"):
                raise MisconfigurationException(
                    f"--monitor {self.plan.monitor}: trial {trial.number} did not log it. "
                    f"{_there_are(result['error'])} Log it with `self.log({self.plan.monitor!r}, value)`, or name "
                    "another with --monitor and a new --study. "
                    f"See {shown_path(folder / LOG)}."
                )

    def _fail(self, trial: Any, reason: str, folder: Path) -> None:
        trial.set_user_attr("error", reason)
        self._record(trial, "fail")

    def _record(self, trial: Any, state: str, value: float | None = None) -> None:
        import optuna

        try:
            self.plan.study.tell(trial, value, state=optuna.trial.TrialState[state.upper()])
        except RuntimeError as error:
            if "Study.stop" not in str(error):  # by which a sampler says that it has nothing more to propose
                raise
            self.exhausted = True
        self.finished(trial, state)


def within_folder(folder: Path, words: list[str], whole: dict[str, Any]) -> list[str]:
    """The arguments that keep what a trial writes in its folder, and let it go on there."""
    more = []
    if any(True for _ in _places(whole)):
        more += _moved_places(folder, words)
    more.append(f"--trainer.default_root_dir={folder}")
    if not whole.get("ckpt_path") or any(folder.rglob("*.ckpt")):
        more.append("--ckpt_path=auto")
    return more


def _moved_places(folder: Path, words: list[str]) -> list[str]:
    from fulmen.search.fit import whole_configuration

    try:
        with redirect_stderr(io.StringIO()):
            trainer = whole_configuration(words)["trainer"]
    except SystemExit:  # these values are wrong, as the trial will say
        return []
    for part, key in _places({"trainer": trainer}):
        part[key] = str(folder / part[key]) if not os.path.isabs(part[key]) else str(Path(part[key], folder.name))
    moved = {key: trainer[key] for key in ("logger", "callbacks") if key in trainer}
    return ["--config", json.dumps({"trainer": moved})]


def _places(whole: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Where loggers and callbacks are told a folder of their own, which would be one for all trials."""
    trainer = whole.get("trainer") or {}
    for name in ("logger", "callbacks"):
        parts = trainer.get(name)
        for part in parts if isinstance(parts, list) else [parts]:
            arguments = part.get("init_args") if isinstance(part, dict) else None
            for key in ("save_dir", "dirpath"):
                if arguments and isinstance(arguments.get(key), str):
                    yield arguments, key


def shown_path(path: Path) -> str:
    """A path as it is short: from the working directory if it is below."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _there_are(error: str) -> str:
    place = error.find("There are:")
    return error[place:].partition(". ")[0].rstrip(".") + "." if place >= 0 else error


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _environment(place: int, plan: Plan) -> dict[str, str]:
    """Each worker has its share of the machine, unless the user has divided it."""
    environment = {**os.environ, STORAGE_VARIABLE: plan.storage, "PYTHONUNBUFFERED": "1"}
    if plan.workers == 1:
        return environment
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // plan.workers)))
    gpus = _gpus()
    if len(gpus) > 1:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[place % len(gpus) :: plan.workers] or gpus)
    return environment


def _gpus() -> list[str]:
    import torch

    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]


# -- one search in a folder -------------------------------------------------------------------------------------------


def hold(folder: Path) -> IO[str] | None:
    """Let no other search work in ``folder`` as long as what is returned is open, here or in a trial that inherits it.

    Raises:
        MisconfigurationException: one is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    file = (folder / ".lock").open("a+")
    deadline = time.monotonic() + SECONDS_TO_END + 5
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            file.seek(0)
            owner = file.read().strip()
            if owner.isdigit() and _lives(int(owner)):
                raise MisconfigurationException(
                    f"{folder}: another search is at work in this folder (process {owner}). Wait until it has ended, "
                    "or give this one a --dir of its own; with the same --storage and --study they share the study."
                ) from error
            if time.monotonic() > deadline:
                raise MisconfigurationException(
                    f"{folder}: trials of a search that was killed are still running, and do not end. "
                    f"`fuser {folder / '.lock'}` tells which processes they are."
                ) from error
            time.sleep(0.1)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
