"""The read models as a naive fold in plain Python has them: it looks at all events for each cell.

It knows nothing of the code it is held against.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from trunkline_events.budget import BudgetEvent, BudgetRefused
from trunkline_events.envelope import RecordedEvent
from trunkline_events.thread import (
    Aborted,
    AttemptFailed,
    Orphaned,
    RequestRefused,
    RouteDecided,
    ThreadEvent,
    UsageRecorded,
)
from trunkline_events.usage import Usage
from trunkline_projections.sql_tables import Value

Row = dict[str, Value]
Rows = dict[str, list[Row]]

ENDINGS = {"answered": UsageRecorded, "aborted": Aborted, "failed": AttemptFailed, "orphaned": Orphaned}


def naive(events: Sequence[RecordedEvent]) -> Rows:
    """Every table, row by row in the order of its key, from all events at once."""
    known = [event for event in events if isinstance(event.body, ThreadEvent)]
    budgets = [event for event in events if isinstance(event.body, BudgetEvent)]
    lives = _lives(known)
    whose = {event.sequence: _whose_use(event, lived[:place]) for lived in lives for place, event in enumerate(lived)}
    used = [event for event in known if event.sequence in whose]
    under_way = [began for lived in lives if (began := _began(lived))]

    def usage(name: str) -> list[Row]:
        rows = _grouped(used, (name,), lambda event: (whose[event.sequence][name],), _use)
        return [row | _now([of(event) for event in under_way], name, row[name]) for row in rows]

    return {
        "thread_totals": _grouped(known, ("thread",), lambda event: (event.aggregate,), _thread),
        **{f"usage_by_{name}": usage(name) for name in ("key", "model", "provider")},
        "usage_by_day": _grouped(
            used,
            ("day", "key", "model", "provider"),
            lambda event: (_day(event), *whose[event.sequence].values()),
            _use,
        ),
        "open_attempts": sorted(map(_open, under_way), key=lambda row: str(row["attempt_id"])),
        "budgets": _grouped(budgets, ("scope",), lambda event: (event.aggregate,), _budget),
        "route_decisions": [_decision(event) for event in known if isinstance(event.body, RouteDecided)],
        "failures": [row for event in known if (row := _failure(event, whose.get(event.sequence)))],
        "latency": _latency(used, whose),
    }


# -- attempts ----------------------------------------------------------------------------------------------------------

Whose = dict[str, str]


def _lives(events: Iterable[RecordedEvent]) -> list[list[RecordedEvent]]:
    """The events of each attempt."""
    lives: dict[str, list[RecordedEvent]] = {}
    for event in events:
        if isinstance(event.body, (RouteDecided, *ENDINGS.values())):
            lives.setdefault(of(event).attempt_id, []).append(event)
    return list(lives.values())


def _began(lived: list[RecordedEvent]) -> RecordedEvent | None:
    """The first decision since the last ending: none where the attempt isn't under way."""
    began = None
    for event in reversed(lived):
        if not isinstance(event.body, RouteDecided):
            break
        began = event
    return began


def _whose_use(event: RecordedEvent, before: list[RecordedEvent]) -> Whose:
    """An ending belongs to whom its attempt was decided for; what was never decided, to whom it names itself."""
    decided = None if isinstance(event.body, RouteDecided) else _began(before)
    fact = of(decided or event)
    return {"key": fact.key or "-", "model": fact.model, "provider": fact.provider}


def _now(under_way: list[Any], name: str, value: Value) -> Row:
    its = [fact.reserve_nanos for fact in under_way if (getattr(fact, name) or "-") == value]
    return {"reserved_nanos": sum(its), "open_attempts": len(its)}


def _open(event: RecordedEvent) -> Row:
    fact = of(event)
    same = ("attempt_id", "request_id", "attempt", "model", "provider", "reserve_nanos")
    return {
        **{name: getattr(fact, name) for name in same},
        "sequence": event.sequence,
        "since": _time(event),
        "thread": event.aggregate,
        "key": fact.key or "-",
    }


# -- cells -------------------------------------------------------------------------------------------------------------


def of(event: RecordedEvent) -> Any:
    """The body, whatever it is."""
    return event.body


def _when(event: RecordedEvent) -> datetime:
    return datetime.fromtimestamp(event.time, UTC)


def _day(event: RecordedEvent) -> str:
    return _when(event).strftime("%Y-%m-%d")


def _time(event: RecordedEvent) -> str:
    return _when(event).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _grouped(
    events: Iterable[RecordedEvent],
    names: tuple[str, ...],
    key: Callable[[RecordedEvent], tuple[str, ...]],
    columns: Callable[[list[RecordedEvent]], Row],
) -> list[Row]:
    groups: dict[tuple[str, ...], list[RecordedEvent]] = {}
    for event in events:
        groups.setdefault(key(event), []).append(event)
    return [{**dict(zip(names, which, strict=True)), **columns(groups[which])} for which in sorted(groups)]


def _use(events: list[RecordedEvent]) -> Row:
    metered = [of(event) for event in events if isinstance(event.body, UsageRecorded | Aborted)]
    row: Row = {"attempts": sum(isinstance(event.body, RouteDecided) for event in events)}
    row |= {name: sum(isinstance(event.body, cls) for event in events) for name, cls in ENDINGS.items()}
    row |= {name: sum(getattr(fact.usage, name) for fact in metered) for name in Usage.__struct_fields__}
    row["cost_nanos"] = sum(getattr(event.body, "cost_nanos", 0) for event in events)
    return row | {"last_sequence": events[-1].sequence, "last_time": _time(events[-1])}


def _thread(events: list[RecordedEvent]) -> Row:
    last = of(events[-1])
    none = events[-1].aggregate == "-"
    books = {
        "settled_nanos": last.settled_nanos,
        "reserved_nanos": last.reserved_nanos,
        "limit_nanos": last.limit_nanos,
        "open_attempts": len(last.open),
        **_window(last),
    }
    return {
        "requests": sum(isinstance(event.body, RouteDecided) and event.body.attempt == 1 for event in events),
        "refused": sum(isinstance(event.body, RequestRefused) for event in events),
        **_use(events),
        **{name: None if none else value for name, value in books.items()},
    }


def _window(last: Any) -> Row:
    warn_at = None if last.warn_at is None else str(last.warn_at)
    names = {"budget_window": last.window, "budget_zone": last.zone, "budget_period": last.period}
    return {**names, "warn_at": warn_at, "warned": int(last.warned)}


def _budget(events: list[RecordedEvent]) -> Row:
    last = of(events[-1])
    return {
        "refused": sum(isinstance(event.body, BudgetRefused) for event in events),
        **{name: getattr(last, name) for name in ("settled_nanos", "reserved_nanos", "limit_nanos", "team")},
        **_window(last),
        "slices": len(last.slices),
        "last_sequence": events[-1].sequence,
        "last_time": _time(events[-1]),
    }


def _whose(event: RecordedEvent) -> Row:
    fact = of(event)
    return {
        "sequence": event.sequence,
        "time": _time(event),
        "thread": event.aggregate,
        "key": getattr(fact, "key", "") or "-",
        "request_id": fact.request_id,
        "attempt_id": getattr(fact, "attempt_id", None),
        "attempt": getattr(fact, "attempt", None),
    }


def _decision(event: RecordedEvent) -> Row:
    fact = of(event)
    same = ("model", "provider", "reserve_nanos", "max_tokens", "policy_version", "log_seq", "price_version")
    return {
        **_whose(event),
        "operation": fact.asked.operation,
        "asked_model": fact.asked.model,
        "input_bound": fact.asked.input_bound,
        **{name: getattr(fact, name) for name in same},
        "forced_model": fact.override,
        "candidates": msgspec.json.encode(fact.candidates).decode(),
        "left_out": msgspec.json.encode(fact.left_out).decode(),
    }


def _failure(event: RecordedEvent, whose: Whose | None) -> Row | None:
    fact = of(event)
    row = {**_whose(event), "status": None, "latency_us": None, "cost_nanos": 0}
    match fact:
        case UsageRecorded(partial=True):
            row |= {"kind": "cut", "failure": fact.finish, "cost_nanos": fact.cost_nanos}
        case AttemptFailed():
            row |= {"kind": "failed", "failure": fact.failure, "status": fact.status}
        case Orphaned():
            row |= {"kind": "orphaned", "failure": "orphaned", "cost_nanos": fact.cost_nanos}
        case RequestRefused():
            return row | {"kind": "refused", "failure": fact.code, "model": fact.asked.model, "provider": None}
        case _:
            return None
    if not isinstance(fact, Orphaned):
        row["latency_us"] = round(fact.latency_ms * 1000)
    return row | (whose or {})


def _bounds() -> list[int]:
    """1 to 32, and from there on each doubling in sixteen steps."""
    bounds = list(range(1, 33))
    while bounds[-1] < 2**51:
        bounds += [bounds[-1] + step * bounds[-1] // 16 for step in range(1, 17)]
    return bounds


BOUNDS = _bounds()


def _latency(events: list[RecordedEvent], whose: dict[int, Whose]) -> list[Row]:
    found: list[tuple[str, str, str, str, int]] = []
    for event in events:
        fact, names = event.body, whose[event.sequence]
        if isinstance(fact, UsageRecorded):
            for measure, taken in (("latency", fact.latency_ms), ("ttft", fact.ttft_ms)):
                if taken is not None:
                    below = next(bound for bound in BOUNDS if bound > round(taken * 1000))
                    found.append((_day(event), names["model"], names["provider"], measure, below))
    names_of = ("day", "model", "provider", "measure", "below_us")
    return [{**dict(zip(names_of, which, strict=True)), "samples": found.count(which)} for which in sorted(set(found))]
