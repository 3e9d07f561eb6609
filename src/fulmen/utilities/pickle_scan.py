"""What a pickle of ``torch.save`` asks for, found out without making, importing or calling anything.

``torch.load(weights_only=True)`` calls only functions of a short list, but with whatever arguments a file gives, and
makes what it reads without asking how large or how deep it is. :func:`scan` goes through the same instructions first
and takes down what they would make; :mod:`fulmen.utilities.pickle_check` looks at each call and each size.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

#: bytes of one element, for the storages that a file may name
_ELEMENT_SIZES = {
    "ComplexDoubleStorage": 16,
    **dict.fromkeys(("DoubleStorage", "LongStorage", "ComplexFloatStorage"), 8),
    **dict.fromkeys(("FloatStorage", "IntStorage", "QInt32Storage"), 4),
    **dict.fromkeys(("HalfStorage", "ShortStorage", "BFloat16Storage"), 2),
    **dict.fromkeys(("CharStorage", "ByteStorage", "BoolStorage", "QInt8Storage", "QUInt8Storage"), 1),
    **dict.fromkeys(("QUInt4x2Storage", "QUInt2x4Storage", "UntypedStorage"), 1),
}
_STORAGE_NAME = re.compile(r"torch\.(?:cuda\.|storage\.)?(\w+Storage)")
_KEY = re.compile(r"\w{1,100}")
_LOCATION = re.compile(r"\w{1,40}(:\d{1,9})?")


class Damaged(ValueError):
    """The bytes are no whole pickle. ``str(error)`` says why, to go on after "it is damaged:"."""


class Refused(ValueError):
    """The pickle asks for what no checkpoint needs. ``str(error)`` says what, to go on after "it".

    Attributes:
        scanned: what was found before, if it is known.
    """

    scanned: Scanned | None = None


class Name(str):
    """A class or function, by its full name."""

    __slots__ = ()


def name_of(module: str, name: str) -> Name:
    """The full name of what a pickle names, where Python 3 has it."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return Name(f"{module}.{name}")


class Pairs(list[tuple[Any, Any]]):
    """A dict, as its keys and values: nothing is hashed."""


@dataclass(slots=True, eq=False)
class Call:
    """What ``function(*arguments)`` would make, and the state that it would get."""

    function: Name
    arguments: Any
    state: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """The memory of a tensor: ``count`` elements of ``element_size`` bytes, under ``key`` in the file."""

    key: Any
    kind: str
    element_size: int
    count: int
    shown: int | None = None  #: elements of the part that is referred to; None: all

    @property
    def size(self) -> int:
        """How many elements a tensor can lie in."""
        return self.count if self.shown is None else self.shown

    @property
    def num_bytes(self) -> int:
        return self.count * self.element_size


def is_count(value: Any) -> bool:
    """Whether ``value`` is a whole number from 0 to what torch can count."""
    return type(value) is int and 0 <= value < 2**63


def storage_of_name(name: Any) -> tuple[str, int] | None:
    """The kind of storage that ``name`` is, and the bytes of one element; None if it is none."""
    match = _STORAGE_NAME.fullmatch(name) if isinstance(name, Name) else None
    return (match[1], _ELEMENT_SIZES[match[1]]) if match is not None and match[1] in _ELEMENT_SIZES else None


# -- going through the instructions -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Scanned:
    """What was found in a pickle.

    Attributes:
        names: every name in it.
        calls: everything that it would call, but for the ``__new__`` of classes.
        value: numbers, text, lists and tuples as they are, and :class:`Pairs`, :class:`Call`, :class:`Storage`,
            :class:`Name`.
    """

    names: set[str] = field(default_factory=set)
    calls: list[Call] = field(default_factory=list)
    value: Any = None


def scan(file: IO[bytes]) -> Scanned:
    """Go through the pickle that begins here in ``file``.

    Raises:
        Damaged: it has no end, or its instructions do not fit each other.
        Refused: it has instructions that ``torch.save`` does not write.
    """
    machine = _Machine(file)
    try:
        machine.found.value = machine.run()
        return machine.found
    except Refused as error:
        error.scanned = machine.found
        raise
    except (IndexError, KeyError, struct.error, UnicodeDecodeError, EOFError) as error:
        raise Damaged(f"its pickle ends too early or does not fit together ({type(error).__name__})") from error


class _Machine:
    """The stack and the memo of a pickle, and what each instruction does with them."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.found = Scanned()

    def run(self) -> Any:
        file, instructions = self.file, _INSTRUCTIONS
        while True:
            code = file.read(1)
            if code == pickle.STOP:
                return self.stack.pop()
            if not code:
                raise EOFError
            instruction = instructions.get(code)
            if instruction is None:
                raise Refused(f"has an instruction ({code!r}) that `torch.save` does not write")
            instruction(self)

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise EOFError
        return data

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        line = self.file.readline(1000)
        if not line.endswith(b"\n"):
            raise Refused("has a name without an end")
        return line[:-1].decode()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def name(self) -> None:
        full = name_of(self.line(), self.line())
        self.found.names.add(str(full))
        self.stack.append(full)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name):
            raise Refused("calls something that is no function")
        if type(arguments) is not tuple:
            raise Refused(f"calls {function} with arguments that are no tuple")
        made = Call(function, arguments)
        self.found.calls.append(made)
        self.stack.append(made)

    def new_object(self) -> None:  # of a class: a function cannot be called so
        self.call()
        self.found.calls.pop()

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not Call or target.state is not None:
            raise Refused("gives a state to something that has none")
        target.state = () if state is None else state

    def storage(self) -> None:
        self.stack.append(_described_storage(self.stack.pop()))

    def append(self) -> None:
        value = self.stack.pop()
        self.extend_list([value])

    def appends(self) -> None:
        self.extend_list(self.pop_mark())

    def extend_list(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("appends to something that is no list")
        self.stack[-1].extend(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.extend_dict([key, value])

    def set_items(self) -> None:
        self.extend_dict(self.pop_mark())

    def extend_dict(self, flat: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is Call and target.function in _DICTS:
            if target.state is None:
                target.arguments = target.arguments or (Pairs(),)
            target = target.arguments[0]
        if type(target) is not Pairs or len(flat) % 2:
            raise Refused("sets an entry in something that is no dict")
        target.extend(zip(flat[::2], flat[1::2]))

    def last(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]


def _described_storage(described: Any) -> Storage:
    """A storage as a pickle describes it: ``("storage", class, key, location, count)``, and a part of it or None."""
    if type(described) is not tuple or len(described) not in (5, 6) or described[0] != "storage":
        raise Refused("refers to something outside of the pickle that is no tensor's memory")
    kind, key, location, count = described[1:5]
    known = storage_of_name(kind)
    if known is None:
        raise Refused(f"has a tensor of the unknown kind {str(kind)[:60]!r}")
    if type(key) is not str or _KEY.fullmatch(key) is None:
        raise Refused(f"has the memory of a tensor under {str(key)[:60]!r}, which is no key that `torch.save` writes")
    if type(location) is not str or _LOCATION.fullmatch(location) is None:
        raise Refused(f"has a tensor on {str(location)[:60]!r}, which is no device")
    if not is_count(count):
        raise Refused(f"has a tensor of {str(count)[:40]} elements")
    storage = Storage(key, known[0], known[1], count)
    part = described[5] if len(described) == 6 else None
    if part is None:
        return storage
    if type(part) is not tuple or len(part) != 3 or not is_count(part[1]) or not is_count(part[2]):
        raise Refused("has a part of a tensor's memory that is described wrongly")
    if part[1] + part[2] > count:
        raise Refused("has a part of a tensor's memory that lies outside of it")
    return Storage(key, known[0], known[1], count, shown=part[2])


_DICTS = ("collections.OrderedDict", "collections.Counter")


def _pushing(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    def push(machine: _Machine) -> None:
        made = make(machine)  # which may change the stack
        machine.stack.append(made)

    return push


#: those of the reader in torch, which are those of protocol 2
_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    pickle.PROTO: lambda machine: machine.take(1),
    pickle.GLOBAL: _Machine.name,
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: _Machine.new_object,
    pickle.BUILD: _Machine.build,
    pickle.BINPERSID: _Machine.storage,
    pickle.APPEND: _Machine.append,
    pickle.APPENDS: _Machine.appends,
    pickle.SETITEM: _Machine.set_item,
    pickle.SETITEMS: _Machine.set_items,
    pickle.MARK: _Machine.mark,
    pickle.TUPLE: _pushing(lambda machine: tuple(machine.pop_mark())),
    pickle.TUPLE1: lambda machine: machine.last(1),
    pickle.TUPLE2: lambda machine: machine.last(2),
    pickle.TUPLE3: lambda machine: machine.last(3),
    pickle.NONE: _pushing(lambda machine: None),
    pickle.NEWFALSE: _pushing(lambda machine: False),
    pickle.NEWTRUE: _pushing(lambda machine: True),
    pickle.EMPTY_TUPLE: _pushing(lambda machine: ()),
    pickle.EMPTY_LIST: _pushing(lambda machine: []),
    pickle.EMPTY_DICT: _pushing(lambda machine: Pairs()),
    pickle.EMPTY_SET: _pushing(lambda machine: Call(Name("builtins.set"), ([],))),
    pickle.BININT: _pushing(lambda machine: machine.number("<i")),
    pickle.BININT1: _pushing(lambda machine: machine.number("<B")),
    pickle.BININT2: _pushing(lambda machine: machine.number("<H")),
    pickle.BINFLOAT: _pushing(lambda machine: machine.number(">d")),
    pickle.BINUNICODE: _pushing(lambda machine: machine.take(machine.number("<I")).decode("utf-8", "surrogatepass")),
    pickle.SHORT_BINSTRING: _pushing(lambda machine: machine.take(machine.number("<B"))),
    pickle.LONG1: _pushing(lambda machine: pickle.decode_long(machine.take(machine.number("<B")))),
    pickle.BINGET: _pushing(lambda machine: machine.memo[machine.number("<B")]),
    pickle.LONG_BINGET: _pushing(lambda machine: machine.memo[machine.number("<I")]),
    pickle.BINPUT: lambda machine: machine.put(machine.number("<B")),
    pickle.LONG_BINPUT: lambda machine: machine.put(machine.number("<I")),
}
