"""Small things of Lightning's Fabric that have no place in the house: names that programs look at."""

from __future__ import annotations

from fulmen.utilities.imports import package_available

#: whether bitsandbytes is installed
BITSANDBYTES = package_available("bitsandbytes")


class NotYetLoadedTensor:
    """What Lightning's ``_lazy_load`` gives in place of a tensor. Here a file is read when it is asked for, so that
    nothing is of this class; programs that look for it find tensors.
    """
