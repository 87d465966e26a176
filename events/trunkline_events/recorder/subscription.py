"""A subscription to an application's events: what is stored, then what will be, in order and without a gap.

An ordered consumer (NATS ADR-17): an ephemeral push consumer whose deliveries are numbered without a gap. Whatever
breaks the numbering, a reconnect, or silence makes us create it anew after the last message that we took.
"""

import asyncio
import contextlib

import nats.errors
import nats.js.errors
import structlog
from eventsourcing.persistence import Notification
from nats.aio.client import Msg
from nats.js import api

from trunkline_events import headers
from trunkline_events.recorder import wire
from trunkline_events.recorder.reader import Reader
from trunkline_events.recorder.stream import PAUSE, Stream
from trunkline_events.tasks import end_task

log = structlog.get_logger()

READ_AHEAD = 1000
"""How many events wait for a reader that dawdles before its consumer is held back."""

HEARTBEAT = 1.0
SILENCE = 2.5 * HEARTBEAT
"""Seconds without a word after which a consumer is taken to be gone."""


class Feed:
    """A consumer of one store, and the events that it brought. Lives on the loop."""

    def __init__(self, stream: Stream, after: int, topics: frozenset[str]) -> None:
        self._stream, self._after, self._topics = stream, after, topics
        self._nats = stream.bus.connection.nats
        self._js = self._nats.jetstream(timeout=2)
        self._position = 0
        self._arrived: asyncio.Queue[Notification | None] = asyncio.Queue(READ_AHEAD)
        self._consumer: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Begin after notification `after`, which may not be there yet. Raises OperationalError."""
        reader = Reader(self._stream)
        known = min(self._after, (await reader.state()).events)
        self._position = await reader.sequence_of(known) if known > 0 else 0
        if not self._stopped:
            self._consumer = asyncio.create_task(self._consume())

    async def take(self) -> list[Notification]:
        """What has arrived since, at least one; nothing once stopped."""
        if self._stopped:
            return []
        taken = [await self._arrived.get()]
        while not self._arrived.empty():
            taken.append(self._arrived.get_nowait())
        return [] if self._stopped else [one for one in taken if one is not None]

    async def stop(self) -> None:
        """Wake who waits, and end the consumer. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)
        await end_task(self._consumer)

    # -- the consumer ----------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        while not self._nats.is_closed:
            try:
                await self._consume_until_broken()
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
                log.debug("recorder.subscription_retrying", sequence=self._position, error=type(error).__name__)
                await asyncio.sleep(PAUSE)

    async def _consume_until_broken(self) -> None:
        messages: asyncio.Queue[Msg | None] = asyncio.Queue()

        async def reconnected() -> None:
            messages.put_nowait(None)  # the server may have forgotten the consumer

        inbox = self._nats.new_inbox()
        forget = self._stream.bus.connection.on_reconnect(reconnected)
        subscription = await self._nats.subscribe(inbox, cb=messages.put)
        try:
            await self._js.add_consumer(self._stream.name, config=self._config(inbox))
            delivered = 0
            while True:
                async with asyncio.timeout(SILENCE):
                    message = await messages.get()
                if message is None:
                    return
                if message.headers and headers.STATUS in message.headers:
                    if not await self._control(message, delivered):
                        return
                    continue
                # $JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.<consumer sequence>.<time>.<pending>, or
                # with domain and account hash in front and a random token behind (ADR-15).
                tokens = message.reply.split(".")
                stream_seq, consumer_seq = tokens[5:7] if len(tokens) == 9 else tokens[7:9]
                delivered += 1
                if int(consumer_seq) != delivered:
                    return
                await self._take(message, int(stream_seq))
        finally:
            forget()
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def _config(self, inbox: str) -> api.ConsumerConfig:
        config = api.ConsumerConfig(
            deliver_subject=inbox,
            ack_policy=api.AckPolicy.NONE,
            max_deliver=1,
            filter_subject=f"{self._stream.prefix}.e.>",
            flow_control=True,
            idle_heartbeat=HEARTBEAT,
            inactive_threshold=30.0,
            mem_storage=True,
            num_replicas=1,
        )
        if self._position:
            config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
            config.opt_start_seq = self._position + 1
        return config

    async def _control(self, message: Msg, delivered: int) -> bool:
        """Heartbeats and flow control: an answer to the latter lets the server send more. Whether all is well."""
        fields = message.headers or {}
        asked = message.reply or fields.get("Nats-Consumer-Stalled")
        if asked:
            await self._nats.publish(asked)
            return True
        return fields.get(headers.STATUS) == "100" and int(fields.get("Nats-Last-Consumer", delivered)) == delivered

    async def _take(self, message: Msg, sequence: int) -> None:
        stored = wire.Stored(message.subject, sequence, message.headers or {}, message.data)
        notification = wire.notification(stored)
        if notification.id > self._after and (not self._topics or notification.topic in self._topics):
            await self._arrived.put(notification)  # waits for a reader that dawdles, and the server with it
        self._position = sequence
