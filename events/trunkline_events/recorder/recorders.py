"""The recorders and their factory: the synchronous face that the library calls, over what the other modules do."""

import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    Notification,
    OperationalError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic

from trunkline_events.loop_thread import LoopThread
from trunkline_events.recorder.reader import Reader
from trunkline_events.recorder.stream import Bus, Stream, open_bus
from trunkline_events.recorder.subscription import Feed
from trunkline_events.recorder.writer import Update, Writer

T = TypeVar("T")


class SettingsError(InfrastructureFactoryError, OSError):
    """A setting is missing or can't be used. The message names it, and what to set it to."""


def _closed() -> OperationalError:
    return OperationalError(
        "this recorder's factory is closed; construct the application anew. What was being saved may or may not be "
        "stored: read it back"
    )


class Store:
    """One application's events, or what else it keeps of one purpose; what the recorders share. Safe in any thread."""

    def __init__(self, datastore: "Datastore", purpose: str, *, tracks: bool) -> None:
        self._datastore = datastore
        self.stream = datastore.call(lambda bus: _open_stream(bus, datastore.application, purpose, tracks))
        self.reader, self.writer = Reader(self.stream), Writer(self.stream)

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run on the loop and wait. Raises what it raises, and OperationalError once the factory is closed."""
        return self._datastore.call(lambda _: work())

    def post(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run on the loop without waiting."""
        self._datastore.post(work)


async def _open_stream(bus: Bus, application: str, purpose: str, tracks: bool) -> Stream:
    stream = Stream(bus, application, purpose)
    await stream.open(tracks=tracks)
    return stream


class Datastore:
    """The connection of one factory, opened by its first recorder. Closed with it, or when nothing refers to it."""

    def __init__(self, application: str, url: str, *, replicas: int, timeout: float) -> None:
        self.application = application
        name = f"eventsourcing {application}"
        self._loop = LoopThread(
            "trunkline-recorder", lambda: open_bus(url, name, replicas=replicas, timeout=timeout), _closed
        )
        self._bus: Bus | None = None
        # The library's own examples never close an application: its thread must not outlive it for that.
        weakref.finalize(self, self._loop.close)

    def open(self) -> None:
        """Connect. Raises OperationalError where no server can be used."""
        self._bus = self._loop.open()

    def call(self, work: Callable[[Bus], Awaitable[T]]) -> T:
        """Run on the loop and wait."""
        bus = self._bus
        assert bus is not None, "opened by the factory before it hands out a recorder"
        return self._loop.call(lambda: work(bus))

    def post(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run on the loop without waiting."""
        self._loop.post(work)

    def close(self) -> None:
        """End what is under way, the connection and the thread. Idempotent."""
        self._loop.close()


class NatsAggregateRecorder(AggregateRecorder):
    """Events, or snapshots, of aggregates."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store all of them or none. Raises IntegrityError, DataError, OperationalError as `Writer.insert` says."""
        self._store.call(lambda: self._store.writer.insert(stored_events))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The aggregate's events with versions above `gt` up to `lte`, by version. Raises OperationalError."""
        return self._store.call(lambda: self._store.reader.events(originator_id, gt, lte, desc, limit))


class NatsApplicationRecorder(NatsAggregateRecorder, ApplicationRecorder):
    """Events of an application, which are also one sequence: notification ids count from 1 without a gap."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store all of them or none; their notification ids, or None where there were no events."""
        return self._store.call(lambda: self._store.writer.insert(stored_events)) or None

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Up to `limit` events from `start` to `stop`. Those of other topics are read too, and left out here."""
        first = 1 if start is None else max(start if inclusive_of_start else start + 1, 1)
        return self._store.call(lambda: self._store.reader.notifications(first, limit, stop, topics))

    def max_notification_id(self) -> int | None:
        """How many events are stored; None where there are none."""
        return self._store.call(self._store.reader.state).events or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> "NatsSubscription":
        """The events after `gt`, and then as they are stored. It goes on across restarts of the server."""
        return NatsSubscription(self, self._store, gt, topics)


class NatsSubscription(Subscription[ApplicationRecorder]):
    """Events as they are stored, for one thread to iterate over. `stop`, from any thread, ends the wait at once."""

    def __init__(
        self, recorder: ApplicationRecorder, store: Store, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._store = store
        self._feed = Feed(store.stream, gt or 0, frozenset(topics))
        self._taken: list[Notification] = []  # the next one last
        store.call(self._feed.start)

    def __next__(self) -> Notification:
        """The next event, once there is one; StopIteration after `stop`. Raises OperationalError once closed."""
        if not self._taken and not self._has_been_stopped:
            try:
                self._taken = self._store.call(self._feed.take)[::-1]
            except OperationalError:
                if not self._has_been_stopped:
                    raise
        if self._has_been_stopped:
            raise StopIteration
        return self._taken.pop()

    def stop(self) -> None:
        """End the iteration, also of a thread that waits in it. Idempotent."""
        super().stop()
        self._store.post(self._feed.stop)


class NatsTrackingRecorder(TrackingRecorder):
    """How far an application has processed those upstream of it, and a small view kept together with that."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def insert_tracking(self, tracking: Tracking, update: Update | None = None) -> None:
        """Record that this notification was processed, and with it, at once, what `update` makes of the view.

        Raises IntegrityError where it, or a later one, was processed already: nothing has changed then.
        """
        self._store.call(lambda: self._store.writer.insert((), tracking, update))

    def max_tracking_id(self, application_name: str) -> int | None:
        """The last notification of this application that was processed."""
        return self._store.call(self._store.reader.state).positions.get(application_name)

    def view(self) -> bytes:
        """The view as the last tracking left it, empty before the first. Of a process recorder: of no use."""
        return self._store.call(self._store.reader.state).view


class NatsProcessRecorder(NatsTrackingRecorder, NatsApplicationRecorder, ProcessRecorder):
    """Events together with the tracking of what they follow from: both are stored, or neither."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Store the events and `tracking`, where that is given, together; the events' notification ids, or None."""
        tracking: Tracking | None = kwargs.get("tracking")
        return self._store.call(lambda: self._store.writer.insert(stored_events, tracking)) or None


class NatsFactory(InfrastructureFactory[NatsTrackingRecorder]):
    """Makes recorders for the application that its environment is named after. Raises SettingsError."""

    TRUNKLINE_NATS = "TRUNKLINE_NATS"
    TRUNKLINE_REPLICAS = "TRUNKLINE_REPLICAS"
    TRUNKLINE_TIMEOUT = "TRUNKLINE_TIMEOUT"

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        url = (self.env.get(self.TRUNKLINE_NATS) or "").strip()
        if not url:
            keys = " or ".join(self.env.create_keys(self.TRUNKLINE_NATS))
            raise SettingsError(f"set {keys} to the address of a NATS server, such as nats://127.0.0.1:4222")
        if not self.env.name:
            raise SettingsError("give the application a name: its stream is named after it")
        self.datastore = Datastore(
            self.env.name,
            url,
            replicas=int(self._number(self.TRUNKLINE_REPLICAS, 1, "1, 3 or 5", lambda n: n in (1, 3, 5))),
            timeout=self._number(self.TRUNKLINE_TIMEOUT, 15, "seconds above 0", lambda n: 0 < n < 3600),
        )
        self._opened = False
        self._stores: dict[tuple[str, bool], Store] = {}

    def _number(self, key: str, default: float, wanted: str, fits: Callable[[float], bool]) -> float:
        text = (self.env.get(key) or "").strip()
        try:
            number = float(text) if text else default
        except ValueError:
            number = float("nan")
        if not fits(number):
            raise SettingsError(f"{key} is {text!r}; set it to {wanted}")
        return number

    def _store(self, purpose: str, *, tracks: bool = False) -> Store:
        if not self._opened:
            self.datastore.open()
            self._opened = True
        # One for all recorders, so that those which track take turns instead of getting in each other's way.
        if (purpose, tracks) not in self._stores:
            self._stores[purpose, tracks] = Store(self.datastore, purpose, tracks=tracks)
        return self._stores[purpose, tracks]

    def aggregate_recorder(self, purpose: str = "events") -> NatsAggregateRecorder:
        """Events or, for the purpose "snapshots", snapshots. Raises OperationalError where the server can't be used."""
        return NatsAggregateRecorder(self._store(purpose))

    def application_recorder(self) -> NatsApplicationRecorder:
        """The application's events. Its class may be given as APPLICATION_RECORDER_TOPIC."""
        return self._recorder_class(self.APPLICATION_RECORDER_TOPIC, NatsApplicationRecorder)(self._store("events"))

    def tracking_recorder(
        self, tracking_recorder_class: type[NatsTrackingRecorder] | None = None
    ) -> NatsTrackingRecorder:
        """What a projection has processed. Its class may be given, or named by TRACKING_RECORDER_TOPIC."""
        if tracking_recorder_class is None:
            tracking_recorder_class = self._recorder_class(self.TRACKING_RECORDER_TOPIC, NatsTrackingRecorder)
        return tracking_recorder_class(self._store("tracking", tracks=True))

    def process_recorder(self) -> NatsProcessRecorder:
        """Events with trackings. Its class may be given as PROCESS_RECORDER_TOPIC."""
        return self._recorder_class(self.PROCESS_RECORDER_TOPIC, NatsProcessRecorder)(
            self._store("events", tracks=True)
        )

    def _recorder_class(self, key: str, default: type[T]) -> type[T]:
        topic = self.env.get(key)
        found = resolve_topic(topic) if topic else default
        if not (isinstance(found, type) and issubclass(found, default)):
            raise SettingsError(f"{key} names {topic}, which is no subclass of {default.__name__}; name one that is")
        return found

    def close(self) -> None:
        """End the connection and the thread; who still waits in a thread gets an OperationalError. Idempotent."""
        self.datastore.close()


Factory = NatsFactory
