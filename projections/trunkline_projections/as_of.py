"""The gateway as it was at one position of the log: registry, breakers and the books of threads.

Registry and breakers are folded from their events, which are few; a thread's books are in its last event.
Routing policies will join them when the log has some.
"""

from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import Struct, field
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.money import usd_from_nanos
from trunkline_events.registry import Model, Provider
from trunkline_events.thread import Books, ThreadEvent

from trunkline_projections.circuits import CLOSED, Circuit
from trunkline_projections.folds import GATEWAY, Gateway
from trunkline_projections.threads import books_of

Turn = Callable[[Books, float], Books]
"""(books, now): the books with their window turned to `now`, as whoever serves a request would read them."""


class Thread(Struct, frozen=True, kw_only=True):
    """A thread's books, and the sequence of the event they are from."""

    books: Books
    sequence: int


class State(Struct, frozen=True, kw_only=True):
    """What was so when the event at `sequence` was the last one; `time` is Unix time, by which windows were turned.

    Every mapping is in the order of its ids. `circuits` has a breaker for each instance that was registered and for
    each that ever had one. `more` is the id after which further threads follow, None where these were the last.
    `unknown` holds the sequences of events that this version can't read: what they changed is missing here.
    """

    sequence: int
    time: float
    models: dict[str, Model] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)
    circuits: dict[str, Circuit] = field(default_factory=dict)
    threads: dict[str, Thread] = field(default_factory=dict)
    more: str | None = None
    unknown: list[int] = field(default_factory=list)


class Builder:
    """Takes the events of one position in, in any order of categories, and makes the state of them."""

    def __init__(self, sequence: int, time: float, turn: Turn) -> None:
        self._sequence, self._time, self._turn = sequence, time, turn
        self._gateway = Gateway()
        self._threads: dict[str, Thread] = {}
        self._unknown: list[int] = []
        self._last = ""
        self._more: str | None = None

    def happened(self, event: RecordedEvent) -> None:
        """An event of the registry or of a breaker, oldest first. One after the position changes nothing."""
        if event.sequence > self._sequence:
            return
        if isinstance(event.body, Unknown):
            self._unknown.append(event.sequence)
        else:
            self._gateway = GATEWAY.step(self._gateway, event)

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
        registry, circuits = self._gateway.registry, self._gateway.circuits
        return State(
            sequence=self._sequence,
            time=self._time,
            models=dict(sorted(registry.models.items())),
            providers=dict(sorted(registry.providers.items())),
            circuits={name: circuits.get(name, CLOSED) for name in sorted({*registry.providers, *circuits})},
            threads=self._threads,
            more=self._more,
            unknown=sorted(self._unknown),
        )


def shown(state: State) -> dict[str, Any]:
    """The state with the names and units of the commands that list models, providers, circuits and threads."""
    return {
        "models": [msgspec.to_builtins(model) for model in state.models.values()],
        "providers": [msgspec.to_builtins(provider) for provider in state.providers.values()],
        "circuits": [_circuit(name, circuit) for name, circuit in state.circuits.items()],
        "threads": [_thread(name, thread) for name, thread in state.threads.items()],
        "after": state.more,
        "unknown": state.unknown,
    }


def _circuit(name: str, circuit: Circuit) -> dict[str, Any]:
    return {
        "provider": name,
        "state": circuit.state,
        "failures": circuit.failures,
        "opened_at": circuit.opened_at,
        "retry_at": circuit.retry_at,
    }


def _thread(name: str, thread: Thread) -> dict[str, Any]:
    books = thread.books
    return {
        "thread_id": name,
        "limit_usd": None if books.limit_nanos is None else usd_from_nanos(books.limit_nanos),
        "window": books.window,
        "settled_usd": usd_from_nanos(books.settled_nanos),
        "reserved_usd": usd_from_nanos(books.reserved_nanos),
        "open": sorted({attempt.request_id for attempt in books.open.values()}),
        "tokens": msgspec.to_builtins(books.tokens),
        "seq": thread.sequence,
    }
