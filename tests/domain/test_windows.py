"""Windows of time: periods by the calendar of a zone, and when the next one begins."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from trunkline_actors.windows import period_of, resets_at, zone_problem
from trunkline_events.thread import Window

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut"]
MOMENTS = st.floats(1_600_000_000, 2_000_000_000)


@pytest.mark.parametrize(
    ("window", "zone", "at", "period"),
    [
        ("none", "UTC", "2026-11-20T12:00:00+00:00", ""),
        ("day", "UTC", "2026-11-20T23:59:59+00:00", "2026-11-20"),
        ("day", "Europe/Berlin", "2026-11-20T23:30:00+00:00", "2026-11-21"),
        ("day", "America/New_York", "2026-11-21T04:59:59+00:00", "2026-11-20"),
        ("month", "Europe/Berlin", "2026-11-30T23:00:00+00:00", "2026-12"),
        ("month", "UTC", "2026-11-30T23:59:59+00:00", "2026-11"),
    ],
)
def test_a_moment_falls_in_the_period_of_its_zone(window: Window, zone: str, at: str, period: str) -> None:
    assert period_of(window, datetime.fromisoformat(at).timestamp(), zone) == period


@given(now=MOMENTS, window=st.sampled_from(["day", "month"]), zone=st.sampled_from(ZONES))
@example(
    now=datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("Europe/Berlin")).timestamp(), window="day", zone="Asia/Beirut"
)
def test_the_next_period_begins_exactly_at_its_reset(now: float, window: Window, zone: str) -> None:
    reset = resets_at(window, now, zone)
    assert reset is not None
    assert reset > now
    assert period_of(window, reset, zone) > period_of(window, now, zone) == period_of(window, reset - 1, zone)


def test_a_budget_without_a_window_never_starts_again() -> None:
    assert resets_at("none", 1_700_000_000.0) is None


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "Europe", "UTC\0"])
def test_what_is_no_time_zone_is_said_to_be_none(name: str) -> None:
    problem = zone_problem(name)
    assert problem is not None
    assert "time zone" in problem


@pytest.mark.parametrize("name", ZONES)
def test_a_time_zone_is_no_problem(name: str) -> None:
    assert zone_problem(name) is None
