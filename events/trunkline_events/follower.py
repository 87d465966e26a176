"""Reading the stream without a gap: an ordered consumer that starts again after the last event it handled.

An ordered consumer is an ephemeral push consumer whose deliveries are numbered without a gap; whatever breaks the
numbering (a lost message, a reconnect, a restarted server, silence) makes us create it anew after our position.
"""

import asyncio
import contextlib
import heapq
import inspect
import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Msg
from nats.js import api

from trunkline_events import headers, subjects
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Handler
from trunkline_events.tasks import end_task

log = structlog.get_logger()

HEARTBEAT = 1.0
"""Seconds between heartbeats of an idle consumer; three missed ones mean it is gone."""

Decode = Callable[[Msg, int, float], RecordedEvent]


class StreamFollower:
    """A `Follower` on JetStream. Create it by `Log.follow`."""

    def __init__(
        self,
        connection: Connection,
        decode: Decode,
        handler: Handler,
        filters: list[str],
        after: int,
        since: float | None,
    ) -> None:
        self._connection = connection
        self._nats = connection.nats
        self._js = connection.nats.jetstream(timeout=5)
        self._decode, self._handler, self._filters = decode, handler, filters
        self._since = since
        self.position = after
        self.nothing_to_come = False
        """Whether the log held nothing for us when we started."""
        self._target = 0
        self._delivered = 0
        self._subscription: Any = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._heard = 0.0
        self._stopped = False
        self._stale = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    async def start(self, target: int) -> None:
        """Begin; `target` is the end of the log in our scope as it is now."""
        self._target = target
        self._unlisten = self._connection.on_reconnect(self._restart_soon)
        await self._create()
        self._keeper = asyncio.create_task(self._keep_alive())

    async def caught_up(self) -> None:
        if not self.nothing_to_come:
            await self.reached(self._target)

    async def reached(self, sequence: int) -> None:
        if self.position < sequence:
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (sequence, next(self._order), future))
            await future

    async def stop(self) -> None:
        self._stopped = True
        if self._unlisten:
            self._unlisten()
        await end_task(self._keeper)
        await self._unsubscribe()
        for _, _, future in self._waiting:
            future.cancel()

    # -- the consumer ----------------------------------------------------------------------------------------------

    async def _create(self) -> None:
        await self._unsubscribe()
        inbox = self._nats.new_inbox()
        self._delivered = 0
        self._subscription = await self._nats.subscribe(inbox, cb=self._arrived)
        info = await self._js.add_consumer(subjects.STREAM, config=self._config(inbox))
        self._heard = asyncio.get_running_loop().time()
        if self.position == 0 or self._since is not None:
            self.nothing_to_come = info.num_pending == 0 and info.delivered.consumer_seq == 0

    def _config(self, inbox: str) -> api.ConsumerConfig:
        config = api.ConsumerConfig(
            deliver_subject=inbox,
            ack_policy=api.AckPolicy.NONE,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=HEARTBEAT,
            inactive_threshold=30.0,
            mem_storage=True,
            num_replicas=1,
        )
        if len(self._filters) == 1:
            config.filter_subject = self._filters[0]
        elif self._filters:
            config.filter_subjects = self._filters
        if self.position:
            config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = self.position + 1
        elif self._since is not None:
            config.deliver_policy = api.DeliverPolicy.BY_START_TIME
            config.opt_start_time = datetime.fromtimestamp(self._since, UTC)
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
        loop = asyncio.get_running_loop()
        while not self._stopped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._stale.wait()
            if not self._nats.is_connected:
                await asyncio.sleep(0.05)  # what is stale already is not waited for, and this must not spin
                continue
            silent = loop.time() - self._heard > 3 * HEARTBEAT
            if not (self._stale.is_set() or silent):
                continue
            self._stale.clear()
            try:
                await self._create()
                log.info("log.follower_resumed", sequence=self.position)
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
                log.warning("log.follower_retrying", sequence=self.position, error=type(error).__name__)
                self._stale.set()
                await asyncio.sleep(0.1)

    # -- deliveries ------------------------------------------------------------------------------------------------

    async def _arrived(self, message: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if message.headers and headers.STATUS in message.headers:
            await self._control(message)
            return
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>, or with
        # domain and account hash in front and a random token behind (ADR-15).
        tokens = message.reply.split(".")
        stream_seq, consumer_seq, nanos = tokens[5:8] if len(tokens) == 9 else tokens[7:10]
        if int(consumer_seq) != self._delivered + 1:
            self._stale.set()
            return
        self._delivered += 1
        sequence = int(stream_seq)
        if sequence <= self.position:
            return
        await self._hand_over(message, sequence, int(nanos) / 1e9)
        self.position = sequence
        while self._waiting and self._waiting[0][0] <= sequence:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    async def _hand_over(self, message: Msg, sequence: int, stored_at: float) -> None:
        try:
            outcome = self._handler(self._decode(message, sequence, stored_at))
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            log.exception("log.handler_failed", sequence=sequence, error=repr(error))

    async def _control(self, message: Msg) -> None:
        """Heartbeats and flow control: an answer to the latter lets the server send more."""
        fields = message.headers or {}
        stalled = fields.get("Nats-Consumer-Stalled")
        if message.reply or stalled:
            await self._nats.publish(message.reply or stalled or "")
        elif fields.get(headers.STATUS) == "100":
            last = fields.get("Nats-Last-Consumer")
            if last is not None and int(last) != self._delivered:
                self._stale.set()
        else:
            self._stale.set()  # 409: the consumer was deleted
