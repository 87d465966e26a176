"""What an upstream told of an answer, as far as it makes sense. Pure.

A log is for ever and money is settled by what stands in it: so whatever an adapter hands over, only counts and charges
that can be, and reasons to finish that are known, get that far. What makes no sense counts as not told.
"""

from typing import Any

from trunkline_events.usage import Usage

MOST_TOKENS = 10**12
"""More of one answer is nonsense."""
MOST_NANOS = 10**15
"""A million dollars: more for one answer is nonsense."""

_COUNTS = Usage.__struct_fields__
_FINISHES = {
    name: name
    for name in (
        *("stop", "length", "tool_calls", "content_filter", "function_call", "error"),
        *("aborted", "abandoned", "stopping"),  # ours
    )
}


def usage_told(usage: object) -> Usage | None:
    """The usage; None where one of its counts can't be."""
    if not isinstance(usage, Usage):
        return None
    for name in _COUNTS:
        if not _is_whole(getattr(usage, name), MOST_TOKENS):
            return None
    # A plugin may give a kind of its own, with more in it.
    return usage if type(usage) is Usage else Usage(**{name: getattr(usage, name) for name in _COUNTS})


def charge_told(nanos: Any) -> int | None:
    """What was charged, or what something cost, in nano-dollars; None where that can't be."""
    return nanos if _is_whole(nanos, MOST_NANOS) else None


def bounded(usage: Usage) -> Usage:
    """A bound of ours, of which an adapter counted a part: no more than can be, and no less than nothing."""
    counts = {name: getattr(usage, name) for name in _COUNTS}
    return Usage(**{name: max(0, min(count, MOST_TOKENS)) for name, count in counts.items()})


def finish_told(finish: object) -> str:
    """OpenAI's finish reason, or our own; `stop` where it is none of these: foreign words stay out of the log."""
    return _FINISHES.get(finish, "stop") if isinstance(finish, str) else "stop"


def _is_whole(number: object, most: int) -> bool:
    return type(number) is int and 0 <= number <= most
