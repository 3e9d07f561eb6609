"""The study: where the trials are kept, who proposes them, and who ends them early."""

from __future__ import annotations

import inspect
import json
import math
import sqlite3
import warnings
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from fulmen.search.arguments import nearest, plain_differences
from fulmen.search.space import Dimension
from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.text import shown

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "cmaes": "CmaEsSampler",
    "qmc": "QMCSampler",
    "gp": "GPSampler",
    "nsga2": "NSGAIISampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
#: arguments that Optuna has no default for
_DEFAULTS: dict[str, dict[str, Any]] = {"PercentilePruner": {"percentile": 25.0}}
#: their order of trials follows from the seed: it must be the same whenever the search goes on
_OF_ONE_SEED = ("GridSampler", "QMCSampler")
#: packages that some samplers need beyond Optuna, as their distributions are called
_NEEDS = {"CmaEsSampler": "cmaes", "GPSampler": "scipy", "QMCSampler": "scipy"}

#: seconds to wait for another process that writes into the file of the study: while a search runs, and as it begins
SECONDS_FOR_OTHERS = 600
SECONDS_AT_START = 10


def make_sampler(text: str, dimensions: Iterable[Dimension], seed: int | None, number: int, parallel: bool) -> Any:
    """A sampler of Optuna.

    Args:
        text: a key of :data:`SAMPLERS`, or JSON or YAML with ``class_path`` and ``init_args``.
        dimensions: of the search.
        seed: None: by chance.
        number: of trials that there are by now; a sampler that is made anew goes on with other random numbers.
        parallel: whether several trials run at once.

    Raises:
        MisconfigurationException: there is none of that name, or it does not take these arguments.
    """
    import optuna

    kind, arguments = _class_and_arguments(text, "sampler", SAMPLERS, optuna.samplers)
    takes = inspect.signature(kind).parameters
    if "search_space" in takes and kind.__name__ == "GridSampler":
        arguments.setdefault("search_space", grid(dimensions))
    if seed is not None and "seed" in takes:
        again = kind.__name__ in _OF_ONE_SEED
        arguments.setdefault("seed", seed if again else (seed * 1_000_003 + number) % 2**32)
    if parallel and kind.__name__ == "TPESampler":
        arguments.setdefault("constant_liar", True)  # or trials that run at once are near to each other
    return _made(kind, arguments, "sampler")


def make_pruner(text: str) -> Any:
    """A pruner of Optuna: ``text`` is a key of :data:`PRUNERS`, or JSON or YAML with ``class_path`` and ``init_args``.

    Raises:
        MisconfigurationException: there is none of that name, or it does not take these arguments.
    """
    import optuna

    kind, arguments = _class_and_arguments(text, "pruner", PRUNERS, optuna.pruners)
    return _made(kind, {**_DEFAULTS.get(kind.__name__, {}), **arguments}, "pruner")


def grid(dimensions: Iterable[Dimension]) -> dict[str, list[Any]]:
    """All values of all dimensions.

    Raises:
        MisconfigurationException: those of a dimension cannot be counted.
    """
    values = {}
    for one in dimensions:
        counted = one.all_values()
        if counted is None:
            raise MisconfigurationException(
                f"--sampler grid tries all values, and those of {one.name}: {one.described()} cannot be counted. Write "
                "the values to try as {choice: [...]} or as {int: [low, high, step]}, or take another sampler."
            )
        values[one.name] = counted
    return values


def size_of_grid(dimensions: Iterable[Dimension]) -> int:
    """How many combinations there are."""
    return math.prod(map(len, grid(dimensions).values()))


def is_grid(text: str) -> bool:
    """Whether the sampler ends by itself, when everything was tried."""
    return "grid" in text.lower()


def _class_and_arguments(text: str, what: str, names: dict[str, str], module: Any) -> tuple[Any, dict[str, Any]]:
    form = f'--{what} \'{{"class_path": "{next(iter(names))}", "init_args": {{...}}}}\''
    arguments: dict[str, Any] = {}
    name = text
    if text.lstrip().startswith("{"):
        try:
            given = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise MisconfigurationException(f"--{what} {text}: this is no JSON or YAML. Write {form}.") from error
        if not isinstance(given, dict) or "class_path" not in given or set(given) - {"class_path", "init_args"}:
            raise MisconfigurationException(f"--{what} {text}: must have class_path and init_args. Write {form}.")
        name, arguments = str(given["class_path"]), dict(given.get("init_args") or {})
    found = getattr(module, names.get(name, name), None)
    if found is None and "." in name:
        place, _, last = name.rpartition(".")
        try:
            found = getattr(import_module(place), last, None)
        except ImportError as error:
            raise MisconfigurationException(f"--{what} {name}: {error}. {nearest(name, list(names))}") from error
    if not isinstance(found, type):
        raise MisconfigurationException(
            f"--{what} {name}: there is no {what} of that name. {nearest(name, list(names))}"
        )
    return found, arguments


def _made(kind: Any, arguments: dict[str, Any], what: str) -> Any:
    takes = inspect.signature(kind).parameters
    unknown = next((name for name in arguments if name not in takes), None)
    if unknown is not None:
        raise MisconfigurationException(
            f"--{what}: {kind.__name__} does not take {unknown!r}. {nearest(unknown, list(takes))}"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*experimental", category=Warning)
            return kind(**arguments)
    except ImportError as error:
        package = _NEEDS.get(kind.__name__, error.name or "a package")
        raise MisconfigurationException(
            f"--{what}: {kind.__name__} needs {package}, which is not installed. Run `pip install {package}`."
        ) from error
    except (TypeError, ValueError) as error:
        raise MisconfigurationException(f"--{what}: {kind.__name__} says: {error}") from error


# -- storage ----------------------------------------------------------------------------------------------------------


def open_storage(url: str) -> Any:
    """Optuna's storage at ``url``: ``sqlite:///study.db`` or another database that SQLAlchemy knows.

    Raises:
        MisconfigurationException: it cannot be opened. Nothing in it was changed.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    if "://" not in url:
        raise MisconfigurationException(f"--storage {url}: must be a URL. Write `--storage sqlite:///{url}`.")
    file = _file_of(url)
    if file is not None:
        _check_file(file, url)
    options: dict[str, Any] = {"connect_args": {"timeout": SECONDS_FOR_OTHERS}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MisconfigurationException(
            f"--storage {without_password(url)}: the study cannot be opened ({reason})."
        ) from error


def _file_of(url: str) -> Path | None:
    scheme, _, path = url.partition(":///")
    return Path(path.partition("?")[0]) if scheme.partition("+")[0] == "sqlite" and path else None


def _check_file(file: Path, url: str) -> None:
    """That a file of SQLite is whole and that this process may write into it, before anything is."""
    if not file.parent.is_dir():
        raise MisconfigurationException(f"--storage {url}: there is no folder {file.parent}. Make it, or name another.")
    if not file.exists():
        return
    try:
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=SECONDS_AT_START)
        try:
            broken = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if broken != "ok":
                raise sqlite3.DatabaseError(broken)
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise MisconfigurationException(
                f"{file}: another program has locked the file of the study for more than {SECONDS_AT_START} seconds. "
                f"Close it there (`fuser {file}` tells which it is) and begin again: nothing was changed."
            ) from error
        raise MisconfigurationException(
            f"{file}: the file of the study cannot be written ({error}). Nothing was changed."
        ) from error
    except sqlite3.DatabaseError as error:
        raise MisconfigurationException(
            f"{file}: the file of the study is damaged, or is none ({error}). It was left as it is, and so are the "
            "folders of the trials. Put a copy in its place, or begin a new study with another --dir."
        ) from error


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


# -- the study --------------------------------------------------------------------------------------------------------


def described(dimensions: Iterable[Dimension]) -> dict[str, str]:
    """The space as it is kept in the study."""
    return {one.name: one.described() for one in dimensions}


def open_study(
    storage: Any, name: str, direction: str, monitor: str, space: dict[str, str], settings: Any
) -> tuple[Any, list[str]]:
    """The study ``name``, a new one or one that goes on.

    Args:
        storage: of :func:`open_storage`.
        name: of the study.
        direction: ``"minimize"`` or ``"maximize"``.
        monitor: the metric.
        space: see :func:`described`.
        settings: the rest of the configuration.

    Returns:
        The study, and in what ``settings`` differ from those that it was begun with.

    Raises:
        MisconfigurationException: there is a study of that name, which searches something else.
    """
    import optuna

    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        way = optuna.study.StudyDirection[direction.upper()]
        study = optuna.create_study(study_name=name, storage=storage, direction=way)
    known = study.user_attrs
    if "space" not in known:
        if study.get_trials(deepcopy=False):
            raise MisconfigurationException(
                f"--study {name}: the study of that name was not made by `fulmen search`. Choose another name."
            )
        for key, value in (("monitor", monitor), ("settings", json.dumps(settings)), ("space", space)):
            study.set_user_attr(key, value)
        return study, []
    differences = [
        f"{key}: {known['space'].get(key, 'not searched')} -> {space.get(key, 'not searched')}"
        for key in dict.fromkeys([*known["space"], *space])
        if known["space"].get(key) != space.get(key)
    ]
    if known["monitor"] != monitor:
        differences.append(f"--monitor: {known['monitor']} -> {monitor}")
    before = study.direction.name.lower()
    if before != direction:
        differences.append(f"--direction: {before} -> {direction}")
    if differences:
        raise MisconfigurationException(
            f"--study {name}: the study of that name searches something else ({'; '.join(differences)}). Choose "
            "another --study for this search; or put these back to go on with the other one."
        )
    return study, plain_differences(json.loads(known["settings"]), settings)


def state_counts(trials: Iterable[Any]) -> dict[str, int]:
    """How many trials there are in each state: running, waiting, complete, pruned, fail."""
    counts: dict[str, int] = {"running": 0, "waiting": 0, "complete": 0, "pruned": 0, "fail": 0}
    for trial in trials:
        counts[trial.state.name.lower()] += 1
    return counts


def ranked(trials: Iterable[Any], maximize: bool) -> list[Any]:
    """The trials that have a value, the best first."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return sorted(complete, key=lambda trial: trial.value, reverse=maximize)


def failure_of(trial: Any) -> str:
    """Why a trial failed, in a line."""
    return str(trial.user_attrs.get("error", "")) if trial.state.name == "FAIL" else ""


def shown_parameters(params: dict[str, Any]) -> str:
    """Parameters in a line, by the last words of their names."""
    return "  ".join(f"{name}={value_text(params[full])}" for full, name in short_names(list(params)).items())


def short_names(names: list[str]) -> dict[str, str]:
    """The shortest ends of the dotted names that tell them apart."""
    short: dict[str, str] = {}
    for name in names:
        words = name.split(".")
        ends = [".".join(words[-count:]) for count in range(1, len(words) + 1)]
        alone = (end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1)
        short[name] = next(alone, name)
    return short


def value_text(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and value.startswith("{"):
        try:
            inner = json.loads(value)
        except json.JSONDecodeError:
            return value
        return (
            str(inner["class_path"]).rpartition(".")[2] if isinstance(inner, dict) and "class_path" in inner else value
        )
    return shown(value) if value is None or isinstance(value, bool) else str(value)
