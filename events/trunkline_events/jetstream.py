"""The log on JetStream: one stream, appended to with an expected sequence, followed with ordered consumers.

Wire formats: headers and acknowledgements as in NATS ADR-22 (publish), ADR-31 (direct get), ADR-17 (ordered consumer).
"""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Msg
from nats.js import api

from trunkline_events import headers, subjects
from trunkline_events.acks import Acks
from trunkline_events.codec import CODEC, Codec
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent, Unknown
from trunkline_events.follower import StreamFollower
from trunkline_events.log import ALL, Appended, Conflict, Handler, LogMissing, LogRefused, LogUnavailable, Scope

log = structlog.get_logger()

_TRANSIENT = frozenset({10008, 10118, 10160, 10167})
"""No leader, or the leader is behind: worth another try until the deadline (10008 unavailable, 10118 not leader …)."""

_OTHER_CONFIGURATION = 10058
"""The stream is there with another configuration, such as more replicas."""

APPEND_TIMEOUT = 5.0
RESEND_AFTER = 1.0


def stream_config(replicas: int = 1) -> api.StreamConfig:
    """The stream as it must be: append-only, unlimited, republishing what it stored."""
    return api.StreamConfig(
        name=subjects.STREAM,
        subjects=[f"{subjects.LOG}.>"],
        storage=api.StorageType.FILE,
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.NEW,
        num_replicas=replicas,
        duplicate_window=120.0,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        allow_atomic=True,
        republish=api.RePublish(src=f"{subjects.LOG}.>", dest=f"{subjects.EVENTS}.>"),
    )


def format_time(seconds: float) -> str:
    """Unix time as RFC 3339 in UTC, to the microsecond."""
    micros = round(seconds * 1_000_000)
    return f"{_second(micros // 1_000_000)}.{micros % 1_000_000:06d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def parse_time(text: str) -> float:
    """RFC 3339 as Unix time. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


class JetStreamLog:
    """A `Log` on the stream TRUNKLINE. Who only reads makes one; who appends uses `open`."""

    def __init__(self, connection: Connection, codec: Codec = CODEC) -> None:
        self._connection = connection
        self._nats = connection.nats
        self._js = connection.nats.jetstream(timeout=5)
        self._codec = codec
        self._acks = Acks(connection)
        self.skipped = 0
        """How many messages were read that this version does not know."""

    @classmethod
    async def open(cls, connection: Connection, *, replicas: int = 1, codec: Codec = CODEC) -> "JetStreamLog":
        """Make sure the stream exists, and be ready to append. Raises LogUnavailable where JetStream is off."""
        self = cls(connection, codec)
        try:
            await self._acks.open()
            await self._js.add_stream(stream_config(replicas))
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _OTHER_CONFIGURATION:
                raise LogRefused(error.err_code or 0, error.description or "") from error
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise LogUnavailable(f"JetStream does not answer ({error}); enable it on the server") from error
        return self

    @property
    def backlog(self) -> int:
        """Events that wait for their acknowledgement."""
        return len(self._acks)

    # -- appending -------------------------------------------------------------------------------------------------

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        subject = subjects.log_subject(event.category, event.aggregate)
        envelope = self._envelope(event, expected)
        body = self._codec.encode(event.body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + APPEND_TIMEOUT
        while True:
            ack = await self._acks.publish(subject, body, envelope, min(RESEND_AFTER, deadline - loop.time()))
            if ack is not None:
                if ack.error is None:
                    return Appended(ack.seq, ack.duplicate)
                if ack.conflicts and expected is not None:
                    raise Conflict(subject, expected)
                if ack.error.err_code not in _TRANSIENT:
                    raise LogRefused(ack.error.err_code, ack.error.description)
            if loop.time() >= deadline or self._nats.is_closed:
                raise LogUnavailable(f"no acknowledgement for {event.id} within {APPEND_TIMEOUT:g} s")
            # The same id again: if the first one was stored after all, the answer is a duplicate at its sequence.
            await asyncio.sleep(0.05)

    def _envelope(self, event: NewEvent, expected: int | None) -> dict[str, str]:
        fields = {
            headers.MSG_ID: event.id,
            headers.TYPE: self._codec.name(event.body),
            headers.TIME: format_time(event.time),
            headers.ACTOR: event.actor,
        }
        if event.cause:
            fields[headers.CAUSE] = headers.encode_value(event.cause)
        if event.traceparent:
            fields[headers.TRACEPARENT] = event.traceparent
        if expected is not None:
            fields[headers.EXPECTED_LAST] = str(expected)
        return fields

    # -- reading ---------------------------------------------------------------------------------------------------

    async def last(self, category: str, aggregate: str) -> RecordedEvent | None:
        found = await self._last_of(subjects.log_subject(category, aggregate))
        return self._from_stored(found) if found else None

    async def get(self, sequence: int) -> RecordedEvent | None:
        found = await self._get(seq=sequence)
        return self._from_stored(found) if found else None

    async def end(self, scope: Scope = ALL) -> int:
        filters = scope.filters()
        if not filters:
            try:
                info = await self._ask(self._js.stream_info(subjects.STREAM))
            except nats.js.errors.NotFoundError as error:
                raise LogMissing from error
            return int(info.state.last_seq)
        found = await asyncio.gather(*(self._last_of(subject) for subject in filters))
        return max((message.seq or 0 for message in found if message), default=0)

    async def _last_of(self, subject: str) -> api.RawStreamMsg | None:
        return await self._get(subject=subject)

    async def _get(self, **which: Any) -> api.RawStreamMsg | None:
        # STREAM.MSG.GET is answered by the leader; a direct get may be answered by a follower that is behind.
        try:
            return await self._ask(self._js.get_msg(subjects.STREAM, **which))
        except nats.js.errors.NotFoundError:
            return None

    async def _ask(self, request: Any) -> Any:
        try:
            return await request
        except nats.js.errors.NotFoundError:
            raise
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise LogUnavailable(f"the log does not answer ({type(error).__name__}); is the server up?") from error

    async def read(
        self, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        target = await self.end(scope)
        if target <= after:
            return
        # Bounded: a reader that dawdles holds back its own consumer, and nothing else.
        queue: asyncio.Queue[RecordedEvent] = asyncio.Queue(maxsize=1024)
        follower = await self.follow(queue.put, after, scope=scope, since=since)
        if follower.nothing_to_come:
            await follower.stop()
            return
        try:
            while True:
                event = await queue.get()
                yield event
                if event.sequence >= target:
                    return
        finally:
            await follower.stop()

    async def follow(
        self, handler: Handler, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> StreamFollower:
        follower = StreamFollower(self._connection, self._from_delivered, handler, scope.filters(), after, since)
        await follower.start(await self.end(scope))
        return follower

    async def aggregates(self, category: str) -> list[str]:
        prefix = f"{subjects.LOG}.{category}."
        info = await self._ask(self._js.stream_info(subjects.STREAM, subjects_filter=f"{prefix}>"))
        return sorted(subjects.decode_id(subject[len(prefix) :]) for subject in info.state.subjects or {})

    def _from_delivered(self, message: Msg, sequence: int, stored_at: float) -> RecordedEvent:
        return self._record(message.subject, sequence, message.headers or {}, message.data, stored_at)

    def _from_stored(self, message: api.RawStreamMsg) -> RecordedEvent:
        stored_at = message.time.timestamp() if message.time else 0.0
        return self._record(
            message.subject or "", message.seq or 0, message.headers or {}, message.data or b"", stored_at
        )

    def _record(
        self, subject: str, sequence: int, fields: dict[str, str], data: bytes, stored_at: float
    ) -> RecordedEvent:
        category, aggregate = subjects.split_log_subject(subject)
        name = fields.get(headers.TYPE)
        body = self._codec.decode(name, data)
        if isinstance(body, Unknown):
            self.skipped += 1
        try:
            time = parse_time(fields[headers.TIME])
        except (KeyError, ValueError):
            time = stored_at
        return RecordedEvent(
            sequence=sequence,
            id=fields.get(headers.MSG_ID, ""),
            category=category,
            aggregate=aggregate,
            type=name or "",
            body=body,
            time=time,
            actor=fields.get(headers.ACTOR, ""),
            cause=headers.decode_value(fields.get(headers.CAUSE, "")),
            traceparent=fields.get(headers.TRACEPARENT),
        )

    async def close(self) -> None:
        """Expect no more acknowledgements."""
        await self._acks.close()
