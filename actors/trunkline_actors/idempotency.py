"""What to do with a request id that its caller chose: run it, join it, or give the answer it had.

The same id never calls upstream twice and never bills twice, whichever process gets the repeat and whoever died.
"""

import asyncio
from contextlib import aclosing

import nats.errors
import structlog
from msgspec import Struct
from trunkline_events import headers, subjects
from trunkline_events.log import LogUnavailable, Scope
from trunkline_events.refusal import Refused
from trunkline_events.thread import AttemptFailed, Ending, RouteDecided

from trunkline_actors.claims import Claim, Held, Taken
from trunkline_actors.dispatch import Join, encode
from trunkline_actors.endings import cost_of
from trunkline_actors.inflight import Run
from trunkline_actors.replaying import answered_before, replay
from trunkline_actors.runtime import Runtime

log = structlog.get_logger()

JOIN_WAIT = 1.0
"""Seconds to wait for a process to say that it runs the request."""
ENDING_POLL = 0.5
FRESH = 60.0
"""Seconds for which an id that was drawn needs no claim: whoever decides the same again is told so by the log, which
knows the ids of its events for twice as long."""
READERS = 4
"""Requests whose past is read at once: a process that dies leaves many, and all ask again at about the same time."""


class Settled(Struct, frozen=True):
    """Nothing is to be run: the caller has been served, or is to be told this."""

    refused: Refused | None = None


ANOTHER_REQUEST = Refused(
    code="conflict", message="this request id was used for another request; use a new one", param=headers.REQUEST
)
_LOST = Settled(Refused(code="unavailable", message="the answer was lost on its way; ask again with this request id"))


class Idempotency:
    """Claims request ids for one router."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reading = asyncio.Semaphore(READERS)

    async def claim(self, run: Run, deadline: float) -> Settled | None:
        """None: the request is ours to run. Raises LogUnavailable."""
        assert run.scope is not None
        if run.drawn_at is not None:
            if not run.again and abs(self._runtime.clock() - run.drawn_at) < FRESH:
                run.owned = run.unclaimed = True
                return None
            if await self._join(run):
                return Settled()
        while True:
            now = self._runtime.clock()
            since = now if run.drawn_at is None else min(now, run.drawn_at)
            taken = await self._runtime.claims.take(run.scope, since, run.fingerprint)
            if isinstance(taken, Held):
                settled, taken_over = await self._held(run, taken, deadline)
                if settled is not None:
                    return settled
                if taken_over is None:
                    continue
                taken = taken_over
            run.owned = True
            run.base = taken.attempts
            if run.drawn_at is not None and not taken.attempts:
                return await self._find_out_unclaimed(run, run.drawn_at, deadline)
            return None

    async def _find_out_unclaimed(self, run: Run, drawn_at: float, deadline: float) -> Settled | None:
        """As `_find_out`, for a run that may have been begun before without a claim."""
        settled = await self._find_out(run, Claim(state="running", since=drawn_at), deadline)
        run.leave_claim = settled is not None
        return settled

    async def _held(self, run: Run, held: Held, deadline: float) -> tuple[Settled | None, Taken | None]:
        assert run.scope is not None
        run.leave_claim = True
        if held.claim.fingerprint != run.fingerprint:
            return Settled(ANOTHER_REQUEST), None
        if held.claim.state == "answered":
            return await self._replay_to_all(run.listeners, held.claim), None
        if await self._join(run):
            return Settled(), None
        # Whoever had it is gone. Take its place, then see in the log how far it came.
        taken = await self._runtime.claims.take_over(run.scope, held, self._runtime.clock(), run.fingerprint)
        if taken is None:
            return None, None
        run.owned = True
        settled = await self._find_out(run, held.claim, deadline)
        if settled is None:
            run.leave_claim = False
            taken = Taken(taken.revision, run.base)
        return settled, taken

    async def catch_up(self, run: Run, served: list[str]) -> None:
        """Give the answer to those who asked for it when it was on its way already."""
        if run.scope is None:
            return
        done = set(served)
        for inbox in run.listeners:  # which may grow while we wait
            if inbox in done:
                continue
            if run.unclaimed:  # whoever gave the answer remembers it for a while
                join = encode(Join(run.scope, inbox))
                await self._runtime.bus.publish(subjects.JOIN, join, reply=self._runtime.bus.nats.new_inbox())
                continue
            held = await self._runtime.claims.read(run.scope)
            settled = await self._replay(inbox, held.claim) if held and held.claim.state == "answered" else _LOST
            if settled.refused is not None:
                await self._runtime.bus.refuse(inbox, settled.refused, "chat", run.request_id)

    async def remind(self, scope: str, listeners: list[str]) -> bool:
        """Give the kept answer, if there is one, to callers who seem to have missed it; whether they have it now."""
        try:
            held = await self._runtime.claims.read(scope)
        except LogUnavailable:
            return False
        if held is None or held.claim.state != "answered":
            return False
        return (await self._replay_to_all(listeners, held.claim)).refused is None

    async def _replay_to_all(self, listeners: list[str], claim: Claim) -> Settled:
        settled = Settled()
        for inbox in listeners:  # which may grow while we wait
            settled = await self._replay(inbox, claim)
            if settled.refused is not None:
                break
        return settled

    async def _replay(self, inbox: str, claim: Claim) -> Settled:
        if claim.messages is None:
            return Settled(answered_before(claim.headers))
        await replay(self._runtime.bus, inbox, claim.messages, {**claim.headers, headers.REPLAYED: "true"})
        return Settled()

    async def _join(self, run: Run) -> bool:
        """Hand everyone who waits over to the process that runs the request; False where there is none any more."""
        assert run.scope is not None
        while run.listeners:
            try:
                join = encode(Join(run.scope, run.listeners[0]))
                await self._runtime.bus.nats.request(subjects.JOIN, join, timeout=JOIN_WAIT)
            except (nats.errors.Error, TimeoutError):
                return False
            run.listeners.pop(0)
        return True

    async def _find_out(self, run: Run, claim: Claim, deadline: float) -> Settled | None:
        """Read what the lost run left in the log; wait for an attempt that is still open to be ended by the keeper."""
        assert run.scope is not None
        while True:
            if not await self._is_open(run.scope, run.thread):
                last, ending = await self._history(run.scope, run.thread, claim.since - 5)
                if last is None:
                    return None
                run.base = max(run.base, int(last.attempt_id.rpartition("-")[2]))
                if isinstance(ending, AttemptFailed):
                    return None
                if ending is not None:
                    return await self._after_loss(run, ending)
            if self._runtime.clock() > deadline:
                return Settled(Refused(code="timeout", message="the request was lost and has not been settled yet"))
            await asyncio.sleep(ENDING_POLL)

    async def _is_open(self, scope: str, thread: str) -> bool:
        """Whether an attempt of this request is under way in its thread, by the thread's books: one message to read."""
        if thread == subjects.NO_THREAD:
            return False
        books, _, _ = await self._runtime.ledger.load(thread, fresh=True)
        return any(attempt_id.startswith(f"{scope}-") for attempt_id in books.open)

    async def _after_loss(self, run: Run, ending: Ending) -> Settled:
        """It was settled: give the answer, where it was kept after all, or else the receipt."""
        assert run.scope is not None
        held = await self._runtime.claims.read(run.scope)
        if held is not None and held.claim.state == "answered":
            return await self._replay_to_all(run.listeners, held.claim)
        return Settled(answered_before({headers.MODEL: ending.model, "cost_nanos": str(cost_of(ending))}))

    async def _history(self, scope: str, thread: str, since: float) -> tuple[RouteDecided | None, Ending | None]:
        last: RouteDecided | None = None
        ending: Ending | None = None
        async with (
            self._reading,
            aclosing(self._runtime.log.read(scope=Scope(("thread",), thread), since=since)) as read,
        ):
            async for event in read:
                body = event.body
                if isinstance(body, RouteDecided) and body.attempt_id.startswith(f"{scope}-"):
                    last, ending = body, None
                elif isinstance(body, Ending) and last is not None and body.attempt_id == last.attempt_id:
                    ending = body
        return last, ending
