from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulmen.utilities.exceptions import MisconfigurationException
from fulmen.utilities.interval import Interval, parse_duration, parse_interval


@pytest.mark.parametrize(
    ("value", "interval"),
    [
        ("500step", Interval(500, "step")),
        ("1 steps", Interval(1, "step")),
        ("2epoch", Interval(2, "epoch")),
        ("2Epochs", Interval(2, "epoch")),
        ("100batch", Interval(100, "batch")),
        ("3batches", Interval(3, "batch")),
        ("10s", Interval(10, "second")),
        ("30min", Interval(1800, "second")),
        ("1.5h", Interval(5400, "second")),
        ("1d", Interval(86400, "second")),
        ("00:01:30:05", Interval(5405, "second")),
        (timedelta(minutes=2), Interval(120, "second")),
        ({"hours": 1, "seconds": 1}, Interval(3601, "second")),
        (Interval(7, "epoch"), Interval(7, "epoch")),
    ],
)
def test_interval_is_read_from_every_form(value, interval):
    assert parse_interval(value) == interval


@given(
    st.integers(1, 10**9),
    st.sampled_from(["step", "epoch", "batch"]),
)
def test_interval_written_as_text_is_read_back(count, unit):
    interval = Interval(count, unit)
    assert parse_interval(str(interval)) == interval


@pytest.mark.parametrize(
    "value", ["500", "step", "5m", "-5step", "five steps", "", "1:00", "step5", 500, 1.5, None, {"weekdays": 2}, [5]]
)
def test_what_is_no_interval_is_refused_with_the_allowed_forms(value):
    with pytest.raises(MisconfigurationException, match=r"is not an interval.*500step.*30min") as caught:
        parse_interval(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["0step", "0s", timedelta(0)])
def test_an_interval_of_nothing_is_refused(value):
    with pytest.raises(MisconfigurationException, match="not positive"):
        parse_interval(value)


def test_half_a_step_is_refused():
    with pytest.raises(MisconfigurationException, match=r"'1\.5step' is not a whole number of steps"):
        parse_interval("1.5step")


@given(st.integers(0, 999), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_duration_is_read_from_clock_and_dict_alike(days, hours, minutes, seconds):
    duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    assert parse_duration(f"{days:02}:{hours:02}:{minutes:02}:{seconds:02}") == duration
    assert parse_duration({"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}) == duration


def test_duration_of_nothing_is_allowed():
    assert parse_duration("00:00:00:00") == timedelta(0)


@pytest.mark.parametrize("value", ["3step", "12", 12, "1:2:3", {"foo": 1}, {"hours": "two"}, "9" * 20 + "d"])
def test_what_is_no_duration_is_refused_with_the_allowed_forms(value):
    with pytest.raises(MisconfigurationException, match=r"is not a length of time.*DD:HH:MM:SS"):
        parse_duration(value)


def test_a_negative_duration_is_refused():
    with pytest.raises(MisconfigurationException, match="negative"):
        parse_duration(timedelta(seconds=-1))
