"""``fulmen checkpoint show``."""

from __future__ import annotations

import ast
import os
import shlex
from pathlib import Path
from typing import Any

from torch import Tensor

from fulmen.checkpoints.command import CannotDo
from fulmen.checkpoints.output import (
    brief,
    columns,
    facts,
    in_terminal,
    kind_of,
    print_json,
    printable,
    size_in_words,
    table,
    title,
)
from fulmen.checkpoints.reading import folders_with_index, index_of, load, tensors_in
from fulmen.loops.progress import Progress
from fulmen.plugins.io import index
from fulmen.plugins.io.digest import digest_of
from fulmen.trainer import loop_counters
from fulmen.trainer.old_layouts import VERSION_KEY
from fulmen.utilities.cloud_io import exists, get_filesystem, is_dir, is_remote, local_path

#: the keys of a checkpoint that have a place of their own in what is shown
_KNOWN = frozenset(
    {
        "callbacks",
        "datamodule_hparams_kinds",
        "datamodule_hparams_name",
        "datamodule_hparams_type",
        "datamodule_hyper_parameters",
        "epoch",
        "fulmen_version",
        "global_step",
        "hparams_kinds",
        "hparams_name",
        "hparams_type",
        "hyper_parameters",
        f"legacy_{VERSION_KEY}",
        "loops",
        "lr_schedulers",
        "optimizer_states",
        VERSION_KEY,
        "resume",
        "state_dict",
    }
)
#: what the entries of ``checkpoint["resume"]`` are called
_RESUMED = {
    "random": "random numbers",
    "data": "place in the data",
    "window": "open accumulation window",
    "gradients": "gradients",
    "metrics": "logged values",
    "module_metrics": "states of metrics",
    "loggers": "places in the logs",
}


def show(path: str, tensors: bool = False, checksum: bool = False, as_json: bool = False) -> int:
    """Print what is inside the checkpoint at ``path``, or the list of those in a folder.

    Args:
        tensors: name every weight.
        checksum: read the whole file for its checksum if no index has it.
        as_json: as JSON, with the whole state of callbacks and schedulers.

    Returns:
        The exit code 0.

    Raises:
        CannotDo: there is nothing, or it cannot be read.
    """
    if is_dir(path):
        return _show_folder(path, as_json)
    checkpoint = load(path)
    content = contents(path, checkpoint, checksum)
    if as_json:
        print_json(content if tensors else {key: value for key, value in content.items() if key != "tensors"})
    else:
        _print(content, tensors)
    return 0


def contents(path: str, checkpoint: dict[str, Any], checksum: bool = False) -> dict[str, Any]:
    """What is inside a checkpoint, in the order in which it is shown."""
    progress = _clock(checkpoint)
    weights = {name: value for name, value in checkpoint["state_dict"].items() if isinstance(value, Tensor)}
    found = index_of(path)
    size = get_filesystem(path).size(path) if is_remote(path) else os.path.getsize(local_path(path))
    written = found[1].checksum if found else (digest_of(path).checksum if checksum else None)
    return {
        "path": path,
        "written_by": _written_by(checkpoint),
        "reason": found[1].reason if found else None,
        "size": size,
        "checksum": written,
        "epoch": checkpoint.get("epoch"),
        "step": checkpoint.get("global_step"),
        "batch": progress.batches_done if progress.in_epoch else None,
        "goes_on": _goes_on(checkpoint, progress),
        "exact_resume": _exactness(checkpoint),
        "resume": sorted(_RESUMED.get(key, str(key)) for key in checkpoint.get("resume", {})),
        "parameters": {
            "tensors": len(weights),
            "elements": sum(value.numel() for value in weights.values()),
            "bytes": sum(value.numel() * value.element_size() for value in weights.values()),
        },
        "hyperparameters": checkpoint.get("hyper_parameters") or {},
        "datamodule_hyperparameters": checkpoint.get("datamodule_hyper_parameters") or {},
        "optimizers": [_optimizer(state) for state in checkpoint.get("optimizer_states") or ()],
        "schedulers": list(checkpoint.get("lr_schedulers") or ()),
        "callbacks": checkpoint.get("callbacks") or {},
        "other": {key: value for key, value in checkpoint.items() if key not in _KNOWN},
        "tensors": {
            name: {"shape": list(value.shape), "dtype": kind_of(value), "bytes": value.numel() * value.element_size()}
            for name, value in weights.items()
        },
    }


def _clock(checkpoint: dict[str, Any]) -> Progress:
    progress = Progress()
    try:
        if "progress" in checkpoint.get("loops", {}):
            progress.load_state_dict(checkpoint["loops"]["progress"])
        elif "epoch" in checkpoint and "global_step" in checkpoint:
            loop_counters.read(progress, checkpoint)
    except (KeyError, TypeError, AttributeError):  # counters of a version that is not known
        return Progress()
    return progress


def _written_by(checkpoint: dict[str, Any]) -> str:
    version = checkpoint.get(VERSION_KEY)
    before = checkpoint.get(f"legacy_{VERSION_KEY}")
    if "fulmen_version" in checkpoint:
        return f"Fulmen {checkpoint['fulmen_version']} (in the format of Lightning {version})"
    if before is not None:
        return f"Lightning {before}, converted to the format of {version}"
    return f"Lightning {version}" if version is not None else "unknown"


def _goes_on(checkpoint: dict[str, Any], progress: Progress) -> str:
    if progress.in_epoch and not progress.is_last_batch:
        return f"in epoch {progress.epoch}, with batch {progress.batches_done}"
    if progress.in_epoch:
        return f"at the end of epoch {progress.epoch}"
    if "optimizer_states" not in checkpoint:
        return "not at all"
    return f"with epoch {progress.epoch}"


def _exactness(checkpoint: dict[str, Any]) -> str:
    """Whether a run goes on from it bit for bit; the reason if not."""
    if "optimizer_states" not in checkpoint:
        return "no: it holds weights alone"
    state = checkpoint.get("resume", {})
    missing = [what for key, what in _RESUMED.items() if key in ("random", "data") and key not in state]
    if missing:
        return f"no: the file does not hold the {' and the '.join(missing)}"
    return "yes"


def _optimizer(state: dict[str, Any]) -> dict[str, Any]:
    groups = state.get("param_groups", [])
    kept = next((value for value in state.get("state", {}).values() if isinstance(value, dict)), {})
    return {
        "groups": [
            {**{key: value for key, value in group.items() if key != "params"}, "parameters": len(group["params"])}
            for group in groups
        ],
        "state": sorted(map(str, kept)),
        "bytes": sum(value.numel() * value.element_size() for value in tensors_in(state.get("state", {}))),
    }


# -- on the screen ----------------------------------------------------------------------------------------------------


def _print(content: dict[str, Any], tensors: bool) -> None:
    print(printable(content["path"]))
    parameters = content["parameters"]
    batch = "" if content["batch"] is None else f", {content['batch']} batches of it done"
    pairs = [
        ("written by", content["written_by"]),
        ("reason", content["reason"]),
        ("size", f"{size_in_words(content['size'])} ({content['size']:,} bytes)"),
        ("checksum", content["checksum"]),
        ("epoch", None if content["epoch"] is None else f"{content['epoch']}{batch}"),
        ("step", None if content["step"] is None else f"{content['step']:,}"),
        ("a run goes on", content["goes_on"]),
        ("exactly", content["exact_resume"]),
        ("kept for that", ", ".join(content["resume"]) or None),
        (
            "weights",
            f"{parameters['elements']:,} numbers in {parameters['tensors']} tensors "
            f"({size_in_words(parameters['bytes'])})",
        ),
    ]
    facts((name, value) for name, value in pairs if value is not None)
    for heading, key in (("hyperparameters", "hyperparameters"), ("of the datamodule", "datamodule_hyperparameters")):
        if content[key]:
            title(heading)
            facts((str(name), brief(value)) for name, value in content[key].items())
    if content["optimizers"]:
        title("optimizers")
        facts(_lines_of_optimizers(content["optimizers"]))
    if content["schedulers"]:
        title("schedulers")
        facts((str(number), _settings(state)) for number, state in enumerate(content["schedulers"]))
    if content["callbacks"]:
        title("callbacks")
        classes = [str(key).partition("{")[0] for key in content["callbacks"]]
        for name, (key, state) in zip(classes, content["callbacks"].items()):
            print(f"  {printable(name if classes.count(name) == 1 else str(key))}")
            facts((f"  {name}", value) for name, value in _lines_of_callback(str(key), state))
    if content["other"]:
        title("also in the file")
        facts((str(name), brief(value)) for name, value in content["other"].items())
    if tensors:
        title("weights")
        rows = [
            (name, "x".join(map(str, each["shape"])) or "-", each["dtype"], f"{each['bytes']:,}")
            for name, each in content["tensors"].items()
        ]
        table(("name", "shape", "type", "bytes"), rows, right=("bytes",))


def _lines_of_optimizers(optimizers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    lines = []
    for number, optimizer in enumerate(optimizers):
        state = ", ".join(optimizer["state"]) or "nothing"
        lines.append((str(number), f"keeps {state} ({size_in_words(optimizer['bytes'])})"))
        for group in optimizer["groups"]:
            settings = {key: value for key, value in group.items() if key != "parameters"}
            lines.append(("", f"{group['parameters']} parameters: {_settings(settings)}"))
    return lines


def _lines_of_callback(key: str, state: Any) -> list[tuple[str, str]]:
    if not isinstance(state, dict):
        return [("", brief(state))]
    if not {"best_model_path", "best_model_score"} <= state.keys():
        return [(str(name), brief(value)) for name, value in state.items()]
    folder, monitor = state.get("dirpath"), state.get("monitor")
    lines = [("folder", folder if isinstance(folder, str) else "none")]
    if monitor is not None:
        best = {"min": ", the lowest is the best", "max": ", the highest is the best"}.get(_mode(key), "")
        lines.append(("monitor", f"{monitor}{best}"))
    lines.append(("best" if monitor is not None else "newest", _within(folder, state["best_model_path"])))
    if state["best_model_score"] is not None:
        lines.append(("score", brief(state["best_model_score"])))
    lines.append(("last", _within(folder, state.get("last_model_path"))))
    return lines


def _mode(key: str) -> Any:
    """``min`` or ``max``, which a callback's key has among its options."""
    try:
        return ast.literal_eval(key[key.index("{") :])["mode"]
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        return None


def _within(folder: Any, path: Any) -> str:
    if not path:
        return "none"
    path = str(path)
    return path.removeprefix(f"{folder}").lstrip("/" + os.sep) if folder and path.startswith(str(folder)) else path


def _settings(settings: dict[str, Any]) -> str:
    """Numbers and text among the settings; what is None or False is left out."""
    return ", ".join(
        f"{key}={brief(value)}" for key, value in settings.items() if value is not None and value is not False
    )


def _show_folder(path: str, as_json: bool) -> int:
    try:
        folders = [found for found in map(index.look, folders_with_index(path)) if found is not None]
    except ValueError as error:
        raise CannotDo(
            f"{error}. `fulmen checkpoint verify {shlex.quote(path)}` looks at the files themselves"
        ) from None
    if not folders:
        found = sorted(file.name for file in Path(path).glob("*.ckpt")) if not is_remote(path) else []
        raise CannotDo(
            f"{path} has no `{index.FILE_NAME}`, which Fulmen writes into a folder of checkpoints"
            + (f"; give one of its files: {', '.join(found[:5])}" if found else ", and no checkpoints; give a file")
        )
    if as_json:
        print_json([_as_facts(found, entry) for found in folders for entry in found.entries])
        return 0
    for number, found in enumerate(folders):
        if number:
            print()
        print(printable(f"{found.folder}{' (its run is over)' if found.finished else ''}"))
        _print_entries(found)
    newest = next((found.path_of(found.entries[-1]) for found in reversed(folders) if found.entries), None)
    if newest is not None:
        print()
        print(printable(f"what is inside one:   fulmen checkpoint show {shlex.quote(newest)}"))
        print(printable(f"whole in every byte:  fulmen checkpoint verify {shlex.quote(path)}"))
    return 0


def _as_facts(found: index.Index, entry: index.Entry) -> dict[str, Any]:
    facts = {name: getattr(entry, name) for name in entry.__slots__}
    return {**facts, "file": found.path_of(entry), "whole": _fault(found, entry) is None}


def _fault(found: index.Index, entry: index.Entry) -> str | None:
    """What can be seen to be wrong with a file without reading it."""
    path = found.path_of(entry)
    if not exists(path):
        return "gone"
    if is_dir(path):
        return None
    size: Any = get_filesystem(path).size(path) if is_remote(path) else os.path.getsize(local_path(path))
    return None if size == entry.size else f"{size_in_words(size)} of it"


def _print_entries(found: index.Index) -> None:
    headers, rows = ["file", "epoch", "step", "metric", "reason", "size", "whole", "written (UTC)"], []
    if in_terminal() and columns() < 110:
        headers.pop()
    for entry in found.entries:
        ranked = "" if entry.metric is None else f"{entry.metric['name']}={_number(entry.metric['value'])}"
        when = entry.written.partition("+")[0].partition(".")[0].replace("T", " ").removesuffix("Z")
        fault = _fault(found, entry)
        whole = "yes" if fault is None else f"no: {fault}"
        size = size_in_words(entry.size)
        row = (entry.path, str(entry.epoch), f"{entry.step:,}", ranked, entry.reason, size, whole, when)
        rows.append(row[: len(headers)])
    table(headers, rows, right=("epoch", "step", "size"))


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
