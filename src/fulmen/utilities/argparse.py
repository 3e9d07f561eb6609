"""Constructor arguments as options of an ``argparse.ArgumentParser``: for modules, datamodules and the Trainer."""

from __future__ import annotations

import ast
import builtins
import inspect
import os
import re
import sys
import types
import typing
from argparse import SUPPRESS, ArgumentError, ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ForwardRef, Literal, TypeVar

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

#: options that text can say, with their names in ``--help``
_SIMPLE = {bool: "BOOL", int: "INT", float: "FLOAT", str: "STR"}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number"}
_TRUTHS = {word: True for word in "y yes t true on 1".split()} | {word: False for word in "n no f false off 0".split()}


class ArgparseOptions:
    """What modules, datamodules and the Trainer have in common: their constructor's arguments can be options."""

    @classmethod
    def add_argparse_args(cls, parent_parser: ArgumentParser, *, use_argument_group: bool = True) -> ArgumentParser:
        """Give a parser an option for each argument; see :func:`fulmen.utilities.argparse.add_argparse_args`."""
        return add_argparse_args(cls, parent_parser, use_argument_group=use_argument_group)

    @classmethod
    def from_argparse_args(cls, args: Namespace | ArgumentParser | Mapping[str, Any], **kwargs: Any) -> Self:
        """Make one from parsed options; see :func:`fulmen.utilities.argparse.from_argparse_args`."""
        return from_argparse_args(cls, args, **kwargs)

    @classmethod
    def parse_argparser(cls, arg_parser: ArgumentParser | Namespace) -> Namespace:
        """Parse the command line; see :func:`fulmen.utilities.argparse.parse_argparser`."""
        return parse_argparser(cls, arg_parser)

    @classmethod
    def match_env_arguments(cls) -> Namespace:
        """The arguments that the environment has; see :func:`fulmen.utilities.argparse.parse_env_variables`."""
        return parse_env_variables(cls)

    @classmethod
    def get_init_arguments_and_types(cls) -> list[tuple[str, tuple[Any, ...], Any]]:
        """The constructor's arguments; see :func:`fulmen.utilities.argparse.get_init_arguments_and_types`."""
        return get_init_arguments_and_types(cls)

    @classmethod
    def _former_arguments(cls) -> dict[str, tuple[tuple[type, ...], Any]]:
        """Arguments that are accepted, but not shown any more: their types and defaults."""
        return {}


def add_argparse_args(
    cls: type[Any], parent_parser: ArgumentParser, *, use_argument_group: bool = True
) -> ArgumentParser:
    """Give ``parent_parser`` an option ``--<name>`` for each argument of the constructor of ``cls`` that text can say.

    That are those whose annotation allows ``str``, ``int``, ``float``, ``bool`` or the values of a ``Literal``; others
    and those without an annotation get none. The help comes from the docstring of the class or of ``__init__``. The
    default is the constructor's, or what the environment has (see :func:`parse_env_variables`); an argument without a
    default is required.

    If the class has the method ``add_model_specific_args(parent_parser)``, the options are those that it adds. Only a
    subclass with a constructor of its own also gets its arguments for which there is no option yet.

    Args:
        use_argument_group: put the options into a group with the name of the class, for ``--help``. False: return a new
            parser that has the options of ``parent_parser`` and these.

    Returns:
        The parser to go on with.

    Raises:
        RuntimeError: ``parent_parser`` is a group of a parser.
        argparse.ArgumentError: the parser has an option of that name already.
    """
    if isinstance(parent_parser, _ArgumentGroup):
        raise RuntimeError(
            f"`{cls.__name__}.add_argparse_args` got a group of options. Pass the parser itself: the options get a "
            "group of their own."
        )
    convention = getattr(cls, "add_model_specific_args", None)
    if convention is None or _is_running(convention):  # which asks for the arguments of the constructor, then
        return _add_options(cls, parent_parser, use_argument_group, known=())
    parser = convention(parent_parser) or parent_parser
    if _position(cls, "__init__") < _position(cls, "add_model_specific_args"):
        return _add_options(cls, parser, use_argument_group, known=_destinations(parser))
    return parser


def from_argparse_args(cls: type[T], args: Namespace | ArgumentParser | Mapping[str, Any], **kwargs: Any) -> T:
    """Make a ``cls`` from those of ``args`` that its constructor takes; the others are ignored.

    Args:
        args: parsed options, or the parser, which then parses the command line.
        kwargs: more arguments of the constructor, which win over ``args``.
    """
    if isinstance(args, ArgumentParser):
        args = parse_argparser(cls, args)
    values = args if isinstance(args, Mapping) else vars(args)
    chosen = {name: values[name] for name in _parameters(cls) if name in values}
    for name, (_, default) in _former_arguments(cls).items():
        if name in values and values[name] != default:
            chosen[name] = values[name]
    return cls(**chosen | kwargs)


def parse_argparser(cls: type[Any], arg_parser: ArgumentParser | Namespace) -> Namespace:
    """The parsed options, in which a switch without a value is True.

    Args:
        arg_parser: a parser, which parses the command line, or what it has parsed. In it, None for an argument that is
            True or False by default counts as a switch that was written without a value.
    """
    args = arg_parser.parse_args() if isinstance(arg_parser, ArgumentParser) else arg_parser
    switches = {
        name
        for name, kinds, default in get_init_arguments_and_types(cls)
        if bool in kinds and isinstance(default, bool)
    }
    return Namespace(**{k: True if v is None and k in switches else v for k, v in vars(args).items()})


def parse_env_variables(cls: type[Any], template: str = "PL_%(cls_name)s_%(cls_argument)s") -> Namespace:
    """The arguments of the constructor of ``cls`` that the environment has: ``PL_TRAINER_MAX_EPOCHS=3``.

    Args:
        template: the names of the variables, from the names of the class and of the argument in capitals.

    Returns:
        The values: read as Python where they are Python, else text. An empty variable counts as not set.
    """
    found = {}
    for name, kinds, _ in get_init_arguments_and_types(cls):
        text = os.environ.get(template % {"cls_name": cls.__name__.upper(), "cls_argument": name.upper()})
        if text:
            found[name] = value_of_variable(text, bool in kinds and int not in kinds)
    return Namespace(**found)


def value_of_variable(text: str, is_truth: bool) -> Any:
    """The value that the text of an environment variable stands for: Python where it is Python, else the text.

    Args:
        is_truth: it is for an argument that is True or False, so that 1 and 0, ``true`` and ``false`` mean that.
    """
    if is_truth and text in ("0", "1", "false", "true"):
        return _TRUTHS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def get_init_arguments_and_types(cls: type[Any]) -> list[tuple[str, tuple[Any, ...], Any]]:
    """The arguments of the constructor of ``cls``: the name, the types that the annotation allows, and the default.

    The values of a ``Literal`` count by their types. Without an annotation, or without a default, there is
    ``inspect.Parameter.empty``. ``*args`` and ``**kwargs`` are left out.
    """
    return [
        (name, tuple(dict.fromkeys(type(m.value) if isinstance(m, _Word) else m for m in members)), default)
        for name, members, default in _arguments(cls)
    ]


# -- options ----------------------------------------------------------------------------------------------------------


def _add_options(cls: type[Any], parser: ArgumentParser, grouped: bool, known: Iterable[str]) -> ArgumentParser:
    if not grouped:
        parser = ArgumentParser(parents=[parser], add_help=False)
    target = parser.add_argument_group(_title(cls)) if grouped else parser
    environment, descriptions = vars(parse_env_variables(cls)), _descriptions(cls)
    for name, members, default in _arguments(cls):
        if name not in known and any(isinstance(member, _Word) or member in _SIMPLE for member in members):
            default = environment.get(name, default)
            try:
                target.add_argument(f"--{name}", **_option(members, default, descriptions.get(name, "")))
            except ArgumentError as error:
                error.message += (
                    f". `{cls.__name__}({name}=...)` and another have the same name. If they mean the same, write "
                    "`ArgumentParser(conflict_handler='resolve')`: one option for both."
                )
                raise
    taken = _destinations(parser)
    for name, (kinds, default) in _former_arguments(cls).items():
        if name not in taken:
            option = _option(kinds, default, "")
            option["help"] = SUPPRESS
            target.add_argument(f"--{name}", **option)
    return parser


def _option(members: Iterable[Any], default: Any, description: str) -> dict[str, Any]:
    """The arguments of ``add_argument``."""
    kinds = {member for member in members if member in _SIMPLE or member is type(None)}
    words = [member.value for member in members if isinstance(member, _Word)]
    names = [_SIMPLE[kind] for kind in _SIMPLE if kind in kinds] + [str(word) for word in words]
    option: dict[str, Any] = {"type": _reader(kinds, words, default)}
    if words and not kinds - {type(None)}:
        option["choices"] = [*words, None] if type(None) in kinds else words
    else:
        option["metavar"] = "|".join(names)
    if bool in kinds:
        option |= {"nargs": "?", "const": True}
    description = description.replace("%", "%%")
    if default is inspect.Parameter.empty:
        option |= {"required": True, "help": f"{description} (required)".strip()}
    else:
        option |= {"default": default, "help": f"{description} (default: %(default)s)".strip()}
    return option


def _reader(kinds: set[Any], words: list[Any], default: Any) -> Callable[[str], Any]:
    """What makes a value of the text of an option: of the first type that fits."""

    def read(text: str) -> Any:
        if isinstance(default, str) and text == default:  # argparse reads a default as if it had been written
            return default
        for word in words:
            if text == str(word):
                return word
        if text == "None" and type(None) in kinds:
            return None
        is_number = text in ("0", "1") and float in kinds
        if bool in kinds and text.lower() in _TRUTHS and not is_number:
            return _TRUTHS[text.lower()]
        for kind in (int, float, str):
            if kind in kinds:
                try:
                    return kind(text)
                except ValueError:
                    pass
        expected = [what for kind, what in _EXPECTED.items() if kind in kinds] + [repr(word) for word in words]
        raise ArgumentTypeError(f"{text!r} is not {' or '.join(expected)}")

    return read


def _is_running(function: Any) -> bool:
    """Whether ``function`` is among those that have called, directly or through others."""
    code, frame = getattr(function, "__code__", None), sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _title(cls: type[Any]) -> str:
    if cls.__module__.startswith("fulmen."):
        return f"fulmen.{cls.__name__}"
    return cls.__qualname__ if cls.__module__ == "__main__" else f"{cls.__module__}.{cls.__qualname__}"


def _destinations(parser: ArgumentParser) -> set[str]:
    """The names of the values that a parser gives already."""
    return {action.dest for action in parser._actions}


def _former_arguments(cls: type[Any]) -> Mapping[str, tuple[tuple[type, ...], Any]]:
    return cls._former_arguments() if issubclass(cls, ArgparseOptions) else {}


# -- what the constructor says ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Word:
    """A value of a ``Literal``."""

    value: Any


class _Elsewhere(type):
    """A class in place of a name that is imported for type checkers only; text cannot say an object of it anyway."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, item: Any) -> Any:
        return cls


class _Names(dict[str, Any]):
    """The names that an annotation may use: those of its module, of Python, and any other."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name) if hasattr(builtins, name) else _Elsewhere(name, (), {})


def _parameters(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """The arguments of the constructor that have a name."""
    try:
        parameters = list(inspect.signature(cls).parameters.values())
    except ValueError:  # a class that hides it
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in parameters if parameter.kind in by_name}


def _arguments(cls: type[Any]) -> list[tuple[str, list[Any], Any]]:
    """The name, the members of the union that the annotation is, and the default of each argument."""
    names = _Names(getattr(inspect.unwrap(cls.__init__), "__globals__", vars(sys.modules[cls.__module__])))
    return [(n, list(_members(p.annotation, names)), p.default) for n, p in _parameters(cls).items()]


def _members(annotation: Any, names: _Names) -> Iterable[Any]:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, {}, names)
        except Exception:  # nothing that could be said of it
            return
        yield from _members(annotation, names)  # it may have been quoted twice
        return
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            yield from _members(part, names)
    elif origin is typing.Annotated:
        yield from _members(parts[0], names)
    elif origin is Literal:
        for value in parts:
            yield type(value) if value is None or isinstance(value, bool) else _Word(value)
    else:
        yield type(None) if annotation is None else annotation if isinstance(annotation, Hashable) else Any


def _position(cls: type[Any], name: str) -> int:
    """How far up in the order of its classes ``name`` is defined."""
    return next(i for i, owner in enumerate(cls.__mro__) if name in vars(owner))


def _descriptions(cls: type[Any]) -> dict[str, str]:
    """What the docstrings say of the arguments."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        for text in (owner.__doc__, getattr(vars(owner).get("__init__"), "__doc__", None)):
            found |= _arguments_section(text or "")
    return found


def _arguments_section(docstring: str) -> dict[str, str]:
    """The entries of the section ``Args:``, each on one line."""
    lines = inspect.cleandoc(docstring).splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() in ("Args:", "Arguments:")), None)
    if start is None:
        return {}
    outside, margin = _indent(lines[start]), None
    found: dict[str, str] = {}
    name = ""
    for line in lines[start + 1 :]:
        if not line.strip():
            continue
        if _indent(line) <= outside:
            break
        margin = _indent(line) if margin is None else margin
        entry = re.match(r"\s*(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)", line) if _indent(line) == margin else None
        if entry is not None:
            name, found[entry[1]] = entry[1], entry[2]
        elif name:
            found[name] += " " + line.strip()
    return {name: _without_markup(text.strip()) for name, text in found.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_markup(text: str) -> str:
    """For the terminal: ``Timer`` for ``:class:`~fulmen.callbacks.timer.Timer```, and no double backticks."""
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text).replace("``", "")
