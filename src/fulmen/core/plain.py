"""The plain form of hyperparameters: what of them goes into a checkpoint, and how they become again what they were.

A checkpoint holds tensors and simple values, so that ``torch.load(..., weights_only=True)`` reads it and nothing in it
is ever imported or called. Values of richer types are stored as the nearest simple one (a path as text, an enum member
as its value, a dataclass as a dict) and come back in two ways:

- A side table, *kinds*, maps the dotted path of a value to the name of a built-in kind (``{"root": "path"}``). Only the
  kinds written down in this file are known; others are ignored.
- Enums, dataclasses and named tuples are classes of the user. They are found through the annotation (or the default) of
  the constructor's own parameter. The name after the colon in ``"enum:Color"`` only chooses among those.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import functools
import inspect
import pathlib
import re
import sys
import types
import typing
import uuid
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from fulmen.utilities.parsing import AttributeDict
from fulmen.utilities.text import plainly

#: marks, in the table of kinds, a hyperparameter that has no plain form and is not in the checkpoint
LEFT_OUT = "left_out"

#: types whose values the restricted reader of torch knows itself
_NATIVE = (bool, float, complex, str, torch.Size, torch.dtype, torch.device, Tensor, nn.Parameter)

#: for values of their subclasses: the value itself, not what the subclass shows
_SIMPLIFIED: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: bytes.__bytes__,
}

#: of a path in the table of kinds: values are not deeper than that
_MAX_PARTS = 1000

#: longer integers are more than that reader takes
_MAX_INT_BITS = 2000


@dataclass(frozen=True, slots=True)
class _Leaf:
    """How a value of an exact type is stored, and restored."""

    kind: str
    store: Callable[[Any], Any]
    restore: Callable[[Any], Any]


_LEAVES: dict[type, _Leaf] = {
    pathlib.PosixPath: _Leaf("path", lambda path: path.as_posix(), pathlib.Path),
    pathlib.WindowsPath: _Leaf("path", lambda path: path.as_posix(), pathlib.Path),
    pathlib.PurePosixPath: _Leaf("pure_posix_path", str, pathlib.PurePosixPath),
    pathlib.PureWindowsPath: _Leaf("pure_windows_path", str, pathlib.PureWindowsPath),
    datetime.datetime: _Leaf("datetime", lambda value: value.isoformat(), datetime.datetime.fromisoformat),
    datetime.date: _Leaf("date", lambda value: value.isoformat(), datetime.date.fromisoformat),
    datetime.time: _Leaf("time", lambda value: value.isoformat(), datetime.time.fromisoformat),
    datetime.timedelta: _Leaf(
        "timedelta", lambda delta: [delta.days, delta.seconds, delta.microseconds], lambda d: datetime.timedelta(*d)
    ),
    range: _Leaf("range", lambda value: [value.start, value.stop, value.step], lambda value: range(*value)),
    torch.layout: _Leaf("torch", str, lambda name: _torch_constants()[name]),
    torch.memory_format: _Leaf("torch", str, lambda name: _torch_constants()[name]),
    decimal.Decimal: _Leaf("decimal", str, decimal.Decimal),
    fractions.Fraction: _Leaf(
        "fraction",
        lambda value: [value.numerator, value.denominator],
        lambda parts: fractions.Fraction(*map(int, parts)),
    ),
    uuid.UUID: _Leaf("uuid", str, uuid.UUID),
    re.Pattern: _Leaf("pattern", lambda value: [value.pattern, value.flags], lambda parts: _pattern(*parts)),
    bytearray: _Leaf("bytearray", lambda value: value.decode("latin-1"), lambda text: bytearray(text, "latin-1")),
}
_RESTORE_LEAF = {leaf.kind: leaf.restore for leaf in _LEAVES.values()} | {
    "int": lambda text: int(text, 16),
    "empty_bytes": lambda _: b"",
    "numpy_dtype": lambda text: _numpy_dtype(text),
}

#: what a defaultdict may make its values with
_FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (int, float, str, bool, list, tuple, dict, set)}

_RESTORE_CONTAINER: dict[str, Callable[[Any], Any]] = {
    "set": set,
    "frozenset": frozenset,
    "slice": lambda parts: slice(*parts),
    "ordered_dict": OrderedDict,
    "counter": Counter,
    "attribute_dict": AttributeDict,
    "namespace": lambda values: Namespace(**values),
    "simple_namespace": lambda values: types.SimpleNamespace(**values),
}

_NUMPY_DTYPE = r"[<>|=][biufcMmUS]\d{1,9}(?:\[\w+\])?"
_NUMPY_KIND = re.compile(rf"numpy(_array)?:({_NUMPY_DTYPE})")


class NoPlainForm(ValueError):
    """A value has no plain form. ``str(error)`` says what it is.

    Attributes:
        path: where it was found.
        is_code: it is a module or something to be called, which whoever loads the checkpoint gives again.
    """

    def __init__(self, reason: str, path: str, is_code: bool = False) -> None:
        super().__init__(reason)
        self.path = path
        self.is_code = is_code


class _Misfit(ValueError):
    """A stored value that does not fit its kind."""


# -- to plain ---------------------------------------------------------------------------------------------------------


def to_plain(hparams: Any) -> tuple[dict[Any, Any], dict[str, str]]:
    """The plain form of hyperparameters, as ``(plain, kinds)``.

    Args:
        hparams: a mapping, ``argparse.Namespace`` or OmegaConf container. It is not changed.

    Returns:
        ``plain`` loads with ``torch.load(weights_only=True)``. A value that has no plain form is not in it, but marked
        as ``"left_out"`` in ``kinds``. With ``kinds``, :func:`from_plain` gives back what was there.
    """
    plain, kinds = {}, {}
    for name, value, kinds_of_value in _plain_items(hparams):
        if isinstance(value, NoPlainForm):
            kinds[component(name)] = LEFT_OUT
        else:
            plain[name] = value
            kinds |= kinds_of_value
    return plain, kinds


def reasons_without_plain_form(hparams: Any, code: bool = True) -> dict[Any, str]:
    """For each hyperparameter without a plain form, in words, what it is: ``{"loss": "MSELoss is an nn.Module"}``.

    Args:
        code: also those that are left out because of a module, or of something to be called.
    """
    reasons = {}
    for name, value, _ in _plain_items(hparams):
        if isinstance(value, NoPlainForm) and (code or not value.is_code):
            reasons[name] = str(value) if value.path == component(name) else f"at `{value.path}`: {value}"
    return reasons


def _plain_items(hparams: Any) -> Iterator[tuple[Any, Any, dict[str, str]]]:
    """For each entry its name, its plain form (or why it has none) and its kinds."""
    if _is_omegaconf(hparams):
        hparams = _from_omegaconf(hparams)
    for name, value in (vars(hparams) if isinstance(hparams, Namespace) else hparams).items():
        kinds: dict[str, str] = {}
        try:
            _check_key(name, component(name))
            yield name, plain_value(value, component(name), kinds), kinds
        except NoPlainForm as error:
            yield name, error, {}


def container_kind(hparams: Any) -> str | None:
    """The kind of the container itself, None for a plain dict (and for a mapping class that is not known here)."""
    if _is_omegaconf(hparams):
        return "omegaconf"
    if isinstance(hparams, Namespace):
        return "namespace"
    return _kind_of_dict(hparams) if isinstance(hparams, dict) else None


def component(key: Any) -> str:
    """One part of a dotted path. An integer key is ``#7``; in text, dots and a leading ``#`` are escaped."""
    if isinstance(key, int):
        return f"#{int(key)}"
    text = str(key).replace("%", "%25").replace(".", "%2E")
    return f"%23{text[1:]}" if text.startswith("#") else text or "%"


def plain_value(
    value: Any,
    path: str,
    kinds: dict[str, str],
    parents: tuple[int, ...] = (),
    enums_by_name: bool = False,
) -> Any:
    """The plain form of one value at ``path``; what is needed to restore it is added to ``kinds``.

    Args:
        parents: the ids of the containers around ``value``.
        enums_by_name: store the name of an enum's member instead of its value (for YAML files).

    Raises:
        NoPlainForm: ``value``, or something within it, has none.
    """
    if value is None or type(value) in _NATIVE:
        return value
    if type(value) is int:
        if value.bit_length() <= _MAX_INT_BITS:
            return value
        kinds[path] = "int"
        return hex(value)
    if type(value) is bytes:
        if not value:  # the one bytes object that pickles as a call
            kinds[path] = "empty_bytes"
            return ""
        return value
    leaf = _LEAVES.get(type(value))
    if leaf is not None:
        if not isinstance(getattr(value, "tzinfo", None), (datetime.timezone, type(None))):
            raise NoPlainForm("its time zone has rules; give `value.astimezone(datetime.UTC)`", path)
        kinds[path] = leaf.kind
        return leaf.store(value)
    if isinstance(value, (nn.Module, type, Tensor)):
        raise _no_plain_form(value, path)
    if isinstance(value, Enum):
        return _plain_enum(value, path, kinds, by_name=enums_by_name)
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain_numpy(value, path, kinds)
    if isinstance(value, np.dtype) and re.fullmatch(_NUMPY_DTYPE, value.str):
        kinds[path] = "numpy_dtype"
        return value.str
    if _is_omegaconf(value):
        kinds[path] = "omegaconf"
        value = _from_omegaconf(value)  # a dict or list of simple values and enums
    for simple, simplified in _SIMPLIFIED.items():
        if isinstance(value, simple):
            return plain_value(simplified(value), path, kinds)
    if id(value) in parents:
        raise NoPlainForm("it contains itself", path)
    return _plain_container(value, path, kinds, (*parents, id(value)), enums_by_name)


def _plain_container(value: Any, path: str, kinds: dict[str, str], parents: tuple[int, ...], by_name: bool) -> Any:
    def plain(element: Any, key: str) -> Any:
        return plain_value(element, f"{path}.{key}" if path else key, kinds, parents, by_name)

    if isinstance(value, (list, tuple)):
        if hasattr(value, "_fields"):
            kinds[path] = f"namedtuple:{type(value).__qualname__}"
        elements = [plain(element, str(index)) for index, element in enumerate(value)]
        return tuple(elements) if isinstance(value, tuple) else elements
    if isinstance(value, (set, frozenset)):
        before = len(kinds)
        elements = [plain(element, str(index)) for index, element in enumerate(value)]
        if isinstance(value, set) and len(kinds) == before and all(_is_hashable(element) for element in elements):
            return set(elements)
        kinds[path] = "set" if isinstance(value, set) else "frozenset"
        return elements
    if type(value) is slice:
        kinds[path] = "slice"
        return [plain(part, str(index)) for index, part in enumerate((value.start, value.stop, value.step))]
    if type(value) is deque:
        kinds[path] = f"deque:{'' if value.maxlen is None else value.maxlen}"
        return [plain(element, str(index)) for index, element in enumerate(value)]
    if dataclasses.is_dataclass(value):
        kinds[path] = f"dataclass:{type(value).__qualname__}"
        names = [f.name for f in dataclasses.fields(value) if hasattr(value, f.name)]
        attributes = {name: getattr(value, name) for name in names} | getattr(value, "__dict__", {})
    elif isinstance(value, Mapping):
        attributes = value
        if path not in kinds and (kind := _kind_of_dict(value, path)):
            kinds[path] = kind
        if any(type(key) not in _NAMES for key in value):  # whose paths would not be known again
            kinds[path] = f"items:{kinds.get(path, '')}"
            return [[plain(key, f"{i}.0"), plain(value[key], f"{i}.1")] for i, key in enumerate(value)]
    elif type(value) in (Namespace, types.SimpleNamespace):
        kinds[path] = "namespace" if type(value) is Namespace else "simple_namespace"
        attributes = vars(value)
    else:
        raise _no_plain_form(value, path)
    return {key: plain(element, component(key)) for key, element in attributes.items()}


#: types of keys that a path can name
_NAMES = (str, int, bool)


def _check_key(key: Any, path: str) -> None:
    if type(key) not in _NAMES:
        raise NoPlainForm(f"the name {key!r} is neither text nor an integer", path)


def _kind_of_dict(value: Mapping[Any, Any], path: str = "") -> str | None:
    if type(value) is defaultdict:
        factory = value.default_factory
        if factory is not None and _FACTORIES.get(getattr(factory, "__name__", "")) is not factory:
            raise NoPlainForm(f"a defaultdict that makes its values with {factory!r}", path, is_code=True)
        return f"defaultdict:{'' if factory is None else factory.__name__}"
    if type(value) is OrderedDict:
        return "ordered_dict"
    if type(value) is Counter:
        return "counter"
    # dicts of other classes are mostly there for access by attribute, which this one has too
    return "attribute_dict" if isinstance(value, dict) and type(value) is not dict else None


def _plain_enum(member: Enum, path: str, kinds: dict[str, str], by_name: bool) -> Any:
    kinds_of_value: dict[str, str] = {}
    try:
        stored = plain_value(member.value, path, kinds_of_value)
    except NoPlainForm:
        stored, by_name = None, True
    by_name = by_name or bool(kinds_of_value)  # only a value that is simple as it stands identifies a member
    kinds[path] = f"{'enum_name' if by_name else 'enum'}:{type(member).__qualname__}"
    return member.name if by_name else stored


def _plain_numpy(value: np.generic | np.ndarray, path: str, kinds: dict[str, str]) -> Any:
    dtype = value.dtype.newbyteorder("=")
    scalar = isinstance(value, np.generic)
    exact = scalar or type(value) is np.ndarray  # a masked array is more than its data
    too_long = dtype.str[1:] in ("f16", "c32") or (dtype.itemsize == 0 and not (scalar and dtype.kind == "U"))
    if not exact or too_long or not _NUMPY_KIND.fullmatch(f"numpy:{dtype.str}"):
        raise NoPlainForm(f"a numpy {type(value).__name__} of {value.dtype!r}", path)
    kinds[path] = f"numpy{'' if scalar else '_array'}:{dtype.str}"
    if scalar and dtype.kind in "biufcU":
        return value.item()
    array = np.array(value, dtype=dtype, order="C")
    if dtype.kind in "US":
        array = array[..., None].view(np.uint8)
    elif dtype.kind in "Mm":
        array = array.view(np.int64)
    return torch.from_numpy(array)


def _restore_numpy(stored: Any, array: bool, dtype: np.dtype[Any]) -> Any:
    if dtype.kind in "US" and not isinstance(stored, Tensor) and (array or dtype.itemsize != 4 * len(stored)):
        raise ValueError(f"{dtype} is not its length")
    if isinstance(stored, Tensor):
        value = stored.cpu().numpy()
        if dtype.kind in "US":
            value = value.view(dtype)[..., 0]
        value = value.view(dtype) if dtype.kind in "Mm" else value.astype(dtype, copy=False)
    else:
        value = np.array(stored, dtype=dtype)
    return value if array else value[()]


def _no_plain_form(value: Any, path: str) -> NoPlainForm:
    return NoPlainForm(_what_it_is(value), path, is_code=isinstance(value, nn.Module) or callable(value))


def _pattern(pattern: str | bytes, flags: int) -> re.Pattern[Any]:
    return re.compile(pattern, flags & ~re.DEBUG)


def _numpy_dtype(text: str) -> np.dtype[Any]:
    if re.fullmatch(_NUMPY_DTYPE, text) is None:
        raise ValueError("it is no simple numpy dtype")
    return np.dtype(text)


@functools.lru_cache(maxsize=1)
def _torch_constants() -> dict[str, Any]:
    """What a file may call by its name, which is not looked up in torch: that would import what is not there yet."""
    kinds = (torch.dtype, torch.layout, torch.memory_format)
    return {str(value): value for value in list(vars(torch).values()) if isinstance(value, kinds)}


def _what_it_is(value: Any) -> str:
    name = type(value).__qualname__
    if isinstance(value, nn.Module):
        return f"{name} is an nn.Module"
    if isinstance(value, type):
        return f"{value.__qualname__} is a class"
    if inspect.isroutine(value):
        return f"{getattr(value, '__name__', name)} is a function"
    return f"it is an object of class {name}"


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_omegaconf(value: Any) -> bool:
    omegaconf = sys.modules.get("omegaconf")  # who holds such a container has imported it
    return omegaconf is not None and isinstance(value, (omegaconf.DictConfig, omegaconf.ListConfig))


def _from_omegaconf(value: Any) -> Any:
    # references to other entries stay references if they come along
    to_container = sys.modules["omegaconf"].OmegaConf.to_container
    return to_container(value, resolve=value._get_parent() is not None)


# -- from plain -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Table:
    """The kinds, and what was noticed while going through them."""

    kinds: Mapping[str, str] | None  #: None: no table, so only annotations tell
    with_kinds: set[str] = field(default_factory=set)  #: every path with a kind at it or below it
    lost: list[str] = field(default_factory=list)  #: paths of values whose class was not found


def from_plain(
    plain: Mapping[Any, Any], kinds: Mapping[str, str] | None, constructor: Callable[..., Any] | None = None
) -> dict[Any, Any]:
    """What :func:`to_plain` was given, as a dict.

    Args:
        plain: the stored hyperparameters. It is not changed.
        kinds: the side table. None (a file without one: YAML, or written by Lightning): every parameter annotated as an
            enum, a dataclass, a ``Path``, a ``torch.dtype`` or a ``torch.device`` is made one.
        constructor: the class or function whose parameters they are; its annotations name the classes that the values
            may have. None: they are nobody's parameters.

    Raises:
        ValueError: a value does not fit its kind.
    """
    return _from_plain(plain, _Table(kinds), constructor)


def lost_classes(
    plain: Mapping[Any, Any], kinds: Mapping[str, str], constructor: Callable[..., Any] | None
) -> list[str]:
    """The paths of enum members, dataclasses and named tuples whose class ``constructor`` does not name."""
    if not any(":" in kind and not kind.startswith("numpy") for kind in kinds.values()):
        return []
    table = _Table(kinds)
    _from_plain(plain, table, constructor)
    return [path for path in table.lost if not any(path.startswith(f"{other}.") for other in table.lost)]


def restore_container(values: Any, kind: str | None) -> Any:
    """The dict or list ``values`` as the container it was; see :func:`container_kind`."""
    # a file makes nothing be imported
    if kind == "omegaconf" and isinstance(values, (dict, list)) and (omegaconf := sys.modules.get("omegaconf")):
        return omegaconf.OmegaConf.create(values)
    if kind == "omegaconf":
        return AttributeDict(values) if isinstance(values, dict) else values
    if kind in ("set", "frozenset") and not all(map(_is_hashable, values)):
        return values  # of dataclasses whose class was not found
    kind, _, label = (kind or "").partition(":")
    if kind == "defaultdict" and (not label or label in _FACTORIES):
        return defaultdict(_FACTORIES.get(label), values)
    if kind == "deque":
        return deque(values, maxlen=int(label) if label else None)
    return _RESTORE_CONTAINER[kind](values) if kind in _RESTORE_CONTAINER else values


def _from_plain(plain: Mapping[Any, Any], table: _Table, constructor: Callable[..., Any] | None) -> dict[Any, Any]:
    for path in table.kinds or ():
        if path.count(".") > _MAX_PARTS:
            raise _Misfit(f"The table of kinds has a path of {path.count('.')} parts, {path[:40]!r} ...")
        while path not in table.with_kinds:
            table.with_kinds.add(path)
            path = path.rpartition(".")[0]
    if constructor is None or (table.kinds is not None and not table.with_kinds):
        hints = {}
    else:
        hints = parameter_hints(constructor)
    return {
        name: _restore(value, component(name), table, options_of(hints.get(name)) if isinstance(name, str) else ())
        for name, value in plain.items()
    }


def _restore(value: Any, path: str, table: _Table, options: tuple[Any, ...]) -> Any:
    if table.kinds is not None and path not in table.with_kinds:
        return value
    kind = _guess_kind(value, options) if table.kinds is None else table.kinds.get(path)
    kind, _, label = (kind or "").partition(":")
    try:
        if kind in ("enum", "enum_name"):
            return _restore_enum(value, kind, label, path, table, options)
        if kind in ("dataclass", "namedtuple"):
            return _restore_instance(value, kind, label, path, table, options)
        if kind in _RESTORE_LEAF:
            return _RESTORE_LEAF[kind](value)
        if (match := _NUMPY_KIND.fullmatch(f"{kind}:{label}")) is not None:
            return _restore_numpy(value, array=match[1] is not None, dtype=np.dtype(match[2]))
        if kind in ("torch.dtype", "torch.device"):
            return _restore_torch(value, kind)
        if kind == "items":
            return restore_container(_restore_items(value, path, table, options), label)
        return restore_container(_restore_elements(value, path, table, options), f"{kind}:{label}".rstrip(":"))
    except _Misfit:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, re.error) as error:
        raise _Misfit(
            f"The hyperparameter `{path}` should be of kind {kind!r}, but is {plainly(value)}: {error}"
        ) from error


def _restore_elements(value: Any, path: str, table: _Table, options: tuple[Any, ...]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _restore(element, f"{path}.{component(key)}", table, element_options(options, value, key))
            for key, element in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(
            _restore(element, f"{path}.{index}", table, element_options(options, value, index))
            for index, element in enumerate(value)
        )
    return value


def _restore_items(value: Any, path: str, table: _Table, options: tuple[Any, ...]) -> dict[Any, Any]:
    """A dict that was stored as a list of its keys and values."""
    for_keys = tuple(
        option
        for arguments in map(typing.get_args, options)
        if len(arguments) == 2
        for option in options_of(arguments[0])
    )
    restored = {}
    for index, (key, element) in enumerate(value):
        name = _restore(key, f"{path}.{index}.0", table, for_keys)
        restored[name] = _restore(element, f"{path}.{index}.1", table, element_options(options, {}, name))
    return restored


def _restore_enum(value: Any, kind: str, label: str, path: str, table: _Table, options: tuple[Any, ...]) -> Any:
    if isinstance(value, Enum):
        return value
    classes: Any = _classes_named(label, [o for o in options if isinstance(o, type) and issubclass(o, Enum)])
    for option in classes:
        for by_name in (False, True) if table.kinds is None else (kind == "enum_name",):
            try:
                return option[value] if by_name else option(value)
            except (KeyError, ValueError, TypeError):
                continue
    table.lost.append(path)
    return value


def _restore_instance(value: Any, kind: str, label: str, path: str, table: _Table, options: tuple[Any, ...]) -> Any:
    """A dataclass from a dict, or a named tuple from a tuple."""
    is_one = dataclasses.is_dataclass if kind == "dataclass" else (lambda option: hasattr(option, "_fields"))
    classes = _classes_named(label, [o for o in options if isinstance(o, type) and is_one(o)])
    values = _restore_elements(value, path, table, classes)
    if not classes:
        table.lost.append(path)
        return AttributeDict(values) if isinstance(values, dict) else values
    cls = classes[0]
    if kind == "namedtuple":
        return cls._make(values)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if table.kinds is None:  # written by hand, so it holds what the constructor takes
        return cls(**{name: element for name, element in values.items() if name in fields and fields[name].init})
    for name, f in fields.items():
        if name not in values:  # the class got this field after the checkpoint was written
            values[name] = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
            if values[name] is dataclasses.MISSING:
                raise ValueError(f"{cls.__qualname__} needs `{name}`")
    # the state as it was, which a second __post_init__ might change
    instance = object.__new__(cls)
    takes_others = hasattr(instance, "__dict__")
    for name, element in values.items():
        if name in fields or (takes_others and name.isidentifier() and not hasattr(cls, name)):
            object.__setattr__(instance, name, element)
    return instance


def _restore_torch(value: str, kind: str) -> torch.dtype | torch.device:
    if kind == "torch.device":
        return torch.device(value)
    dtype = _torch_constants().get(f"torch.{value.removeprefix('torch.')}")
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{value!r} is not a torch.dtype")
    return dtype


def _guess_kind(value: Any, options: tuple[Any, ...]) -> str | None:
    """The kind of a value of which only the annotation is known; None if that leaves a choice."""
    if len(options) != 1 or not isinstance(options[0], type):
        return None
    (cls,) = options
    if issubclass(cls, Enum):
        return "enum"
    if dataclasses.is_dataclass(cls):
        return "dataclass" if isinstance(value, dict) else None
    if isinstance(value, str):
        return {pathlib.Path: "path", torch.dtype: "torch.dtype", torch.device: "torch.device"}.get(cls)
    return None


def _classes_named(label: str, classes: list[type]) -> tuple[type, ...]:
    """Those of ``classes`` and their subclasses that are called ``label``; or the only one, whatever it is called."""
    found, todo = [], list(classes)
    while todo:
        cls = todo.pop(0)
        if cls.__qualname__ == label and cls not in found:
            found.append(cls)
        todo += type.__subclasses__(cls)
    return tuple(found or (classes if len(classes) == 1 else ()))


# -- annotations ------------------------------------------------------------------------------------------------------


def parameter_hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a constructor's parameters, of base classes too; of those without one, the default's class."""
    functions: list[Any] = [constructor]
    if isinstance(constructor, type):
        functions = [cls.__dict__["__init__"] for cls in constructor.__mro__ if "__init__" in cls.__dict__]
    hints: dict[str, Any] = {}
    for function in functions:
        if not inspect.isfunction(inspect.unwrap(function)):
            continue
        for name, parameter in inspect.signature(function).parameters.items():
            hint = _resolved(parameter.annotation, inspect.unwrap(function))
            if hint is None and parameter.default is not inspect.Parameter.empty and parameter.default is not None:
                hint = type(parameter.default)
            if hint is not None:
                hints.setdefault(name, hint)
    return hints


def _resolved(annotation: Any, function: Any) -> Any:
    """An annotation with its names looked up where ``function`` was defined; None if they are not there."""
    if annotation is inspect.Parameter.empty:
        return None
    known = dict(getattr(function, "__globals__", {}))
    closure = getattr(function, "__closure__", None) or ()
    for name, cell in zip(function.__code__.co_freevars, closure):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # assigned later
            continue
    return _resolved_in(annotation, known)


def _resolved_in(annotation: Any, known: dict[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=known, include_extras=True).get("it")
    except Exception:  # names under TYPE_CHECKING, text that is no annotation ...
        return None


def options_of(hint: Any) -> tuple[Any, ...]:
    """What a hint allows besides None: the members of a union, or the one type."""
    if hint is None or hint is type(None):
        return ()
    if typing.get_origin(hint) is Annotated:
        return options_of(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(option for member in typing.get_args(hint) for option in options_of(member))
    return (hint,)


def element_options(options: tuple[Any, ...], container: Any, key: Any) -> tuple[Any, ...]:
    """What the annotation of a container allows for its element at ``key``."""
    found: list[Any] = []
    for option in options:
        origin, arguments = typing.get_origin(option) or option, typing.get_args(option)
        if not isinstance(origin, type):
            continue
        if isinstance(container, Mapping):
            if dataclasses.is_dataclass(origin) or typing.is_typeddict(origin):
                found += options_of(_attribute_hint(origin, key))
            elif issubclass(origin, Mapping) and len(arguments) == 2:
                found += options_of(arguments[1])
        elif hasattr(origin, "_fields"):
            found += options_of(_attribute_hint(origin, origin._fields[key])) if key < len(origin._fields) else ()
        elif issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
            found += options_of(arguments[key]) if key < len(arguments) else ()
        elif issubclass(origin, (Sequence, Set)) and arguments:
            found += options_of(arguments[0])
    return tuple(found)


def _attribute_hint(cls: type, name: Any) -> Any:
    for ancestor in cls.__mro__:
        try:
            annotations = inspect.get_annotations(ancestor)
        except NameError:
            continue
        if name in annotations:
            return _resolved_in(annotations[name], dict(vars(sys.modules.get(ancestor.__module__, types))))
    return None
