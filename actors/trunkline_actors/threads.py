"""The actor for threads: sets their budgets, and says how their books stand."""

from typing import Any, cast

import msgspec
from trunkline_events import headers, subjects
from trunkline_events.envelope import RecordedEvent
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, ThreadEvent
from trunkline_projections.threads import books_of

from trunkline_actors import money
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Page, Reply, endpoint, shown_budget
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command


class Configure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `threads.configure`."""

    thread_id: str
    budget: money.Budget = money.Budget()
    reason: str | None = None


class ThreadId(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of what concerns one thread."""

    thread_id: str


class ThreadsActor(ServiceActor):
    """Configures threads and shows their books."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-threads", runtime.version, {"process": runtime.name})
        self._runtime = runtime

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "configure", f"{subjects.THREADS}.configure", Configure, self._configure),
            endpoint(self.bus, "get", f"{subjects.THREADS}.get", ThreadId, self._get),
            endpoint(self.bus, "list", f"{subjects.THREADS}.list", Page, self._list),
        ]

    async def _configure(self, given: Configure, delivery: Delivery) -> Reply:
        if problem := subjects.id_problem(given.thread_id):
            return Refused(code="invalid_request", message=problem, param="thread_id")
        request_id = delivery.header(headers.REQUEST) or self._runtime.new_id()
        command: Command[Books] = Command(
            category="thread",
            aggregate=given.thread_id,
            id=f"{delivery.subject}/{subjects.encode_id(given.thread_id)}/{headers.encode_value(request_id)}",
            decide=lambda books, now: money.configure(books, request_id, given.budget, given.reason, now),
            actor=self._runtime.name,
            cause=request_id,
        )
        decided = await self._runtime.shell.execute(self._runtime.ledger, command)
        if isinstance(decided, Refused):
            return decided
        assert decided is not None
        books = books_of(cast("ThreadEvent", decided.event), decided.sequence)
        return _shown(given.thread_id, books, decided.sequence, self._runtime.clock())

    async def _get(self, given: ThreadId, delivery: Delivery) -> Reply:
        recorded = await self._runtime.log.last("thread", given.thread_id)
        if recorded is None or given.thread_id == subjects.NO_THREAD:
            return Refused(
                code="not_found", message=f"nothing has happened in thread {given.thread_id!r}", param="thread_id"
            )
        return self._show(recorded)

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
