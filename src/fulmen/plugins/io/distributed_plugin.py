"""Checkpoints as folders, into which each process writes the shards that it has.

A folder holds what ``torch.distributed.checkpoint`` writes (the tensors of the module under ``model``, those of the
optimizers under ``optimizer_0``, ...), and beside it ``meta.pt``: all the rest of the checkpoint, as plain data, with a
table that says where each tensor belongs. It is read by any number of processes, also by one.
"""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from torch import Tensor

from fulmen.plugins.io.checkpoint_plugin import CheckpointIO
from fulmen.plugins.io.digest import Digest
from fulmen.plugins.io.torch_plugin import TorchCheckpointIO
from fulmen.utilities.cloud_io import path_if_local
from fulmen.utilities.durable import beside, make_folder, replace_folder, sync_folder
from fulmen.utilities.torch_files import load

#: the file with all that is no shard, and the key in it that says where each tensor belongs
PLAIN_FILE, TABLE = "meta.pt", "sharded"
_METADATA = ".metadata"
#: of :data:`TABLE`
_FORMAT = 1

_Path = tuple[Any, ...]  # keys and places, from the checkpoint to a value in it


class DistributedCheckpointIO(CheckpointIO):
    """Writes a checkpoint as a folder of shards, by all processes together: ``FSDPStrategy(state_dict_type="sharded")``
    uses it. ``AsyncCheckpointIO(DistributedCheckpointIO())`` writes in the background.

    The folder is written under another name and gets its own once all of it is on the disk, so that it is whole or not
    there. All processes must call :meth:`save_checkpoint`, and see the same file system.
    """

    def __init__(self) -> None:
        self._group: Any = None

    def join(self) -> None:
        """Make the processes known to each other; to be called by all before the first save."""
        if self._group is None and dist.is_initialized():
            # a group of its own, as a thread may write while the others go on training
            self._group = dist.new_group(backend="gloo")

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write ``checkpoint`` to the folder ``path``.

        Raises:
            TypeError: ``storage_options`` were given; there are none here.
            ValueError: ``path`` is not on this machine.
            OSError: the folder could not be written; what was at ``path`` is as it was.
        """
        if storage_options is not None:
            raise TypeError(
                f"`save_checkpoint(..., storage_options={storage_options!r})`: DistributedCheckpointIO has no options. "
                "Leave them out."
            )
        local = path_if_local(path)
        if local is None:
            raise ValueError(
                f"a sharded checkpoint cannot be written to {os.fspath(path)}: only to a folder that all processes see "
                "as a local one. Write whole files there: `state_dict_type='full'`."
            )
        local = local.absolute()
        plain, tensors, table = _split(checkpoint)
        plain[TABLE] = {"format": _FORMAT, "world_size": self._size(), "tensors": table}
        part = self._by_first(lambda: _made_beside(local))
        try:
            self._write(tensors, part)
            self._by_first(lambda: _finish(plain, part, local))
        except BaseException:
            if self._rank() == 0:
                with suppress(OSError):
                    shutil.rmtree(part)
            raise

    def _write(self, tensors: dict[str, Any], part: Path) -> None:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        planner = DefaultSavePlanner(dedup_save_to_lowest_rank=True)  # of what all have, that of the first process
        writer = FileSystemWriter(part, sync_files=True)
        try:
            with _quiet():
                save(
                    tensors,
                    storage_writer=writer,
                    planner=planner,
                    process_group=self._group,
                    no_dist=self._group is None,
                )
        except CheckpointException as error:
            first = next(iter(error.failures.values()))[0]
            if isinstance(first, OSError):
                raise OSError(
                    first.errno, f"A shard could not be written ({first.strerror or first})", str(part)
                ) from error
            raise

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any | None = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the whole checkpoint, from a folder of shards or a file."""
        return TorchCheckpointIO().load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        local = path_if_local(path)
        if local is not None and local.is_dir() and not local.is_symlink():
            part = local.with_name(beside(local.name))
            local.rename(part)  # so that a half removed one has not its name
            path = part
        TorchCheckpointIO().remove_checkpoint(path)

    def digest(self, path: str | os.PathLike[str]) -> Digest:
        if self._rank() != 0:
            raise FileNotFoundError(f"{os.fspath(path)} is looked at by the first process")
        return super().digest(path)

    def _rank(self) -> int:
        return 0 if self._group is None else dist.get_rank()

    def _size(self) -> int:
        return 1 if self._group is None else dist.get_world_size()

    def _by_first(self, action: Callable[[], Any]) -> Any:
        """What ``action`` gives on the first process; on all of them, which have come to this point.

        Raises:
            OSError: it failed there.
        """
        if self._group is None:
            return action()
        result: list[Any] = [None, None]
        if self._rank() == 0:
            try:
                result[0] = action()
            except OSError as error:
                result[1] = error
        dist.broadcast_object_list(result, 0, group=self._group)
        if result[1] is not None:
            raise result[1]
        return result[0]


def _made_beside(path: Path) -> Path:
    make_folder(path.parent)
    part = path.with_name(beside(path.name))
    part.mkdir()
    return part


def _finish(plain: dict[str, Any], part: Path, path: Path) -> None:
    TorchCheckpointIO().save_checkpoint(plain, part / PLAIN_FILE)
    sync_folder(part)
    replace_folder(part, path)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without the warning of torch that one process alone is at work, which is what is wanted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


# -- from a checkpoint to its parts -----------------------------------------------------------------------------------


def _split(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[tuple[list[Any], str]]]:
    """The checkpoint without its tensors, its tensors as ``torch.distributed.checkpoint`` takes them, and where each
    belongs.

    They are all those of the module and of the optimizers, and of the rest the ones that are spread over processes.
    """
    tensors: dict[str, Any] = {}
    table: list[tuple[list[Any], str]] = []

    def without(value: Any, path: _Path) -> Any:
        if isinstance(value, Tensor) and (path[0] in ("state_dict", "optimizer_states") or _is_spread(value)):
            names = _names(path)
            place = tensors
            for name in names[:-1]:
                place = place.setdefault(name, {})
            place[names[-1]] = value.detach()
            table.append((list(path), ".".join(names)))
            return None
        if isinstance(value, dict) and type(value) in (dict, OrderedDict):
            fresh = type(value)((key, without(one, (*path, key))) for key, one in value.items())
            if isinstance(fresh, OrderedDict):
                fresh.__dict__.update(vars(value))
            return fresh
        if type(value) in (list, tuple):
            return type(value)(without(one, (*path, place)) for place, one in enumerate(value))
        return value

    return {key: without(value, (key,)) for key, value in checkpoint.items()}, tensors, table


def _names(path: _Path) -> list[str]:
    if path[0] == "state_dict":
        return ["model", *map(str, path[1:])]
    if path[0] == "optimizer_states":
        return [f"optimizer_{path[1]}", *map(str, path[2:])]
    return list(map(str, path))


def _is_spread(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _put(checkpoint: dict[str, Any], path: Sequence[Any], value: Any, source: str) -> None:
    """Put a tensor where it was. Tuples on the way have become lists."""
    try:
        place: Any = checkpoint
        for key in path[:-1]:
            if isinstance(place[key], tuple):
                place[key] = list(place[key])
            place = place[key]
        place[path[-1]] = value
    except (LookupError, TypeError) as error:
        raise RuntimeError(f"{source} is damaged: its table names {list(path)}, which is not there.") from error


# -- and back ---------------------------------------------------------------------------------------------------------


def is_sharded(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a local folder of shards."""
    local = path_if_local(path)
    return local is not None and (local / _METADATA).is_file() and (local / PLAIN_FILE).is_file()


def read_whole(folder: Path, weights_only: bool | None = None) -> dict[str, Any]:
    """The checkpoint in a folder of shards, with whole tensors on the CPU; no other process is needed for it.

    Raises:
        RuntimeError: it is damaged, or not of a trainer.
        pickle.UnpicklingError: it names what no checkpoint needs.
    """
    shards = Shards(folder, weights_only)
    tensors = {name: torch.empty(entry.shape, dtype=entry.dtype) for name, entry in shards.entries.items()}
    shards.read_into(tensors)
    return shards.checkpoint(tensors)


class Shards:
    """An opened folder of shards.

    Attributes:
        entries: a tensor without memory for each one that is stored, by its name there.
    """

    def __init__(self, folder: Path, weights_only: bool | None = None) -> None:
        self._folder = folder
        with (folder / PLAIN_FILE).open("rb") as file:
            self._plain: dict[str, Any] = load(file, str(folder / PLAIN_FILE), "cpu", weights_only)
        metadata = read_metadata(folder)
        self.entries = {
            name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
            for name, one in metadata.state_dict_metadata.items()
            if hasattr(one, "properties")
        }
        if not isinstance(self._plain, dict):
            raise RuntimeError(f"{folder / PLAIN_FILE} holds no checkpoint.")
        table = self._plain.pop(TABLE, None)
        if table is None:  # written by Lightning, whose optimizers have another form
            self._plain["state_dict"] = {}
            weights = [name for name in self.entries if name.startswith("model.")]
            self._table: list[Any] = [(["state_dict", name.removeprefix("model.")], name) for name in weights]
            self.entries = {name: self.entries[name] for name in weights}
        else:
            self._table = _checked_table(table, self.entries, folder)

    def checkpoint(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint with these tensors in their places."""
        for path, name in self._table:
            _put(self._plain, path, tensors[name], str(self._folder))
        return self._plain

    def read_into(self, tensors: dict[str, Tensor]) -> None:
        """Fill tensors, each from what is stored under its name; of those that are spread over processes, what this
        process has.
        """
        from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
        from torch.distributed.checkpoint.state_dict_loader import load as read

        planner = DefaultLoadPlanner(flatten_state_dict=False)
        try:
            with _quiet():
                read(dict(tensors), storage_reader=_reader(self._folder), planner=planner, no_dist=True)
        except (pickle.UnpicklingError, OSError):
            raise
        except Exception as error:  # what a damaged file makes of the reader can be anything
            first = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise RuntimeError(f"{self._folder} cannot be read, it is damaged: {first[0]}") from error


def _checked_table(table: Any, entries: dict[str, Tensor], folder: Path) -> list[Any]:
    if not isinstance(table, dict) or table.get("format") != _FORMAT or not isinstance(table.get("tensors"), list):
        raise RuntimeError(f"{folder / PLAIN_FILE} has no table of format {_FORMAT} that says where tensors belong.")
    pairs = table["tensors"]
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], list) and pair[0]):
            raise RuntimeError(f"{folder / PLAIN_FILE} is damaged: its table of tensors is none.")
        if pair[1] not in entries:
            raise RuntimeError(f"{folder} is damaged: the tensor {pair[1]!r} is missing.")
    return pairs


class Promises:
    """Checkpoints whose tensors are read later, when it is known which part of each this process needs.

    Until then a tensor without memory stands for each.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Shards, str]] = {}

    def read(self, path: Any, weights_only: bool | None = None) -> dict[str, Any] | None:
        """The checkpoint at ``path``, if that is a folder of shards."""
        if not is_sharded(path):
            return None
        local = path_if_local(path)
        assert local is not None
        shards = Shards(local, weights_only)
        for name, entry in shards.entries.items():
            self._known[id(entry)] = entry, shards, name
        return shards.checkpoint(dict(shards.entries))

    def kept(self, pairs: Sequence[tuple[Any, Tensor]]) -> list[tuple[Any, Tensor]]:
        """The same pairs, with the promised values read: of each what this process has of the tensor beside it."""
        from torch.distributed.tensor import DTensor

        found: list[tuple[Any, Tensor]] = []
        wanted: dict[Shards, dict[str, Tensor]] = {}
        for value, tensor in pairs:
            promise = self._known.get(id(value))
            if promise is not None:
                _, shards, name = promise
                if isinstance(tensor, DTensor) and tensor.shape == value.shape:
                    value = torch.empty_like(tensor.detach(), dtype=value.dtype)
                else:
                    value = torch.empty(value.shape, dtype=value.dtype)
                wanted.setdefault(shards, {})[name] = value
            found.append((value, tensor))
        for shards, tensors in wanted.items():
            shards.read_into(tensors)
        return found

    def forget(self) -> None:
        """Let go of all that was not asked for."""
        self._known.clear()


# -- the metadata, which is a pickle ----------------------------------------------------------------------------------


def read_metadata(folder: Path) -> Any:
    """What ``torch.distributed.checkpoint`` has stored about its tensors. Nothing that the file names is imported or
    called but the few classes that it needs.

    Raises:
        pickle.UnpicklingError: the file names something else.
        RuntimeError: it is damaged, or describes what is not in the folder.
    """
    try:
        with (folder / _METADATA).open("rb") as file:
            metadata = _Unpickler(file).load()
        _check(metadata, folder)
    except (pickle.UnpicklingError, OSError):
        raise
    except Exception as error:
        raise RuntimeError(
            f"{folder} cannot be read, it is damaged: {_METADATA} in it ({type(error).__name__}: {error})"
        ) from error
    return metadata


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._name = getattr(file, "name", _METADATA)

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(getattr(torch, name, None), (torch.dtype, torch.layout)):
            return getattr(torch, name)
        if module.startswith("pathlib") and name.endswith("Path"):
            return os.path.join  # the folder's name when it was written, as text
        found = _allowed().get((module, name))
        if found is None:
            raise pickle.UnpicklingError(
                f"{self._name} names {module}.{name}, which no checkpoint needs. It is not read, as it could run any "
                "code."
            )
        return found


def _allowed() -> dict[tuple[str, str], Any]:
    from torch.distributed.checkpoint import filesystem, metadata
    from torch.serialization import _get_layout

    classes: list[Any] = [
        metadata.Metadata,
        metadata.TensorStorageMetadata,
        metadata.BytesStorageMetadata,
        metadata.ChunkStorageMetadata,
        metadata.TensorProperties,
        metadata.MetadataIndex,
        metadata.StorageMeta,
        metadata._MEM_FORMAT_ENCODING,
        filesystem._StorageInfo,
        torch.Size,
        OrderedDict,
        _get_layout,
    ]
    return {(one.__module__, one.__qualname__): one for one in classes}


def _check(metadata: Any, folder: Path) -> None:
    """Refuse metadata that asks for files elsewhere, or for more memory than the shards have."""
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    for index, stored in metadata.storage_data.items():
        name = stored.relative_path
        if name not in files:
            raise RuntimeError(f"the shard {name!r} is missing")
        if not 0 <= stored.offset <= stored.offset + stored.length <= files[name]:
            raise RuntimeError(f"the shard {name!r} has {files[name]:,} bytes, and {index.fqn} should lie beyond them")
    for name, one in metadata.state_dict_metadata.items():
        if hasattr(one, "chunks") and one.size.numel() * one.properties.dtype.itemsize > sum(files.values()):
            raise RuntimeError(f"the tensor {name} should have more bytes than all shards together")
        for chunk in getattr(one, "chunks", ()):
            if len(chunk.sizes) != len(one.size) or any(size < 0 for size in (*chunk.sizes, *chunk.offsets)):
                raise RuntimeError(f"the tensor {name} has a shard of the shape {tuple(chunk.sizes)}")


def _reader(folder: Path) -> Any:
    """Torch's reader of shards, with the strict reader of their metadata."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            metadata = read_metadata(Path(self.path))
            if metadata.storage_meta is None:
                metadata.storage_meta = StorageMeta()
            metadata.storage_meta.load_id = self.load_id
            return metadata

    return Reader(folder)
