"""Reading a store: the events of one aggregate, those of all in order, and how far trackings have come."""

from collections.abc import Sequence
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from trunkline_events.recorder import wire
from trunkline_events.recorder.stream import Stream
from trunkline_events.recorder.wire import State

READ_AHEAD = 500
"""How many messages are asked for at once."""

FEW = 64
"""How many events are asked for one by one, in one request, instead of the page that they are on."""


class Reader:
    """Reads one store. What was acknowledged before a call, to whomever, the call sees."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._known = State()  # some event's sequence and notification id: where a search starts

    async def events(
        self, originator_id: UUID | str, gt: int | None, lte: int | None, desc: bool, limit: int | None
    ) -> list[StoredEvent]:
        """The aggregate's events in the order of their versions. One request a page of 500 versions, and one more.

        Exact where an aggregate's versions were stored in rising order, as aggregates do. Of what was stored out of
        order, versions above that stored last may be left out: with `gt` any, else those on higher pages.
        """
        subject = wire.originator_subject(self._stream.prefix, originator_id)
        last = await self._stream.last(f"{subject}.>")
        if last is None or limit == 0:
            return []
        newest = wire.version_of(last.subject)
        if gt is not None and newest - gt <= FEW and (lte is None or lte >= newest):
            # What a cached aggregate asks for, or one with a snapshot: not worth a page.
            wanted = [wire.version_subject(subject, version) for version in range(gt + 1, newest + 1)]
            stored = await self._stream.matching(wanted, known=last.sequence) if wanted else []
            found = sorted(map(wire.stored_event, stored), key=_version, reverse=desc)
            return found if limit is None else found[:limit]
        first_page, last_page = 0 if gt is None else wire.page_of(gt + 1), wire.page_of(newest)
        if lte is not None:
            last_page = min(last_page, wire.page_of(lte))
        pages = range(first_page, last_page + 1)
        found = []
        for page in reversed(pages) if desc else pages:
            stored = await self._stream.matching([f"{subject}.{page}.*"], known=last.sequence)
            some = [wire.stored_event(message) for message in stored]
            some = [e for e in some if _within(e.originator_version, gt, lte)]
            found += sorted(some, key=_version, reverse=desc)
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    async def notifications(
        self, first: int, limit: int, stop: int | None, topics: Sequence[str]
    ) -> list[Notification]:
        """Up to `limit` events of these topics, or of all, with notification ids from `first` to `stop`."""
        state = await self.state()
        end = state.events if stop is None else min(stop, state.events)
        if first > end or limit <= 0:
            return []
        position = await self.sequence_of(first)
        found: list[Notification] = []
        while position <= state.sequence:
            wanted = READ_AHEAD if topics else min(READ_AHEAD, limit - len(found))
            for message in await self._stream.range(position, min(wanted, state.sequence - position + 1)):
                position = message.sequence + 1
                if not wire.is_event(message.subject):
                    continue
                one = wire.notification(message)
                if one.id > end:
                    return found
                self._known = State(message.sequence, one.id)
                if not topics or one.topic in topics:
                    found.append(one)
                if len(found) == limit:
                    return found
        return found

    async def state(self) -> State:
        """Where the store stands."""
        last = await self._stream.last()
        return wire.state_after(last) if last else State()

    async def sequence_of(self, notification_id: int) -> int:
        """The sequence in the stream of an event that is there already.

        Where trackings lie between events it is looked for from the event that was read last: each step goes on by as
        many messages as events are missing, which can't be too many.
        """
        if not self._stream.tracks:
            return notification_id
        known = self._known if self._known.events <= notification_id else State()
        position = known.sequence + notification_id - known.events
        while True:
            message = await self._stream.at(position)
            assert message is not None, "nothing is ever deleted"
            missing = notification_id - wire.notification_id(message)
            if missing == 0:
                return position
            position += missing


def _version(event: StoredEvent) -> int:
    return event.originator_version


def _within(version: int, gt: int | None, lte: int | None) -> bool:
    return (gt is None or version > gt) and (lte is None or version <= lte)
