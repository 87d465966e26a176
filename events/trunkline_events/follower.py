"""Reading the stream without a gap: an ordered consumer that starts again after the last event it took.

An ordered consumer is an ephemeral push consumer whose deliveries are numbered without a gap; whatever breaks the
numbering (a lost message, a reconnect, a restarted server, silence) makes us create it anew after what we took.

Messages are taken as they are read off the wire. A handler that returns at once is called there and then; behind one
that waits they queue up here, and the server is let send more (flow control) only when little is left of the queue.
So a slow handler holds back its own consumer and nothing else, and at most the server's window (2 MB at first, 32 MB
in the end) waits here.
"""

import asyncio
import contextlib
import inspect
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.js import api

from trunkline_events import headers, subjects
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Handler, LogUnavailable
from trunkline_events.log_waiting import Progress
from trunkline_events.tasks import end_task

log = structlog.get_logger()

HEARTBEAT = 1.0
"""Seconds between heartbeats of an idle consumer."""
SILENCE = 2.5 * HEARTBEAT
"""Seconds without a word after which a consumer is gone: two heartbeats missed, and time for one to be late."""
ABANDONED = 5.0
"""Seconds after which the server removes a consumer that nobody listens to: who reads ends often, may not remove its
own, and a server has room for so many only. One that was removed too early is made anew where it was."""
LITTLE = 256 * 1024
"""Bytes in the queue at which the server may send more."""
TURN = 64
"""Queued messages handed over before everything else in the process gets a turn."""

Decode = Callable[[bytes, bytes, bytes | None, int, bytes], RecordedEvent]
"""(subject, data, header block, sequence, when it was stored as nanoseconds in digits)."""

Delivery = tuple[bytes, bytes, bytes | None, int, bytes]


class StreamFollower:
    """A `Follower` on JetStream. Create it by `Log.follow`.

    Each event is handed over once, whatever becomes of consumer, connection and server meanwhile. Who still waits for a
    sequence as the follower is stopped, or its connection closed for good, is told FollowerStopped.
    """

    def __init__(
        self, connection: Connection, decode: Decode, handler: Handler, filters: list[str], after: int
    ) -> None:
        self._connection = connection
        self._nats = connection.nats
        self._js = connection.nats.jetstream(timeout=5)
        self._decode, self._handler, self._filters = decode, handler, filters
        self._after = after
        self.nothing_to_come = False
        """Whether the log held nothing for us when we started."""
        self._target = 0
        self._progress = Progress(after)
        self._taken = after
        self._delivered = 0
        self._queue: deque[Delivery] = deque()
        self._queued = 0
        self._owed = ""
        self._subscription: Any = None
        self._heard = 0.0
        self._now = asyncio.get_running_loop().time
        self._stopped = False
        self._stale = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._waiter: asyncio.Task[None] | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._unlisten: Callable[[], None] | None = None

    @property
    def position(self) -> int:
        """The sequence of the last event handled, or where we started."""
        return self._progress.position

    async def start(self, target: int) -> None:
        """Begin; `target` is the end of the log in our scope as it is now. Raises LogUnavailable."""
        self._target = target
        self._unlisten = self._connection.on_reconnect(self._restart_soon)
        try:
            info = await self._create()
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            await self.stop()
            told = str(error) or type(error).__name__
            raise LogUnavailable(f"the log can't be followed ({told}); is the server up?") from error
        except BaseException:  # whoever asked gave up: leave nothing behind that goes on
            await self.stop()
            raise
        if self._after == 0:
            self.nothing_to_come = info.num_pending == 0 and info.delivered.consumer_seq == 0
        self._keeper = asyncio.create_task(self._keep_alive())

    async def caught_up(self) -> None:
        if not self.nothing_to_come:
            await self.reached(self._target)

    async def reached(self, sequence: int) -> None:
        await self._progress.reached(sequence)

    async def stop(self) -> None:
        self._stopped = True
        if self._unlisten:
            self._unlisten()
        await end_task(self._keeper)
        await self._unsubscribe()
        self._queue.clear()
        if self._waiter is not asyncio.current_task():  # a handler may stop its own follower
            await end_task(self._waiter)
        self._progress.stop()

    # -- the consumer ----------------------------------------------------------------------------------------------

    async def _create(self) -> api.ConsumerInfo:
        await self._unsubscribe()
        inbox = self._nats.new_inbox()
        self._delivered, self._owed = 0, ""
        self._subscription = await self._nats.subscribe_raw(inbox, self._arrived)
        info = await self._js.add_consumer(subjects.STREAM, config=self._config(inbox))
        self._heard = self._now()
        return info

    def _config(self, inbox: str) -> api.ConsumerConfig:
        config = api.ConsumerConfig(
            deliver_subject=inbox,
            ack_policy=api.AckPolicy.NONE,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=HEARTBEAT,
            inactive_threshold=ABANDONED,
            mem_storage=True,
            num_replicas=1,
        )
        if len(self._filters) == 1:
            config.filter_subject = self._filters[0]
        elif self._filters:
            config.filter_subjects = self._filters
        if self._taken:
            config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = self._taken + 1
        return config

    async def _unsubscribe(self) -> None:
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _restart_soon(self) -> None:
        self._stale.set()

    async def _keep_alive(self) -> None:
        """Create the consumer anew whenever it is known or feared to be gone."""
        try:
            while not self._nats.is_closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(max(self._heard + SILENCE - self._now(), 0.01), HEARTBEAT)):
                        await self._stale.wait()
                if not self._nats.is_connected:
                    await asyncio.sleep(0.05)  # what is stale already is not waited for, and this must not spin
                    continue
                if not self._stale.is_set() and self._now() < self._heard + SILENCE:
                    continue
                self._stale.clear()
                try:
                    await self._create()
                    log.info("log.follower_resumed", sequence=self._taken)
                except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
                    log.warning("log.follower_retrying", sequence=self._taken, error=type(error).__name__)
                    self._stale.set()
                    await asyncio.sleep(0.1)
        finally:
            self._progress.stop()

    # -- deliveries ------------------------------------------------------------------------------------------------

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        self._heard = self._now()
        if head is not None and head.startswith(_STATUS):
            self._control(reply.decode(), headers.parse(head))
            return
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>, or with
        # domain and account hash in front and a random token behind (ADR-15).
        tokens = reply.split(b".")
        stream_seq, consumer_seq, nanos = tokens[5:8] if len(tokens) == 9 else tokens[7:10]
        if int(consumer_seq) != self._delivered + 1:
            self._stale.set()
            return
        self._delivered += 1
        sequence = int(stream_seq)
        if sequence <= self._taken or self._stopped:
            return
        self._taken = sequence
        if self._waiter is not None:
            self._queue.append((subject, data, head, sequence, nanos))
            self._queued += len(data)
            return
        outcome = self._hand_over(subject, data, head, sequence, nanos)
        if outcome is None:
            self._progress.advance(sequence)
        else:
            self._waiter = asyncio.create_task(self._wait_out(outcome, sequence))

    def _hand_over(
        self, subject: bytes, data: bytes, head: bytes | None, sequence: int, nanos: bytes
    ) -> Awaitable[None] | None:
        """What is to be awaited before the event counts as handled, if anything."""
        try:
            outcome = self._handler(self._decode(subject, data, head, sequence, nanos))
            return outcome if outcome is not None and inspect.isawaitable(outcome) else None
        except Exception as error:
            log.exception("log.handler_failed", sequence=sequence, error=repr(error))
            return None

    async def _wait_out(self, outcome: Awaitable[None] | None, sequence: int) -> None:
        """Await a handler, then hand over what queued up behind it, until nothing is left."""
        try:
            for turn in itertools.count(1):
                if outcome is not None:
                    await self._outcome(outcome, sequence)
                self._progress.advance(sequence)
                self._let_send()
                if turn % TURN == 0:
                    await asyncio.sleep(0)
                if not self._queue or self._stopped:
                    return
                delivery = self._queue.popleft()
                self._queued -= len(delivery[1])
                sequence = delivery[3]
                outcome = self._hand_over(*delivery)
        finally:
            self._waiter = None

    async def _outcome(self, outcome: Awaitable[None], sequence: int) -> None:
        try:
            await outcome
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if self._stopped or (task is not None and task.cancelling()):
                raise
            # Not we were cancelled, but something that the handler waited for.
            log.exception("log.handler_failed", sequence=sequence, error=repr(error))
        except Exception as error:
            log.exception("log.handler_failed", sequence=sequence, error=repr(error))

    def _control(self, reply: str, fields: dict[str, str]) -> None:
        """Heartbeats and flow control: an answer to the latter lets the server send more."""
        asked = reply or fields.get(headers.STALLED)
        if asked:
            self._owed = asked
            self._let_send()
        elif fields.get(headers.STATUS) == "100":
            last = fields.get(headers.LAST_CONSUMER)
            if last is not None and int(last) != self._delivered:
                self._stale.set()
        else:
            self._stale.set()  # 409: the consumer was deleted

    def _let_send(self) -> None:
        if self._owed and self._queued <= LITTLE:
            task = asyncio.create_task(self._answer(self._owed))
            self._owed = ""
            self._answers.add(task)  # a task that nobody holds may be collected before it has run
            task.add_done_callback(self._answers.discard)

    async def _answer(self, subject: str) -> None:
        with contextlib.suppress(nats.errors.Error):  # a heartbeat asks again
            await self._nats.publish(subject)


_STATUS = b"NATS/1.0 "
