"""Values as any database can hold them: whole numbers of 64 bits, and text. Total, whatever an event says."""

from datetime import UTC, datetime
from functools import lru_cache

import msgspec

NOTHING = "-"
"""What a key column holds where there is none to name: a request without a thread, or without an API key."""

_MOST = 2**63 - 1
_MOST_OF_ONE = 2**53
"""What one event adds at most: nine million dollars. A sum of garbage must not end the projection."""
_LAST_SECOND = 253_402_300_799.0
_MOST_MS = float(2**40)


def time_of(seconds: float) -> str:
    """Unix time as RFC 3339 in UTC, to the microsecond; times no calendar has are brought to the nearest it has."""
    if not 0 <= seconds <= _LAST_SECOND:
        seconds = min(max(seconds, 0.0), _LAST_SECOND)
    micros = round(seconds * 1_000_000)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def amount(value: int) -> int:
    """A number that is added to others."""
    return value if -_MOST_OF_ONE <= value <= _MOST_OF_ONE else min(max(value, -_MOST_OF_ONE), _MOST_OF_ONE)


def number(value: int) -> int:
    """A number that stands for itself."""
    return value if -_MOST <= value <= _MOST else min(max(value, -_MOST), _MOST)


def micros(milliseconds: float) -> int:
    """A duration in whole microseconds."""
    return round(min(max(milliseconds, 0.0), _MOST_MS) * 1000)


def clean(text: str) -> str:
    """PostgreSQL holds no NUL in text; both stores must hold the same."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def share(value: float | None) -> str | None:
    """A share such as 0.8, as the shortest decimal that is it: floats are not for tables that are compared."""
    return None if value is None else str(value)


def as_json(value: object) -> str:
    """Any value of an event, as JSON."""
    return msgspec.json.encode(value).decode()
