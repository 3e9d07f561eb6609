"""What a file names, in plain form: the table of the harmless classes, and the walk through a file that uses it."""

from __future__ import annotations

import datetime
import math
import pathlib
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fulmen.checkpoints.restricted import Contents, Damaged, Named, StandIn, StoredData
from fulmen.core.plain import LEFT_OUT, NoPlainForm, component, plain_value

#: where a file has hyperparameters, and the key of their kinds (see :mod:`fulmen.core.plain`)
HYPERPARAMETERS = {
    "hyper_parameters": "hparams_kinds",
    "datamodule_hyper_parameters": "datamodule_hparams_kinds",
    "hparams": "hparams_kinds",
    "module_arguments": "hparams_kinds",
}
#: the class of the container of hyperparameters, which the kinds tell, too
_TYPES_OF_HYPERPARAMETERS = ("hparams_type", "datamodule_hparams_type")

#: more containers than any checkpoint has: a file can name one container again and again
_MOST_CONTAINERS = 1_000_000

_DTYPES = {f"torch.{name}": dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
_PATHS = {
    "PosixPath": pathlib.Path,
    "WindowsPath": pathlib.Path,
    "Path": pathlib.Path,
    "PurePath": pathlib.PurePath,
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
_NUMPY_DTYPE = re.compile(r"[<>|=]?[biufcMmUSV?]\d*")


class _LeftOut(Exception):
    """A value has no plain form. ``str(error)`` says what it is."""


@dataclass(slots=True)
class Note:
    """What became of a value that is not plain data: ``outcome`` is None if it was left out."""

    place: str
    what: str
    outcome: str | None = None


@dataclass(slots=True)
class Conversion:
    """The walk through one file: :meth:`checkpoint` gives its plain form, and :attr:`notes` fill on the way."""

    contents: Contents
    notes: list[Note] = field(default_factory=list)
    _kinds: dict[str, str] | None = None  #: of the hyperparameters that are walked through; None outside of them
    _root: str = ""  #: where they are
    _parents: set[int] = field(default_factory=set)
    _containers: int = 0

    def checkpoint(self) -> dict[str, Any]:
        """The plain form of what the file holds.

        Raises:
            Damaged: it is no checkpoint, or does not end.
        """
        root = self.contents.root
        if isinstance(root, StandIn) and type(root).where == "collections.OrderedDict":
            root = dict(root.entries)
        if not isinstance(root, dict) or "state_dict" not in root:
            raise Damaged("is not a checkpoint: it has no `state_dict`")
        plain: dict[str, Any] = {}
        kinds: dict[str, dict[str, str]] = {}
        try:
            for key, value in root.items():
                if not isinstance(key, str):
                    self.notes.append(Note(repr(key), "a key that is not text"))
                elif key in HYPERPARAMETERS:
                    plain[key], found = self._hyperparameters(key, value)
                    kinds.setdefault(HYPERPARAMETERS[key], {}).update(found)
                elif key not in _TYPES_OF_HYPERPARAMETERS or isinstance(value, str):
                    self._put(plain, key, key, value)
        except RecursionError:
            raise Damaged("is nested too deeply") from None
        if not isinstance(plain.get("state_dict"), dict):
            raise Damaged("is not a checkpoint: its `state_dict` is nothing that is known")
        for key, found in kinds.items():
            if found:
                plain[key] = {**found, **plain.get(key, {})}
        return plain

    def _hyperparameters(self, root: str, value: Any) -> tuple[dict[Any, Any], dict[str, str]]:
        """Each hyperparameter is kept whole or left out, as when a checkpoint is written here."""
        self._root, self._kinds = root, {}
        try:
            values, container = self._entries(value)
        except _LeftOut as error:
            self.notes.append(Note(root, str(error)))
            values, container = {}, None
        if container is not None:
            self._kinds[""] = container
        plain: dict[Any, Any] = {}
        kinds: dict[str, str] = {}
        for key, element in values.items():
            path, notes = component(key) if isinstance(key, (str, int)) else "?", len(self.notes)
            self._kinds = {}
            try:
                if type(key) not in (str, int, bool):
                    raise _LeftOut(f"the key {key!r}")
                plain[key] = self.plain(element, path)
                if any(note.outcome is None for note in self.notes[notes:]):
                    del plain[key]
                    raise _LeftOut("has a part without a plain form")
                kinds.update(self._kinds)
            except _LeftOut as error:
                if len(self.notes) == notes:
                    self.notes.append(Note(self._place(path), str(error)))
                for note in self.notes[notes:]:
                    note.outcome = None
                kinds[path] = LEFT_OUT
        if container is not None:
            kinds[""] = container
        self._root, self._kinds = "", None
        return plain, kinds

    def _entries(self, value: Any) -> tuple[dict[Any, Any], str | None]:
        """A collection of hyperparameters as a dict of values that are not plain yet, and its kind."""
        if type(value) is dict:
            return value, None
        if isinstance(value, StandIn):
            where = type(value).where
            if where.startswith("omegaconf."):
                content = _attributes(value).get("_content")
                if isinstance(content, dict):
                    return content, "omegaconf"
            name = where.rpartition(".")[2]
            if name in ("Namespace", "SimpleNamespace"):
                return _attributes(value), "namespace"
            if name in ("AttributeDict", "OrderedDict"):
                kind = "attribute_dict" if name == "AttributeDict" else "ordered_dict"
                return dict(value.entries) or (value.state if isinstance(value.state, dict) else {}), kind
        raise _LeftOut(_what(value))

    # -- the walk -----------------------------------------------------------------------------------------------------

    def plain(self, value: Any, path: str) -> Any:
        """The plain form of a value at ``path``.

        Raises:
            _LeftOut: it has none.
        """
        if isinstance(value, StandIn):
            with_form = _form_of(value)
            return self._within(value, lambda: with_form(self, value, path))
        if isinstance(value, Named):
            if value.where in _DTYPES:
                return _DTYPES[value.where]
            raise _LeftOut(value.where)
        if isinstance(value, StoredData):
            raise _LeftOut("a storage of torch")
        if type(value) in (dict, list, tuple, set, frozenset):
            return self._within(value, lambda: self._container(value, path))
        return self.leaf(value, path)

    def leaf(self, value: Any, path: str) -> Any:
        """The plain form of a value of a type that :mod:`fulmen.core.plain` knows."""
        try:
            return plain_value(value, path, {} if self._kinds is None else self._kinds)
        except NoPlainForm as error:
            raise _LeftOut(str(error)) from None

    def mark(self, path: str, kind: str) -> None:
        if self._kinds is not None:
            self._kinds[path] = kind

    def note(self, path: str, value: StandIn, outcome: str) -> None:
        """Say what became of a value."""
        self.notes.append(Note(self._place(path), type(value).where, outcome))

    def _place(self, path: str) -> str:
        return f"{self._root}.{path}" if self._root else path

    def _within(self, value: Any, walk: Callable[[], Any]) -> Any:
        if id(value) in self._parents:
            raise _LeftOut("something that contains itself")
        self._containers += 1
        if self._containers > _MOST_CONTAINERS:
            raise Damaged(f"has more than {_MOST_CONTAINERS:,} containers within each other")
        self._parents.add(id(value))
        try:
            return walk()
        finally:
            self._parents.remove(id(value))

    def _container(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return self.entries(value.items(), path)
        if type(value) in (list, tuple):
            elements: list[Any] = []
            for index, element in enumerate(value):
                try:
                    elements.append(self.plain(element, _under(path, str(index))))
                except _LeftOut as error:  # the places of the others are to stay
                    self.notes.append(Note(self._place(_under(path, str(index))), str(error)))
                    elements.append(None)
            return tuple(elements) if type(value) is tuple else elements
        return self.set_of(list(value), path, "set" if type(value) is set else "frozenset")

    def entries(self, pairs: Any, path: str) -> dict[Any, Any]:
        """A dict of ``pairs``, without those that have no plain form."""
        plain: dict[Any, Any] = {}
        for key, element in pairs:
            if isinstance(key, Named):  # as the states of callbacks were in files of long ago
                key = key.where.rpartition(".")[2]
            elif isinstance(key, StandIn):
                key = _simple_argument(key)
            if type(key) not in (str, int, bool, float, tuple, type(None)) or not _is_plain_key(key):
                self.notes.append(Note(self._place(path), f"an entry with the key {_what(key)}"))
                continue
            self._put(plain, key, _under(path, component(key)), element)
        return plain

    def set_of(self, elements: list[Any], path: str, kind: str) -> Any:
        plain = [self.plain(element, _under(path, str(index))) for index, element in enumerate(elements)]
        if kind == "set" and all(type(element) in (str, int, float, bool) for element in plain):
            return set(plain)
        self.mark(path, kind)
        return plain

    def _put(self, plain: dict[Any, Any], key: Any, path: str, value: Any) -> None:
        try:
            plain[key] = self.plain(value, path)
        except _LeftOut as error:
            self.notes.append(Note(self._place(path), str(error)))

    # -- tensors ------------------------------------------------------------------------------------------------------

    def tensor(self, stored: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
        """A view of data in the file.

        Raises:
            _LeftOut: it does not lie within the data.
        """
        if not isinstance(stored, StoredData):
            raise _LeftOut("a tensor without data in the file")
        size, stride = _numbers(size), _numbers(stride)
        dtype = dtype or stored.dtype
        if size is None or stride is None or len(size) != len(stride) or type(offset) is not int or offset < 0:
            raise _LeftOut("a tensor of a shape that cannot be")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride))
        if 0 not in size and (last + 1) * dtype.itemsize > stored.count * stored.dtype.itemsize:
            raise _LeftOut("a tensor that is larger than its data")
        storage = self.contents.storage(stored)
        return torch.empty(0, dtype=dtype).set_(storage, offset, size, stride)  # type: ignore[call-overload]


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _what(value: Any) -> str:
    if isinstance(value, Named):
        return value.where
    return type(value).where if isinstance(value, StandIn) else f"{type(value).__name__} {str(value)[:40]!r}"


def _numbers(value: Any) -> tuple[int, ...] | None:
    """``value`` as a shape: a tuple, list or ``torch.Size`` of numbers that are not negative."""
    if isinstance(value, StandIn) and type(value).where == "torch.Size" and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, (tuple, list)) or not all(type(part) is int and 0 <= part < 2**62 for part in value):
        return None
    return tuple(value)


def _is_plain_key(key: Any) -> bool:
    return all(map(_is_plain_key, key)) if type(key) is tuple else isinstance(key, (str, int, float, type(None)))


def _attributes(value: StandIn) -> dict[str, Any]:
    """What would have become the attributes of an object; those in slots, too."""
    state = value.state
    if isinstance(state, tuple) and len(state) == 2 and all(part is None or type(part) is dict for part in state):
        state = {**(state[0] or {}), **(state[1] or {})}
    if state is None:
        return {}
    if type(state) is not dict or not all(type(key) is str for key in state):
        raise _LeftOut(type(value).where)
    return state


def _simple_argument(value: StandIn) -> Any:
    """The one simple argument that a class was called with; the class itself if there is none."""
    simple = len(value.args) == 1 and not value.kwargs and type(value.args[0]) in (str, int, float, bool)
    return value.args[0] if simple and value.called and value.state is None else type(value)


# -- the table --------------------------------------------------------------------------------------------------------

Form = Callable[[Conversion, Any, str], Any]


def _form_of(value: StandIn) -> Form:
    where = type(value).where
    if where in _FORMS:
        return _FORMS[where]
    module, _, name = where.rpartition(".")
    if module in ("pathlib", "pathlib._local") and name in _PATHS:
        return _path
    if name == "AttributeDict":
        return _attribute_dict
    if module.startswith("jsonargparse") and name == "Namespace":
        return _namespace
    if module.startswith("omegaconf"):
        return _omegaconf
    if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric"):
        return _numpy
    return _unknown


def _unknown(walk: Conversion, value: StandIn, path: str) -> Any:
    """An object of a class that is not known: an enum's member and a dataclass can be told by how they were stored."""
    where, known = type(value).where, type(value).where.partition(".")[0] in sys.stdlib_module_names
    name = where.rpartition(".")[2]
    if (known and not where.startswith("__main__.")) or not name[:1].isupper():
        raise _LeftOut(where)
    member = _simple_argument(value)
    if not isinstance(member, Named):
        walk.mark(path, f"enum:{name}")
        walk.note(path, value, f"its value {member!r} (taken for an enum)")
        return walk.leaf(member, path)
    if value.called or value.args or value.kwargs or value.items or value.entries:
        raise _LeftOut(where)
    attributes, notes = _attributes(value), len(walk.notes)
    if not attributes or "_parameters" in attributes:
        raise _LeftOut(where)
    plain = walk.entries(attributes.items(), path)
    if any(note.outcome is None for note in walk.notes[notes:]):
        del walk.notes[notes:]
        raise _LeftOut(where)
    walk.mark(path, f"dataclass:{name}")
    walk.note(path, value, "a dict of its attributes (taken for a dataclass)")
    return plain


def _ordered_dict(walk: Conversion, value: StandIn, path: str) -> Any:
    pairs = value.entries or (value.args[0] if value.args and isinstance(value.args[0], list) else [])
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise _LeftOut(type(value).where)
    plain = OrderedDict(walk.entries(pairs, path))
    metadata = value.state.get("_metadata") if isinstance(value.state, dict) else None
    if metadata is not None:  # the versions of the modules in a `state_dict`
        plain._metadata = walk.plain(metadata, _under(path, "_metadata"))  # type: ignore[attr-defined]
    if walk._kinds is None:
        return plain
    walk.mark(path, "ordered_dict")
    return dict(plain)


def _counter(walk: Conversion, value: StandIn, path: str) -> Any:
    walk.mark(path, "counter")
    counts = value.args[0] if value.args and type(value.args[0]) is dict else {}
    return walk.entries([*counts.items(), *value.entries], path)


def _default_dict(walk: Conversion, value: StandIn, path: str) -> Any:
    walk.note(path, value, "a dict, without its default")
    return walk.entries(value.entries, path)


def _attribute_dict(walk: Conversion, value: StandIn, path: str) -> Any:
    walk.mark(path, "attribute_dict")
    pairs = dict(value.args[0]) if value.args and type(value.args[0]) is dict else {}
    pairs.update(value.entries)
    return walk.entries((pairs or _attributes(value)).items(), path)


def _namespace(walk: Conversion, value: StandIn, path: str) -> Any:
    simple = type(value).where == "types.SimpleNamespace"
    walk.mark(path, "simple_namespace" if simple else "namespace")
    return walk.entries(_attributes(value).items(), path)


def _omegaconf(walk: Conversion, value: StandIn, path: str) -> Any:
    """Containers as dicts and lists, nodes as their value; a reference to another entry stays the text that it is."""
    attributes, name = _attributes(value), type(value).where.rpartition(".")[2]
    if name in ("DictConfig", "ListConfig"):
        content = attributes.get("_content")
        if type(content) is dict:
            return walk.entries(content.items(), path)
        return walk.plain(content, path)
    if name.endswith("Node") and "_val" in attributes:
        return walk.plain(attributes["_val"], path)
    raise _LeftOut(type(value).where)


def _set(walk: Conversion, value: StandIn, path: str) -> Any:
    elements = [*(value.args[0] if value.args and isinstance(value.args[0], (list, tuple)) else []), *value.items]
    return walk.set_of(elements, path, type(value).where.rpartition(".")[2])


def _sequence(walk: Conversion, value: StandIn, path: str) -> Any:
    elements = [*(value.args[0] if value.args and isinstance(value.args[0], (list, tuple)) else []), *value.items]
    return walk.plain(tuple(elements) if type(value).where.endswith("tuple") else elements, path)


def _made_of(make: Callable[..., Any], *allowed: type) -> Form:
    """The form of a value that ``make`` makes of arguments, all of them of the types in ``allowed``."""

    def form(walk: Conversion, value: StandIn, path: str) -> Any:
        arguments = [_bytes_or(argument) for argument in value.args]
        if value.kwargs or not all(type(argument) in allowed for argument in arguments):
            raise _LeftOut(type(value).where)
        try:
            return walk.leaf(make(*arguments), path)
        except (TypeError, ValueError, OverflowError):
            raise _LeftOut(type(value).where) from None

    return form


def _bytes_or(value: Any) -> Any:
    """The bytes that pickles of long ago store as encoded text; all else as it is."""
    if isinstance(value, StandIn) and type(value).where == "_codecs.encode" and len(value.args) == 2:
        text, encoding = value.args
        if type(text) is str and encoding in ("latin1", "latin-1"):
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                return value
    if isinstance(value, StandIn) and type(value).where in ("builtins.bytes", "__builtin__.bytes") and not value.args:
        return b""
    return value


def _encoded(walk: Conversion, value: StandIn, path: str) -> Any:
    data = _bytes_or(value)
    if data is value:
        raise _LeftOut(type(value).where)
    return walk.leaf(data, path)


def _path(walk: Conversion, value: StandIn, path: str) -> Any:
    return _made_of(_PATHS[type(value).where.rpartition(".")[2]], str)(walk, value, path)


def _as_text(walk: Conversion, value: StandIn, path: str) -> Any:
    if len(value.args) != 1 or type(value.args[0]) is not str:
        raise _LeftOut(type(value).where)
    walk.note(path, value, "text")
    return value.args[0]


def _member_by_name(walk: Conversion, value: StandIn, path: str) -> Any:
    """``getattr(TheEnum, "MEMBER")``."""
    owner, name = value.args if len(value.args) == 2 else (None, None)
    if not isinstance(owner, Named) or type(name) is not str:
        raise _LeftOut(type(value).where)
    walk.mark(path, f"enum_name:{owner.where.rpartition('.')[2]}")
    walk.notes.append(Note(walk._place(path), owner.where, f"its name {name!r} (taken for an enum)"))
    return name


def _numpy(walk: Conversion, value: StandIn, path: str) -> Any:
    name = type(value).where.rpartition(".")[2]
    if name == "scalar" and len(value.args) == 2:
        dtype, data = value.args
        array = _array(data, (), dtype)
        return walk.leaf(array[()], path)
    if name == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, by_columns, data = value.state
        return walk.leaf(_array(data, shape, dtype, by_columns is True), path)
    if name == "_frombuffer" and len(value.args) == 4:
        data, dtype, shape, order = value.args
        return walk.leaf(_array(data, shape, dtype, order == "F"), path)
    raise _LeftOut(type(value).where)


def _array(data: Any, shape: Any, dtype: Any, by_columns: bool = False) -> np.ndarray:
    data, shape, text = _bytes_or(data), _numbers(shape), None
    if isinstance(dtype, StandIn) and type(dtype).where == "numpy.dtype" and dtype.args:
        order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
        text = f"{order}{dtype.args[0]}"
    if type(data) is not bytes or shape is None or text is None or not _NUMPY_DTYPE.fullmatch(text):
        raise _LeftOut("an array of numpy that holds more than numbers and text")
    try:
        kind = np.dtype(text)
        if math.prod(shape) * kind.itemsize != len(data):
            raise _LeftOut("an array of numpy that does not fit its data")
        return np.frombuffer(data, kind).reshape(shape, order="F" if by_columns else "C").copy()
    except (TypeError, ValueError):
        raise _LeftOut(f"an array of numpy of the type {text!r}") from None


def _tensor(walk: Conversion, value: StandIn, path: str) -> Any:
    if len(value.args) < 4:
        raise _LeftOut(type(value).where)
    stored, offset, size, stride, *more = value.args
    named = more[2] if type(value).where.endswith("_v3") and len(more) > 2 else None
    dtype = _DTYPES.get(named.where) if isinstance(named, Named) else None
    tensor = walk.tensor(stored, offset, size, stride, dtype)
    return tensor.requires_grad_() if more and more[0] is True and tensor.dtype.is_floating_point else tensor


def _parameter(walk: Conversion, value: StandIn, path: str) -> Any:
    data = walk.plain(value.args[0], path) if value.args else None
    if not isinstance(data, Tensor):
        raise _LeftOut(type(value).where)
    trains = len(value.args) > 1 and value.args[1] is True and data.dtype.is_floating_point
    return nn.Parameter(data, requires_grad=trains)


def _tensor_of_a_class(walk: Conversion, value: StandIn, path: str) -> Any:
    """``_rebuild_from_type_v2(function, class, arguments, attributes)``: the tensor itself."""
    if len(value.args) < 3 or not isinstance(value.args[0], Named) or not isinstance(value.args[2], tuple):
        raise _LeftOut(type(value).where)
    inner: Any = StandIn.__new__(cast(Any, value.args[0]), *value.args[2])
    if type(inner).where not in _TENSORS:
        raise _LeftOut(type(inner).where)
    if value.args[1] is not None and _what(value.args[1]) != "torch._tensor.Tensor":
        walk.note(path, value, f"a plain tensor, not a {_what(value.args[1])}")
    return walk.plain(inner, path)


_TENSORS: dict[str, Form] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_FORMS: dict[str, Form] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _tensor_of_a_class,
    "torch.device": _made_of(torch.device, str, int),
    "torch.Size": _made_of(torch.Size, tuple, list),
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "collections.defaultdict": _default_dict,
    "collections.deque": _sequence,
    "argparse.Namespace": _namespace,
    "types.SimpleNamespace": _namespace,
    "_codecs.encode": _encoded,
    "datetime.date": _made_of(datetime.date, bytes),
    "datetime.time": _made_of(datetime.time, bytes),
    "datetime.datetime": _made_of(datetime.datetime, bytes),
    "datetime.timedelta": _made_of(datetime.timedelta, int),
    "decimal.Decimal": _as_text,
    "fractions.Fraction": _as_text,
}
for _module in ("builtins", "__builtin__"):
    _FORMS |= {
        f"{_module}.set": _set,
        f"{_module}.frozenset": _set,
        f"{_module}.list": _sequence,
        f"{_module}.tuple": _sequence,
        f"{_module}.bytes": _encoded,
        f"{_module}.bytearray": _made_of(bytearray, bytes),
        f"{_module}.complex": _made_of(complex, float, int),
        f"{_module}.range": _made_of(range, int),
        f"{_module}.xrange": _made_of(range, int),
        f"{_module}.getattr": _member_by_name,
    }
