"""The picture of a range test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fulmen.tuner.lr_finder import LRFinder

_INK, _RAW, _CURVE = "0.2", "0.72", "#2b5d8a"
#: where suggestions are marked: the first one is red, as everybody expects it
_COLOURS = {"steepest": "#c1272d", "valley": "#3a7d44", "minimum/10": "#d79921"}


def draw(found: LRFinder, marks: dict[str, tuple[int, float]], show: bool, ax: Axes | None) -> Figure:
    """Draw the losses of ``found``, as they were and smoothed, and the suggestions.

    Args:
        marks: the place in the curve and the suggested rate, by method.
        show: open a window.
        ax: what to draw into. None: a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "`plot` needs matplotlib, which is not installed. Write `pip install matplotlib`, or draw "
            "`finder.results['loss']` over `finder.results['lr']` with another library."
        ) from error
    import numpy as np

    if ax is None:
        figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    else:
        figure: Any = ax.get_figure()
    rates, smoothed = np.asarray(found.results["lr"], float), np.asarray(found.results["loss"], float)
    raw = np.asarray(found.losses, float)
    if found.mode == "exponential":
        ax.set_xscale("log")
    ax.plot(rates, raw, color=_RAW, linewidth=1, marker=".", markersize=3, label="loss of each step")
    ax.plot(rates, smoothed, color=_CURVE, linewidth=2, label="smoothed")
    _limit(ax, raw, smoothed)
    finite = np.isfinite(smoothed)
    for number, (method, (_, rate)) in enumerate(sorted(marks.items(), key=lambda mark: mark[1][1])):
        loss = float(np.interp(rate, rates[finite], smoothed[finite]))
        _mark(ax, f"{method}: {rate:.2g}", rate, loss, _COLOURS[method], 0.97 - 0.075 * number)
    ax.set_xlabel("learning rate", color=_INK)
    ax.set_ylabel("training loss", color=_INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_INK)
    ax.tick_params(colors=_INK)
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
    corner = "lower left" if found.mode == "exponential" else "upper right"  # where the curve is not
    ax.legend(frameon=False, labelcolor=_INK, loc=corner, fontsize="small")
    if show:
        plt.show()
    return figure


def _limit(ax: Axes, raw: Any, smoothed: Any) -> None:
    """Let a loss that explodes leave the picture, so that the fall before it can be seen."""
    import numpy as np

    good = smoothed[np.isfinite(smoothed)]
    if not len(good):
        return
    finite = raw[np.isfinite(raw)]
    first = good[: max(1, len(good) // 4)].max()
    low = min(good.min(), np.quantile(finite, 0.01))
    high = max(first, good.min() + 1.6 * (first - good.min()))
    room = 0.08 * (high - low) or 1.0
    ax.set_ylim(low - room, high + room)


def _mark(ax: Axes, text: str, rate: float, loss: float, colour: str, height: float) -> None:
    """Mark a suggestion: a point on the curve, and a line up to its name."""
    ax.axvline(rate, color=colour, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7, zorder=3)
    ax.plot([rate], [loss], "o", color=colour, markersize=8, markeredgecolor="white", zorder=5)
    ax.annotate(
        text,
        (rate, height),
        xycoords=("data", "axes fraction"),
        xytext=(6, 0),
        textcoords="offset points",
        color=colour,
        fontsize="small",
        fontweight="bold",
        verticalalignment="top",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5, "alpha": 0.85},
        zorder=6,
    )
