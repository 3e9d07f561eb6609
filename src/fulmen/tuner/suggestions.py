"""Which learning rate to take, seen from the curve of a range test.

Each rule gets the rates and the smoothed losses, both as arrays without gaps, the rates rising. The range test itself,
training while the rate rises and looking at the loss, is that of L. N. Smith, *Cyclical Learning Rates for Training
Neural Networks* (2017).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

METHODS = ("steepest", "valley", "minimum/10")


def suggested(method: str, rates: np.ndarray, losses: np.ndarray, logarithmic: bool) -> tuple[int, float]:
    """The place in the curve that ``method`` looks at, and the rate that it suggests.

    Args:
        method: one of :data:`METHODS`.
        logarithmic: distances between rates are those of their logarithms.

    Raises:
        ValueError: there is no such method.
    """
    if method == "steepest":
        place = _steepest(rates, losses, logarithmic)
        return place, float(rates[place])
    if method == "valley":
        place = _valley(losses)
        return place, float(rates[place])
    if method == "minimum/10":
        place = int(losses.argmin())
        return place, float(rates[place]) / 10
    raise ValueError(f"`method={method!r}`: must be one of {', '.join(map(repr, METHODS))}.")


def _steepest(rates: np.ndarray, losses: np.ndarray, logarithmic: bool) -> int:
    """Where the loss falls fastest, along the axis on which the rates were spaced evenly."""
    import numpy as np

    return int(np.gradient(losses, np.log(rates) if logarithmic else rates).argmin())


def _valley(losses: np.ndarray) -> int:
    """The middle of the longest fall. A way down is a choice of points of which each lies below the one before; the
    one with the most points is taken. The fall has as many points, and ends where the way does: what the way leaves
    out, in the noise before, does not count.

    The idea is that of fastai's ``valley``. It looks at the whole slope, and so depends less on a single dent than the
    steepest point does.
    """
    lengths = [1] * len(losses)  # points of the longest way down that ends in each place
    for here, loss in enumerate(losses):
        for before in range(here):
            if losses[before] > loss and lengths[before] >= lengths[here]:
                lengths[here] = lengths[before] + 1
    end = max(range(len(losses)), key=lambda place: lengths[place])
    return end - lengths[end] // 2
