"""Times as text: RFC 3339 in UTC outside, Unix time in seconds inside."""

from datetime import UTC, datetime
from functools import lru_cache

_MICROSECONDS = len("2026-11-21T12:00:00.000000Z")


def format_time(seconds: float) -> str:
    """Unix time as RFC 3339 in UTC, to the microsecond."""
    micros = round(seconds * 1_000_000)
    return f"{_text(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


def parse_time(text: str) -> float:
    """RFC 3339 as Unix time. Raises ValueError."""
    # As we write it: to the microsecond, in UTC. Neighbours in the log share their second.
    if len(text) == _MICROSECONDS and text[19] == "." and text[26] == "Z":
        return (_micros(text[:19]) + int(text[20:26])) / 1_000_000
    return datetime.fromisoformat(text).timestamp()


def time_or_none(text: str | None) -> float | None:
    """The same, for what others wrote: None where it is no time."""
    try:
        return None if text is None else parse_time(text)
    except ValueError:
        return None


@lru_cache(maxsize=8)
def _text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(maxsize=8)
def _micros(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000
