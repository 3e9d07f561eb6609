"""Who holds a hyperparameter that is searched: the module, the datamodule, and the ``hparams`` of either."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulmen.core.datamodule import LightningDataModule
    from fulmen.core.module import LightningModule


class Hyperparameter:
    """One hyperparameter, wherever it is held.

    Args:
        names: what it may be called; the first one that somebody holds is taken.
        purpose: what it is, for the error.

    Raises:
        AttributeError: nobody holds any of them.
    """

    def __init__(
        self, module: LightningModule, datamodule: LightningDataModule | None, names: Sequence[str], purpose: str
    ) -> None:
        owners = [owner for owner in (module, datamodule) if owner is not None]
        for name in names:
            self.name, self._holders = name, [(owner, *held) for owner in owners for held in _holders(owner, name)]
            if self._holders:
                return
        raise AttributeError(_nobody(owners, names, purpose))

    @property
    def value(self) -> Any:
        """What the first holder has."""
        return self.values[0]

    @property
    def places(self) -> list[str]:
        """Where it is held: ``Model.lr``, ``Model.hparams.lr``."""
        return [
            f"{type(owner).__name__}{'' if holder is owner else '.hparams'}.{self.name}"
            for owner, holder, _ in self._holders
        ]

    @property
    def values(self) -> list[Any]:
        """What each holder has."""
        return [
            holder[self.name] if is_mapping else getattr(holder, self.name) for _, holder, is_mapping in self._holders
        ]

    def set(self, value: Any) -> None:
        """Let all who hold it hold ``value``; a run logs it as if it had been given from the start."""
        for owner, holder, is_mapping in self._holders:
            if is_mapping:
                holder[self.name] = value
            else:
                setattr(holder, self.name, value)
            first = owner._hparams_initial
            if holder is not owner and first is not None and self.name in first:
                first[self.name] = value


def _holders(owner: Any, name: str) -> list[tuple[Any, bool]]:
    """The owner itself and its hparams, as far as they have ``name``, and whether it is an item of theirs."""
    found: list[tuple[Any, bool]] = [(owner, False)] if hasattr(owner, name) else []
    hparams = owner._hparams  # `hparams` would make some
    return [*found, (hparams, True)] if hparams is not None and name in hparams else found


def _nobody(owners: list[Any], names: Sequence[str], purpose: str) -> str:
    known: list[str] = []
    for owner in owners:
        numbers = [name for name, value in vars(owner).items() if type(value) in (int, float)]
        known += [name for name in numbers if not name.startswith("_")] + list(owner._hparams or ())
    known = list(dict.fromkeys(known))
    near = list(dict.fromkeys(one for name in names for one in difflib.get_close_matches(name, known, n=2, cutoff=0.5)))
    text = f"neither {' nor '.join(map(repr, names))}" if len(names) > 1 else f"no {names[0]!r}"
    where = " or ".join(f"{type(owner).__name__} (or its hparams)" for owner in owners)
    advice = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    argument = "attr_name" if purpose == "learning rate" else "batch_arg_name"
    return (
        f"there is {text} in {where}, so the {purpose} that is found could not be put anywhere.{advice} Write "
        f"`self.{names[0]} = {names[0]}` in `__init__` and use it, or name another attribute: `{argument}=...`."
    )
