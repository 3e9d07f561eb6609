"""Hyperparameters: what a module or datamodule was made with, kept so that it can be made again."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from fulmen.core.plain import (
    LEFT_OUT,
    component,
    container_kind,
    from_plain,
    lost_classes,
    reasons_without_plain_form,
    to_plain,
)
from fulmen.utilities.argparse import ArgparseOptions
from fulmen.utilities.parsing import AttributeDict, is_picklable
from fulmen.utilities.rank_zero import rank_zero_warn

__all__ = ["HyperparameterOwner", "from_plain", "given_hyperparameters", "hparams_for_checkpoint", "to_plain"]

#: the class that is being made from parsed arguments, and these
_given: ContextVar[tuple[type, Mapping[str, Any]] | None] = ContextVar("_given", default=None)


class HyperparameterOwner(ArgparseOptions):
    """What modules and datamodules have in common: they remember the arguments they were made with.

    ``self.save_hyperparameters()`` in ``__init__`` keeps the arguments in ``self.hparams``. From there they go into
    checkpoints and to the loggers, and ``load_from_checkpoint`` makes the object anew with them.
    """

    CHECKPOINT_HYPER_PARAMS_KEY = "hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "hparams_type"
    CHECKPOINT_HYPER_PARAMS_KINDS = "hparams_kinds"

    __jit_unused_properties__ = ["hparams", "hparams_initial"]

    # defaults of the class, so that a subclass need not call any __init__
    _hparams: MutableMapping[str, Any] | None = None
    _hparams_initial: MutableMapping[str, Any] | None = None
    _hparams_name: str | None = None  #: "kwargs", or the one constructor parameter that took them all
    _hparams_container: str | None = None  #: the kind of container that this parameter got
    _hparams_reported: frozenset[str] = frozenset()  #: names that a warning was given for
    _log_hyperparams: bool = False
    _pickles_hparams = False  #: what has no plain form goes into checkpoints as it is, and is not refused

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: str | Collection[str] | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Keep the arguments of the constructor, or some of them, in ``self.hparams``.

        Call it in ``__init__`` (or in a method that ``__init__`` calls); arguments have the values that they have then.
        Calling it again, in a subclass say, adds to what was kept. Checkpoints hold what has a plain form: numbers,
        text, tensors, paths, enums, dataclasses, dates and collections of these. Modules and whatever can be called are
        left out, which a warning says, and are to be given again on loading.

        Args:
            args: nothing: keep every argument of the constructor, also those of subclasses and in ``**kwargs``. Names:
                keep only these. One dict, ``argparse.Namespace``, mutable mapping or OmegaConf container: keep its
                entries.
            ignore: names not to keep, also if a base class has kept them.
            frame: the frame to start from. None: the caller's.
            logger: whether the loggers get them.

        Raises:
            KeyError: a name in ``args`` is not an argument of the constructor.
            ValueError: something in ``args`` is neither a name nor a collection of hyperparameters.
            TypeError: a value has no plain form and cannot be called either: an open file, a lock, a data set.
        """
        given = _given.get()
        if given is not None and isinstance(self, given[0]):
            arguments, reported_later = dict(given[1]), set()
        else:
            arguments, reported_later = _constructor_arguments(self, frame or sys._getframe(1))
        ignored = {ignore} if isinstance(ignore, str) else set(ignore or ())
        containers = [argument for argument in args if not isinstance(argument, str)]
        name, container = "kwargs", None
        if containers:
            values = _checked_container(containers)
            name, container = _parameter_with(containers[0], arguments), container_kind(containers[0])
        elif args:
            values = _named(args, arguments, type(self))
        else:
            values = arguments
        values = _as_hparams(values, ignored)
        own = {key: value for key, value in values.items() if key not in reported_later}
        if not self._pickles_hparams:
            _refuse_without_plain_form(type(self), own)

        object.__setattr__(self, "_log_hyperparams", logger)
        kept = self._hparams
        if not values and not (kept and ignored):
            return
        object.__setattr__(self, "_hparams_name", name)
        object.__setattr__(self, "_hparams_container", container)
        if isinstance(kept, dict) and isinstance(values, dict):
            for key in ignored & kept.keys():
                del kept[key]
            kept.update(values)
        else:
            object.__setattr__(self, "_hparams", values)
        object.__setattr__(self, "_hparams_initial", _snapshot(self.hparams))
        _warn_of_what_gets_lost(self, own, stacklevel=5)

    @property
    def hparams(self) -> Any:
        """The hyperparameters: a dict with access by attribute, or the mapping that was given. Entries may be set."""
        if self._hparams is None:
            object.__setattr__(self, "_hparams", AttributeDict())
        return self._hparams

    @hparams.setter
    def hparams(self, value: Any) -> None:
        self._assign_hparams(value)

    def _assign_hparams(self, value: Any) -> None:
        """What ``self.hparams = value`` does."""
        raise AttributeError(
            "`self.hparams` cannot be replaced, only its entries. Write `self.save_hyperparameters(hparams)` to keep a"
            " dict or namespace as hyperparameters."
        )

    @property
    def hparams_initial(self) -> Any:
        """A copy of the hyperparameters as they were when they were saved, whatever was set in ``hparams`` since."""
        return AttributeDict() if self._hparams_initial is None else _snapshot(self._hparams_initial)


def hparams_for_checkpoint(owner: HyperparameterOwner) -> dict[str, Any]:
    """The entries that a module or datamodule adds to a checkpoint for its hyperparameters: plain data only.

    Returns:
        The plain values, the name of the parameter they belong to, and the side table of kinds, each under the key that
        the class of ``owner`` names; ``{}`` if there are no hyperparameters.
    """
    if not owner.hparams:
        return {}
    _warn_of_what_gets_lost(owner, dict(owner.hparams), stacklevel=4)  # of what was set since the constructor
    plain, kinds = to_plain(owner.hparams)
    if owner._hparams_name != "kwargs" and owner._hparams_container is not None:
        kinds[""] = owner._hparams_container
    if owner._pickles_hparams:
        _keep_objects(owner, plain, kinds)
    return {
        owner.CHECKPOINT_HYPER_PARAMS_NAME: owner._hparams_name,
        owner.CHECKPOINT_HYPER_PARAMS_KEY: plain,
        owner.CHECKPOINT_HYPER_PARAMS_KINDS: kinds,
    }


def _keep_objects(owner: HyperparameterOwner, plain: dict[Any, Any], kinds: dict[str, str]) -> None:
    """Put the hyperparameters without a plain form into ``plain`` as they are: the file is read by
    ``weights_only=False`` alone then. What cannot be pickled stays out of it."""
    for name, value in dict(owner.hparams).items():
        if kinds.get(component(name)) != LEFT_OUT:
            continue
        if is_picklable(value):
            plain[name] = value
            del kinds[component(name)]
            if name not in owner._hparams_reported:
                owner._hparams_reported |= {name}
                rank_zero_warn(
                    f"{type(owner).__name__}.hparams[{name!r}] is pickled into checkpoints, as Lightning does it. Such "
                    "a file is read by `weights_only=False` alone, also by `trainer.fit(ckpt_path=...)`. Write "
                    f"`save_hyperparameters(ignore=[{name!r}])`, and any file is."
                )
        else:
            rank_zero_warn(f"{type(owner).__name__}.hparams[{name!r}] cannot be pickled: left out of the checkpoint.")


@contextmanager
def given_hyperparameters(cls: type, hparams: Mapping[str, Any]) -> Iterator[None]:
    """Within this context an object of ``cls`` saves ``hparams`` (parsed from a command line, say) for its arguments.

    Objects of other classes that are made on the way still save their own.
    """
    token = _given.set((cls, hparams))
    try:
        yield
    finally:
        _given.reset(token)


def _constructor_arguments(owner: object, frame: FrameType | None) -> tuple[dict[str, Any], set[str]]:
    """The arguments of every running ``__init__`` of ``owner``, those of subclasses winning.

    A frame belongs to ``owner`` if its first argument *is* ``owner``: a module that is made within another one's
    constructor has nothing to do with that one's arguments.

    Returns:
        The arguments, and the names among them that a subclass will save (and be warned of) itself.
    """
    arguments: dict[str, Any] = {}
    reported_later: set[str] = set()
    innermost = True
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount > 0:
            values = frame.f_locals
            if values.get(code.co_varnames[0]) is owner:
                own = _arguments_of_call(code, values)
                own |= _fields_of_dataclass(owner, code, own)
                arguments |= own
                if not innermost and "save_hyperparameters" in code.co_names:
                    reported_later |= own.keys()
                innermost = False
        frame = frame.f_back
    return arguments, reported_later


def _arguments_of_call(code: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    count = code.co_argcount + code.co_kwonlyargcount
    arguments = {name: values[name] for name in code.co_varnames[1:count] if name in values}
    if code.co_flags & inspect.CO_VARKEYWORDS:
        arguments |= values.get(code.co_varnames[count + bool(code.co_flags & inspect.CO_VARARGS)]) or {}
    return arguments


def _fields_of_dataclass(owner: object, code: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields that a constructor written by ``dataclass`` takes; in the call, some are missing."""
    for cls in type(owner).__mro__:
        written = "__dataclass_fields__" in cls.__dict__ and cls.__dict__["__dataclass_params__"].init
        if written and getattr(cls.__dict__.get("__init__"), "__code__", None) is code:
            names = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
            return {name: getattr(owner, name) for name in names if name in arguments}
    return {}


def _checked_container(containers: list[Any]) -> Any:
    container = containers[0]
    if len(containers) > 1:
        raise ValueError(
            f"`save_hyperparameters` got {len(containers)} arguments that are not names; it takes one collection of"
            " hyperparameters. Merge them first, or call it once for each."
        )
    if not isinstance(container, (MutableMapping, Namespace)):
        raise ValueError(
            f"`save_hyperparameters({container!r})`: {type(container).__name__} is not a collection of hyperparameters."
            " Give a dict, an `argparse.Namespace`, names of arguments as strings, or nothing for all arguments"
            + (" (for a dataclass: `dataclasses.asdict(...)`)." if dataclasses.is_dataclass(container) else ".")
        )
    return container


def _parameter_with(container: Any, arguments: Mapping[str, Any]) -> str | None:
    """The constructor's parameter that got ``container``, or one that equals it; None if there is none."""
    for name, value in arguments.items():
        if value is container:
            return name
    # only of the same class: comparing with anything else may give an array, or raise
    return next(
        (name for name, value in arguments.items() if type(value) is type(container) and value == container), None
    )


def _named(names: tuple[str, ...], arguments: Mapping[str, Any], cls: type) -> dict[str, Any]:
    unknown = [name for name in names if name not in arguments]
    if unknown:
        raise KeyError(
            f"`save_hyperparameters` was asked for {', '.join(map(repr, unknown))}, but the constructor of"
            f" {cls.__name__} has only the arguments {', '.join(map(repr, arguments)) or '(none)'}."
        )
    return {name: arguments[name] for name in names}


def _as_hparams(values: Any, ignored: set[str]) -> MutableMapping[str, Any]:
    """A container of hyperparameters without those to ignore; mapping classes of the user's stay what they are."""
    if isinstance(values, Namespace):
        values = vars(values)
    if isinstance(values, dict):
        return AttributeDict({key: value for key, value in values.items() if key not in ignored})
    if ignored & set(values):
        values = copy.copy(values)
        for key in ignored & set(values):
            del values[key]
    return values


def _snapshot(hparams: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A deep copy, but for values without a plain form: copying a model or an open file is dear, or impossible."""
    if not isinstance(hparams, dict):
        return copy.deepcopy(hparams)
    kept = reasons_without_plain_form(hparams)
    return AttributeDict({key: value if key in kept else _deepcopy(value) for key, value in hparams.items()})


def _deepcopy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # tensors within a graph, objects with a will of their own
        return value


def _refuse_without_plain_form(cls: type, hparams: Mapping[str, Any]) -> None:
    reasons = reasons_without_plain_form(hparams, code=False)
    if not reasons:
        return
    what = "; ".join(f"`{name}`: {reason}" for name, reason in reasons.items())
    ignore = ", ".join(f'"{name}"' for name in reasons)
    again = ", ".join(f"{name}=..." for name in reasons)
    raise TypeError(
        f"{cls.__name__} cannot keep all of its arguments as hyperparameters: some have no plain form, so that no"
        f" checkpoint could give them back ({what}). Write `self.save_hyperparameters(ignore=[{ignore}])`, and pass"
        f" them when you load: `{cls.__name__}.load_from_checkpoint(path, {again})`."
    )


def _warn_of_what_gets_lost(owner: HyperparameterOwner, hparams: Mapping[str, Any], stacklevel: int) -> None:
    """Say once for each of ``hparams`` if a checkpoint will not give it back."""
    cls = type(owner)
    news = {name: value for name, value in hparams.items() if name not in owner._hparams_reported}
    reasons = {} if owner._pickles_hparams else reasons_without_plain_form(news)
    if reasons:
        what = "; ".join(f"`{name}`: {reason}" for name, reason in reasons.items())
        ignore = ", ".join(f'"{name}"' for name in reasons)
        again = ", ".join(f"{name}=..." for name in reasons)
        rank_zero_warn(
            f"{cls.__name__} has hyperparameters that are left out of checkpoints, since they have no plain form"
            f" ({what}). They stay in `self.hparams`. Write `save_hyperparameters(ignore=[{ignore}])` to be silent"
            f" about them, and pass them when you load: `{cls.__name__}.load_from_checkpoint(path, {again})`.",
            stacklevel=stacklevel,
        )
    lost = lost_classes(*to_plain(news), cls if owner._hparams_name == "kwargs" else None)
    if lost:
        names = ", ".join(f"`{path}`" for path in lost)
        rank_zero_warn(
            f"{cls.__name__} has hyperparameters that a checkpoint gives back as simple values ({names}): nothing says"
            " which enum or dataclass they are. Annotate the parameter:"
            f" `def __init__(self, {lost[0].partition('.')[0]}: ItsClass)`.",
            stacklevel=stacklevel,
        )
    reported = owner._hparams_reported.union(reasons, (path.partition(".")[0] for path in lost))
    object.__setattr__(owner, "_hparams_reported", reported)
