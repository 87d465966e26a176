"""Group commit: what is appended while the log is busy is stored together, as one atomic batch with one sync.

Callers see single appends with single outcomes. Idle, an append is a plain publish; how many must wait for a batch to
pay is measured (`pace`). A refused batch is taken apart: each of its appends is sent alone and gets its own answer.

Wire format: NATS ADR-50, atomic batch publishing. Every message carries `Nats-Batch-Id` and its number; the last one
`Nats-Batch-Commit: 1` and the reply subject. The acknowledgement holds the sequence of the last one; a batch is stored
without gaps, so the others follow.
"""

import asyncio
from collections.abc import Iterable

import nats.errors
from msgspec import Struct, structs
from nats.nuid import NUID

from trunkline_events import headers
from trunkline_events.acks import Ack, Acks
from trunkline_events.connection import Connection
from trunkline_events.pace import Pace

BATCH = 500
"""Messages in a batch at the most; the server takes 1,000."""

BATCH_BYTES = 4 * 1024 * 1024

NOT_SENT = Ack()
"""Told by identity: what the caller waited for did not come to be sent, and is not stored."""

LITTLE_TIME = 0.5
"""Seconds to its deadline below which an append goes alone."""

CONTENDED = 1.0
"""Seconds for which a subject that conflicted stays out of batches, which it would only have refused."""

PASSES = 0.5
"""What waits goes out when the appends under way need less than so much of a batch's time."""


class _Waiting(Struct, eq=False):
    """One append. `expects`: it is stored only if its subject is as it knew it. `alone`: not in a batch."""

    subject: str
    body: bytes
    fields: dict[str, str]
    done: "asyncio.Future[Ack | None]"
    deadline: float
    expects: bool
    alone: bool
    resent: bool = False


class Writer:
    """Appends to one stream from one connection. `group_commit` off: every append is a plain publish."""

    def __init__(self, connection: Connection, *, group_commit: bool = True) -> None:
        self._nats = connection.nats
        self._acks = Acks(connection)
        self._groups = group_commit
        self._queue: list[_Waiting] = []
        self._under_way = 0
        self._batch_under_way = False
        self._flush_soon = False
        self._contended: dict[str, float] = {}
        self._ids = NUID()
        self.pace = Pace()
        self.batches = 0
        """How many batches were sent."""

    async def open(self) -> None:
        """Be ready to hear acknowledgements. Call once."""
        await self._acks.open()

    def __len__(self) -> int:
        """Appends that wait for their acknowledgement, sent or not."""
        return self._under_way + len(self._queue)

    async def write(
        self, subject: str, body: bytes, fields: dict[str, str], wait: float, *, alone: bool = False
    ) -> Ack | None:
        """The stream's answer; NOT_SENT where it never left, None where no answer came: it may be stored or not.

        Either comes after `wait` seconds, and at most one batch's wait later.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Ack | None] = loop.create_future()
        expects = headers.EXPECTED_LAST in fields
        self._queue.append(_Waiting(subject, body, fields, done, loop.time() + wait, expects, alone))
        self._flush_next()
        return await done

    def _flush_next(self) -> None:
        # In the next turn of the loop, so that what is appended in this one goes out together.
        if not self._flush_soon:
            self._flush_soon = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_soon = False
        if self._batch_under_way or not self._queue:
            return
        now = asyncio.get_running_loop().time()
        if self._groups and self._under_way and self._backlog(now) > self.pace.batch.at(now):
            return  # a batch would wait for them: let more gather
        queue, self._queue = [one for one in self._queue if self._still_wanted(one, now)], []
        together, later = self._independent(queue, now) if self._groups else ([], [])
        if self.pace.chooses_batch(len(together), now):
            self._send_batch(together, now)
            self._queue = later  # for the next batch
            gone = set(map(id, together + later))
            queue = [one for one in queue if id(one) not in gone]
        self._send_plain(queue, now)

    def _still_wanted(self, one: _Waiting, now: float) -> bool:
        if one.deadline <= now:
            _tell(one, NOT_SENT)
        return not one.done.done()

    def _backlog(self, now: float) -> float:
        return self._under_way * self.pace.plain.at(now)

    def _independent(self, queue: Iterable[_Waiting], now: float) -> tuple[list[_Waiting], list[_Waiting]]:
        """What can be in one batch, and what can be in the next since this one is full.

        No subject is in it twice where somebody expects something of it, none that is contended, and nobody who has
        little time left: with one of those the whole batch would be given up soon.
        """
        if self._contended:
            self._contended = {subject: at for subject, at in self._contended.items() if now - at < CONTENDED}
        chosen: list[_Waiting] = []
        later: list[_Waiting] = []
        expecting: dict[str, bool] = {}
        size = 0
        for one in queue:
            if one.alone or one.subject in self._contended or one.deadline - now < LITTLE_TIME:
                continue
            if one.subject in expecting and (one.expects or expecting[one.subject]):
                continue
            if later or len(chosen) == BATCH or size + len(one.body) > BATCH_BYTES:
                later.append(one)
                continue
            size += len(one.body)
            expecting[one.subject] = one.expects
            chosen.append(one)
        return chosen, later

    # -- one by one ------------------------------------------------------------------------------------------------

    def _send_plain(self, appends: list[_Waiting], now: float) -> None:
        messages = []
        for number, one in enumerate(appends, 1):
            last = number == len(appends)
            reply = self._expect_one(one, now, self._under_way + 1 if last else 0)
            messages.append((one.subject, reply, one.fields, one.body))
        self._publish(messages)

    def _expect_one(self, one: _Waiting, sent: float, under_way: int) -> str:
        self._under_way += 1

        def settle(ack: Ack | None) -> None:
            self._under_way -= 1
            now = asyncio.get_running_loop().time()
            if ack is not None and ack is not NOT_SENT:
                self.pace.learn_plain(now - sent, under_way, now)
                if ack.conflicts and self._groups:
                    self._contended[one.subject] = now
            _tell(one, _of_resent(ack) if one.resent else ack)
            if self._queue and self._backlog(now) <= PASSES * self.pace.batch.at(now):
                self._flush_next()

        return self._acks.expect(settle, one.deadline - sent)

    # -- together --------------------------------------------------------------------------------------------------

    def _send_batch(self, appends: list[_Waiting], now: float) -> None:
        self.batches += 1
        self._batch_under_way = True
        self._under_way += len(appends)

        def settle(ack: Ack | None) -> None:
            self._batch_under_way = False
            self._under_way -= len(appends)
            self._batch_settled(appends, ack, now)
            if self._queue:
                self._flush_next()

        reply = self._acks.expect(settle, min(one.deadline for one in appends) - now)
        batch, last = self._ids.next().decode(), len(appends)
        messages = []
        for number, one in enumerate(appends, 1):
            fields = {**one.fields, headers.BATCH_ID: batch, headers.BATCH_SEQUENCE: str(number)}
            if number == last:
                fields[headers.BATCH_COMMIT] = "1"
            messages.append((one.subject, reply if number == last else "", fields, one.body))
        self._publish(messages)

    def _batch_settled(self, appends: list[_Waiting], ack: Ack | None, sent: float) -> None:
        now = asyncio.get_running_loop().time()
        if ack is None or ack is NOT_SENT:
            # Unanswered, it is stored whole or not at all, and nobody knows which: each caller finds out for its own.
            for one in appends:
                _tell(one, ack)
        elif ack.error is None:
            self.pace.batch.learn(now - sent, now)
            first = ack.seq - len(appends) + 1
            for number, one in enumerate(appends):
                _tell(one, Ack(seq=first + number))
        else:
            # One of them was refused, and with it all: each by itself gets the answer that is its own.
            # Or so the server says: one that is losing its lead may have stored the batch after all.
            left = [one for one in appends if not one.done.done()]
            for one in left:
                one.resent = True
            self._send_plain(left, now)

    def _publish(self, messages: list[tuple[str, str, dict[str, str], bytes]]) -> None:
        try:
            self._nats.publish_together(messages)
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError):
            for _, reply, _, _ in messages:
                if reply:
                    self._acks.settle(reply, NOT_SENT)

    async def close(self) -> None:
        """Hear no more."""
        await self._acks.close()


def _tell(one: _Waiting, ack: Ack | None) -> None:
    if not one.done.done():
        one.done.set_result(ack)


def _of_resent(ack: Ack | None) -> Ack | None:
    """The same for what had been part of a batch before: that it was not sent again does not mean it is not stored."""
    return None if ack is None or ack is NOT_SENT else structs.replace(ack, resent=True)
