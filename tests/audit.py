"""The books audited from outside: what the log must look like whatever was killed while it was written."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import cast

from trunkline.chat import Receipt
from trunkline.client import Gateway
from trunkline_events import subjects
from trunkline_events.budget import BudgetRefused, BudgetReserved, BudgetSettled, ScopeBooks
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Scope
from trunkline_events.thread import Ending, Metered, Orphaned, RouteDecided, ThreadEvent, ThreadFact
from trunkline_projections.threads import ThreadHistory, books_of, evolve


async def events(gateway: Gateway, *categories: str, aggregate: str | None = None) -> list[RecordedEvent]:
    """The log, or a part of it, oldest first."""
    log = await gateway.log()
    return [event async for event in log.read(scope=Scope(categories, aggregate))]


async def history(gateway: Gateway, thread: str = subjects.NO_THREAD) -> list[RecordedEvent]:
    """What happened in a thread."""
    return await events(gateway, "thread", aggregate=thread)


def kinds(recorded: Iterable[RecordedEvent]) -> list[str]:
    """Their types without category and version: `route-decided`."""
    return [event.type.partition(".")[2].rpartition(".")[0] for event in recorded]


def open_attempts(recorded: Iterable[RecordedEvent]) -> set[str]:
    """Attempts that were decided and have not ended."""
    decided: set[str] = set()
    ended: set[str] = set()
    for event in recorded:
        if isinstance(event.body, RouteDecided):
            decided.add(event.body.attempt_id)
        elif isinstance(event.body, Ending):
            ended.add(event.body.attempt_id)
    return decided - ended


def check_books(recorded: list[RecordedEvent]) -> None:
    """Each attempt ended once, no request was billed twice, and every thread's books follow from its history."""
    facts = [event for event in recorded if event.category == "thread"]
    decided = Counter(event.body.attempt_id for event in facts if isinstance(event.body, RouteDecided))
    ended = Counter(event.body.attempt_id for event in facts if isinstance(event.body, Ending))
    assert set(decided.values()) <= {1}, "an attempt was decided twice"
    assert set(ended.values()) <= {1}, "an attempt ended twice"
    assert set(ended) <= set(decided), "an attempt ended that was never decided"
    billed = Counter(
        (event.aggregate, event.body.request_id) for event in facts if isinstance(event.body, Metered | Orphaned)
    )
    assert not [key for key, count in billed.items() if count > 1], "a request was billed twice"
    by_thread: dict[str, list[RecordedEvent]] = defaultdict(list)
    for event in facts:
        by_thread[event.aggregate].append(event)
    by_thread.pop(subjects.NO_THREAD, None)  # each request there has books of its own
    for thread, steps in by_thread.items():
        state = ThreadHistory()
        for event in steps:
            state = evolve(state, cast("ThreadFact", event.body), event.sequence)
            carried = books_of(cast("ThreadEvent", event.body), event.sequence)
            assert state.books == carried, f"the books of {thread} at {event.sequence} don't follow from its history"
            assert carried.limit_nanos is None or carried.settled_nanos + carried.reserved_nanos <= carried.limit_nanos


def check_receipts(recorded: list[RecordedEvent], receipts: Iterable[Receipt]) -> None:
    """What a caller was told is settled is in the log, as it was told."""
    by_sequence = {event.sequence: event for event in recorded}
    for receipt in receipts:
        event = by_sequence.get(receipt.event)
        assert event is not None, f"lost: event {receipt.event} of request {receipt.request_id}"
        body = event.body
        assert isinstance(body, Metered | Orphaned)
        told = (receipt.request_id, receipt.model, receipt.provider, receipt.attempts)
        assert (body.request_id, body.model, body.provider, body.attempt) == told


def check_limits(recorded: list[RecordedEvent]) -> None:
    """No budget above a thread was exceeded at any event, and each holds what its slices hold."""
    for event in recorded:
        body = event.body
        if isinstance(body, ScopeBooks):
            held = [one for one in body.slices.values() if one.period == body.period]
            assert body.reserved_nanos == sum(max(0, one.granted_nanos - one.spent_nanos) for one in held)
            if body.limit_nanos is not None:
                assert body.settled_nanos + body.reserved_nanos <= body.limit_nanos, f"{event.aggregate} is exceeded"


def check_scopes(recorded: list[RecordedEvent]) -> None:
    """Budgets above threads are within their limits, and none spent what its attempts did not cost."""
    check_limits(recorded)
    spent: dict[str, int] = defaultdict(int)
    reported: dict[str, int] = defaultdict(int)
    closed: set[str] = set()
    for event in recorded:
        body = event.body
        if isinstance(body, BudgetReserved | BudgetSettled | BudgetRefused):
            reported[body.slice] += body.spent_nanos
        if isinstance(body, BudgetSettled) and body.closed:
            closed.add(body.slice)
        if isinstance(body, Metered | Orphaned):
            for name in body.slices.values():
                spent[name] += body.cost_nanos
    for name, nanos in reported.items():
        assert nanos <= spent[name], f"more was reported of slice {name} than its attempts cost"
        assert name not in closed or nanos == spent[name], (
            f"slice {name} was closed with {spent[name] - nanos} unreported"
        )
