"""When a budget starts again: windows of time, by the calendar of a named time zone. Pure.

There is no job that resets anything: what period a moment falls in is computed from the time of each event.
"""

from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from trunkline_events.thread import Window


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def zone_problem(name: str) -> str | None:
    """Why this is no time zone, or None where it is one."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):  # an unknown name, one that is a path, one that is a folder
        return f'{name!r} is no time zone; write it like "Europe/Berlin" or "UTC"'
    return None


def period_of(window: Window, now: float, zone: str = "UTC") -> str:
    """The name of the window's period that Unix time `now` falls in: `2026-11-20`, `2026-11`, or empty for none."""
    if window == "none":
        return ""
    day = datetime.fromtimestamp(now, _zone(zone)).date().isoformat()
    return day if window == "day" else day[:7]


def resets_at(window: Window, now: float, zone: str = "UTC") -> float | None:
    """The Unix time at which the period after this one begins; None where there is no window."""
    if window == "none":
        return None
    today = datetime.fromtimestamp(now, _zone(zone)).date()
    first = today + timedelta(days=1) if window == "day" else (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    # A midnight that a clock change skips is taken as the moment of the change, which is when the day begins.
    return datetime(first.year, first.month, first.day, tzinfo=_zone(zone)).timestamp()
