"""Read any file of ``torch.save`` without importing or calling anything that it names.

A pickle is a program: it names classes and functions, and has them called. Here every name becomes a stand-in of our
own, which only writes down with what it was called and what was put into it. What that means is decided afterwards, by
our own table (:mod:`fulmen.checkpoints.conversion`).
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch

from fulmen.utilities.pickle_check import foreign_names
from fulmen.utilities.pickle_names import ways_to_run_code
from fulmen.utilities.pickle_scan import Call, Name, name_of

_ZIP_START = b"PK\x03\x04"
#: how files of torch before 1.6 begin
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

#: the classes of storages that a file may name, and what is in them
_ELEMENTS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


class Damaged(Exception):
    """The file cannot be read; ``str(error)`` says why, and goes on from the file's name: "is truncated"."""


class Named(type):
    """The class of what stands in for a class or function that a file names: ``where`` is the name."""

    where: str
    calls: list[tuple[Any, ...]]  #: the arguments of each call of it

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = cast(Any, cls).__new__(cls, *args, **kwargs)
        made.called = True
        cls.calls.append(args)
        return made


class StandIn(metaclass=Named):
    """What stands in for an object: the arguments that it was made with, and what was put into it since.

    Attributes:
        called: by a call of the name; else by its ``__new__``, as objects without a way of their own are.
        state: what would have become its attributes; None if nothing.
        items: what was appended.
        entries: pairs that were set, as in a dict.
    """

    where = ""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    called: bool
    state: Any
    items: list[Any]
    entries: list[tuple[Any, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = object.__new__(cls)
        made.args, made.kwargs = args, kwargs
        made.called, made.state, made.items, made.entries = False, None, [], []
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    add = append

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        called = _named(f"a call of {type(self).where}")
        return called(*args, **kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries.append((key, value))


def _named(where: str) -> Named:
    return Named("StandIn", (StandIn,), {"where": where, "calls": [], "__slots__": ()})


class StoredData:
    """The data of a tensor, not read yet: ``count`` elements of ``dtype`` under ``key``."""

    __slots__ = ("count", "dtype", "key")

    def __init__(self, key: str, dtype: torch.dtype, count: int) -> None:
        self.key, self.dtype, self.count = key, dtype, count


class RestrictedUnpickler(pickle._Unpickler):
    """Makes stand-ins for everything that a pickle names.

    It is the one written in Python: the other one makes room for as many objects as a file says that it has.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.named: dict[str, Named] = {}
        self.stored: dict[str, StoredData] = {}

    def find_class(self, module: str, name: str) -> Any:
        where = f"{module}.{name}"
        if where not in self.named:
            self.named[where] = _named(where)
        return self.named[where]

    def persistent_load(self, pid: Any) -> Any:
        kind, cls, key, _, count, *_ = (*pid, *[None] * 5) if isinstance(pid, tuple) else [None] * 5
        if kind == "module" and isinstance(cls, Named):  # files of before 1.6 hold the source of modules, too
            return cls
        name = cls.where.rpartition(".")[2] if isinstance(cls, Named) else None
        if kind != "storage" or name not in _ELEMENTS or not isinstance(key, str) or not isinstance(count, int):
            raise Damaged("refers to data in a way that torch does not")
        return self.stored.setdefault(key, StoredData(key, _ELEMENTS[name], count))


class Contents:
    """A file that was read: ``root`` is what it holds, with stand-ins in it; :meth:`storage` reads data.

    Attributes:
        is_plain: it names nothing beyond plain data.
        ways_to_run_code: what would run code if the file were read without care.
    """

    def __init__(self, root: Any, named: dict[str, Named], read: Callable[[StoredData], bytes]) -> None:
        self.root = root
        calls = [Call(_name(one), tuple(map(_plainly, args))) for one in named.values() for args in one.calls]
        foreign = foreign_names(map(_name, named.values()))
        self.is_plain = not foreign
        self.ways_to_run_code = ways_to_run_code(foreign, calls)
        self._read = read
        self._storages: dict[str, torch.UntypedStorage] = {}

    def storage(self, stored: StoredData) -> torch.UntypedStorage:
        """The data of a tensor; the same object for tensors that share it.

        Raises:
            Damaged: it is not in the file, or not whole.
        """
        if stored.key not in self._storages:
            data = self._read(stored)
            if len(data) < stored.count * stored.dtype.itemsize:
                raise Damaged(f"has {len(data):,} bytes of the data {stored.key!r}, which should be more")
            elements = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)
            self._storages[stored.key] = elements.untyped_storage()
        return self._storages[stored.key]


def _name(named: Named) -> Name:
    module, _, name = named.where.rpartition(".")
    return name_of(module, name)


def _plainly(argument: Any) -> Any:
    return _name(argument) if isinstance(argument, Named) else argument


@contextmanager
def opened(path: str | os.PathLike[str]) -> Generator[Contents, None, None]:
    """Read the file at ``path``, in torch's present format or in that of before 1.6; its data can be read within.

    Raises:
        Damaged: it is no file of ``torch.save``, or not a whole one.
        OSError: it cannot be opened.
    """
    with Path(path).open("rb") as file:
        zipped = file.read(len(_ZIP_START)) == _ZIP_START
        file.seek(0)
        try:
            contents = _read_zip(file) if zipped else _read_legacy(Path(path).read_bytes())
        except (Damaged, OSError, MemoryError):
            raise
        except RecursionError:
            raise Damaged("is nested too deeply") from None
        except Exception as error:  # what a damaged pickle makes of its reader can be anything
            raise Damaged(f"is damaged ({type(error).__name__}: {error})") from error
        yield contents


def _read_zip(file: IO[bytes]) -> Contents:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise Damaged("is truncated") from None
    found = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise Damaged("is a zip archive, but not of `torch.save`")
    folder = found[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
        try:
            record = archive.getinfo(folder + name)
        except KeyError:
            raise Damaged(f"has no data {name!r}, which it refers to") from None
        if record.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing; such a record may be of any size
            raise Damaged("is compressed, which `torch.save` does not do")
        try:
            return archive.read(record)
        except (zipfile.BadZipFile, EOFError) as error:
            raise Damaged(f"is damaged in {name!r} ({error})") from None

    if folder + "byteorder" in archive.namelist() and read("byteorder") != b"little":
        raise Damaged("was written on a machine with another byte order: convert it there")
    unpickler = RestrictedUnpickler(io.BytesIO(read("data.pkl")))
    return Contents(unpickler.load(), unpickler.named, lambda stored: read(f"data/{stored.key}"))


def _read_legacy(whole: bytes) -> Contents:
    """Pickles one after the other (a mark, a version, the machine, the contents, the keys), then the data."""
    file, start = io.BytesIO(whole), whole[:2]  # in memory: reading more than there is costs nothing
    if start[:1] != b"\x80":
        raise Damaged("is empty" if not start else f"is no file of `torch.save`, it begins with {start!r}")
    magic = RestrictedUnpickler(file).load()
    if magic != _LEGACY_MAGIC:
        raise Damaged("is a pickle, but not of `torch.save`")
    version, machine = RestrictedUnpickler(file).load(), RestrictedUnpickler(file).load()
    if version != _LEGACY_PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Damaged("was written by a version of torch, or on a machine, that is not known here")
    unpickler = RestrictedUnpickler(file)
    root, keys = unpickler.load(), RestrictedUnpickler(file).load()
    if not isinstance(keys, list):
        raise Damaged("has no list of its data")
    data: dict[str, bytes] = {}
    for key in keys:
        stored, count = unpickler.stored.get(key), int.from_bytes(file.read(8), "little", signed=True)
        if stored is None or count != stored.count:
            raise Damaged(f"does not have the data {key!r} in the size that it says")
        data[key] = file.read(count * stored.dtype.itemsize)

    def read(stored: StoredData) -> bytes:
        if stored.key not in data:
            raise Damaged(f"has no data {stored.key!r}, which it refers to")
        return data[stored.key]

    return Contents(root, unpickler.named, read)
