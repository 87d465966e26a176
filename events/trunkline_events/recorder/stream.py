"""One store of the `eventsourcing` library on JetStream: its stream, and what can be asked of it.

Wire formats: atomic batches as in NATS ADR-50, batched direct gets as in ADR-31. What goes wrong below is translated
here, once, into the library's exceptions, with the cause kept.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import nats.errors
import nats.js.errors
from eventsourcing.persistence import DataError, OperationalError, ProgrammingError
from nats.js import api

from trunkline_events import codes, headers, subjects
from trunkline_events.acks import Ack, Acks
from trunkline_events.connection import Connection, Replies, Unreachable
from trunkline_events.quick import Reply
from trunkline_events.recorder.wire import Message, Stored

T = TypeVar("T")

MAX_BATCH = 1000
"""How many messages nats-server takes in one atomic batch."""

BATCHES_AT_ONCE = 8
"""The server holds back batches of all clients and refuses them above 50 a stream."""

MAX_REPLY_BYTES = 8 * 1024 * 1024
RESEND_AFTER = 1.0
PAUSE = 0.02

RETRIED = codes.TRANSIENT | {codes.INCOMPLETE_BATCH}
"""Of which nothing is stored: worth another try."""

_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)

_TRACKS = {"trunkline.tracks": "yes"}


class Bus:
    """A connection on which stores are open. `timeout` is how many seconds a call may take, server changes included."""

    def __init__(self, connection: Connection, replicas: int, timeout: float) -> None:
        self.connection, self.replicas, self.timeout = connection, replicas, timeout
        self.acks = Acks(connection)
        self.replies = Replies(connection)
        self.batches = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def persist(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        """The result of `attempt`, made again while the server does not answer. Raises OperationalError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout
        while True:
            try:
                return await attempt()
            except _TROUBLE as error:
                code = getattr(error, "err_code", None)
                if loop.time() >= deadline or self.connection.nats.is_closed or (code and code not in RETRIED):
                    reason = getattr(error, "description", None) or type(error).__name__
                    raise OperationalError(
                        f"can't {what} ({reason}); see that the NATS server is up with JetStream, and call again"
                    ) from error
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def open_bus(url: str, name: str, *, replicas: int, timeout: float) -> AsyncIterator[Bus]:
    """Connect to the server or servers at `url`. Raises OperationalError where none answers."""
    try:
        connection = await Connection.open(url, name=name, timeout=min(timeout, 5.0))
    except Unreachable as error:
        raise OperationalError(
            f"no NATS server can be used at the address in TRUNKLINE_NATS ({error.reason}); start one with JetStream, "
            "or correct the address"
        ) from error
    bus = Bus(connection, replicas, timeout)
    try:
        await bus.acks.open()
        await bus.replies.open()
        yield bus
    finally:
        await bus.acks.close()
        await bus.replies.close()
        try:
            await connection.close()
        except asyncio.CancelledError:
            # Closed in the midst of a reconnect, nats-py hands on the cancellation of its own reader.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise


class Stream:
    """The stream of one store: append-only, without limits. `tracks`: its messages carry the state after them."""

    def __init__(self, bus: Bus, application: str, purpose: str) -> None:
        self.bus = bus
        self.name = subjects.store_stream(application, purpose)
        self.prefix = subjects.store_subject(application, purpose)
        self.tracks = False
        self._js = bus.connection.nats.jetstream(timeout=2)

    async def open(self, *, tracks: bool) -> None:
        """Make sure that the stream exists. Raises OperationalError, and ProgrammingError where it can't track."""
        config = api.StreamConfig(
            name=self.name,
            subjects=[f"{self.prefix}.>"],
            storage=api.StorageType.FILE,
            retention=api.RetentionPolicy.LIMITS,
            discard=api.DiscardPolicy.NEW,
            num_replicas=self.bus.replicas,
            deny_delete=True,
            deny_purge=True,
            allow_direct=True,
            allow_atomic=True,
            metadata=_TRACKS if tracks else None,
        )

        async def ensure() -> Any:
            try:
                return await self._js.add_stream(config)
            except nats.js.errors.APIError as error:
                if error.err_code != codes.OTHER_CONFIGURATION:
                    raise
            return await self._js.stream_info(self.name)

        info = await self.bus.persist(ensure, f"make the stream {self.name} with {self.bus.replicas} replicas")
        # Whether it tracks is settled when it is made: those who write to it already must not be wrong about it.
        self.tracks = _TRACKS.items() <= (info.config.metadata or {}).items()
        if tracks and not self.tracks:
            raise ProgrammingError(
                f"{self.name} was made by an application recorder and can't hold trackings; give the application that "
                "processes events a name of its own"
            )

    # -- storing ---------------------------------------------------------------------------------------------------

    async def send(self, messages: Sequence[Message], expected: int | None) -> Ack | None:
        """Store all of these or none, each on a subject that holds nothing yet; where `expected` is given, only if
        it is the stream's last sequence. None: no answer came, so nobody knows. Raises DataError, OperationalError."""
        if len(messages) > MAX_BATCH:
            raise DataError(f"{len(messages)} events in one save; NATS stores at most {MAX_BATCH} together: save fewer")
        fields = [message.fields | {headers.EXPECTED_LAST: "0"} for message in messages]
        if expected is not None:
            fields[0]["Nats-Expected-Last-Sequence"] = str(expected)
        for message in messages:
            self._check_size(message)
        if len(messages) == 1:
            return await self._publish(messages[0], fields[0])
        batch = uuid.uuid4().hex
        for number, one in enumerate(fields, 1):
            one |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        fields[-1]["Nats-Batch-Commit"] = "1"
        client = self.bus.connection.nats
        async with self.bus.batches:
            try:
                for message, one in zip(messages[:-1], fields, strict=False):
                    await client.publish(message.subject, message.data, headers=one)
            except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError):
                return None
            return await self._publish(messages[-1], fields[-1])

    async def _publish(self, message: Message, fields: dict[str, str]) -> Ack | None:
        return await self.bus.acks.publish(message.subject, message.data, fields, RESEND_AFTER)

    def _check_size(self, message: Message) -> None:
        # Before it is sent: the server cuts the connection of who sends more. Its own headers need some room, too.
        size = 512 + len(message.data) + sum(len(name) + len(value) + 4 for name, value in message.fields.items())
        limit = self.bus.connection.nats.max_payload
        if size > limit:
            raise DataError(
                f"an event of {len(message.data)} bytes is more than the server takes ({limit} bytes with headers); "
                "raise its max_payload, or compress events (COMPRESSOR_TOPIC)"
            )

    # -- reading ---------------------------------------------------------------------------------------------------

    async def last(self, subject: str = ">") -> Stored | None:
        """The last message on these subjects, from the leader: never stale. Raises OperationalError."""
        return await self._from_leader(subject=subject)

    async def at(self, sequence: int) -> Stored | None:
        """The message at this sequence, from the leader."""
        return await self._from_leader(seq=sequence)

    async def _from_leader(self, **which: Any) -> Stored | None:
        async def get() -> Stored | None:
            try:
                found = await self._js.get_msg(self.name, **which)
            except nats.js.errors.NotFoundError as error:
                if error.err_code == codes.NO_MESSAGE:
                    return None
                raise
            return Stored(found.subject, found.seq, found.headers or {}, found.data or b"")

        return await self.bus.persist(get, f"read from {self.name}")

    async def range(self, first: int, count: int) -> list[Stored]:
        """At least one of the `count` messages from `first` on, in order, none left out. They must be there."""

        async def get() -> list[Stored]:
            found, _ = await self._direct({"seq": first, "batch": count})
            if not found:
                raise TimeoutError("a replica has not heard of these yet")
            return found

        return await self.bus.persist(get, f"read from {self.name}")

    async def matching(self, wanted: list[str], known: int) -> list[Stored]:
        """All messages on these subjects, in order, as of `known` or later, a sequence that is there already.

        They may be at most 1,024, and where there are any, there is one on the last that is named.
        """

        async def get() -> list[Stored]:
            found: list[Stored] = []
            request: dict[str, Any] = {"multi_last": wanted, "batch": MAX_BATCH}
            while True:
                some, end = await self._direct(request)
                found += some
                up_to = int(end.get("Nats-UpTo-Sequence", 0))
                if not some and not found and await self.last(wanted[-1]) is None:
                    return []
                if up_to < known:
                    raise TimeoutError("a replica is behind")
                if end.get("Nats-Num-Pending", "0") == "0":
                    return found
                request |= {"seq": some[-1].sequence + 1, "up_to_seq": up_to}

        return await self.bus.persist(get, f"read from {self.name}")

    async def _direct(self, request: dict[str, Any]) -> tuple[list[Stored], dict[str, str]]:
        """A batched direct get, which any replica may answer: the messages, and the headers that ended it."""
        arrived: asyncio.Queue[Reply] = asyncio.Queue()
        reply = self.bus.replies.expect(arrived.put_nowait)
        body = msgspec.json.encode(request | {"max_bytes": MAX_REPLY_BYTES})
        found = []
        try:
            await self.bus.connection.nats.publish(f"$JS.API.DIRECT.GET.{self.name}", body, reply=reply)
            while True:
                async with asyncio.timeout(2):
                    message = await arrived.get()
                fields = message.headers or {}
                status = fields.get(headers.STATUS)
                if status is None:
                    found.append(Stored(fields["Nats-Subject"], int(fields["Nats-Sequence"]), fields, message.data))
                elif status in ("204", "404"):
                    return found, fields
                else:
                    raise nats.errors.NoRespondersError
        finally:
            self.bus.replies.forget(reply)
