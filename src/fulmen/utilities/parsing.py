"""Dictionaries with attributes, and attributes that may live in the hyperparameters."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from fulmen.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from fulmen.core.module import LightningModule


class AttributeDict(dict[str, Any]):
    """A dict whose entries are attributes too: ``d.lr`` is ``d["lr"]``.

    Reading an absent attribute raises ``AttributeError``, deleting one ``KeyError``.
    """

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError as error:
            raise AttributeError(f"{key!r} is not among {list(self)}") from error

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __delattr__(self, key: str) -> None:
        del self[key]

    def __repr__(self) -> str:
        if not self:
            return ""
        labels = {key: f'"{key}":' for key in sorted(self, key=str)}
        width = max(map(len, labels.values()))
        return "\n".join(f"{label:{width}} {self[key]}" for key, label in labels.items())


def is_picklable(obj: object) -> bool:
    """Whether ``obj`` can be pickled, and so be sent to another process."""
    try:
        pickle.dumps(obj)
    except Exception:  # each class fails in its own way: PicklingError, AttributeError, TypeError, RuntimeError ...
        return False
    return True


def clean_namespace(hparams: MutableMapping[str, Any]) -> None:
    """Remove from ``hparams``, in place, every entry that cannot be pickled, and say which."""
    unpicklable = [key for key, value in hparams.items() if not is_picklable(value)]
    for key in unpicklable:
        del hparams[key]
    if unpicklable:
        names = ", ".join(map(repr, unpicklable))
        rank_zero_warn(f"Not kept as hyperparameters, since they cannot be pickled: {names}.")


def lightning_hasattr(model: LightningModule, attribute: str) -> bool:
    """Whether the module, its hyperparameters, the datamodule in use or its hyperparameters have ``attribute``."""
    return any(True for _ in _holders(model, attribute))


def lightning_getattr(model: LightningModule, attribute: str) -> Any:
    """The value of ``attribute`` at the last of those who have it; see :func:`lightning_hasattr` for their order.

    Raises:
        AttributeError: nobody has it.
    """
    holder = _required_holders(model, attribute)[-1]
    return holder[attribute] if isinstance(holder, dict) else getattr(holder, attribute)


def lightning_setattr(model: LightningModule, attribute: str, value: Any) -> None:
    """Set ``attribute`` at each of those who have it; see :func:`lightning_hasattr`.

    Raises:
        AttributeError: nobody has it.
    """
    for holder in _required_holders(model, attribute):
        if isinstance(holder, dict):
            holder[attribute] = value
        else:
            setattr(holder, attribute, value)


def _required_holders(model: LightningModule, attribute: str) -> list[Any]:
    holders = list(_holders(model, attribute))
    if not holders:
        raise AttributeError(
            f"{attribute!r} is neither an attribute of {type(model).__name__} or of the datamodule in use, nor among"
            " their hyperparameters. Set it in `__init__`, or pass it to `save_hyperparameters`."
        )
    return holders


def _holders(model: LightningModule, attribute: str) -> Iterator[Any]:
    try:
        datamodule = model.trainer.datamodule
    except (AttributeError, RuntimeError):  # no trainer at all
        datamodule = None
    for owner in (model, datamodule):
        if owner is None:
            continue
        if hasattr(owner, attribute):
            yield owner
        hparams = getattr(owner, "hparams", None)
        present = attribute in hparams if isinstance(hparams, dict) else hasattr(hparams, attribute)
        if present:
            yield hparams
