"""Objects that a checkpoint only describes, made again where the class that is loaded asks for them.

The command line keeps the arguments that were objects as their descriptions: ``{"class_path": ..., "init_args": ...}``.
Such a description is data. It is followed only if the annotation of the argument is a class, and only to that class or
a subclass of it that the program has imported already: the file chooses among what the signature allows.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fulmen.core.plain import element_options, options_of, parameter_hints
from fulmen.utilities.text import plainly, shown

#: annotations that allow anything, so that a description is as good a value as any
_ANYTHING = (Any, object)
#: how paths of classes begin in files that Lightning wrote
_OF_LIGHTNING = ("lightning.pytorch.", "lightning.fabric.", "pytorch_lightning.", "lightning_fabric.")


def made_again(cls: Callable[..., Any], arguments: Mapping[str, Any], source: str, where: str = "") -> dict[str, Any]:
    """``arguments`` of ``cls`` with objects in place of descriptions, where its annotations ask for objects.

    Args:
        source: the file, for messages.
        where: the argument that ``arguments`` belong to, for messages.

    Raises:
        TypeError: the annotation does not allow what the file describes, or that is not imported; the message says
            which.
    """
    hints = parameter_hints(cls)
    return {
        name: _made(value, options_of(hints.get(name)), source, f"{where}{name}") for name, value in arguments.items()
    }


def _made(value: Any, options: tuple[Any, ...], source: str, where: str) -> Any:
    if is_description(value):
        return value if _takes_mapping(options) else _object(value, options, source, where)
    if type(value) is str and options and all(is_callable(option) for option in options):
        raise TypeError(
            f"{source} has {plainly(value)} for `{where}`, which takes a function; a checkpoint makes nothing be"
            f" imported. Pass the function yourself: `load_from_checkpoint(..., {where.partition('.')[0]}=...)`."
        )
    asked = [kind for option in options for kind in asked_as_class(option)]
    if type(value) is str and asked and len(asked) == len(options):
        cls = imported_class(value, asked)
        if cls is None:
            raise TypeError(
                f"{source} has {plainly(value)} for `{where}`, which takes a class: it is no imported subclass of"
                f" {' or '.join(f'`{kind.__name__}`' for kind in asked)}, and a checkpoint makes nothing be imported."
                f" Import it first, or {_pass_it(where)}."
            )
        return cls
    if type(value) in (list, tuple):
        return type(value)(
            _made(element, element_options(options, value, index), source, f"{where}.{index}")
            for index, element in enumerate(value)
        )
    if type(value) is dict:
        return {
            key: _made(element, element_options(options, value, key), source, f"{where}.{key}")
            for key, element in value.items()
        }
    return value


def is_description(value: Any) -> bool:
    """Whether ``value`` is how the command line keeps an object."""
    return (
        isinstance(value, Mapping)
        and type(value.get("class_path")) is str
        and value.keys() <= {"class_path", "init_args", "dict_kwargs"}
    )


def _takes_mapping(options: tuple[Any, ...]) -> bool:
    """Whether a parameter that is annotated with ``options`` may get a dict."""
    origins = [typing.get_origin(option) or option for option in options]
    return not origins or any(
        origin in _ANYTHING or (isinstance(origin, type) and issubclass(origin, Mapping)) for origin in origins
    )


def is_callable(option: Any) -> bool:
    """Whether an annotation asks for a function."""
    return option is Callable or (typing.get_origin(option) or option) in (Callable, typing.Callable)


def asked_as_class(option: Any) -> list[type]:
    """The classes whose subclasses themselves ``option`` asks for, as ``type[nn.Module]`` does."""
    if typing.get_origin(option) is not type:
        return []
    return [kind for kind in options_of(typing.get_args(option)[0]) if isinstance(kind, type) and kind not in _ANYTHING]


def _object(description: Mapping[str, Any], options: tuple[Any, ...], source: str, where: str) -> Any:
    cls, arguments, deferred = class_and_arguments(description, options, source, where, _pass_it(where))
    arguments = made_again(cls, arguments, source, f"{where}.")
    if deferred:
        return functools.partial(cls, **arguments)
    try:
        return cls(**arguments)
    except Exception as error:
        error.add_note(f"`{where}` was to be made again from {source}. Correct the file, or {_pass_it(where)}.")
        raise


def class_and_arguments(
    description: Mapping[str, Any], options: tuple[Any, ...], source: str, where: str, instead: str
) -> tuple[type, dict[str, Any], bool]:
    """The class that is described, its arguments, and whether a function that makes such objects is asked for.

    Args:
        instead: what the user may do, for messages.

    Raises:
        TypeError: ``options`` do not allow that class, or it is not imported.
    """
    path = description["class_path"]
    classes = [option for option in options if _is_described(option)]
    makers = [
        kind
        for option in options
        if is_callable(option) and typing.get_args(option)
        for kind in options_of(typing.get_args(option)[-1])
        if _is_described(kind)
    ]
    for allowed, deferred in ((classes, False), (makers, True)):
        cls = imported_class(path, allowed)
        if cls is None:
            continue
        arguments: dict[str, Any] = {}
        for key in ("init_args", "dict_kwargs"):
            values = description.get(key) or {}
            if not isinstance(values, Mapping) or not all(type(name) is str for name in values):
                raise TypeError(f"{source} has {plainly(values)} as `{key}` of `{where}`, which must be a dict.")
            arguments |= values
        return cls, arguments, deferred
    names = " or ".join(f"`{kind.__name__}`" for kind in (*classes, *makers))
    asked = f"takes {names}" if names else "has no annotation that says which classes it takes"
    raise TypeError(
        f"{source} describes an object of the class {shown(path)} for `{where}`, which {asked}. A checkpoint makes"
        f" nothing be imported, and only what the signature asks for be called. If it is a subclass, import it first;"
        f" or {instead}."
    )


def _pass_it(where: str) -> str:
    return f"pass it yourself: `load_from_checkpoint(..., {where.partition('.')[0]}=...)`"


def _is_described(option: Any) -> bool:
    """Whether objects of ``option`` are kept as descriptions: a number or a text is kept as it is."""
    return isinstance(option, type) and option not in _ANYTHING and option.__module__ != "builtins"


def is_named(cls: type, path: str) -> bool:
    """Whether ``path`` is where ``cls`` is, or where Lightning has what goes by the same name here."""
    home, name = cls.__module__, cls.__qualname__
    if f"{home}.{name}" == path:
        return True
    return home.startswith("fulmen.") and path.startswith(_OF_LIGHTNING) and path.endswith(f".{name}")


def imported_class(path: str, classes: Iterable[type]) -> type | None:
    """That one of ``classes`` and their imported subclasses which ``path`` names, be it through a package's front."""
    package, _, name = path.rpartition(".")
    found: list[type] = []
    todo, seen = list(classes), set()
    while todo:
        cls = todo.pop()
        if cls in seen:
            continue
        seen.add(cls)
        home = cls.__module__
        if is_named(cls, path):
            return None if inspect.isabstract(cls) else cls
        if cls.__qualname__ == name and home.startswith(f"{package}.") and not inspect.isabstract(cls):
            found.append(cls)
        todo += type.__subclasses__(cls)
    return found[0] if len(found) == 1 else None
