"""Draw from several loaders as if they were one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import islice, zip_longest
from math import inf
from operator import itemgetter
from typing import Any, Literal
from weakref import WeakSet

from fulmen.utilities.data import sized_len
from fulmen.utilities.exceptions import MisconfigurationException

Mode = Literal["min_size", "max_size_cycle", "max_size", "sequential"]

_END = object()


class CombinedLoader(Iterable[tuple[Any, int, int]]):
    """Several iterables under one roof; iterating gives ``(batch, batch_idx, dataloader_idx)``.

    Args:
        iterables: one iterable, or a list, tuple or dict of them, nested as you like. A list, tuple or dict that holds
            nothing but plain numbers and strings counts as one iterable, not as several.
        mode: which batch comes next.

            - ``"min_size"``: one batch from each, in the structure of ``iterables``, until the shortest ends.
            - ``"max_size"``: the same until the longest ends; those that have ended give ``None``.
            - ``"max_size_cycle"``: the same until the longest ends; those that have ended start again.
            - ``"sequential"``: all of the first, then all of the second ...; the batch is what the loader gave, and
              ``batch_idx`` starts at 0 with each loader.

            ``dataloader_idx`` says which loader it is in the last mode, and is 0 in the others.

    ``len()`` is the number of batches that an iteration gives, limits included. A member without a length counts as
    long as its limit; without a limit, ``len()`` raises a ``TypeError`` where such a member decides. A
    :class:`CombinedLoader` among the members gives its batches, without their indices.

    Raises:
        ValueError: ``mode`` is none of the four.
        TypeError: a member cannot be iterated.

    Example::

        loader = CombinedLoader({"labelled": labelled, "unlabelled": unlabelled}, mode="max_size_cycle")
        for batch, batch_idx, dataloader_idx in loader:
            x, y = batch["labelled"]
    """

    def __init__(self, iterables: Any, mode: Mode = "min_size") -> None:
        if mode not in _LENGTHS:
            raise ValueError(
                f"CombinedLoader(mode={mode!r}): there is no such mode. Choose one of {', '.join(_LENGTHS)}."
            )
        self._mode: Mode = mode
        self._iterables = iterables
        self._flattened = _flatten(iterables)
        self._limits: list[int | float] | None = None
        self._running: WeakSet[Iterator[Any]] = WeakSet()
        _check_iterable(self._flattened)

    @property
    def iterables(self) -> Any:
        """The members, in the structure in which they were given."""
        return self._iterables

    @property
    def mode(self) -> Mode:
        """Which batch comes next; see the class."""
        return self._mode

    @property
    def sampler(self) -> Any:
        """The ``sampler`` of each member, in the structure of :attr:`iterables`; ``None`` where there is none."""
        return _rebuild(self._iterables, iter([getattr(member, "sampler", None) for member in self._flattened]))

    @property
    def batch_sampler(self) -> Any:
        """The ``batch_sampler`` of each member, in the structure of :attr:`iterables`; ``None`` where there is none."""
        return _rebuild(self._iterables, iter([getattr(member, "batch_sampler", None) for member in self._flattened]))

    @property
    def flattened(self) -> list[Any]:
        """The members as a flat list. Assigning a list of the same length replaces the members, in the same order."""
        return self._flattened

    @flattened.setter
    def flattened(self, members: list[Any]) -> None:
        if len(members) != len(self._flattened):
            raise ValueError(
                f"CombinedLoader.flattened: {len(members)} members cannot replace {len(self._flattened)}."
                " Give one for each, or make a new CombinedLoader."
            )
        _check_iterable(members)
        self._iterables = _rebuild(self._iterables, iter(members))
        self._flattened = list(members)

    @property
    def limits(self) -> list[int | float] | None:
        """The most batches to take from each member (``inf``: all), or ``None`` for no limits.

        Assign one number for all members, or a list with one for each. A limited member is as one that has no more.
        """
        return self._limits

    @limits.setter
    def limits(self, limits: int | float | list[int | float] | None) -> None:
        if isinstance(limits, (int, float)):
            limits = [limits] * len(self._flattened)
        if limits is not None and len(limits) != len(self._flattened):
            raise ValueError(
                f"CombinedLoader.limits = {limits!r}: {len(limits)} limits for {len(self._flattened)} members."
                " Give one number for all, or one for each."
            )
        for limit in limits or ():
            if not isinstance(limit, (int, float)) or limit < 0 or (limit != inf and limit != int(limit)):
                raise ValueError(f"CombinedLoader.limits: {limit!r} is not a number of batches (0, 1, 2 ... or inf).")
        self._limits = limits

    def __len__(self) -> int:
        lengths: list[int | float] = []
        for member, limit in zip(self._flattened, self._all_limits()):
            length = sized_len(member)
            lengths.append(min(inf if length is None else length, limit))
        total = _LENGTHS[self._mode](lengths)
        if total == inf:
            unsized = next(member for member, length in zip(self._flattened, lengths) if length == inf)
            raise TypeError(
                f"The length of this CombinedLoader is unknown: its {type(unsized).__name__} has no length."
            )
        return int(total)

    def __iter__(self) -> Iterator[tuple[Any, int, int]]:
        running = self._sequence() if self._mode == "sequential" else self._rows()
        self._running.add(running)
        return running

    def reset(self) -> None:
        """End all iterations and shut down the workers of the members; the next ``iter()`` starts them again."""
        for running in list(self._running):
            running.close()  # type: ignore[attr-defined]  # drops the members' iterators, and with them their workers
        self._running.clear()
        for member in self._flattened:
            if isinstance(member, CombinedLoader):
                member.reset()
                continue
            persistent: Any = getattr(member, "_iterator", None)  # what a DataLoader with persistent workers keeps
            if hasattr(persistent, "_shutdown_workers"):
                persistent._shutdown_workers()
                member._iterator = None

    def _sequence(self) -> Iterator[tuple[Any, int, int]]:
        for dataloader_idx, (member, limit) in enumerate(zip(self._flattened, self._all_limits())):
            for batch_idx, batch in enumerate(_open(member, limit)):
                yield batch, batch_idx, dataloader_idx

    def _rows(self) -> Iterator[tuple[Any, int, int]]:
        rows = _ROWS[self._mode](self._flattened, self._all_limits())
        for batch_idx, row in enumerate(rows):
            yield _rebuild(self._iterables, iter(row)), batch_idx, 0

    def _all_limits(self) -> list[int | float]:
        return self._limits if self._limits is not None else [inf] * len(self._flattened)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None}  # iterations under way belong to this process and this object

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _running=WeakSet())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._iterables!r}, mode={self._mode!r})"


# -- the modes: which rows of batches, and how many --------------------------------------------------------------------

Members = list[Any]
Limits = list[int | float]


def _min_size(members: Members, limits: Limits) -> Iterator[tuple[Any, ...]]:
    return zip(*map(_open, members, limits))


def _max_size(members: Members, limits: Limits) -> Iterator[tuple[Any, ...]]:
    return zip_longest(*map(_open, members, limits))


def _max_size_cycle(members: Members, limits: Limits) -> Iterator[list[Any]]:
    # a member may say that this is a pass that goes on, where it has ended before or is about to begin again
    never_ended = {index for index, member in enumerate(members) if not getattr(member, "has_ended_a_pass", False)}
    has_given = {index for index, member in enumerate(members) if getattr(member, "position_in_pass", 0)}
    streams = list(map(_open, members, limits))
    while never_ended:
        row: list[Any] = []
        for index, stream in enumerate(streams):
            batch = next(stream, _END)
            if batch is _END:
                never_ended.discard(index)
                if index not in has_given or not never_ended:  # an empty member has nothing to repeat
                    return
                streams[index] = _open(members[index], limits[index])
                batch = next(streams[index], _END)
                if batch is _END:
                    raise _not_repeatable(index, members[index])
            has_given.add(index)
            row.append(batch)
        yield row


def _not_repeatable(index: int, member: Any) -> MisconfigurationException:
    return MisconfigurationException(
        f"CombinedLoader(mode='max_size_cycle'): member {index} ({type(member).__name__}) ended before the longest one"
        " and gives nothing when it is iterated again. Give an object that starts anew with each iter(), such as a"
        " DataLoader or a list, or use mode='min_size' or 'max_size'."
    )


#: The modes that give a row, one batch from each member.
_ROWS: dict[str, Callable[[Members, Limits], Iterator[Any]]] = {
    "min_size": _min_size,
    "max_size_cycle": _max_size_cycle,
    "max_size": _max_size,
}
#: How many batches each mode gives, from the lengths of the members.
_LENGTHS: dict[str, Callable[[Limits], int | float]] = {
    "min_size": lambda lengths: min(lengths, default=0),
    "max_size_cycle": lambda lengths: 0 if 0 in lengths else max(lengths, default=0),
    "max_size": lambda lengths: max(lengths, default=0),
    "sequential": sum,
}


def _open(member: Any, limit: int | float) -> Iterator[Any]:
    """The batches of one member, at most ``limit``."""
    if limit == 0:
        return iter(())  # do not start its workers for nothing
    batches = iter(member)
    if isinstance(member, CombinedLoader):
        batches = map(itemgetter(0), batches)
    return batches if limit == inf else islice(batches, int(limit))


# -- the structure -----------------------------------------------------------------------------------------------------


def _is_container(tree: Any) -> bool:
    if isinstance(tree, dict):
        items = list(tree.values())
    elif type(tree) in (list, tuple) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        items = tree
    else:
        return False
    return not items or not all(isinstance(item, (int, float, str)) for item in items)


def _flatten(tree: Any) -> list[Any]:
    if not _is_container(tree):
        return [tree]
    children = tree.values() if isinstance(tree, dict) else tree
    return [leaf for child in children for leaf in _flatten(child)]


def _rebuild(tree: Any, leaves: Iterator[Any]) -> Any:
    """The structure of ``tree`` with its members replaced, in order, by ``leaves``."""
    if not _is_container(tree):
        return next(leaves)
    if isinstance(tree, dict):
        values = {key: _rebuild(child, leaves) for key, child in tree.items()}
        if type(tree) is dict:
            return values
        clone = copy(tree)  # keeps the order of an OrderedDict, the factory of a defaultdict
        clone.update(values)
        return clone
    values = [_rebuild(child, leaves) for child in tree]
    if type(tree) is list:
        return values
    return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)


def _check_iterable(members: list[Any]) -> None:
    for index, member in enumerate(members):
        if not hasattr(member, "__iter__") and not hasattr(member, "__getitem__"):
            raise TypeError(
                f"CombinedLoader: member {index} is {member!r} and cannot be iterated."
                " Give a DataLoader or another iterable of batches."
            )
