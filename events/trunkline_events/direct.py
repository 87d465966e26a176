"""The stream as it was: the last messages up to a sequence, and which sequence it was at a time.

Wire formats: NATS ADR-31 for direct gets (`multi_last`, `up_to_seq`; an answer is many messages and ends in a status:
204 end of batch, 404 nothing found, 413 too many subjects), and the JetStream API for what only the leader may answer
(`STREAM.MSG.GET` by `start_time`, `STREAM.INFO` with `subjects_filter` and `offset`).
"""

import asyncio
from collections.abc import AsyncGenerator, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import nats.errors

from trunkline_events import codes, headers, subjects
from trunkline_events.connection import Connection, Replies
from trunkline_events.log import LogMissing, LogUnavailable
from trunkline_events.quick import Reply

API = "$JS.API"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 4_102_444_800_000_000
"""The end of this century in microseconds: later times mean the end of the log as well."""

SUBJECTS_AT_ONCE = 500
"""Named in one request. The server answers 413 where more than 1,024 match."""
MOST_BYTES = 8 * 1024 * 1024
"""One answer comes without flow control, so that it must be small enough to be taken at once."""

ANSWER_WITHIN = 2.0
GIVE_UP_AFTER = 10.0
TRY_AGAIN_AFTER = 0.05

_END_OF_BATCH, _NOTHING_FOUND, _TOO_MANY = "204", "404", "413"


class Stored(msgspec.Struct, frozen=True):
    """A message as the stream holds it; `stored_at` is the server's clock, in Unix time.

    `previous` is the sequence of the message before it in the same answer, 0 for the first.
    """

    subject: str
    sequence: int
    headers: dict[str, str]
    data: bytes
    stored_at: float
    previous: int


class Position(msgspec.Struct, frozen=True):
    """A sequence of the stream, and the subject of the message there."""

    sequence: int
    subject: str


class _Batch(msgspec.Struct):
    """One answer: its messages by sequence, and how many more there would be."""

    status: str
    messages: list[Stored]
    pending: int

    def reaches(self, sequence: int) -> bool:
        """Whether the message at this sequence is the last one, and none before it was lost on the way."""
        whole = [0, *(message.sequence for message in self.messages)]
        return whole[-1] == sequence and whole[:-1] == [message.previous for message in self.messages]


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Message(msgspec.Struct):
    seq: int = 0
    subject: str = ""


class _State(msgspec.Struct):
    last_seq: int = 0
    subjects: dict[str, int] | None = None


class _Answer(msgspec.Struct):
    error: _Error | None = None
    message: _Message = msgspec.field(default_factory=_Message)
    state: _State = msgspec.field(default_factory=_State)
    total: int = 0


_decoder = msgspec.json.Decoder(_Answer)


class DirectGet:
    """Reads that are no consumer. Every method raises LogUnavailable where no good answer came in time."""

    def __init__(self, connection: Connection, api: str = API) -> None:
        self._nats = connection.nats
        self._api = api
        self._replies = Replies(connection)
        self._opening: asyncio.Task[None] | None = None

    # -- what only the leader may answer -----------------------------------------------------------------------------

    async def before(self, micros: int) -> int:
        """The sequence of the last message stored before this time, in microseconds since 1970; 0 for none."""
        end = await self._end()  # asked first: what is stored after the second question may be since that time
        moment = _EPOCH + timedelta(microseconds=min(max(micros, 0), _LATEST))
        answer = await self._ask("STREAM.MSG.GET", {"start_time": moment.isoformat()})
        return end if answer is None else answer.message.seq - 1

    async def _end(self) -> int:
        answer = await self._ask("STREAM.INFO", {})
        return answer.state.last_seq if answer else 0

    async def _position(self, up_to: int) -> Position | None:
        sequence = min(up_to, await self._end())
        answer = await self._ask("STREAM.MSG.GET", {"seq": sequence}) if sequence > 0 else None
        return None if answer is None else Position(sequence, answer.message.subject)

    async def ids(self, category: str) -> list[str]:
        """The ids of all aggregates of a category."""
        return [_id_of(subject) for subject in await self.subjects(subjects.category_filter(category))]

    async def subjects(self, matching: str) -> set[str]:
        """All subjects that match and have a message. The server tells them in pages, 100,000 in each."""
        found: set[str] = set()
        offset = 0
        while True:
            answer = await self._ask("STREAM.INFO", {"subjects_filter": matching, "offset": offset})
            page = (answer and answer.state.subjects) or {}
            # Pages are sorted, and no subject ever goes: one that comes meanwhile can only show others twice.
            found.update(page)
            offset += len(page)
            if answer is None or not page or offset >= answer.total:
                return found

    async def _ask(self, verb: str, request: dict[str, Any]) -> _Answer | None:
        try:
            message = await self._nats.request(
                f"{self._api}.{verb}.{subjects.STREAM}", msgspec.json.encode(request), timeout=5
            )
            answer = _decoder.decode(message.data)
        except (nats.errors.Error, TimeoutError, msgspec.DecodeError) as error:
            raise LogUnavailable(f"the log does not answer ({type(error).__name__}); is the server up?") from error
        if answer.error is None:
            return answer
        if answer.error.err_code == codes.NO_MESSAGE:
            return None
        if answer.error.err_code == codes.NO_STREAM:
            raise LogMissing
        raise LogUnavailable(f"the log can't be read: {answer.error.description} ({answer.error.err_code})")

    # -- what any replica may answer ---------------------------------------------------------------------------------

    async def last_of_each(
        self, category: str, up_to: int, only: Collection[str] | None, after: str
    ) -> AsyncGenerator[Stored, None]:
        """The last message of each aggregate of a category up to a sequence, in the order of the aggregates' ids.

        What isn't where an actor would have appended it belongs to no aggregate, and is left out.
        """
        position = await self._position(up_to)
        if position is None:
            return
        everything = f"{subjects.LOG}.{category}.*"
        if only is None:
            found = await self.last_up_to([everything], position)
            if found is not None:
                for message in _by_id(found, after):
                    yield message
                return
        ids = only if only is not None else map(_id_of, await self.subjects(everything))
        asked = [subjects.log_subject(category, one) for one in sorted(set(ids)) if one > after]
        at_once = SUBJECTS_AT_ONCE
        while asked:
            found = await self.last_up_to(asked[:at_once], position)
            if found is None and at_once > 1:
                at_once //= 2  # too many bytes for one answer
                continue
            if found is None:
                raise LogUnavailable(f"{asked[0]} can't be read: it has an event of more than {MOST_BYTES:,} bytes")
            for message in _by_id(found, after):
                yield message
            del asked[:at_once]

    async def latest(self, subject: str) -> Stored | None:
        """The last message of a subject, as the replica that answers knows it: it may be behind the leader."""
        try:
            message = await self._nats.request(
                f"{self._api}.DIRECT.GET.{subjects.STREAM}.{subject}", timeout=ANSWER_WITHIN
            )
        except (nats.errors.Error, TimeoutError) as error:
            raise LogUnavailable(f"the log does not answer ({type(error).__name__}); is the server up?") from error
        fields = dict(message.headers or {})
        if fields.get(headers.STATUS) == _NOTHING_FOUND:
            return None
        try:
            return _stored(Reply(message.data, fields))
        except (KeyError, ValueError) as error:
            raise LogUnavailable(f"the log gave no message but {fields.get(headers.STATUS, 'nonsense')}") from error

    async def last_up_to(self, matching: list[str], position: Position) -> list[Stored] | None:
        """The last message of each matching subject among those up to `position`; None where one answer can't hold it.

        A follower may answer, and one that is behind would tell an older state, with no word of being behind. So each
        request asks for the subject of the message at `position` as well: who has that message has all before it.
        """
        asked = list(dict.fromkeys([*matching, position.subject]))
        request = msgspec.json.encode({"multi_last": asked, "up_to_seq": position.sequence, "max_bytes": MOST_BYTES})
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GIVE_UP_AFTER
        while loop.time() < deadline and not self._nats.is_closed:
            batch = await self._exchange(request)
            if batch is not None and (batch.status == _TOO_MANY or batch.pending):
                return None
            if batch is not None and batch.status == _END_OF_BATCH and batch.reaches(position.sequence):
                return [one for one in batch.messages if one.subject != position.subject or _matches(matching, one)]
            # 404: it is behind, for the message at `position` is there. 503 and silence: no server, no leader yet.
            await asyncio.sleep(TRY_AGAIN_AFTER)
        raise LogUnavailable(f"no server told the state at event {position.sequence} within {GIVE_UP_AFTER:g} s")

    async def _exchange(self, request: bytes) -> "_Batch | None":
        """One answer; None where it did not end in time."""
        arrived: list[Reply] = []
        ended: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        def take(message: Reply) -> None:
            if message.data or not message.headers or headers.STATUS not in message.headers:
                arrived.append(message)
            elif not ended.done():
                ended.set_result(message.headers)

        await self._open()
        reply = self._replies.expect(take)
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                await self._nats.publish(f"{self._api}.DIRECT.GET.{subjects.STREAM}", request, reply=reply)
                end = await ended
        except (TimeoutError, nats.errors.Error):
            return None
        finally:
            self._replies.forget(reply)
        try:
            return _Batch(
                status=end[headers.STATUS],
                messages=[_stored(message) for message in arrived],
                pending=int(end.get("Nats-Num-Pending", 0)),
            )
        except (KeyError, ValueError):
            return None  # not an answer of JetStream

    async def _open(self) -> None:
        # Most logs are never asked for the past: the inbox is made when the first is, once for all who ask together.
        if self._opening is None:
            self._opening = asyncio.create_task(self._replies.open())
        try:
            await asyncio.shield(self._opening)
        except nats.errors.Error as error:
            self._opening = None
            raise LogUnavailable(f"the log does not answer ({type(error).__name__}); is the server up?") from error

    async def close(self) -> None:
        """Hear no more."""
        await self._replies.close()


def _id_of(subject: str) -> str:
    return subjects.split_log_subject(subject)[1]


def _by_id(messages: list[Stored], after: str) -> list[Stored]:
    ours = [one for one in messages if subjects.log_subject(*subjects.split_log_subject(one.subject)) == one.subject]
    return sorted((one for one in ours if _id_of(one.subject) > after), key=lambda one: _id_of(one.subject))


def _matches(matching: list[str], message: Stored) -> bool:
    """Whether a message is wanted, and not there only because it is the one at the position."""
    return message.subject in matching or f"{message.subject.rpartition('.')[0]}.*" in matching


def _stored(reply: Reply) -> Stored:
    fields = reply.headers or {}
    return Stored(
        subject=fields["Nats-Subject"],
        sequence=int(fields["Nats-Sequence"]),
        headers=fields,
        data=reply.data,
        previous=int(fields.get("Nats-Last-Sequence", 0)),
        stored_at=datetime.fromisoformat(fields["Nats-Time-Stamp"]).timestamp(),
    )
