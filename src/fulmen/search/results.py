"""What comes of a search: a table, ``results.csv``, plots, and the best configuration as a file."""

from __future__ import annotations

import csv
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml

from fulmen.search.study import failure_of, ranked, short_names, state_counts, value_text
from fulmen.search.trial import write_whole
from fulmen.search.view import duration_text

_MOST_ROWS = 10
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def write_table(study: Any, folder: Path) -> None:
    """``results.csv``: a row for each trial, in the order in which they began."""
    trials = study.get_trials(deepcopy=False)
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", study.user_attrs["monitor"], *names, "epochs", "seconds", "folder", "error"])
    for trial in trials:
        writer.writerow(
            [
                trial.number,
                _STATES[trial.state.name],
                "" if trial.value is None else repr(trial.value),
                *(trial.params.get(name, "") for name in names),
                len(trial.intermediate_values),
                f"{trial.duration.total_seconds():.1f}" if trial.duration is not None else "",
                trial.user_attrs.get("folder", str(folder)) + f"/trial_{trial.number}",
                failure_of(trial),
            ]
        )
    write_whole(folder / "results.csv", text.getvalue())


def head_of_best(number: int, monitor: str, value: float) -> str:
    """The first line of ``best.yaml``, which says whose configuration it is."""
    return f"# trial {number} of this search: {monitor} = {value_text(value)}\n"


def write_best(folder: Path, head: str, configuration: dict[str, Any]) -> None:
    """``best.yaml``, which ``fulmen fit --config`` takes."""
    write_whole(folder / "best.yaml", head + yaml.safe_dump(configuration, sort_keys=False))


def show_table(study: Any, maximize: bool) -> None:
    """Print the trials, the best first, and how many there are of each kind."""
    trials = study.get_trials(deepcopy=False)
    counts, monitor = state_counts(trials), study.user_attrs["monitor"]
    complete = ranked(trials, maximize)
    others = [trial for trial in trials if trial.state.name != "COMPLETE"]
    shown = [*complete[:_MOST_ROWS], *others[: max(0, _MOST_ROWS - len(complete))]]
    short = short_names(list(dict.fromkeys(name for trial in trials for name in trial.params)))
    header = ["trial", "state", monitor, *short.values(), "epochs", "time"]
    rows = [
        [
            str(trial.number),
            _STATES[trial.state.name],
            "" if trial.value is None else value_text(trial.value),
            *(value_text(trial.params[name]) if name in trial.params else "" for name in short),
            str(len(trial.intermediate_values)),
            duration_text(trial.duration.total_seconds()) if trial.duration is not None else "",
        ]
        for trial in shown
    ]
    _print_table(header, rows)
    if len(trials) > len(shown):
        print(f"and {len(trials) - len(shown)} more in results.csv")
    print(
        f"{len(trials)} trials: {counts['complete']} complete, {counts['pruned']} pruned, {counts['fail']} failed"
        + (f", {counts['running']} to be continued" if counts["running"] else "")
    )
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    for trial in failed[:_MOST_ROWS]:
        print(f"trial {trial.number} failed: {failure_of(trial)}")
    if len(failed) > _MOST_ROWS:
        print(f"and {len(failed) - _MOST_ROWS} more failures in results.csv")


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, name in enumerate(header):
            table.add_column(name, justify="left" if place == 1 else "right", overflow="fold")
        for place, row in enumerate(rows):
            table.add_row(*row, style="green" if place == 0 and row[1] == "complete" else None)
        Console(highlight=False).print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in [header, *rows]:
        print("  ".join(word.rjust(width) for word, width in zip(row, widths)).rstrip())


# -- plots ------------------------------------------------------------------------------------------------------------


def importances(study: Any) -> dict[str, float]:
    """How much each parameter matters, the most important first; empty if the trials cannot tell."""
    import optuna

    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental, as all of its evaluators were
        try:
            found = optuna.importance.get_param_importances(study)
        except (RuntimeError, ValueError):  # too few different values
            return {}
    return {name: value for name, value in found.items() if value == value}


def write_plots(study: Any, folder: Path, maximize: bool) -> list[str]:
    """``history`` and ``importance``, each as PNG and as HTML.

    Returns:
        The names of the files, without those that the trials are too few for.
    """
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state.name == "COMPLETE" for trial in trials):
        return []
    matter = importances(study)
    _draw_history(study, folder / "history.png", maximize)
    names = ["history.png"]
    if matter:
        _draw_importance(matter, study.user_attrs["monitor"], folder / "importance.png")
        names.append("importance.png")
    return [*names, *_write_pages(study, folder, bool(matter))]


def _draw_history(study: Any, path: Path, maximize: bool) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    trials, monitor = study.get_trials(deepcopy=False), study.user_attrs["monitor"]
    complete = [(trial.number, trial.value) for trial in trials if trial.state.name == "COMPLETE"]
    pruned = [
        (trial.number, trial.value) for trial in trials if trial.state.name == "PRUNED" and trial.value is not None
    ]
    failed = [trial.number for trial in trials if trial.state.name == "FAIL"]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    best, line = complete[0][1], []
    for number, value in complete:
        best = max(best, value) if maximize else min(best, value)
        line.append((number, best))
    line.append((max(trial.number for trial in trials), best))
    axes.step(*zip(*line), where="post", color="tab:red", linewidth=1.5, label="best so far", zorder=2)
    axes.scatter(*zip(*complete), color="tab:blue", label="complete", zorder=3)
    if pruned:
        axes.scatter(*zip(*pruned), color="tab:gray", marker="x", label="pruned, at its last epoch", zorder=1)
    if failed:
        foot = axes.get_ylim()[0]
        axes.scatter(failed, [foot] * len(failed), color="tab:red", marker="|", label="failed", zorder=1)
        axes.set_ylim(bottom=foot)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=monitor, title=f"{study.study_name}: {monitor} of {len(trials)} trials")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def _draw_importance(matter: dict[str, float], monitor: str, path: Path) -> None:
    from matplotlib.figure import Figure

    short = short_names(list(matter))
    figure = Figure(figsize=(8, 1.4 + 0.45 * len(matter)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([short[name] for name in reversed(matter)], list(reversed(matter.values())), color="tab:blue")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, max(matter.values()) * 1.12)
    axes.set(xlabel="importance", title=f"what {monitor} depends on")
    figure.savefig(path, dpi=120)


def _write_pages(study: Any, folder: Path, with_importance: bool) -> list[str]:
    import optuna

    monitor = study.user_attrs["monitor"]
    pages = {"history.html": lambda: optuna.visualization.plot_optimization_history(study, target_name=monitor)}
    if with_importance:
        pages["importance.html"] = lambda: optuna.visualization.plot_param_importances(study, target_name=monitor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        for name, draw in pages.items():
            draw().write_html(folder / name, include_plotlyjs="directory")  # plotly.min.js beside: no network is needed
    return list(pages)
