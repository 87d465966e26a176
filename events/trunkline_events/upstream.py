"""The log as the eventsourcing library sees it: an application whose notifications are our events. It only reads.

`ProjectionRunner(application_class=LogUpstream, …)` follows the stream TRUNKLINE: a notification's id is the event's
sequence, its topic the event's stored name. The environment names the bus (TRUNKLINE_NATS) and, for a run that ends,
the last sequence to yield (UPSTREAM_UNTIL). Nothing here raises because the bus or the log is not there: it waits,
says so once, and goes on when they are.

The library is synchronous, so the bus is on an event loop in a thread of its own, at most PREFETCH events ahead of
whoever iterates. A slow reader holds back its own consumer and nothing else.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Sequence
from typing import Any, NoReturn
from uuid import UUID

import nats.errors
import nats.js.errors
import structlog
from eventsourcing.application import Application
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    Mapper,
    Notification,
    ProcessRecorder,
    ProgrammingError,
    StoredEvent,
    Subscription,
    TrackingRecorder,
)
from eventsourcing.utils import Environment, EnvType
from msgspec import Struct

from trunkline_events.codec import CODEC
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.log import ALL, Follower, Log, LogUnavailable, Scope
from trunkline_events.upstream_bus import RETRY_SECONDS, UpstreamBus

log = structlog.get_logger()

URL = "TRUNKLINE_NATS"
UNTIL = "UPSTREAM_UNTIL"

PREFETCH = 2048
"""Events held at most before their reader takes them: a few megabytes, and 50 ms of work."""


class ReadOnly(ProgrammingError):
    """Nothing is appended through this application. An actor decides, and appends with `Log.append`."""

    def __init__(self) -> None:
        super().__init__("this application only reads the log; events are appended by actors, with `Log.append`")


class Delivered(Struct, frozen=True):
    """An event and whether `more` are at hand right behind it: where none are, it is time to commit."""

    event: RecordedEvent
    more: bool

    @property
    def originator_id(self) -> str:
        """The aggregate, as the library names it."""
        return f"{self.event.category}/{self.event.aggregate}"

    @property
    def originator_version(self) -> int:
        """The event's sequence: increasing within an aggregate, not consecutive."""
        return self.event.sequence


class LogNotification(Notification):
    """A notification that holds the event it is about. Its `state`, the body as JSON, is made when it is asked for."""

    event: RecordedEvent
    more: bool

    def __init__(self, event: RecordedEvent, *, more: bool) -> None:
        fields = vars(self)  # the dataclass is frozen, and `object.__setattr__` six times is half of its cost
        fields["id"] = fields["originator_version"] = event.sequence
        fields["originator_id"] = f"{event.category}/{event.aggregate}"
        fields["topic"] = event.type
        fields["event"] = event
        fields["more"] = more

    @property
    def state(self) -> bytes:
        """The body's bytes, brought up to the version we know."""
        body = self.event.body
        return body.data if isinstance(body, Unknown) else CODEC.encode(body)


class LogMapper(Mapper[str]):
    """Turns a notification of the log into the event it holds. The codec has decoded and upcast it already."""

    def to_stored_event(self, domain_event: Any) -> NoReturn:
        raise ReadOnly

    def to_domain_event(self, stored_event: StoredEvent) -> Delivered:
        if not isinstance(stored_event, LogNotification):
            raise ProgrammingError("this mapper maps what its own recorder yields, and nothing else")
        return Delivered(stored_event.event, stored_event.more)


class LogSubscription(Subscription["LogRecorder"]):
    """Events after `gt`, one by one, in order and without a gap, for ever or up to `until`."""

    def __init__(
        self, recorder: "LogRecorder", bus: UpstreamBus, gt: int | None, topics: Sequence[str], until: int | None
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._bus = bus
        self._until = until
        self._appended = gt or 0
        self._arrived: list[RecordedEvent] = []
        self._taken: list[RecordedEvent] = []
        self._next = 0
        self._changed = threading.Condition()
        self._reader_waits = False
        self._room = asyncio.Event()
        self._ending = asyncio.Event()
        self._complete = until is not None and self._appended >= until
        self._error: BaseException | None = None
        self._fed = not self._complete
        if self._fed:
            bus.post(self._feed)

    # -- on the loop -----------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        try:
            follower = await self._follower()
            try:
                await self._ending.wait()
            finally:
                await follower.stop()
        except Exception as error:  # noqa: BLE001 - it is raised where the reader is
            with self._changed:
                self._error = error
                self._changed.notify()

    async def _follower(self) -> Follower:
        source = await self._bus.log()
        told = False
        while True:
            try:
                return await source.follow(self._handle, self._appended)
            except (LogUnavailable, nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
                if not told:
                    log.warning("upstream.waiting", reason=str(error))
                    told = True
                await asyncio.sleep(RETRY_SECONDS)

    def _handle(self, event: RecordedEvent) -> Awaitable[None] | None:
        # Told of an event twice, where a wait for room was cut short by a reconnect: it is here since the first time.
        if event.sequence <= self._appended or (self._until is not None and event.sequence > self._until):
            return None
        with self._changed:
            self._appended = event.sequence
            self._complete = event.sequence == self._until
            if not self._topics or event.type in self._topics:
                self._arrived.append(event)
            if self._reader_waits and (self._arrived or self._complete):
                self._reader_waits = False
                self._changed.notify()
            if len(self._arrived) < PREFETCH:
                return None
            self._room.clear()
        return self._until_room()

    async def _until_room(self) -> None:
        await self._room.wait()

    async def _make_room(self) -> None:
        self._room.set()

    async def _end(self) -> None:
        self._room.set()
        self._ending.set()

    # -- in the reader's thread ------------------------------------------------------------------------------------

    def __next__(self) -> Notification:
        if self._next == len(self._taken):
            self._take()
        if self._has_been_stopped:
            raise StopIteration
        event = self._taken[self._next]
        self._next += 1
        return LogNotification(event, more=self._next < len(self._taken) or bool(self._arrived))

    def _take(self) -> None:
        """Wait for events, and take all there are. Raises StopIteration where there will be none."""
        with self._changed:
            while not (self._arrived or self._has_been_stopped or self._complete or self._error):
                self._reader_waits = True
                self._changed.wait()
            if self._error is not None:
                raise self._error
            if self._has_been_stopped or not self._arrived:
                raise StopIteration
            self._taken, self._arrived, self._next = self._arrived, [], 0
        if len(self._taken) >= PREFETCH:
            self._bus.post(self._make_room)

    def stop(self) -> None:
        """End the iteration, from any thread. Idempotent."""
        super().stop()
        with self._changed:
            self._changed.notify()
        if self._fed:
            self._bus.post(self._end)


class LogRecorder(ApplicationRecorder):
    """The library's application recorder over the stream TRUNKLINE: selects and subscribes, and inserts nothing."""

    def __init__(self, bus: UpstreamBus, until: int | None) -> None:
        self._bus = bus
        self._until = until

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> NoReturn:
        raise ReadOnly

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        category, _, aggregate = str(originator_id).partition("/")
        found = self._read(gt or 0, lte, None if desc else limit, (), Scope((category,), aggregate))
        return found[::-1][:limit] if desc else found

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = max(0, (start or 0) - (1 if inclusive_of_start else 0))
        return self._read(after, stop, limit, topics, ALL)

    def _read(
        self, after: int, until: int | None, limit: int | None, topics: Sequence[str], scope: Scope
    ) -> list[LogNotification]:
        async def read(source: Log) -> list[LogNotification]:
            found: list[LogNotification] = []
            events = source.read(after, scope=scope)
            async with contextlib.aclosing(events):
                async for event in events:
                    if (until is not None and event.sequence > until) or len(found) == limit:
                        break
                    if not topics or event.type in topics:
                        found.append(LogNotification(event, more=True))
            return found

        return self._bus.call(read)

    def max_notification_id(self) -> int | None:
        """The last sequence of the log, None where it holds nothing. Raises LogMissing, LogUnavailable."""

        async def end(source: Log) -> int:
            return await source.end()

        return self._bus.call(end) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> LogSubscription:
        return LogSubscription(self, self._bus, gt, topics, self._until)


class _LogFactory(InfrastructureFactory[TrackingRecorder]):
    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._bus = UpstreamBus(env[URL])

    def application_recorder(self) -> LogRecorder:
        until = self.env.get(UNTIL)
        return LogRecorder(self._bus, int(until) if until else None)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        raise ReadOnly

    def tracking_recorder(self, tracking_recorder_class: Any = None) -> TrackingRecorder:
        raise ReadOnly

    def process_recorder(self) -> ProcessRecorder:
        raise ReadOnly

    def close(self) -> None:
        self._bus.close()


class LogUpstream(Application[str]):
    """The log as an application of the library. Its name is the one positions are tracked under."""

    name = "trunkline"

    def construct_factory(self, env: Environment) -> InfrastructureFactory[TrackingRecorder]:
        return _LogFactory(env)

    def construct_mapper(self) -> LogMapper:
        return LogMapper(self.construct_transcoder())


def upstream_env(url: str, until: int | None = None) -> EnvType:
    """What `LogUpstream` is constructed with: the bus, and where to end."""
    return {URL: url, UNTIL: "" if until is None else str(until)}
