"""What an upstream's headers say of its rate limits: whether calls must pause, and for how long. Pure.

Read are OpenAI's `x-ratelimit-remaining-requests` and `-tokens` with `x-ratelimit-reset-…` (durations such as `6m0s` or
`20ms`; Groq and others send the same), Anthropic's `anthropic-ratelimit-…-remaining` and `-reset` (RFC 3339), and
`x-ratelimit-remaining` or `ratelimit-remaining` with `…-reset` (seconds, or Unix time in seconds or milliseconds).
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

LONGEST = 60.0
"""Seconds that a pause lasts at most; after that one call finds out how it stands."""

_KINDS = ("requests", "tokens")
_ANTHROPIC = ("requests", "tokens", "input-tokens", "output-tokens")
_PAIRS = (
    *((f"x-ratelimit-remaining-{kind}", f"x-ratelimit-reset-{kind}") for kind in _KINDS),
    *((f"anthropic-ratelimit-{kind}-remaining", f"anthropic-ratelimit-{kind}-reset") for kind in _ANTHROPIC),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_UNITS = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_EPOCH = 1e9
"""From here on a number is a time and no duration; from a thousand times as much on, in milliseconds."""


def pause_of(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until calls may be made again, at most `LONGEST`; None where nothing stands against another call.

    `headers` have lower-case names or ignore case; `now` is Unix time. Where several limits are used up, the last one
    to be renewed counts.
    """
    found: float | None = None
    for remaining, reset in _PAIRS:
        left = headers.get(remaining)
        if left is None or not _is_none(left):
            continue
        seconds = seconds_until(headers.get(reset) or "", now)
        if seconds is not None and seconds > (found or 0.0):
            found = seconds
    return None if found is None else min(found, LONGEST)


def seconds_until(text: str, now: float) -> float | None:
    """Seconds until a reset as a header has it: a duration, a number or a time. None for what makes no sense."""
    text = text.strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        if not math.isfinite(number) or number < 0:
            return None
        if number >= _EPOCH:
            number = (number / 1000 if number >= _EPOCH * 1000 else number) - now
        return max(0.0, number)
    matched = _DURATION.fullmatch(text)
    if matched is not None:
        return sum(float(part) * unit for part, unit in zip(matched.groups(), _UNITS, strict=True) if part)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)


def _is_none(text: str) -> bool:
    try:
        return float(text) <= 0
    except ValueError:
        return False
