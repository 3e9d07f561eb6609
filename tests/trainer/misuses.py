"""What users do wrong, and what they are told: the whole table."""

from __future__ import annotations

import misuses_of_arguments  # noqa: F401  # each enters its rows
import misuses_of_callbacks  # noqa: F401
import misuses_of_data  # noqa: F401
import misuses_of_logging  # noqa: F401
import misuses_of_modules  # noqa: F401
import misuses_of_training_callbacks  # noqa: F401
from misuse_table import MISUSES, Misuse, Outcome, Scene, Sound, loader, outcome

__all__ = ["MISUSES", "Misuse", "Outcome", "Scene", "Sound", "loader", "outcome"]
