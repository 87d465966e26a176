"""Requests under way in a router: who waits for each, and how far it has come."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field
from trunkline_events.refusal import Refused
from trunkline_events.thread import Asked, RouteDecided

from trunkline_actors.bus import Bus, Delivery
from trunkline_actors.followups import Course
from trunkline_actors.spans import Context, routed

if TYPE_CHECKING:
    from trunkline_actors.runtime import Runtime

ABORT_GRACE = 0.5
"""Seconds a process that doesn't know a request waits before it says so: whoever knows it answers first."""


class Run(Struct, kw_only=True):
    """One request in a router. `scope` is set where the caller chose the id; `base` counts attempts of earlier runs.

    `owned`: the claim on the id is ours, so that others may join; until then we may be about to join another process.
    `drawn_at`: its id was drawn then (Unix time) for this request alone; `again`: it is sent once more; `unclaimed`: so
    the id was never claimed, and its answer is not kept.
    `leaving`: it waits to be taken over by another process.
    `cache_s`: how old an answer from the cache may be, and for how long its own is kept; `reused`: it had one.
    `leave_claim`: the claim on the id says more than this run knows, so this run must not change it.
    `key` is the id of the API key, `limits` what its answer says of the limits of that; `sent` the number of the last
    chunk sent to callers; `on_abort` is called when somebody aborts it; `course` is how its attempts have fared.
    """

    request_id: str
    scope: str | None
    thread: str
    listeners: list[str]
    key: str = ""
    limits: str = ""
    fingerprint: str = ""
    traceparent: str | None = None
    base: int = 0
    attempt_ids: list[str] = field(default_factory=list)
    sent: int = 0
    dispatched: bool = False
    aborted: bool = False
    owned: bool = False
    drawn_at: float | None = None
    again: bool = False
    unclaimed: bool = False
    leaving: bool = False
    leave_claim: bool = False
    cache_s: float = 0.0
    reused: bool = False
    on_abort: Callable[[], None] | None = None
    course: Course = Course()
    span: Context | None = None
    decisions: list[tuple[RouteDecided, int, float]] = field(default_factory=list)
    """For its span: what was decided, at which sequence of the log, and when the log had it."""
    code: str = ""
    """What it was refused with; of one that has ended well, nothing."""
    ended: bool = False

    def attempt_id(self, attempt: int) -> str:
        """The id of the n-th attempt of this run: unlike that of any other attempt, ever."""
        return f"{self.scope or self.request_id}-{self.base + attempt}"

    @property
    def attempts(self) -> int:
        """How many attempts were decided."""
        return len(self.attempt_ids)


class InFlight:
    """The runs of one router, by scope and by request id."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._by_scope: dict[str, Run] = {}
        self._by_request: dict[str, Run] = {}

    @contextmanager
    def holding(self, run: Run, asked: Asked) -> Iterator[None]:
        """Know of this run while it lasts; then count it, and have its spans made."""
        self._by_request[run.request_id] = run
        if run.scope:
            self._by_scope[run.scope] = run
        began, totals, tracing = time.time(), self._runtime.totals, self._runtime.tracing
        totals.running += 1
        if tracing is not None:
            run.span, run.traceparent = tracing.begin(run.traceparent)
        try:
            yield
        finally:
            totals.running -= 1
            now = time.time()
            if run.code or run.ended:
                totals.request(asked.operation, run.code, now - began)
            if tracing is not None and run.span is not None:
                said = (run.request_id, run.thread, asked, run.code, run.decisions)
                tracing.record(routed(run.span, now, *said, reused=run.reused))
            if self._by_request.get(run.request_id) is run:
                del self._by_request[run.request_id]
            if run.scope and self._by_scope.get(run.scope) is run:
                del self._by_scope[run.scope]

    def listen(self, scope: str, inbox: str) -> bool:
        """Add a caller to a run, if we have it."""
        run = self._by_scope.get(scope)
        if run is None:
            return False
        if inbox not in run.listeners:
            run.listeners.append(inbox)
        return True

    def serve(self, scope: str, inboxes: list[str]) -> bool:
        """Add callers to a run of ours that goes on here, and is not about to be handed over."""
        run = self._by_scope.get(scope)
        if run is None or not run.owned or run.leaving:
            return False
        run.listeners += [inbox for inbox in inboxes if inbox not in run.listeners]
        return True

    def differs(self, scope: str, fingerprint: str) -> bool:
        """Whether a run of ours has this id for another request."""
        run = self._by_scope.get(scope)
        return run is not None and run.fingerprint != fingerprint

    def owns(self, scope: str) -> bool:
        """Whether a request is ours to run: the process that only asks who has it must not join itself."""
        run = self._by_scope.get(scope)
        return run is not None and run.owned

    def waits(self, scope: str, inbox: str) -> bool:
        """Whether this caller is one of those that a run of ours is to answer."""
        run = self._by_scope.get(scope)
        return run is not None and inbox in run.listeners

    async def abort(self, bus: Bus, delivery: Delivery) -> Refused | None:
        """Mark a run as aborted. Where a provider has it, the provider answers, once its call is cut."""
        request_id = abort_target(delivery.data)
        if isinstance(request_id, Refused):
            return request_id
        run = self._by_request.get(request_id)
        if run is None:
            await asyncio.sleep(ABORT_GRACE)
            return unknown_request(request_id)
        run.aborted = True
        if run.on_abort is not None:
            run.on_abort()
        if not run.dispatched:
            await bus.publish(delivery.reply, b'{"ok":true}')
        return None


class _Abort(Struct):
    request_id: str


def abort_target(data: bytes) -> str | Refused:
    """Which request an abort means."""
    try:
        return msgspec.json.decode(data, type=_Abort).request_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refused(code="invalid_request", message=f'send {{"request_id": "…"}}: {error}', param="request_id")


def unknown_request(request_id: str) -> Refused:
    """Nobody here runs this request."""
    return Refused(code="not_found", message=f"no request {request_id!r} is running", param="request_id")
