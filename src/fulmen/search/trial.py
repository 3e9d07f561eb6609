"""One trial: a process that runs ``fulmen fit`` with the values that were chosen for it.

``python -m fulmen.search.trial FOLDER`` reads ``trial.json`` there and leaves ``result.json``. The search starts it and
holds the other end of its standard input: when that closes, the search is gone, and the trial ends, too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from fulmen.utilities.durable import beside, sync_folder

TASK, RESULT, LOG = "trial.json", "result.json", "log.txt"
#: the storage may have a password in it, which is not to lie in a file
STORAGE_VARIABLE = "FULMEN_SEARCH_STORAGE"
#: what a trial has to save its state in, when it is asked to end
SECONDS_TO_END = 30


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power failure."""
    part = path.with_name(beside(path.name))
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    sync_folder(path.parent)


def _end_with_the_search() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # the Trainer saves its state, as at any other time
    time.sleep(SECONDS_TO_END)
    os._exit(143)


def run_trial(folder: Path) -> dict[str, Any]:
    """Train, and tell what came of it: ``state``, and ``value`` or ``error``."""
    import optuna

    from fulmen.integrations.optuna import MissingMonitor, PruningCallback
    from fulmen.search import fit
    from fulmen.search.study import make_pruner, open_storage

    task = json.loads((folder / TASK).read_text())
    trial = None
    if _is_rank_zero():
        storage = open_storage(os.environ[STORAGE_VARIABLE])
        study = optuna.load_study(
            study_name=task["study"],
            storage=storage,
            sampler=optuna.samplers.RandomSampler(),
            pruner=make_pruner(task["pruner"]),
        )
        trial = optuna.trial.Trial(study, task["trial_id"])
    monitor = task["monitor"]
    reports = PruningCallback(trial, monitor)
    try:
        trainer = fit.run_fit(task["arguments"], [reports])
    except optuna.TrialPruned as pruned:
        return {"state": "pruned", "reason": str(pruned)}
    except MissingMonitor as error:
        return {"state": "failed", "error": str(error), "missing": True}
    metrics, before = trainer.callback_metrics, _reported(trial)
    if monitor not in metrics and not before:
        names = ", ".join(map(repr, sorted(metrics))) or "none"
        return {"state": "failed", "error": f"{monitor!r} was never logged. There are: {names}.", "missing": True}
    value = float(metrics[monitor]) if monitor in metrics else before[-1]  # the run was over when it was continued
    if task["value"] == "best":
        finite = [one for one in [*before, value] if one == one]
        value = (max if task["direction"] == "maximize" else min)(finite, default=value)
    if value != value:
        return {"state": "failed", "error": f"{monitor} is NaN at the end of the run"}
    return {"state": "complete", "value": value}


def _reported(trial: Any) -> list[float]:
    if trial is None:
        return []
    values = trial.study.trials[trial.number].intermediate_values
    return [values[step] for step in sorted(values)]


def _is_rank_zero() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def main(folder: Path) -> int:
    """Run the trial in ``folder``; the exit code."""
    if _is_rank_zero():
        threading.Thread(target=_end_with_the_search, daemon=True).start()
    try:
        result = run_trial(folder)
    except SystemExit as ending:
        if ending.code in (None, 0) or (isinstance(ending.code, int) and ending.code > 128):  # was asked to end
            raise
        result = {"state": "failed", "error": ""}  # the reason is on the screen: the last line of the log
    except Exception as error:
        traceback.print_exc()
        last = str(error).strip().splitlines()
        result = {"state": "failed", "error": f"{type(error).__name__}: {last[0] if last else ''}".rstrip(": ")}
    if _is_rank_zero():
        write_whole(folder / RESULT, json.dumps(result))
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
