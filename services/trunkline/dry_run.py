"""Tries a policy on the requests in the log."""

from contextlib import aclosing

from trunkline_actors.dry_run import DryRun, recorded_alone
from trunkline_actors.rates import Rates
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.policy import Policy
from trunkline_events.thread import Ending, RouteDecided

from trunkline.explain import timeline

A_REQUEST = 4
"""Events of a request, at a guess, to begin with: where that finds too few, more are read."""


async def dry_run(log: JetStreamLog, policy: Policy, rates: Rates, *, last: int, since: float | None = None) -> DryRun:
    """Decide the last requests, or those since a Unix time, again under this policy. Raises LogError.

    `rates` are the price lists of today, asked for the prices of that time.
    """
    events = await _since(log, since) if since is not None else await _last(log, last)
    line, run = await timeline(log), DryRun(policy)
    firsts = [event.sequence for event in events if _is_first(event)]
    begin = firsts[-last] if since is None and len(firsts) > last else 0
    for event in events:
        body = event.body
        if isinstance(body, Ending):
            run.ended(body)
        elif isinstance(body, RouteDecided) and _is_first(event) and event.sequence >= begin:
            gateway = line.at(body.log_seq)
            recorded = recorded_alone(event.aggregate, body, gateway)
            run.decided(event.sequence, recorded, rates.at(gateway.registry, body.now))
    return run


def _is_first(event: RecordedEvent) -> bool:
    return isinstance(event.body, RouteDecided) and event.body.attempt == 1


async def _since(log: JetStreamLog, since: float) -> list[RecordedEvent]:
    return await _read(log, await log.position_at(since))


async def _last(log: JetStreamLog, last: int) -> list[RecordedEvent]:
    """The end of the log, as much of it as has so many requests."""
    end, width = await log.end(), last * A_REQUEST
    while True:
        events = await _read(log, max(0, end - width))
        if width >= end or sum(map(_is_first, events)) >= last:
            return events
        width *= 4


async def _read(log: JetStreamLog, after: int) -> list[RecordedEvent]:
    async with aclosing(log.read(after, scope=Scope(("thread",)))) as events:
        return [event async for event in events if isinstance(event.body, RouteDecided | Ending)]
