"""The actor for threads: configures them, and says how their books stand."""

import asyncio
from typing import Any, cast

import msgspec
from msgspec import structs
from trunkline_events import headers, subjects
from trunkline_events.envelope import Event, RecordedEvent
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, ThreadEvent
from trunkline_projections.threads import books_of

from trunkline_actors import money, thread_settings
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Page, Reply, endpoint, shown_budget
from trunkline_actors.dependents import Dependents, settings_at
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.requests import models_named
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command
from trunkline_actors.thread_settings import Settings


class Configure(thread_settings.Change, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `threads.configure`: what isn't given stays as it is."""

    thread_id: str
    reason: str | None = None


class _Configuring:
    """A thread's books and settings, for one change. The index of dependents names it before its event is there."""

    def __init__(self, runtime: Runtime, dependents: Dependents, change: thread_settings.Change) -> None:
        self._runtime = runtime
        self._dependents = dependents
        self._change = change

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._runtime.ledger.lock(aggregate)

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[tuple[Books, Settings], int | None, bool]:
        books, sequence, stale = await self._runtime.ledger.load(aggregate, fresh=fresh)
        settings = await settings_at(self._runtime, books.config_seq)
        wanted = thread_settings.changed(settings, self._change)
        await self._dependents.note(aggregate, models_named(wanted.model, wanted.preferences))
        return (books, settings), sequence, stale

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        self._runtime.ledger.learn(aggregate, event, sequence)


class ThreadId(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of what concerns one thread."""

    thread_id: str


class ThreadsActor(ServiceActor):
    """Configures threads and shows their books."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-threads", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._dependents = Dependents(runtime)

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "configure", f"{subjects.THREADS}.configure", Configure, self._configure),
            endpoint(self.bus, "get", f"{subjects.THREADS}.get", ThreadId, self._get),
            endpoint(self.bus, "list", f"{subjects.THREADS}.list", Page, self._list),
        ]

    async def _configure(self, given: Configure, delivery: Delivery) -> Reply:
        if problem := subjects.id_problem(given.thread_id):
            return Refused(code="invalid_request", message=problem, param="thread_id")
        await self._runtime.gateway.catch_up()
        if refused := thread_settings.problem_of(given, self._runtime.gateway.state.registry):
            return refused
        request_id = delivery.header(headers.REQUEST) or self._runtime.new_id()
        command: Command[tuple[Books, Settings]] = Command(
            category="thread",
            aggregate=given.thread_id,
            id=f"{delivery.subject}/{subjects.encode_id(given.thread_id)}/{headers.encode_value(request_id)}",
            decide=lambda state, now: thread_settings.configure(*state, given, request_id, given.reason, now),
            actor=self._runtime.name,
            cause=request_id,
        )
        source = _Configuring(self._runtime, self._dependents, given)
        decided = await self._runtime.shell.execute(source, command)
        if isinstance(decided, Refused):
            return decided
        assert decided is not None
        books = books_of(cast("ThreadEvent", decided.event), decided.sequence)
        shown = _shown(given.thread_id, books, decided.sequence, self._runtime.clock())
        return {**shown, **await self._settings(books)}

    async def _get(self, given: ThreadId, delivery: Delivery) -> Reply:
        recorded = await self._runtime.log.last("thread", given.thread_id)
        if recorded is None or given.thread_id == subjects.NO_THREAD:
            return Refused(
                code="not_found", message=f"nothing has happened in thread {given.thread_id!r}", param="thread_id"
            )
        books = books_of(cast("ThreadEvent", recorded.body), recorded.sequence)
        return {**self._show(recorded), **await self._settings(books)}

    async def _settings(self, books: Books) -> dict[str, Any]:
        return structs.asdict(await settings_at(self._runtime, books.config_seq))

    async def _list(self, given: Page, delivery: Delivery) -> Reply:
        if problem := given.problem():
            return problem
        known = await self._runtime.log.aggregates("thread")
        after = [thread for thread in known if thread > given.after and thread != subjects.NO_THREAD]
        chosen = after[: given.limit]
        found = [await self._runtime.log.last("thread", thread) for thread in chosen]
        return {
            "threads": [self._show(recorded) for recorded in found if recorded],
            "after": chosen[-1] if len(after) > len(chosen) else None,
        }

    def _show(self, recorded: RecordedEvent) -> dict[str, Any]:
        books = books_of(cast("ThreadEvent", recorded.body), recorded.sequence)
        return _shown(recorded.aggregate, books, recorded.sequence, self._runtime.clock())


def _shown(thread: str, books: Books, sequence: int, now: float) -> dict[str, Any]:
    """A thread's books as commands show them, their window turned to now."""
    books = money.turn(books, now)
    return {
        "thread_id": thread,
        **shown_budget(books, now),
        "open": sorted({attempt.request_id for attempt in books.open.values()}),
        "tokens": books.tokens,
        "seq": sequence,
    }
