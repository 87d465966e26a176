"""The actor for metrics: what a model does now, and what it did over time."""

from typing import Any

import msgspec
from msgspec import structs
from trunkline_events import subjects
from trunkline_events.log import LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.times import format_time, parse_time

from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Reply, endpoint
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.series import MINUTE, Series

HOUR = 3600.0
MOST_POINTS = 2_000
"""Some 700 KB: what one message can hold."""
LONGEST_STEP = 7 * 86_400
"""Seconds: as long as minutes are kept."""
LATEST = 4_102_444_800.0
"""The end of this century."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `models.metrics`: times as RFC 3339 or Unix time, by default the last hour in minutes."""

    id: str
    since: str | float | None = None
    until: str | float | None = None
    step_s: int = MINUTE
    version: str | None = None


class MetricsActor(ServiceActor):
    """Shows what calls to a model took, cost and came to."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-metrics", runtime.version, {"process": runtime.name})
        self._runtime = runtime

    def endpoints(self) -> list[Endpoint]:
        return [endpoint(self.bus, "models-metrics", f"{subjects.MODELS}.metrics", Asked, self._metrics)]

    async def _metrics(self, given: Asked, _delivery: Delivery) -> Reply:
        runtime = self._runtime
        if given.id not in runtime.gateway.state.registry.models:
            await runtime.gateway.catch_up()
        if given.id not in runtime.gateway.state.registry.models:
            return Refused(code="model_not_found", message=f"no model is registered as {given.id!r}", param="id")
        asked = _range(given, runtime.clock())
        if isinstance(asked, Refused):
            return asked
        since, until = asked
        series = Series(given.step_s // MINUTE, given.version)
        try:
            async for minute, kept in runtime.minutes.read(given.id, since, until):
                series.add(minute, kept)
        except LogUnavailable:
            return Refused(code="unavailable", message="the metrics can't be read right now; ask again in a moment")
        if len(series) > MOST_POINTS:
            return _invalid(f"that is more than {MOST_POINTS:,} points; take a larger step or a shorter time", "step_s")
        return {
            "id": given.id,
            "now": self._now(given),
            "since": format_time(since * MINUTE),
            "until": format_time(until * MINUTE),
            "step_s": given.step_s,
            "series": series.points(),
        }

    def _now(self, given: Asked) -> dict[str, Any]:
        """The last five minutes, by version."""
        return {
            version: structs.asdict(measured)
            for version, measured in self._runtime.board.versions(given.id).items()
            if given.version is None or version == given.version
        }


def _range(given: Asked, now: float) -> tuple[int, int] | Refused:
    """The minutes that are asked for, from the first one up to before the last, or why that makes no sense."""
    step = given.step_s
    if not MINUTE <= step <= LONGEST_STEP or step % MINUTE:
        return _invalid(f"step_s must be a multiple of {MINUTE}, and at most {LONGEST_STEP:,} (7 days)", "step_s")
    until = _time(given.until, now, "until")
    if isinstance(until, Refused):
        return until
    since = _time(given.since, until - HOUR, "since")
    if isinstance(since, Refused):
        return since
    if since >= until:
        return _invalid("since must be before until", "since")
    # Whole steps: a part of one would look like a model that is used less.
    return int(since // step * step // MINUTE), int(-(-until // step) * step // MINUTE)


def _time(given: str | float | None, default: float, param: str) -> float | Refused:
    if given is None:
        return default
    try:
        moment = given if isinstance(given, float) else parse_time(given)
    except (ValueError, OverflowError):
        return _invalid(f"{given!r} is no time; write 2026-11-20T12:00:00Z, or a Unix time", param)
    return min(max(moment, 0.0), LATEST)


def _invalid(message: str, param: str) -> Refused:
    return Refused(code="invalid_request", message=message, param=param)
