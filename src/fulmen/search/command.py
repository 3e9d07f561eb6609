"""``fulmen search``: its options, and what it does from the first to the last."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.imports import package_available

if TYPE_CHECKING:
    from fulmen.search.arguments import Template
    from fulmen.search.space import Dimension
    from fulmen.search.workers import Plan

_DESCRIPTION = """\
Run `fulmen fit` again and again with other values, and find the best. It takes the options below and those of
`fulmen fit`. Any value in the configuration, or on the command line, may be written as a dimension:

  lr: {log_uniform: [1e-5, 1e-1]}      a number, all orders of magnitude alike
  dropout: {uniform: [0, 0.5]}         a number
  layers: {int: [2, 6]}                a whole number; {int: [32, 256, 32]} has a step
  width: {log_int: [16, 1024]}         a whole number, all orders of magnitude alike
  activation: {choice: [relu, gelu]}   one of these, which may be classes with their init_args
"""
_EXAMPLES = """\
examples:
  fulmen search --config config.yaml --monitor val_acc --direction maximize --trials 50 --workers 2
  fulmen search --config config.yaml --model.lr '{log_uniform: [1e-5, 1e-1]}' --monitor val_loss
  fulmen search --show search                    the results so far, also while it runs
  fulmen fit --config search/best.yaml           train with what was found

The same command again goes on with a search that was interrupted or killed. See docs/search.md.
"""
_DEFAULT_TRIALS = 20
_FILE = "search.json"


def add_search_parser(commands: Any) -> None:
    """Add ``search`` to the subparsers ``commands``; what it does not know itself is for ``fulmen fit``."""
    parser = commands.add_parser(
        "search",
        help="run fit with many values of its arguments, and find the best",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        usage="fulmen search [options] [options of fulmen fit]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.rest = "fit_arguments"
    add = parser.add_argument
    add(
        "--monitor", metavar="NAME", help="the logged metric to look at (default: that of ModelCheckpoint and the like)"
    )
    add(
        "--direction",
        metavar="WAY",
        type=direction,
        help="minimize or maximize (default: as ModelCheckpoint or the like does with that metric, else minimize)",
    )
    add(
        "--value",
        choices=["last", "best"],
        default="last",
        help="what a trial is worth: the metric at its end, or the best of its epochs (default: last)",
    )
    add(
        "--trials",
        type=_positive,
        metavar="N",
        help=f"trials in all, those of earlier commands and failed ones included (default: {_DEFAULT_TRIALS}; all "
        "values of a grid; no limit with --timeout)",
    )
    add(
        "--timeout",
        type=_seconds,
        metavar="TIME",
        help="begin no trial after this time: 3600, 90min, 8h (default: no limit)",
    )
    add("--workers", type=_positive, metavar="K", default=1, help="trials that run at once (default: 1)")
    add("--study", metavar="NAME", default="search", help="the name of the study (default: search)")
    add("--dir", metavar="FOLDER", help="where everything is written (default: a folder of the study's name)")
    add("--storage", metavar="URL", help="the database of the study (default: sqlite, the file study.db in the folder)")
    add(
        "--sampler",
        metavar="NAME",
        default="tpe",
        help="who proposes values: tpe, random, grid, cmaes, qmc, gp, nsga2, or "
        '\'{"class_path": "tpe", "init_args": {...}}\' (default: tpe)',
    )
    add(
        "--pruner",
        metavar="NAME",
        default="median",
        help="who ends trials early: none, median, percentile, hyperband, successive_halving, threshold, wilcoxon, or "
        "class_path and init_args (default: median)",
    )
    add(
        "--seed", type=int, metavar="N", default=0, help="of the sampler (default: 0); seed_everything is of the trials"
    )
    add("--show", metavar="FOLDER", help="show what a search has found by now, and run nothing")
    parser.set_defaults(run=partial(_guarded, parser))


def direction(text: str) -> str:
    """``minimize`` or ``maximize``, which may be short."""
    for name in ("minimize", "maximize"):
        if text and (name.startswith(text.lower()) and len(text) >= 3):
            return name
    raise argparse.ArgumentTypeError(f"{text!r}: write minimize or maximize")


def _positive(text: str) -> int:
    if not text.lstrip("+-").isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def _seconds(text: str) -> float:
    from fulmen.utilities.interval import parse_duration

    try:
        return parse_duration(f"{text}s" if text.replace(".", "", 1).isdigit() else text).total_seconds()
    except MisconfigurationException:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 3600, 90min or 8h") from None


def require_search() -> None:
    """Do nothing if what a search needs is installed.

    Raises:
        ModuleNotFoundError: it is not; the message says how to install it.
    """
    missing = [name for name in ("optuna", "plotly") if not package_available(name)]
    if missing:
        raise ModuleNotFoundError(
            f"`fulmen search` needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed. Run `pip install 'fulmen[search]'`."
        )


def _guarded(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Search; a mistake is one line on stderr and the exit code 2."""
    try:
        require_search()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        if options.show is not None:
            return show(Path(options.show), options.storage)
        return search(options)
    except (MisconfigurationException, ModuleNotFoundError, FileNotFoundError) as error:
        print(f"fulmen search: error: {error}", file=sys.stderr)
        return 2


# -- searching --------------------------------------------------------------------------------------------------------


#: parts of names of metrics of which more is better, as a rule
_MORE_IS_BETTER = {
    "acc",
    "accuracy",
    "auc",
    "auroc",
    "bleu",
    "dice",
    "f1",
    "iou",
    "map",
    "precision",
    "psnr",
    "r2",
    "recall",
}


@dataclass(slots=True)
class _Objective:
    monitor: str
    direction: str

    @property
    def maximize(self) -> bool:
        return self.direction == "maximize"


def search(options: argparse.Namespace) -> int:
    """Run what ``options`` of ``fulmen search`` say; the exit code.

    Raises:
        MisconfigurationException: something in them is wrong. Nothing was run then.
    """
    from fulmen.search import study as studies
    from fulmen.search.arguments import Template
    from fulmen.search.fit import whole_configuration
    from fulmen.search.workers import Plan, hold

    _refuse_misspelt(options)
    if sys.path[:1] not in ([""], [os.getcwd()]):  # modules are found as `python -m` finds them
        sys.path.insert(0, os.getcwd())
    template = Template.of(options.fit_arguments)
    low, high = template.two_ways()
    whole = whole_configuration(template.words(low))
    template.take_names(whole, whole_configuration(template.words(high)))
    objective = _objective(options, whole)
    dimensions = list(template.dimensions.values())

    def sampler(number: int) -> Any:
        return studies.make_sampler(options.sampler, dimensions, options.seed, number, options.workers > 1)

    sampler(0)  # or say now what is wrong with it
    studies.make_pruner(options.pruner)
    folder = Path(options.dir or Path(whole["trainer"].get("default_root_dir") or ".", options.study))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MisconfigurationException(f"--dir {folder}: the folder cannot be made ({error.strerror}).") from error
    with ExitStack() as open_ones:
        lock = hold(folder)
        if lock is not None:
            open_ones.enter_context(lock)
        url = options.storage or f"sqlite:///{folder.resolve() / 'study.db'}"
        storage = studies.open_storage(url)
        open_ones.callback(storage.engine.dispose)
        space = studies.described(dimensions)
        study, changed = studies.open_study(
            storage, options.study, objective.direction, objective.monitor, space, {**whole, "--value": options.value}
        )
        _refuse_others_trials(folder, study)
        if changed:
            _warn_of_other_settings(changed)
        _remember(folder, study, url, options)
        plan = Plan(
            template=template,
            folder=folder,
            study=study,
            storage=url,
            monitor=objective.monitor,
            direction=objective.direction,
            value=options.value,
            pruner=options.pruner,
            sampler=sampler,
            trials=_number_of_trials(options, dimensions),
            seconds=options.timeout,
            workers=options.workers,
            lock=lock,
            whole=whole,
        )
        return _run(plan, objective)


def _refuse_others_trials(folder: Path, study: Any) -> None:
    """A new trial would go on with the files of another study's trial of its number."""
    numbers = {trial.number for trial in study.get_trials(deepcopy=False)}
    found = [path.name for path in sorted(folder.glob("trial_*")) if path.name.removeprefix("trial_").isdigit()]
    others = [name for name in found if int(name.removeprefix("trial_")) not in numbers]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise MisconfigurationException(
            f"--dir {folder}: {others[0]}{more} in this folder {'are' if more else 'is'} of another study than "
            f"{study.study_name}, and new trials would go on with what is there. Give this search a --dir of its own, "
            "or move these folders away."
        )


def _warn_of_other_settings(changed: list[str]) -> None:
    print(
        f"warning: the study goes on with other settings ({'; '.join(changed[:5])}), so that its later trials cannot "
        "be compared with the earlier ones",
        file=sys.stderr,
    )


def _number_of_trials(options: argparse.Namespace, dimensions: list[Dimension]) -> int | None:
    from fulmen.search.study import is_grid, size_of_grid

    if options.trials is not None or options.timeout is not None:
        return options.trials
    return size_of_grid(dimensions) if is_grid(options.sampler) else _DEFAULT_TRIALS


def _run(plan: Plan, objective: _Objective) -> int:
    from fulmen.search.view import View
    from fulmen.search.workers import Workers

    print(
        f"searching {len(plan.template.dimensions)} {'values' if len(plan.template.dimensions) > 1 else 'value'} to "
        f"{objective.direction} {objective.monitor}; everything is in {plan.folder}"
    )
    before = [trial.state.is_finished() for trial in plan.study.get_trials(deepcopy=False)]
    if plan.trials is not None and all(before) and len(before) >= plan.trials:
        print(f"all {len(before)} trials are done; `--trials {2 * len(before)}` asks for more")
    epochs = plan.whole["trainer"].get("max_epochs")
    code = 0
    view = View(plan.study, objective.monitor, objective.maximize, plan.trials, epochs)

    def finished(trial: Any, state: str) -> None:
        view.finished(trial, state)
        write_files(plan.study, plan.folder, objective.maximize, partial(_best_of, plan.template))

    try:
        with _asked_by_signal(), view:
            Workers(plan, view.look, view.say, finished).run()
    except (KeyboardInterrupt, _Asked) as asked:
        code = 143 if isinstance(asked, _Asked) else 130
        print("\nended as you asked; run the same command again to go on")
    _write_and_show(plan.study, plan.folder, objective.maximize, partial(_best_of, plan.template))
    complete = any(trial.state.name == "COMPLETE" for trial in plan.study.get_trials(deepcopy=False))
    return code or (0 if complete else 1)


def _best_of(template: Template, params: dict[str, Any]) -> dict[str, Any]:
    from fulmen.search.fit import whole_configuration

    return whole_configuration(template.words(params))


class _Asked(BaseException):
    """SIGTERM."""


@contextmanager
def _asked_by_signal() -> Generator[None, None, None]:
    """SIGTERM ends the search like Ctrl-C."""

    def ask(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the trials are being ended
        raise _Asked

    try:
        before = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse_misspelt(options: argparse.Namespace) -> None:
    """``--trails`` is no argument of ``fulmen fit`` either."""
    own = [f"--{name}" for name in vars(options) if name not in ("run", "fit_arguments")]
    of_fit = ("--config", "--seed_everything", "--trainer", "--model", "--data", "--optimizer", "--lr_scheduler")
    for word in options.fit_arguments:
        option = word.partition("=")[0]
        if not option.startswith("--") or "." in option or option in (*of_fit, "--ckpt_path", "--weights_only"):
            continue
        near = get_close_matches(option, own, n=1, cutoff=0.75)
        if near:
            raise MisconfigurationException(f"there is no option {option}. Did you mean {near[0]}?")


def _objective(options: argparse.Namespace, whole: dict[str, Any]) -> _Objective:
    from fulmen.search.arguments import monitor_in

    monitor, way, names = monitor_in(whole)
    if options.monitor is None and monitor is None:
        seen = f"the callbacks look at several: {', '.join(names)}" if names else "no callback names one"
        raise MisconfigurationException(
            f"it is not clear what to search for, since {seen}. Write the metric that the module logs, such as "
            "`--monitor val_loss --direction minimize`."
        )
    if options.monitor not in (None, monitor):
        way = None
    name = str(options.monitor or monitor)
    if options.direction is None and way is None and _MORE_IS_BETTER & set(re.split(r"[^a-z0-9]+", name.lower())):
        raise MisconfigurationException(
            f"it is not said which {name} is better. Write `--direction maximize`, or `--direction minimize`."
        )
    return _Objective(name, options.direction or way or "minimize")


# -- results ----------------------------------------------------------------------------------------------------------


def _remember(folder: Path, study: Any, url: str, options: argparse.Namespace) -> None:
    """What ``--show`` needs, and what tells a reader how the search was made."""
    from fulmen.search.study import without_password
    from fulmen.search.trial import write_whole

    shown = without_password(url)
    content = {
        "study": study.study_name,
        "storage": None if options.storage is None else shown,
        "monitor": study.user_attrs["monitor"],
        "direction": study.direction.name.lower(),
        "arguments": options.fit_arguments,
        "directory": os.getcwd(),
    }
    write_whole(folder / _FILE, json.dumps(content, indent=1))


def show(folder: Path, storage: str | None) -> int:
    """Print the results of the search in ``folder``, and write its files anew; the exit code.

    Raises:
        FileNotFoundError: there is no search.
        MisconfigurationException: its study cannot be read.
    """
    import optuna

    from fulmen.search.study import open_storage

    file = folder / _FILE
    if not file.is_file():
        raise FileNotFoundError(
            f"--show {folder}: there is no search in this folder, since it has no {_FILE}. Give the --dir of a search, "
            "such as `--show search`."
        )
    try:
        known = json.loads(file.read_text())
        name, kept_in = known["study"], known["storage"]
    except (ValueError, KeyError) as error:
        raise MisconfigurationException(f"{file}: this file is damaged ({error}).") from error
    url = storage or kept_in or f"sqlite:///{folder.resolve() / 'study.db'}"
    if storage is None and ":***@" in url:
        raise MisconfigurationException(
            f"--show {folder}: the study is in {url}. Write it with its password: --storage URL."
        )
    if storage is None and kept_in is None and not (folder / "study.db").is_file():
        raise FileNotFoundError(f"--show {folder}: the file study.db of the study is missing there.")
    with ExitStack() as open_ones:
        opened = open_storage(url)
        open_ones.callback(opened.engine.dispose)
        try:
            study = optuna.load_study(study_name=name, storage=opened)
        except KeyError as error:
            raise MisconfigurationException(f"--show {folder}: there is no study {name} in {url}.") from error
        _write_and_show(study, folder, study.direction.name == "MAXIMIZE", None)
    return 0


Configuration = Callable[[dict[str, Any]], dict[str, Any]]


def write_files(study: Any, folder: Path, maximize: bool, configuration: Configuration | None) -> None:
    """The table and, with ``configuration``, the best one as a file."""
    from fulmen.search.results import head_of_best, write_best, write_table
    from fulmen.search.study import ranked

    write_table(study, folder)
    complete = ranked(study.get_trials(deepcopy=False), maximize)
    if complete and configuration is not None:
        best = complete[0]
        head = head_of_best(best.number, study.user_attrs["monitor"], best.value)
        file = folder / "best.yaml"
        if not file.is_file() or not file.read_text().startswith(head):
            write_best(folder, head, configuration(best.params))


def _write_and_show(study: Any, folder: Path, maximize: bool, configuration: Configuration | None) -> None:
    from fulmen.search.results import show_table, write_plots
    from fulmen.search.study import ranked, value_text

    trials = study.get_trials(deepcopy=False)
    if not trials:
        print("there are no trials yet")
        return
    write_files(study, folder, maximize, configuration)
    plots = write_plots(study, folder, maximize)
    print()
    show_table(study, maximize)
    complete = ranked(trials, maximize)
    if complete:
        best = complete[0]
        print(f"best: trial {best.number}, {study.user_attrs['monitor']} = {value_text(best.value)}")
        if (folder / "best.yaml").is_file():
            print(f"      fulmen fit --config {folder / 'best.yaml'}")
    print(f"files in {folder}: {', '.join(['results.csv', *plots])}")
