"""Storing events and trackings: all of a call or nothing of it, once, and known for certain or reported as unknown.

Every message of a call bears the id of the call. After a lost acknowledgement the same is sent again: each subject
takes one message only, so it is stored once, and who then meets a conflict reads what is there and sees whose it is.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence

from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent, Tracking

from trunkline_events.recorder import wire
from trunkline_events.recorder.stream import PAUSE, RETRIED, Stream
from trunkline_events.recorder.wire import INSERT, Message, State, Stored

Update = Callable[[bytes], bytes]
"""The view that is kept with a tracking: what it is after, of what it was before. May be called more than once."""


class Writer:
    """Appends to one store."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._state: State | None = None
        self._turn = asyncio.Lock()

    async def insert(
        self, events: Sequence[StoredEvent], tracking: Tracking | None = None, update: Update | None = None
    ) -> list[int]:
        """The notification ids of the events, once all is stored.

        IntegrityError      one of the versions is there already, or the tracking is not above that before: nothing
                            of the call was stored
        DataError           an event can't be stored as it is: nothing was stored
        OperationalError    the server refused, or did not answer in time and the call may or may not have been stored
        """
        insert = uuid.uuid4().hex
        messages = [wire.event_message(self._stream.prefix, event, insert) for event in events]
        if len({message.subject for message in messages}) < len(messages):
            raise IntegrityError("two of the events have the same originator id and version; nothing was stored")
        if self._stream.tracks:
            async with self._turn:  # one at a time: each message says where the store stands after it
                return await self._insert_tracked(messages, tracking, update, insert)
        if not messages:
            return []
        return _ids(await self._insert(messages, insert), messages)

    # -- a store of events alone -------------------------------------------------------------------------------------

    async def _insert(self, messages: list[Message], insert: str) -> int:
        attempts = _Attempts(self._stream, insert, messages)
        while True:
            sequence = await attempts.send(messages, None)
            if sequence is not None:
                return sequence
            ours = await attempts.ours()
            if ours is not None:
                return ours.sequence
            await attempts.after_conflict()

    # -- a store that tracks -----------------------------------------------------------------------------------------

    async def _insert_tracked(
        self, events: list[Message], tracking: Tracking | None, update: Update | None, insert: str
    ) -> list[int]:
        if not events and tracking is None:
            return []
        attempts: _Attempts | None = None
        before = -1
        while True:
            state = self._state or await self._load()
            if attempts is not None:
                ours = await attempts.ours()  # after the state was read: what came later, the expectation fences off
                if ours is not None:
                    return _ids(wire.notification_id(ours), events)
                await attempts.after_conflict(moved=state.sequence != before)
            _check(tracking, state)
            messages = self._stated(events, state, tracking, update, insert)
            attempts = attempts or _Attempts(self._stream, insert, messages)
            self._state, before = None, state.sequence
            sequence = await attempts.send(messages, before)
            if sequence is not None:
                last = messages[-1]
                self._state = wire.state_after(Stored(last.subject, sequence, last.fields, last.data))
                return _ids(self._state.events, events)

    def _stated(
        self, events: list[Message], state: State, tracking: Tracking | None, update: Update | None, insert: str
    ) -> list[Message]:
        messages, positions = events, state.positions
        if tracking is not None:
            positions = positions | {tracking.application_name: tracking.notification_id}
            if not events:
                view = update(state.view) if update else state.view
                messages = [wire.tracking_message(self._stream.prefix, tracking, insert, view)]
        return wire.with_state(messages, state, positions)

    async def _load(self) -> State:
        last = await self._stream.last()
        self._state = wire.state_after(last) if last else State()
        return self._state


class _Attempts:
    """The attempts to store one call's messages, until its time is over."""

    def __init__(self, stream: Stream, insert: str, messages: Sequence[Message]) -> None:
        self._stream, self._insert = stream, insert
        self._ends = list(dict.fromkeys([messages[-1].subject, messages[0].subject]))
        self._deadline = asyncio.get_running_loop().time() + stream.bus.timeout
        self.uncertain = False
        """Whether an attempt was left without an answer, so that it may be stored, now or in a moment."""

    async def send(self, messages: Sequence[Message], expected: int | None) -> int | None:
        """The sequence of the last message; None where something expected isn't so. Raises OperationalError."""
        while True:
            ack = await self._stream.send(messages, expected)
            if ack is None:
                self.uncertain = True
            elif ack.error is None:
                return ack.seq
            elif ack.conflicts:
                return None
            elif ack.error.err_code not in RETRIED:
                raise OperationalError(
                    f"{self._stream.name} did not store it: {ack.error.description} (JetStream error "
                    f"{ack.error.err_code}); nothing was stored, so look at the server and save again"
                )
            await self._wait()

    async def ours(self) -> Stored | None:
        """The last message of this call, where an attempt has stored it. Raises IntegrityError: somebody else has."""
        for subject in self._ends:
            found = await self._stream.last(subject)
            if found is not None and found.fields.get(INSERT) != self._insert:
                raise _taken(subject)
            if found is not None:
                return await self._stream.last(self._ends[0])
        return None

    async def after_conflict(self, *, moved: bool = False) -> None:
        """Return where it is worth another attempt, though none of ours is there; else raise IntegrityError.

        Either the stream has moved on since, or an earlier attempt is on its way to being stored, and in our own way.
        """
        if not moved and not self.uncertain:
            raise _taken(self._ends[0])
        await self._wait()

    async def _wait(self) -> None:
        if asyncio.get_running_loop().time() >= self._deadline or self._stream.bus.connection.nats.is_closed:
            raise self._gave_up()
        await asyncio.sleep(PAUSE)

    def _gave_up(self) -> OperationalError:
        if not self.uncertain:
            return OperationalError(f"{self._stream.name} could not store it in time; nothing was stored, save again")
        return OperationalError(
            f"{self._stream.name} did not acknowledge in time, so it may or may not be stored; save the same again "
            "when the server is back: an IntegrityError then says that these versions are there"
        )


def _check(tracking: Tracking | None, state: State) -> None:
    if tracking is None:
        return
    before = state.positions.get(tracking.application_name)
    if before is not None and tracking.notification_id <= before:
        raise IntegrityError(
            f"notification {tracking.notification_id} of {tracking.application_name} is not above {before}, the last "
            "that was tracked; it was processed already"
        )


def _ids(last: int, events: Sequence[Message]) -> list[int]:
    return list(range(last - len(events) + 1, last + 1))


def _taken(subject: str) -> IntegrityError:
    of, name, number = subject.split(".")[-3:]
    if not wire.is_event(subject):
        return IntegrityError(f"notification {number} of {name} was tracked by somebody else; it was processed already")
    return IntegrityError(
        f"version {number} of {of}, or another that was to be stored with it, was stored by somebody else; nothing of "
        "this call was stored: load the aggregate and decide again"
    )
