"""Publishing to a stream and hearing that it is stored: many at once from one connection, no task for each.

Wire format: the acknowledgement of JetStream, `{"stream", "seq", "duplicate"?, "error"?: {"code", "err_code", …}}`.
"""

import asyncio
from collections import deque

import msgspec
import nats.errors

from trunkline_events.connection import Connection, Replies
from trunkline_events.quick import Reply

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""JetStream's codes for an expected sequence that isn't so: on a single server, and replicated or in a batch."""


SWEEP = 0.1
"""Seconds between looks for what was not acknowledged in time."""


class AckError(msgspec.Struct, frozen=True):
    """Why it was not stored; `err_code` is JetStream's own, the one to go by."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True):
    """What the stream answered: a sequence, or an error."""

    seq: int = 0
    duplicate: bool = False
    error: AckError | None = None

    @property
    def conflicts(self) -> bool:
        """Whether the expected sequence was not so."""
        return self.error is not None and self.error.err_code in WRONG_LAST_SEQUENCE


_decoder = msgspec.json.Decoder(Ack)


class Acks:
    """Publishes from one connection that are waiting for their acknowledgement."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._replies = Replies(connection)
        self._overdue: deque[tuple[float, asyncio.Future[Reply | None]]] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._replies)

    async def open(self) -> None:
        """Be ready to hear. Call once."""
        await self._replies.open()

    async def publish(self, subject: str, body: bytes, fields: dict[str, str], wait: float) -> Ack | None:
        """The stream's answer; None where none came in `wait` seconds: nobody knows then whether it is stored."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[Reply | None] = loop.create_future()

        def settle(message: Reply | None) -> None:
            if not arrived.done():
                arrived.set_result(message)

        reply = self._replies.expect(settle)
        self._overdue.append((loop.time() + wait, arrived))
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP, self._give_up_on_the_overdue)
        try:
            await self._nats.publish(subject, body, reply=reply, headers=fields)
            message = await arrived
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError):
            return None
        finally:
            self._replies.forget(reply)
        if message is None or not message.data:
            return None  # silence, or "no responders": the stream has no leader, or JetStream is not up yet
        return _decoder.decode(message.data)

    def _give_up_on_the_overdue(self) -> None:
        # One timer for all: a timer for each costs more than the acknowledgement it hardly ever replaces.
        loop = asyncio.get_running_loop()
        self._overdue = deque(one for one in self._overdue if not one[1].done())
        for when, arrived in self._overdue:
            if when <= loop.time():
                arrived.set_result(None)
        self._sweep = loop.call_later(SWEEP, self._give_up_on_the_overdue) if self._overdue else None

    async def close(self) -> None:
        """Hear no more."""
        if self._sweep is not None:
            self._sweep.cancel()
        await self._replies.close()
