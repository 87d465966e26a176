"""Requests that only others' reservations keep out: they wait on the bus, in order, up to their deadline.

They lie in a work-queue stream of their own, since the log holds no prompts, and survive whoever parked them. One
router attends to all of them, whichever leads: it asks for each in turn when money comes back, and serves what fits.
A router that parks a request answers for it until the attendant has taken it over.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.aio.client import Msg
from nats.js import api
from trunkline_events import codes, headers, subjects
from trunkline_events.acks import Acks
from trunkline_events.codec import CODEC
from trunkline_events.envelope import Unknown
from trunkline_events.refusal import Refused
from trunkline_events.tasks import end_task

from trunkline_actors.dispatch import encode
from trunkline_actors.inflight import Run
from trunkline_actors.lease import Lease
from trunkline_actors.mailbox import Spawn
from trunkline_actors.moment import Request
from trunkline_actors.money import THREAD, Short, Waiting
from trunkline_actors.parked import Parked, Place, pack, stream_config, thread_of, thread_scope, unpack
from trunkline_actors.runtime import Runtime
from trunkline_actors.waiting import Ticket, WaitingRoom

log = structlog.get_logger()

CONSUMER = "attendant"
ACK_WAIT = 2.0
"""Seconds for the stream to say that it has a request."""
ACK_OR_AGAIN = 2.5
"""Seconds after which the server sends what nobody gave word of again: its attendant is lost, or the message was."""
DISOWNED = 10.0
"""Seconds for which a request that was given up is called back, should it turn up."""
PULL_SECONDS = 0.5
MOST_WAITING = 20_000
TELL_EVERY = 1.0
FORGOTTEN = 3.0
"""Seconds without a word from the attendant after which nobody is taken to be waiting."""
_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)


class Crowd(Struct, frozen=True):
    """Where somebody waits, as the attendant tells: requests that need these budgets are to wait behind them."""

    process: str
    scopes: list[str]


_crowd = msgspec.json.Decoder(Crowd)


Serve = Callable[[Parked, bytes, Place], Coroutine[Any, Any, None]]
"""Goes on with a parked request."""


class Parking:
    """Parks requests, and attends to those that are parked while this process leads."""

    def __init__(self, runtime: Runtime, serve: Serve, spawn: Spawn) -> None:
        self._runtime = runtime
        self._serve = serve
        self._spawn = spawn
        self._acks = Acks(runtime.connection)
        self._lease = Lease(runtime, "parking")
        self._room = WaitingRoom()
        self._places: dict[int, Place] = {}
        self._changed = asyncio.Event()
        self._owed, self._ahead = 0, 0.0
        self._signs: dict[str, Any] = {}
        self._watchers: Counter[str] = Counter()
        self._crowded: tuple[frozenset[str], float] = (frozenset(), 0.0)
        self._subscription: Any = None
        self._attending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make sure the stream exists, and attend to it whenever we lead."""
        js = self._runtime.connection.nats.jetstream(timeout=5)
        try:
            await js.add_stream(stream_config(self._runtime.replicas))
        except nats.js.errors.BadRequestError as error:
            if error.err_code != codes.OTHER_CONFIGURATION:
                raise
        await self._acks.open()
        self._subscription = await self._runtime.bus.nats.subscribe(subjects.CROWD, cb=self._heard)
        await self._lease.start()
        self._attending = asyncio.create_task(self._attend())

    async def stop(self) -> None:
        """Attend no more: what waits is left on the stream, in order, for whoever leads next."""
        await end_task(self._attending)
        await self._lease.stop()
        await self._leave()
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self._acks.close()

    # -- parking ---------------------------------------------------------------------------------------------------

    def crowded(self, thread: str, key: str) -> str | None:
        """A budget of these at which somebody waits already, so that a newcomer is to wait behind."""
        if not self._crowded[0] and not self._room:
            return None
        scopes = self._scopes(thread, key)
        if self._lease.held:
            return self._room.crowded(scopes)
        waiting, until = self._crowded
        if asyncio.get_running_loop().time() >= until:
            return None
        return next((scope for scope in scopes if scope in waiting), None)

    def _scopes(self, thread: str, key: str) -> list[str]:
        own = [] if thread == subjects.NO_THREAD else [thread_scope(thread)]
        return [*own, *self._runtime.scopes.of(key)]

    async def park(self, run: Run, request: Request, body: bytes, short: Waiting) -> Refused | None:
        """Put a request on the stream, and answer for it until the attendant has it. None: that is so now."""
        run.leaving = True
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        replies = self._runtime.bus.replies
        reply = replies.expect(lambda _message: None if taken.done() else taken.set_result(None))
        listeners = list(run.listeners)
        parked = Parked(
            request_id=run.request_id,
            operation=request.parsed.asked.operation,
            thread=run.thread,
            listeners=listeners,
            attempt=request.attempt,
            deadline=request.deadline,
            at=waits_at(short, run.thread),
            taken=reply,
            key=request.key,
            scope=run.scope,
            fingerprint=run.fingerprint,
            traceparent=run.traceparent,
            base=run.base,
            attempt_ids=run.attempt_ids,
            sent=run.sent,
            tried=list(request.tried),
            versions=list(request.versions),
            failures=list(request.failures),
            rested=request.rested,
            cache_s=run.cache_s,
            unclaimed=run.unclaimed,
            course=run.course,
        )
        ack = await self._acks.publish(subjects.PARKED, pack(parked, body), {}, ACK_WAIT)
        if ack is not None and ack.error is not None:
            log.warning("parking.not_parked", request=run.request_id, code=ack.error.err_code)
            replies.forget(reply)
            return short
        log.info("request.parked", request=run.request_id, thread=run.thread, budget=parked.at)
        # Without an acknowledgement it may be there all the same: whether it is taken over shows it.
        try:
            async with asyncio.timeout(max(0.0, request.deadline - self._runtime.clock()) if ack else ACK_WAIT):
                await taken
        except TimeoutError:
            self._spawn(self._disown(run, taken, reply))
            return short
        replies.forget(reply)
        run.leave_claim = True
        await self._hand_over(run, listeners)
        return None

    async def _disown(self, run: Run, taken: asyncio.Future[None], reply: str) -> None:
        """A request was given up that may lie on the stream: whoever takes it late must not serve it."""
        try:
            async with asyncio.timeout(DISOWNED):
                await taken
        except TimeoutError:
            return
        finally:
            self._runtime.bus.replies.forget(reply)
        run.aborted = True
        await self._hand_over(run, list(run.listeners))

    async def _hand_over(self, run: Run, known: list[str]) -> None:
        """Tell the attendant what came while the request was on its way."""
        bus = self._runtime.bus
        for inbox in run.listeners:
            if inbox not in known and run.scope:
                await bus.publish(
                    subjects.JOIN, encode({"scope": run.scope, "inbox": inbox}), reply=bus.nats.new_inbox()
                )
        if run.aborted:
            fields = {headers.KEY: own} if (own := self._runtime.door.own_key) else None
            await bus.publish(subjects.ABORT, encode({"request_id": run.request_id}), fields, bus.nats.new_inbox())

    async def _heard(self, message: Msg) -> None:
        try:
            crowd = _crowd.decode(message.data)
        except msgspec.DecodeError:
            return
        until = asyncio.get_running_loop().time() + FORGOTTEN
        self._crowded = (frozenset(crowd.scopes), until)

    # -- attending -------------------------------------------------------------------------------------------------

    async def _attend(self) -> None:
        while True:
            while not self._lease.held:  # noqa: ASYNC110 - leases begin and end by the clock, which wakes nobody
                await asyncio.sleep(0.1)
            try:
                await self._lead()
            except _TROUBLE as error:
                log.warning("parking.trouble", error=type(error).__name__)
                await asyncio.sleep(0.25)
            finally:
                await self._leave()

    async def _lead(self) -> None:
        """Take everything off the stream, the oldest first, for as long as we lead."""
        nats_ = self._runtime.connection.nats
        js = nats_.jetstream(timeout=2)
        config = api.ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_OR_AGAIN,
            max_ack_pending=MOST_WAITING,
            num_replicas=self._runtime.replicas,
        )
        await js.add_consumer(subjects.PARKED_STREAM, config)
        inbox = nats_.new_inbox()
        subscription = await nats_.subscribe(inbox, cb=self._take)
        telling = asyncio.create_task(self._tell())
        next_ = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.PARKED_STREAM}.{CONSUMER}"
        ask = encode({"batch": MOST_WAITING, "expires": int(PULL_SECONDS * 1e9)})
        try:
            # What a predecessor had and lost comes again, before what nobody had is served.
            self._ahead = asyncio.get_running_loop().time() + ACK_OR_AGAIN + PULL_SECONDS
            self._owed = (await js.consumer_info(subjects.PARKED_STREAM, CONSUMER)).num_ack_pending or 0
            while self._lease.held:
                await self._runtime.bus.publish(next_, ask, reply=inbox)
                await asyncio.sleep(PULL_SECONDS)
        finally:
            await end_task(telling)
            await subscription.unsubscribe()

    async def _take(self, message: Msg) -> None:
        if not message.data:  # nothing is there, as the server says now and then
            return
        number, delivered = message.metadata.sequence.stream, message.metadata.num_delivered
        if number in self._places:
            return
        unpacked = unpack(message.data)
        if unpacked is None or not all(map(self._runtime.bus.may_reply, (unpacked[0].taken, *unpacked[0].listeners))):
            log.error("parking.unreadable", sequence=number)
            await message.ack()
            return
        parked, body = unpacked
        scopes = {parked.at, *self._scopes(parked.thread, parked.key)}
        for scope in scopes:
            await self._watch(scope)
        ticket = Ticket(number, frozenset(scopes), parked.at)
        place = self._places[number] = Place(ticket, message, self._room, self._changed.set)
        self._room.enter(ticket)
        self._changed.set()
        if delivered and delivered > 1:
            self._owed -= 1
        task = self._spawn(self._attend_to(parked, body, place))
        task.add_done_callback(lambda _task: self._forget(number, place, scopes))
        await self._runtime.bus.publish(parked.taken)

    def _forget(self, number: int, place: Place, scopes: set[str]) -> None:
        if self._places.get(number) is place:  # and not one of a lead that is over
            del self._places[number]
            self._spawn(self._unwatch(scopes))

    async def _attend_to(self, parked: Parked, body: bytes, place: Place) -> None:
        while self._owed > 0 and not place.gone and asyncio.get_running_loop().time() < self._ahead:
            await place.wait(place.at, PULL_SECONDS)
        if not place.gone:
            await self._serve(parked, body, place)

    async def _leave(self) -> None:
        """Let go of everything that still waits; what is decided already is served to its end."""
        self._room = WaitingRoom()
        places, self._places = self._places, {}
        for place in places.values():
            await place.leave()
        await self._unwatch(set(self._signs), all_of_them=True)

    # -- signs that money came back --------------------------------------------------------------------------------

    def freed(self, scope: str) -> None:
        """Something of this budget became free here."""
        self._room.call(scope)

    async def _watch(self, scope: str) -> None:
        self._watchers[scope] += 1
        if scope in self._signs:
            return
        thread = thread_of(scope)
        category, aggregate = ("budget", scope) if thread is None else ("thread", thread)

        async def happened(message: Msg) -> None:
            if thread is not None:
                self._adopt(thread, message)
            self._room.call(scope)

        subject = f"{subjects.EVENTS}.{category}.{subjects.encode_id(aggregate)}"
        self._signs[scope] = await self._runtime.bus.nats.subscribe(subject, cb=happened)

    async def _unwatch(self, scopes: set[str], *, all_of_them: bool = False) -> None:
        for scope in scopes:
            self._watchers[scope] -= 1
            if all_of_them or self._watchers[scope] <= 0:
                del self._watchers[scope]
                subscription = self._signs.pop(scope, None)
                if subscription is not None:
                    with contextlib.suppress(nats.errors.Error):
                        await subscription.unsubscribe()

    def _adopt(self, thread: str, message: Msg) -> None:
        """The books come with the sign: no need to ask for them."""
        fields = message.headers or {}
        body = CODEC.decode(fields.get(headers.TYPE), message.data)
        if not isinstance(body, Unknown):
            self._runtime.ledger.learn(thread, body, int(fields[headers.SEQUENCE]))

    async def _tell(self) -> None:
        """Say where somebody waits, whenever that changes, and now and then."""
        told: list[str] = []
        while True:
            scopes = self._room.scopes
            if scopes or told:
                await self._runtime.bus.publish(subjects.CROWD, encode(Crowd(self._runtime.name, scopes)))
            told = scopes
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_EVERY):
                    while self._room.scopes == told:
                        self._changed.clear()
                        await self._changed.wait()


def waits_at(short: Short, thread: str) -> str:
    """What a request of this thread waits for."""
    return thread_scope(thread) if short.scope == THREAD else short.scope
