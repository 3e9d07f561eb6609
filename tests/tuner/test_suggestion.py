"""Which rate a curve suggests, and the picture of it."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from fulmen.tuner import LRFinder

matplotlib.use("Agg")


def curve(losses: np.ndarray, rates: np.ndarray, mode: str = "exponential") -> LRFinder:
    found = LRFinder(mode, float(rates[0]), float(rates[-1]), len(rates))
    found.results = {"lr": rates.tolist(), "loss": losses.tolist()}
    found.losses = losses.tolist()
    return found


RATES = np.logspace(-6, 0, 121)
#: flat, a fall that is steepest at 1e-3, lowest at about 2e-2, then up
LOSSES = 3 - 2 / (1 + np.exp(-4 * (np.log10(RATES) + 3))) + 4 / (1 + np.exp(-8 * (np.log10(RATES) + 0.5)))


def test_steepest_is_where_the_loss_falls_fastest():
    assert curve(LOSSES, RATES).suggestion() == pytest.approx(1e-3)


def test_steepest_of_a_linear_test_looks_along_the_rates_themselves():
    rates = np.linspace(0, 1, 101)
    losses = 1 / (1 + np.exp(20 * (rates - 0.4)))
    assert curve(losses, rates, "linear").suggestion() == pytest.approx(0.4)


def test_noise_among_tiny_rates_does_not_attract_the_steepest_point():
    losses = LOSSES + np.where(RATES < 1e-5, 0.01 * np.sin(np.arange(121) * 2.0), 0)
    assert curve(losses, RATES).suggestion() == pytest.approx(1e-3)


def test_minimum_is_taken_a_tenth_of():
    lowest = RATES[LOSSES.argmin()]
    assert curve(LOSSES, RATES).suggestion(method="minimum/10") == pytest.approx(lowest / 10)


def test_valley_is_the_middle_of_the_longest_fall():
    losses = np.concatenate([np.full(40, 3.0), np.linspace(2.9, 1.0, 40), np.linspace(1.1, 5.0, 41)])
    assert curve(losses, RATES).suggestion(method="valley") == pytest.approx(RATES[59])


def test_valley_looks_over_a_dent():
    losses = np.concatenate([np.full(40, 3.0), np.linspace(2.9, 1.0, 40), np.linspace(1.1, 5.0, 41)])
    losses[60] = 2.8
    assert curve(losses, RATES).suggestion(method="valley") == pytest.approx(RATES[59], rel=0.2)


def test_points_at_both_ends_and_those_that_are_not_finite_are_left_out():
    losses = LOSSES.copy()
    losses[11], losses[-1] = -50.0, -100.0
    found = curve(losses, RATES)
    assert found.suggestion(skip_begin=13) == pytest.approx(1e-3)
    losses[60:62] = np.nan
    assert curve(losses, RATES).suggestion(skip_begin=13) == pytest.approx(1e-3, rel=0.3)
    assert curve(losses, RATES).suggestion(skip_begin=0, skip_end=0, method="minimum/10") == pytest.approx(0.1)


def test_too_few_points_suggest_nothing_and_say_so():
    found = curve(LOSSES[:11], RATES[:11])
    with pytest.warns(UserWarning, match="of 11 points 0 are left"):
        assert found.suggestion() is None
    assert found.suggestion(skip_begin=0) is not None


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'steepest', 'valley', 'minimum/10'"):
        curve(LOSSES, RATES).suggestion(method="best")


def test_picture_shows_both_curves_on_a_logarithmic_axis_and_the_suggestion(tmp_path):
    found = curve(LOSSES, RATES)
    figure = found.plot(suggest=True)
    [axes] = figure.axes
    assert axes.get_xscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("learning rate", "training loss")
    assert [text.get_text() for text in axes.texts] == ["steepest: 0.001"]
    points = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 1]
    assert points[0] == pytest.approx([1e-3])
    figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_picture_shows_all_suggestions_or_none():
    assert len(curve(LOSSES, RATES).plot(suggest="all").axes[0].texts) == 3
    assert not curve(LOSSES, RATES).plot().axes[0].texts
    [text] = curve(LOSSES, RATES).plot(suggest="valley").axes[0].texts
    assert text.get_text().startswith("valley: ")
    with pytest.raises(ValueError, match="suggest='best'"):
        curve(LOSSES, RATES).plot(suggest="best")


def test_picture_is_drawn_into_given_axes():
    figure, (left, right) = plt.subplots(1, 2)
    assert curve(LOSSES, RATES, "linear").plot(ax=right) is figure
    assert right.get_xscale() == "linear"
    assert len(right.lines) == 2
    assert not left.lines


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")
