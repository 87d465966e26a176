"""What a model did over time, put together from what its processes kept of each minute. Pure."""

from typing import Any

from msgspec import Struct
from trunkline_events.money import usd_from_nanos
from trunkline_events.times import format_time

from trunkline_actors.tallies import Tally, percentiles

MINUTE = 60


class Kept(Struct, frozen=True, kw_only=True):
    """One line of one process in one minute."""

    provider: str
    version: str
    tally: Tally


class Series:
    """Steps of `step` minutes, each version apart, merged over processes and provider instances."""

    def __init__(self, step: int, version: str | None = None) -> None:
        self._step = step
        self._version = version
        self._tallies: dict[tuple[int, str], Tally] = {}

    def __len__(self) -> int:
        return len(self._tallies)

    def add(self, minute: int, kept: Kept) -> None:
        """Count what was kept of a minute, where it is of a version that is asked for."""
        if self._version is None or kept.version == self._version:
            place = minute // self._step * self._step, kept.version
            self._tallies.setdefault(place, Tally()).merge(kept.tally)

    def points(self) -> list[dict[str, Any]]:
        """In order of time, then version; steps in which nothing ended are left out."""
        return [_point(minute, version, self._tallies[minute, version]) for minute, version in sorted(self._tallies)]


def _point(minute: int, version: str, tally: Tally) -> dict[str, Any]:
    p50, p95 = percentiles(tally.latency)
    ttft_p50, ttft_p95 = percentiles(tally.ttft)
    return {
        "at": format_time(minute * MINUTE),
        "version": version,
        "calls": tally.calls,
        "failures": tally.bad,
        "success": tally.success,
        "p50_ms": p50,
        "p95_ms": p95,
        "ttft_p50_ms": ttft_p50,
        "ttft_p95_ms": ttft_p95,
        "tokens_per_s": tally.tokens_per_s,
        "cost_usd": usd_from_nanos(tally.cost_nanos),
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
    }
