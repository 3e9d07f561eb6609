"""String enums that compare with plain strings, whatever the case."""

from __future__ import annotations

from enum import Enum
from typing import Self


class LightningEnum(str, Enum):
    """An enum whose members equal their value as a string, in upper or lower case."""

    def __eq__(self, other: object) -> bool:
        other = other.value if isinstance(other, Enum) else other
        return isinstance(other, str) and self.value.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.value.lower())

    def __str__(self) -> str:
        return self.value

    @classmethod
    def from_str(cls, value: str) -> Self | None:
        """The member whose name or value is ``value`` (any case), or None."""
        wanted = value.lower()
        return next((member for member in cls if wanted in (member.value.lower(), member.name.lower())), None)


class GradClipAlgorithmType(LightningEnum):
    """How gradients are clipped: each element (``value``) or the norm over all parameters (``norm``)."""

    VALUE = "value"
    NORM = "norm"

    @staticmethod
    def supported_type(value: str) -> bool:
        return GradClipAlgorithmType.from_str(value) is not None

    @staticmethod
    def supported_types() -> list[str]:
        return [member.value for member in GradClipAlgorithmType]
