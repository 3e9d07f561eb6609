"""The categories of the warnings that Fulmen gives, so that each can be silenced by itself.

``warnings.filterwarnings("ignore", category=PossibleUserWarning)`` silences advice that may not apply to you.
"""

from __future__ import annotations

import sys
import warnings


class PossibleUserWarning(UserWarning):
    """Advice that may be wrong in your case: silence it freely."""


class UnsafeLoadWarning(UserWarning):
    """A file was read in a way that lets it run any code, since you asked for it."""


class LightningDeprecationWarning(DeprecationWarning):
    """Something that still works and will not for ever; the message shows its replacement."""


if not sys.warnoptions:  # Python shows a DeprecationWarning only where a program's own script is the cause
    warnings.simplefilter("default", LightningDeprecationWarning)


def disable_possible_user_warnings(module: str = "") -> None:
    """Silence every :class:`PossibleUserWarning`, or only those raised in modules that match the regex ``module``."""
    warnings.filterwarnings("ignore", category=PossibleUserWarning, module=module)
