"""What was measured of gateways side by side, as a table of 120 columns, and beside what is asked of ours."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from trunkline.benchmark.contestants import BARE, OURS
from trunkline.benchmark.others import LITELLM, PORTKEY


class Standing(Struct, frozen=True, kw_only=True):
    """One gateway. Microseconds are CPU of its process and all that it started; a `ratio` is to the bare proxy's.

    What ends in 32 or 128 was measured with so many requests in flight.

    Added milliseconds are over asking the upstream itself at 50 requests a second. `nats_` is our NATS server, which no
    other figure holds. None: not measured.
    """

    name: str
    rate_32: float | None = None
    rate_128: float | None = None
    added_p50_ms: float | None = None
    added_p99_ms: float | None = None
    cpu_us_32: float | None = None
    cpu_us_128: float | None = None
    ratio_32: float | None = None
    ratio_128: float | None = None
    chunk_us: float | None = None
    streams: float | None = None
    first_ms: float | None = None
    resident_mb: float | None = None
    nats_us: float | None = None
    nats_chunk_us: float | None = None
    nats_mb: float | None = None
    failed: str | None = None


class Absent(Struct, frozen=True, kw_only=True):
    """A gateway that was not measured, and why, or how to get it."""

    name: str
    skipped: str


class Goal(Struct, frozen=True, kw_only=True):
    """What is asked of ours; `share` is measured / asked, and None where it was not measured."""

    goal: str
    bound: Literal["at most", "at least"]
    asked: float
    measured: float | None
    share: float | None = None
    met: bool | None = None


_COLUMNS = (
    ("rate/s", "32", 7, "rate_32", ",.0f"),
    ("at once", "128", 7, "rate_128", ",.0f"),
    ("added ms", "p50", 8, "added_p50_ms", ".2f"),
    ("at 50/s", "p99", 8, "added_p99_ms", ".2f"),
    ("CPU µs", "32", 7, "cpu_us_32", ",.0f"),
    ("at once", "128", 7, "cpu_us_128", ",.0f"),
    ("times", "32", 6, "ratio_32", ".2f"),
    ("bare", "128", 6, "ratio_128", ".2f"),
    ("CPU µs", "a chunk", 8, "chunk_us", ",.1f"),
    ("streams", "a sec.", 7, "streams", ",.0f"),
    ("first", "tok. ms", 7, "first_ms", ".1f"),
    ("resident", "MB", 8, "resident_mb", ",.0f"),
)


def heading() -> str:
    """What the columns are, on two lines."""
    lines = (" ".join(f"{column[place]:>{column[2]}}" for column in _COLUMNS) for place in (0, 1))
    return "\n".join(f"{'':<20} {line}" for line in lines)


def line(standing: Standing) -> str:
    """One gateway's figures below the heading."""
    cells = []
    for _, _, width, field, form in _COLUMNS:
        value = getattr(standing, field)
        cells.append(f"{'' if value is None else format(value, form):>{width}}")
    text = f"{standing.name:<20} {' '.join(cells)}".rstrip()
    return text if standing.failed is None else f"{text}\n{'':<20} failed: {standing.failed}"


def goals(standings: Mapping[str, Standing]) -> list[Goal]:
    """What is asked of ours, with both events of every chat in the log, beside what was measured."""
    ours = standings[OURS]

    def per_cpu_second(peer: str, at_once: Literal[32, 128]) -> float | None:
        if peer not in standings:
            return None
        own, theirs = (one.cpu_us_32 if at_once == 32 else one.cpu_us_128 for one in (ours, standings[peer]))
        return None if own is None or theirs is None else theirs / own

    return [
        _most(f"CPU a request, times the {BARE}'s, 32 at once", 4, ours.ratio_32),
        _most(f"CPU a request, times the {BARE}'s, 128 at once", 4, ours.ratio_128),
        _most("  the same, stretched, 32 at once", 3, ours.ratio_32),
        _most("  the same, stretched, 128 at once", 3, ours.ratio_128),
        _least(f"requests a CPU second, times {PORTKEY}'s, 32 at once", 1.4, per_cpu_second(PORTKEY, 32)),
        _least(f"requests a CPU second, times {PORTKEY}'s, 128 at once", 1.4, per_cpu_second(PORTKEY, 128)),
        _least(f"requests a CPU second, times {LITELLM}'s, 32 at once", 12, per_cpu_second(LITELLM, 32)),
        _least(f"requests a CPU second, times {LITELLM}'s, 128 at once", 12, per_cpu_second(LITELLM, 128)),
        _most("added p50 at 50 requests a second, ms", 3, ours.added_p50_ms),
        _most("CPU of a chunk, µs", 40, ours.chunk_us),
        _most("first token after an upstream's 50 ms, ms", 53, ours.first_ms),
        _least("streams of 50 chunks a second on one core", 350, ours.streams),
    ]


def _most(goal: str, asked: float, measured: float | None) -> Goal:
    met = None if measured is None else measured <= asked
    share = None if measured is None else measured / asked
    return Goal(goal=goal, bound="at most", asked=asked, measured=measured, share=share, met=met)


def _least(goal: str, asked: float, measured: float | None) -> Goal:
    met = None if measured is None else measured >= asked
    share = None if measured is None else measured / asked
    return Goal(goal=goal, bound="at least", asked=asked, measured=measured, share=share, met=met)


def goal_line(goal: Goal) -> str:
    """A goal as a line of text."""
    asked = f"{goal.goal:<58} asked {goal.bound:<8} {goal.asked:>5g}"
    if goal.measured is None:
        return f"{asked}  not measured"
    return f"{asked}  measured {goal.measured:>8.2f}  {goal.share:>6.2f} of it  {'met' if goal.met else 'missed'}"
