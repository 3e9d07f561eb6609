"""What Lightning 1 had and Lightning 2 has in no form any more, translated into what Fulmen does.

It is in force while the import aliases are installed, or from :func:`enable` on. Each thing that is met says once per
program how it is written today.
"""

from __future__ import annotations

from fulmen.compat.old.enabling import disable, enable, is_enabled

__all__ = ["disable", "enable", "is_enabled"]
