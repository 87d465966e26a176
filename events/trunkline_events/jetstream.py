"""The log on JetStream: one stream, appended to with an expected sequence, followed with ordered consumers.

Wire formats: headers and acknowledgements as in NATS ADR-22 (publish), ADR-31 (direct get), ADR-17 (ordered consumer).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.js import api

from trunkline_events import codes, headers, subjects
from trunkline_events.codec import CODEC, Codec
from trunkline_events.connection import Connection
from trunkline_events.direct import DirectGet, Stored
from trunkline_events.envelope import NewEvent, RecordedEvent, Unknown
from trunkline_events.follower import StreamFollower
from trunkline_events.log import (
    ALL,
    Appended,
    Conflict,
    Handler,
    LogMissing,
    LogRefused,
    LogUnavailable,
    Scope,
    TooLarge,
)
from trunkline_events.reading import events_of
from trunkline_events.stream import stream_config
from trunkline_events.times import format_time, time_or_none
from trunkline_events.writer import NOT_SENT, Writer

log = structlog.get_logger()

_DOUBTFUL = codes.TRANSIENT | {codes.IN_PROCESS}
"""A server without its lead says so of what may yet be stored: nobody knows until it is appended again."""

BATCH_HEADERS = 160
"""Bytes kept free, in what the server takes as one message, for what a batch adds to it."""
_HEADER_NAMES = 1024
"""More bytes than the names of an event's headers take, with what stands between them and their values."""
_MOST_OF_CHARACTER = 4
"""Bytes of UTF-8."""

APPEND_TIMEOUT = 5.0
RESEND_AFTER = 1.0


def _address(subject: bytes) -> tuple[str, str]:
    """Category and aggregate, for most ids without looking at each character."""
    text = subject.decode("utf-8", "replace")
    if text.startswith(_BELOW) and "=" not in text:
        category, _, token = text[len(_BELOW) :].partition(".")
        return category, token
    return subjects.split_log_subject(text)


_BELOW = f"{subjects.LOG}."


class JetStreamLog:
    """A `Log` on the stream TRUNKLINE. Who only reads makes one; who appends uses `open`."""

    def __init__(self, connection: Connection, codec: Codec = CODEC, *, group_commit: bool = True) -> None:
        self._connection = connection
        self._nats = connection.nats
        self._js = connection.nats.jetstream(timeout=5)
        self._codec = codec
        self._writer = Writer(connection, group_commit=group_commit)
        self._direct = DirectGet(connection)
        self.skipped = 0
        """How many messages were read that this version does not know."""
        self.on_unavailable: Callable[[], None] = lambda: None
        """Called each time that the log did not answer, before LogUnavailable is raised."""

    @classmethod
    async def open(
        cls, connection: Connection, *, replicas: int = 1, codec: Codec = CODEC, group_commit: bool = True
    ) -> "JetStreamLog":
        """Make sure the stream exists, and be ready to append. Raises LogUnavailable where JetStream is off.

        `group_commit` off: every append is a publish of its own, as it is without load anyway.
        """
        self = cls(connection, codec, group_commit=group_commit)
        try:
            await self._writer.open()
            await self._js.add_stream(stream_config(replicas))
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            code = getattr(error, "err_code", None)
            if code == codes.OTHER_CONFIGURATION:
                return self
            if code in {codes.NO_CLUSTER, codes.TOO_FEW_PEERS}:
                raise LogUnavailable(
                    f"{replicas} copies of the log take a cluster of {replicas} servers, which isn't there or not "
                    f"complete (JetStream error {code}); start the servers, or ask for one copy: TRUNKLINE_REPLICAS=1"
                ) from error
            if isinstance(error, nats.js.errors.BadRequestError):
                raise LogUnavailable(f"the server will not make the log ({error}); see `trunkline doctor`") from error
            raise LogUnavailable(f"JetStream does not answer ({error}); enable it on the server") from error
        return self

    @property
    def backlog(self) -> int:
        """Events that wait for their acknowledgement."""
        return len(self._writer)

    @property
    def batches(self) -> int:
        """How many batches were sent."""
        return self._writer.batches

    # -- appending -------------------------------------------------------------------------------------------------

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        subject = subjects.log_subject(event.category, event.aggregate)
        envelope = self._envelope(event, expected)
        body = self._codec.encode(event.body)
        self._check_size(event, envelope, len(body))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + APPEND_TIMEOUT
        unanswered = False
        while True:
            wait = min(RESEND_AFTER, deadline - loop.time())
            ack = await self._writer.write(subject, body, envelope, wait, alone=unanswered)
            if ack is NOT_SENT:
                pass
            elif ack is None or (ack.error is not None and ack.error.err_code in _DOUBTFUL):
                unanswered = True
            elif ack.error is None:
                return Appended(ack.seq, ack.duplicate)
            elif ack.conflicts and expected is not None:
                stored = await self._own_after(subject, expected, event.id) if unanswered or ack.resent else None
                if stored is not None:
                    return Appended(stored, duplicate=True)  # perhaps by another process, with another body
                raise Conflict(subject, expected)
            else:
                raise LogRefused(ack.error.err_code, ack.error.description)
            if loop.time() >= deadline or self._nats.is_closed:
                self.on_unavailable()
                raise LogUnavailable(f"no acknowledgement for {event.id} within {APPEND_TIMEOUT:g} s")
            # The same id again: if the first one was stored after all, the answer is a duplicate at its sequence.
            await asyncio.sleep(0.05)

    def _check_size(self, event: NewEvent, fields: dict[str, str], body: int) -> None:
        limit = self._nats.max_payload - BATCH_HEADERS
        if body + _MOST_OF_CHARACTER * len("".join(fields.values())) < limit - _HEADER_NAMES:
            return  # most are far from it
        # The server counts the headers; each has a colon, a space and the end of its line.
        size = body + sum(len(name) + len(value.encode()) + 4 for name, value in fields.items())
        if size > limit:
            raise TooLarge(event.id, size, limit)

    async def _own_after(self, subject: str, expected: int, event_id: str) -> int | None:
        """Where an event is that was appended at `expected` without an answer, if it was stored.

        Whoever got there first is the next on this subject: us, or the one we conflict with.
        """
        found = await self._get(subject=subject, seq=expected + 1, next=True)
        if found is None or (found.headers or {}).get(headers.MSG_ID) != event_id:
            return None
        return int(found.seq or 0)

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
        found = await self._get(subject=subjects.log_subject(category, aggregate))
        return self._from_stored(found) if found else None

    async def glance(self, category: str, aggregate: str) -> RecordedEvent | None:
        try:
            found = await self._direct.latest(subjects.log_subject(category, aggregate))
        except LogUnavailable:  # no replica answers: an operator's stream may not allow it
            return await self.last(category, aggregate)
        return self._from_direct(found) if found else None

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
        found = await asyncio.gather(*(self._get(subject=subject) for subject in filters))
        return max((message.seq or 0 for message in found if message), default=0)

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
            self.on_unavailable()
            raise LogUnavailable(f"the log does not answer ({type(error).__name__}); is the server up?") from error

    async def read(
        self, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        after = await self._resolve(after, since)
        target = await self.end(scope)
        if target > after:
            async with aclosing(events_of(self, after, scope=scope, until=target)) as events:
                async for event in events:
                    yield event

    async def follow(
        self, handler: Handler, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> StreamFollower:
        after = await self._resolve(after, since)
        target = await self.end(scope)
        follower = StreamFollower(self._connection, self._from_delivered, handler, scope.filters(), after)
        await follower.start(target)
        return follower

    async def _resolve(self, after: int, since: float | None) -> int:
        # A time becomes a sequence once, at the leader: a consumer takes one bound only, and resumes by sequence.
        return after if since is None else max(after, await self._direct.before(round(since * 1_000_000)))

    async def position_at(self, moment: float) -> int:
        return await self._direct.before(round(moment * 1_000_000) + 1)

    async def last_of_each(
        self, category: str, up_to: int, *, only: Collection[str] | None = None, after: str = ""
    ) -> AsyncGenerator[RecordedEvent, None]:
        async for stored in self._direct.last_of_each(category, up_to, only, after):
            yield self._from_direct(stored)

    async def aggregates(self, category: str) -> list[str]:
        return sorted(await self._direct.ids(category))

    def _from_delivered(
        self, subject: bytes, data: bytes, head: bytes | None, sequence: int, nanos: bytes
    ) -> RecordedEvent:
        fields = headers.parse(head) if head else {}
        time = time_or_none(fields.get(headers.TIME))
        return self._record(_address(subject), sequence, fields, data, int(nanos) / 1e9 if time is None else time)

    def _from_direct(self, message: Stored) -> RecordedEvent:
        time = time_or_none(message.headers.get(headers.TIME))
        address = subjects.split_log_subject(message.subject)
        time = message.stored_at if time is None else time
        return self._record(address, message.sequence, message.headers, message.data, time)

    def _from_stored(self, message: api.RawStreamMsg) -> RecordedEvent:
        fields = message.headers or {}
        time = time_or_none(fields.get(headers.TIME))
        if time is None:
            time = message.time.timestamp() if message.time else 0.0
        subject = subjects.split_log_subject(message.subject or "")
        return self._record(subject, message.seq or 0, fields, message.data or b"", time)

    def _record(
        self, address: tuple[str, str], sequence: int, fields: dict[str, str], data: bytes, time: float
    ) -> RecordedEvent:
        name = fields.get(headers.TYPE)
        body = self._codec.decode(name, data)
        if isinstance(body, Unknown):
            self.skipped += 1
        cause = fields.get(headers.CAUSE)
        return RecordedEvent(
            sequence=sequence,
            id=fields.get(headers.MSG_ID, ""),
            category=address[0],
            aggregate=address[1],
            type=name or "",
            body=body,
            time=time,
            actor=fields.get(headers.ACTOR, ""),
            cause=headers.decode_value(cause) if cause else "",
            traceparent=fields.get(headers.TRACEPARENT),
        )

    async def close(self) -> None:
        """Expect no more acknowledgements."""
        await self._writer.close()
        await self._direct.close()
