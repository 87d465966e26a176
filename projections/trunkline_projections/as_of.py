"""The gateway as it was at one position of the log: registry, policy, breakers, budgets and the books of threads.

Registry, policy and breakers are folded from their events, which are few; the books of a budget or a thread, which have
many, are in its last event.
"""

from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import Struct, field
from trunkline_events import subjects
from trunkline_events.budget import BudgetFact, ScopeBooks
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.money import usd_from_nanos
from trunkline_events.registry import Model, Provider
from trunkline_events.thread import Books, ThreadEvent

from trunkline_projections import budgets, circuits, models, policies
from trunkline_projections.budgets import Budget
from trunkline_projections.circuits import CLOSED, Circuit
from trunkline_projections.folds import GATEWAY, Gateway
from trunkline_projections.threads import books_of

FOLDED = (*models.CATEGORIES, *policies.CATEGORIES, *circuits.CATEGORIES)
"""The categories whose every event counts; of the others the last event of each aggregate says it all."""

Turn = Callable[[Books, float], Books]
"""(books, now): the books with their window turned to `now`, as whoever serves a request would read them."""

TurnScope = Callable[[ScopeBooks, float], ScopeBooks]
"""The same for the books of a budget above threads."""


class Thread(Struct, frozen=True, kw_only=True):
    """A thread's books, and the sequence of the event they are from."""

    books: Books
    sequence: int


class State(Struct, frozen=True, kw_only=True):
    """What was so when the event at `sequence` was the last one; `time` is Unix time, by which windows were turned.

    Every mapping is in the order of its ids. `circuits` has a breaker for each instance that was registered; `budgets`,
    by scope, has all that were ever set. `more` is the id after which further threads follow, None where these were the
    last. `unknown` holds the sequences of events that this version can't read: what they changed is missing here.
    """

    sequence: int
    time: float
    models: dict[str, Model] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)
    routing: policies.Routing = policies.EMPTY
    circuits: dict[str, Circuit] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    threads: dict[str, Thread] = field(default_factory=dict)
    more: str | None = None
    unknown: list[int] = field(default_factory=list)


class Builder:
    """Takes the events of one position in, in any order of categories, and makes the state of them."""

    def __init__(self, sequence: int, time: float, turn: Turn, turn_scope: TurnScope) -> None:
        self._sequence, self._time = sequence, time
        self._turn, self._turn_scope = turn, turn_scope
        self._gateway = Gateway()
        self._budgets: dict[str, Budget] = {}
        self._threads: dict[str, Thread] = {}
        self._unknown: list[int] = []
        self._last = ""
        self._more: str | None = None

    def happened(self, event: RecordedEvent) -> None:
        """An event of the registry, the policy or a breaker, oldest first. One after the position changes nothing."""
        if event.sequence > self._sequence:
            return
        if isinstance(event.body, Unknown):
            self._unknown.append(event.sequence)
        else:
            self._gateway = GATEWAY.step(self._gateway, event)

    def was_last_of_its_budget(self, event: RecordedEvent) -> None:
        """The last event of a budget above threads, budgets in the order of their scopes."""
        if isinstance(event.body, Unknown):
            self._unknown.append(event.sequence)
        else:
            books = budgets.books_of(cast("BudgetFact", event.body))
            self._budgets[event.aggregate] = Budget(books=self._turn_scope(books, self._time), sequence=event.sequence)

    def was_last_of_its_thread(self, event: RecordedEvent, limit: int | None = None) -> bool:
        """The last event of a thread, threads in the order of their ids; False where `limit` of them were taken.

        Requests of no thread share none of each other's books, so they are no thread here either.
        """
        if event.aggregate == subjects.NO_THREAD:
            return True
        if limit is not None and len(self._threads) >= limit:
            self._more = self._last
            return False
        self._last = event.aggregate
        if isinstance(event.body, Unknown):
            self._unknown.append(event.sequence)
        else:
            books = books_of(cast("ThreadEvent", event.body), event.sequence)
            self._threads[event.aggregate] = Thread(books=self._turn(books, self._time), sequence=event.sequence)
        return True

    def state(self) -> State:
        """What it all came to."""
        registry, breakers = self._gateway.registry, self._gateway.circuits
        return State(
            sequence=self._sequence,
            time=self._time,
            models=dict(sorted(registry.models.items())),
            providers=dict(sorted(registry.providers.items())),
            routing=self._gateway.routing,
            circuits={name: breakers.get(name, CLOSED) for name in sorted(registry.providers)},
            budgets=self._budgets,
            threads=self._threads,
            more=self._more,
            unknown=sorted(self._unknown),
        )


def shown(state: State) -> dict[str, Any]:
    """The state with the names and units of the commands that list models, providers, circuits, budgets and threads.

    When a window ends is not in it: that was so already, and follows from the window and its zone.
    """
    return {
        "models": [msgspec.to_builtins(model) for model in state.models.values()],
        "providers": [msgspec.to_builtins(provider) for provider in state.providers.values()],
        "policy": _policy(state.routing),
        "circuits": [_circuit(name, circuit) for name, circuit in state.circuits.items()],
        "budgets": [_budget(scope, budget) for scope, budget in state.budgets.items()],
        "threads": [_thread(name, thread) for name, thread in state.threads.items()],
        "after": state.more,
        "unknown": state.unknown,
    }


def _policy(routing: policies.Routing) -> dict[str, Any]:
    return {
        "version": routing.version,
        "policy": msgspec.to_builtins(routing.policy),
        "override": msgspec.to_builtins(routing.override),
        "seq": routing.sequence,
    }


def _circuit(name: str, circuit: Circuit) -> dict[str, Any]:
    return {
        "provider": name,
        "state": circuit.state,
        "failures": circuit.failures,
        "opened_at": circuit.opened_at,
        "retry_at": circuit.retry_at,
    }


def _money(books: Books | ScopeBooks) -> dict[str, Any]:
    return {
        "limit_usd": None if books.limit_nanos is None else usd_from_nanos(books.limit_nanos),
        "window": books.window,
        "time_zone": books.zone,
        "warn_at": books.warn_at,
        "settled_usd": usd_from_nanos(books.settled_nanos),
        "reserved_usd": usd_from_nanos(books.reserved_nanos),
    }


def _budget(scope: str, budget: Budget) -> dict[str, Any]:
    books = budget.books
    return {
        "scope": scope,
        **_money(books),
        "team": books.team,
        "holders": sorted({one.holder for one in books.slices.values()}),
        "seq": budget.sequence,
    }


def _thread(name: str, thread: Thread) -> dict[str, Any]:
    books = thread.books
    return {
        "thread_id": name,
        **_money(books),
        "open": sorted({attempt.request_id for attempt in books.open.values()}),
        "tokens": msgspec.to_builtins(books.tokens),
        "seq": thread.sequence,
    }
