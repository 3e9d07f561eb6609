"""``checkpoints.json``: which checkpoints are in a folder, why each of them is there, and whether it is whole.

An entry is added when its file is on the disk, and taken out before the file is removed or written over: what the index
names is there and whole at every instant. The order of the entries is the order in which the files were written.
"""

from __future__ import annotations

import json
import math
import os
import posixpath
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, cast

import torch

from fulmen.plugins.io.digest import digest_of
from fulmen.plugins.io.torch_plugin import write_whole
from fulmen.utilities.cloud_io import exists, get_filesystem, is_dir, is_remote, join_path, local_path
from fulmen.utilities.durable import is_part, sync_folder
from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_warn

FILE_NAME = "checkpoints.json"
FORMAT = 1
#: what is appended to the name of a file that is put aside because it is damaged
ASIDE = ".damaged"


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint.

    Attributes:
        path: the file, or the folder of a sharded checkpoint, relative to the folder of the index, with ``/``.
        step: optimizer steps made.
        epoch: epochs finished, as in the checkpoint itself: at the end of an epoch it does not count yet.
        batch: training batches done in the whole run.
        metric: ``{"name": ..., "value": ...}`` of what it was ranked by, or None.
        reason: why it was written: ``"epoch"``, ``"step"``, ``"time"``, ``"last"``, ``"final"``, ``"exception"``, the
            name of a signal, ...; ``"found"`` if only the file was there.
        size: bytes.
        checksum: see :class:`~fulmen.plugins.io.digest.Digest`.
        written: when, in ISO 8601 and UTC.
        weights_only: training cannot go on from it.
    """

    path: str
    step: int
    epoch: int
    batch: int
    metric: dict[str, Any] | None
    reason: str
    size: int
    checksum: str
    written: str
    weights_only: bool = False

    @property
    def position(self) -> tuple[int, int, int]:
        """How far the run was: batches, steps, epochs."""
        return self.batch, self.step, self.epoch


@dataclass(slots=True)
class Index:
    """The content of one ``checkpoints.json``.

    Attributes:
        folder: where it lies, a local path or an fsspec URL.
        entries: the checkpoints, the one written last at the end.
        command: how the process was started that wrote here first: ``argv``, ``directory``, and ``module`` if it was
            run by ``python -m``.
        finished: the run came to its very end; a new checkpoint ends that.
    """

    folder: str
    entries: list[Entry] = field(default_factory=list)
    command: dict[str, Any] = field(default_factory=lambda: command())
    finished: bool = False

    def find(self, path: str) -> Entry | None:
        """The entry of the file at ``path``, if there is one."""
        name = relative(self.folder, path)
        return next((entry for entry in self.entries if entry.path == name), None)

    def path_of(self, entry: Entry) -> str:
        """Where the file of ``entry`` is."""
        return join_path(self.folder, *entry.path.split("/"))

    def add(self, entry: Entry) -> None:
        """Name a file that is on the disk, as the newest one."""
        self.entries = [other for other in self.entries if other.path != entry.path] + [entry]
        self.finished = False
        self.write()

    def remove(self, paths: Iterable[str]) -> None:
        """Name files no longer, which may be removed once this has returned."""
        names = {relative(self.folder, path) for path in paths}
        left = [entry for entry in self.entries if entry.path not in names]
        if len(left) < len(self.entries):
            self.entries = left
            self.write()

    def write(self) -> None:
        """Write the whole index, durably.

        Raises:
            OSError: it could not be written; what was there is as it was.
        """
        content = {
            "format": FORMAT,
            "command": self.command,
            "finished": self.finished,
            "checkpoints": [_plain(entry) for entry in self.entries],
        }
        text = json.dumps(content, indent=1) + "\n"
        write_whole(join_path(self.folder, FILE_NAME), lambda file: _write_text(file, text))

    def delete(self) -> None:
        """Remove the index itself."""
        path = join_path(self.folder, FILE_NAME)
        if exists(path):
            get_filesystem(path).rm(path)

    def damage(self, entry: Entry) -> str | None:
        """What is wrong with the file of ``entry``; None if it is as it was written."""
        path = self.path_of(entry)
        if not exists(path):
            return "it is gone"
        try:
            found = digest_of(path)
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        if found.size != entry.size:
            return f"it has {found.size:,} bytes, {entry.size:,} were written"
        return None if found.checksum == entry.checksum else "its checksum is not that of what was written"

    def put_aside(self, entry: Entry) -> str:
        """Rename a damaged file, so that it is in nobody's way, and take it out of the index. Returns its new name."""
        self.remove([self.path_of(entry)])
        return put_aside(self.path_of(entry))


def read(folder: str, load: Callable[[str], Any] | None = None) -> Index:
    """The index of ``folder``: an empty one if there is none, one made from the files if it is damaged.

    Args:
        load: reads a checkpoint, for :func:`adopt`. None: a damaged index is begun anew.
    """
    try:
        return look(folder) or Index(folder)
    except ValueError as error:
        aside = put_aside(join_path(folder, FILE_NAME))
        rank_zero_warn(f"{error}. It is put aside as {aside!r}, and made anew from the files in the folder.")
        index = Index(folder)
        if load is not None:
            adopt(index, load)
        return index


def look(folder: str) -> Index | None:
    """The index of ``folder`` as it is, None if there is none; nothing is put aside or made anew.

    Raises:
        ValueError: it is damaged.
    """
    path = join_path(folder, FILE_NAME)
    if not exists(path):
        return None
    try:
        with get_filesystem(path).open(path, "rb") if is_remote(path) else open(local_path(path), "rb") as file:
            return _parsed(folder, json.loads(cast("IO[bytes]", file).read().decode()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _parsed(folder: str, content: dict[str, Any]) -> Index:
    if content["format"] != FORMAT:
        raise ValueError(f"it has the format {content['format']!r}, known is {FORMAT}")
    names = Entry.__dataclass_fields__.keys()
    entries = [Entry(**{key: value for key, value in each.items() if key in names}) for each in content["checkpoints"]]
    for entry in entries:
        if not _is_inside(entry.path):
            raise ValueError(f"it names {entry.path!r}, which is not in this folder")
    return Index(folder, entries, dict(content["command"]), content.get("finished") is True)


def _is_inside(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return not posixpath.isabs(name) and ".." not in parts and ":" not in parts[0]


def _plain(entry: Entry) -> dict[str, Any]:
    plain = asdict(entry)
    if not entry.weights_only:
        del plain["weights_only"]
    return plain


def _write_text(file: IO[bytes], text: str) -> None:
    file.write(text.encode())


def relative(folder: str, path: str) -> str:
    """``path`` as the index of ``folder`` writes it."""
    if is_remote(folder):
        return path.removeprefix(folder.rstrip("/")).lstrip("/")
    return os.path.relpath(local_path(path), local_path(folder)).replace(os.sep, "/")


def holds(folder: str, path: str) -> bool:
    """Whether ``path`` lies in ``folder``, so that its index can name it."""
    if is_remote(folder) or is_remote(path):
        return path.startswith(folder.rstrip("/") + "/")
    return _is_inside(relative(folder, path))


def command() -> dict[str, Any]:
    """How this process was started."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    module = None if spec is None else spec.name.removesuffix(".__main__")
    return {"argv": list(sys.argv), "directory": os.getcwd(), "module": module}


def metric(name: str | None, value: float | None) -> dict[str, Any] | None:
    """A metric as :class:`Entry` has it; None without a name or a value."""
    if name is None or value is None:
        return None
    return {"name": name, "value": value if math.isfinite(value) else str(value)}  # JSON has no NaN


def now() -> str:
    """The time, as :attr:`Entry.written` has it."""
    return datetime.now(UTC).isoformat()


# -- files that the index does not name -------------------------------------------------------------------------------


def adopt(index: Index, load: Callable[[str], Any], extension: str = ".ckpt", tidy: bool = True) -> list[str]:
    """Name the checkpoints that were written to this folder and are not in the index: their writer was killed before it
    could name them, or the index was lost.

    A checkpoint that says of itself, in the state of a ModelCheckpoint, that it has another name is left out: somebody
    has brought it from elsewhere.

    Args:
        load: reads a checkpoint.
        tidy: False: change no file, neither the index nor what is not whole.

    Returns:
        For each archive that is not whole what is said of it; it is put aside.
    """
    known = {entry.path for entry in index.entries}
    found, damaged = [], []
    for name in _files(index.folder, extension):
        if name in known:
            continue
        path = join_path(index.folder, *name.split("/"))
        if not is_whole(path) and not tidy:
            continue
        if not is_whole(path):
            aside = posixpath.basename(put_aside(path).replace(os.sep, "/"))
            damaged.append(f"{path}: it is not whole; it is put aside as {aside}")
            continue
        try:
            entry = _entry_of(name, path, load(path))
        except Exception:  # a file of any kind may lie here
            continue
        if entry is not None:
            found.append(entry)
    # by how far the run was, as the times of files do not outlive every copy
    for entry in sorted(found, key=lambda entry: (*entry.position[:2], entry.written)):
        _insert(index, entry)
    if found and tidy:
        if len(found) > 1 and not known:
            rank_zero_info("%s was not there: it is made anew from %d checkpoints", FILE_NAME, len(found))
        index.write()
    return damaged


def _insert(index: Index, entry: Entry) -> None:
    """Put ``entry`` where it belongs in the order of writing: by how far the run was, where that decides, and among
    files of one moment by the times of the files themselves. What the index calls their time is later than that.
    """
    entries, here = index.entries, entry.position[:2]
    furthest = max((other.position[:2] for other in entries), default=here)
    if here < furthest:
        later = (place for place, other in enumerate(entries) if other.written > entry.written)
    else:
        time = _modified(index.path_of(entry))
        later = (
            place
            for place, other in enumerate(entries)
            if other.position[:2] == here and _modified(index.path_of(other)) > time
        )
    entries.insert(next(later, len(entries)), entry)


def _modified(path: str) -> str:
    if not exists(path):
        return ""
    return get_filesystem(path).modified(path).astimezone(UTC).isoformat(timespec="microseconds")


def _entry_of(name: str, path: str, checkpoint: dict[str, Any]) -> Entry | None:
    states = [state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, dict)]
    own = next((state["file"] for state in states if state.get("file", {}).get("path") == name), None)
    if own is None:
        if not any(name in _names(state) for state in states):
            return None
        own = {"reason": "found", "metric": None}
    digest = digest_of(path)
    return Entry(
        path=name,
        step=checkpoint["global_step"],
        epoch=checkpoint["epoch"],
        batch=_batches(checkpoint["loops"]),
        metric=own["metric"],
        reason=own["reason"],
        size=digest.size,
        checksum=digest.checksum,
        written=_modified(path),
        weights_only="optimizer_states" not in checkpoint,
    )


def _names(state: dict[str, Any]) -> set[str]:
    """The files that the state of a ModelCheckpoint, also one of Lightning, says there are."""
    paths = [state.get("best_model_path"), state.get("last_model_path"), *state.get("best_k_models", ())]
    return {posixpath.basename(path) for path in paths if isinstance(path, str) and path}


def _batches(loops: dict[str, Any]) -> int:
    if "progress" in loops:
        return loops["progress"]["total_batches"]
    return loops["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]  # Lightning's


def files_of(folder: str, extension: str = ".ckpt") -> list[str]:
    """The paths of all checkpoints in ``folder`` and below, named in its index or not."""
    return [join_path(folder, *name.split("/")) for name in _files(folder, extension)]


def _files(folder: str, extension: str) -> list[str]:
    """The names of all checkpoints in ``folder`` and below, links left out."""
    if not is_dir(folder):
        return []
    if is_remote(folder):
        files = get_filesystem(folder)
        root = len(files._strip_protocol(folder)) + 1
        names = [path[root:] for path in files.find(folder)]
        return sorted(name for name in names if name.endswith(extension) and not is_part(posixpath.basename(name)))
    found = []
    for place, folders, files in os.walk(local_path(folder)):
        sharded = [name for name in folders if name.endswith(extension)]
        folders[:] = [name for name in folders if name not in sharded]
        for name in [*sharded, *files]:
            path = os.path.join(place, name)
            if name.endswith(extension) and not os.path.islink(path):
                found.append(relative(folder, path))
    return sorted(found)


def is_whole(path: str) -> bool:
    """Whether the archive at ``path`` has all its parts, by the checksums of the archive itself.

    True also for what is no archive: then only reading it can tell.
    """
    if is_dir(path):
        return True
    with get_filesystem(path).open(path, "rb") if is_remote(path) else open(local_path(path), "rb") as file:
        if file.read(4) != b"PK\x03\x04":  # type: ignore[comparison-overlap]
            return file.seek(0, os.SEEK_END) > 0
        options = getattr(torch.serialization, "get_crc32_options", None)  # from torch 2.6 on
        try:
            with zipfile.ZipFile(cast("IO[bytes]", file)) as archive:
                return (options is not None and not options()) or archive.testzip() is None
        except (zipfile.BadZipFile, EOFError, ValueError, OSError):
            return False


def newest_in(folder: str) -> str:
    """A sentence for a message: which file of ``folder`` is the newest whole one, by its index; ``""`` if none is."""
    known = read(folder)
    for entry in reversed(known.entries):
        if known.damage(entry) is None:
            return f" The newest one in its folder that is whole is {entry.path!r}."
    return ""


def put_aside(path: str) -> str:
    """Rename the damaged file or folder at ``path``; returns its new path."""
    number, aside = 1, path + ASIDE
    while exists(aside):
        number += 1
        aside = f"{path}{ASIDE}-{number}"
    if is_remote(path):
        get_filesystem(path).mv(path, aside, recursive=is_dir(path))
    else:
        os.replace(local_path(path), local_path(aside))
        sync_folder(os.path.dirname(local_path(path)) or os.curdir)
    return aside
