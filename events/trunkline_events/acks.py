"""Publishing to a stream and hearing that it is stored: many at once from one connection, no task for each.

Wire format: the acknowledgement of JetStream, `{"stream", "seq", "duplicate"?, "error"?: {"code", "err_code", …}}`.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec
import nats.errors

from trunkline_events.codes import WRONG_LAST_SEQUENCE
from trunkline_events.connection import Connection, Replies
from trunkline_events.quick import Reply

SWEEP = 0.1
"""Seconds between looks for what was not acknowledged in time."""


class AckError(msgspec.Struct, frozen=True):
    """Why it was not stored; `err_code` is JetStream's own, the one to go by."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct, frozen=True):
    """What the stream answered: a sequence, or an error. `resent`: to what had been part of a batch before."""

    seq: int = 0
    duplicate: bool = False
    error: AckError | None = None
    resent: bool = False

    @property
    def conflicts(self) -> bool:
        """Whether the expected sequence was not so."""
        return self.error is not None and self.error.err_code in WRONG_LAST_SEQUENCE


_decoder = msgspec.json.Decoder(Ack)

Settle = Callable[[Ack | None], None]
"""Told what the stream answered; None where no answer came: nobody knows then whether it is stored."""


class Acks:
    """Publishes from one connection that are waiting for their acknowledgement."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._replies = Replies(connection)
        self._waiting: dict[str, Settle] = {}
        self._overdue: deque[tuple[float, str]] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def open(self) -> None:
        """Be ready to hear. Call once."""
        await self._replies.open()

    def expect(self, settle: Settle, wait: float) -> str:
        """Where the acknowledgement of one publish is to go. `settle` is called once, after `wait` seconds at the most.

        It is called from the reader of the connection: it must neither wait nor raise.
        """

        def arrived(message: Reply) -> None:
            # No data: "no responders". The stream has no leader, or JetStream is not up yet.
            self.settle(reply, _decoder.decode(message.data) if message.data else None)

        reply = self._replies.expect(arrived)
        self._waiting[reply] = settle
        loop = asyncio.get_running_loop()
        self._overdue.append((loop.time() + wait, reply))
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP, self._give_up_on_the_overdue)
        return reply

    def settle(self, reply: str, ack: Ack | None) -> None:
        """Expect nothing more there, and tell who waits, if anybody still does."""
        settle = self._waiting.pop(reply, None)
        self._replies.forget(reply)
        if settle is not None:
            settle(ack)

    async def publish(self, subject: str, body: bytes, fields: dict[str, str], wait: float) -> Ack | None:
        """The stream's answer; None where none came in `wait` seconds: nobody knows then whether it is stored."""
        arrived: asyncio.Future[Ack | None] = asyncio.get_running_loop().create_future()
        reply = self.expect(lambda ack: None if arrived.done() else arrived.set_result(ack), wait)
        try:
            await self._nats.publish(subject, body, reply=reply, headers=fields)
            return await arrived
        except nats.errors.Error:
            return None
        finally:
            self.settle(reply, None)

    def _give_up_on_the_overdue(self) -> None:
        # One timer for all: a timer for each costs more than the acknowledgement it hardly ever replaces.
        loop = asyncio.get_running_loop()
        self._overdue = deque(one for one in self._overdue if one[1] in self._waiting)
        for when, reply in list(self._overdue):
            if when <= loop.time():
                self.settle(reply, None)
        self._sweep = loop.call_later(SWEEP, self._give_up_on_the_overdue) if self._overdue else None

    async def close(self) -> None:
        """Hear no more: whoever waits still is told that no answer came."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await self._replies.close()
        for reply in list(self._waiting):
            self.settle(reply, None)
