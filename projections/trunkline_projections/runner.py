"""Keeps a fold up to date with the log, in memory, starting from a snapshot where there is one."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.log import Follower, Log, Scope

from trunkline_projections.fold import Fold

log = structlog.get_logger()

S = TypeVar("S")

SNAPSHOT_EVERY = 1000
"""Events between snapshots: replaying this many takes about 10 ms."""
SNAPSHOT_PAUSE = 5.0
"""Seconds between snapshots, however many events there are: what is missed at a crash is read again in a second."""


class Snapshot(msgspec.Struct, frozen=True):
    """A state, the sequence of the last event in it and which event that was, as bytes of MessagePack.

    `mark` tells this log from another one of the same name: a sequence alone may be some other event's there.
    """

    schema: str
    position: int
    state: msgspec.Raw
    mark: str = ""


class Snapshots(Protocol):
    """Where snapshots are kept. Losing one costs time and nothing else."""

    async def load(self, name: str) -> bytes | None:
        """The newest snapshot of this name, or None."""
        ...

    async def save(self, name: str, data: bytes) -> None:
        """Keep this one instead. Never raises: a snapshot that isn't kept is only missed."""
        ...


def mark_of(event: RecordedEvent) -> str:
    """What tells this event from another one at its sequence in another log."""
    return f"{event.id} {event.time:.6f}"


def read_snapshot(fold: Fold[S], data: bytes) -> tuple[Snapshot, S] | None:
    """A snapshot and its state; None where it is damaged, or of another version of the fold."""
    try:
        snapshot = msgspec.msgpack.decode(data, type=Snapshot)
        if snapshot.schema != fold.schema():
            return None
        return snapshot, msgspec.msgpack.decode(snapshot.state, type=fold.state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class View(Generic[S]):
    """A fold and its position, following the log. `state` is the fold of every event up to `position`.

    Snapshots are kept while the log goes on being followed, one at a time, under the fold's name and schema: two
    versions of a fold that run side by side have one each.
    """

    def __init__(self, log_: Log, fold: Fold[S], snapshots: Snapshots | None = None) -> None:
        self._log = log_
        self._fold = fold
        self._snapshots = snapshots
        self._scope = Scope(() if fold.follows_all else fold.categories)
        self._follower: Follower | None = None
        self._key = f"{fold.name}.{fold.schema()}"
        self._since_snapshot = 0
        self._next_snapshot = 0.0
        self._saving: asyncio.Task[None] | None = None
        self._last: RecordedEvent | None = None
        self.state = fold.initial()
        self.skipped = 0
        self._position = 0
        self.on_change: list[Callable[[RecordedEvent], None]] = []

    @property
    def position(self) -> int:
        """The sequence of the last event that was followed: all of our categories up to it are in `state`."""
        return self._position

    async def start(self) -> None:
        """Load the snapshot, follow the log from there, and return when everything in it is in `state`."""
        await self._restore()
        self._follower = await self._log.follow(self._apply, self._position, scope=self._scope)
        await self._follower.caught_up()
        log.debug("view.ready", fold=self._fold.name, position=self._position)

    def hold(self, snapshot: Snapshot, state: S) -> None:
        """Show what a snapshot holds, without following anything."""
        self.state, self._position = state, snapshot.position

    async def catch_up(self) -> None:
        """Return when `state` holds everything that was in the log when this was called: read your writes."""
        end = await self._log.end(self._scope)
        await self.reached(end)

    async def reached(self, sequence: int) -> None:
        """Return when `state` holds the event at `sequence`, one that is followed."""
        if self._follower is not None and self._position < sequence:
            await self._follower.reached(sequence)

    def _apply(self, event: RecordedEvent) -> None:
        if event.category not in self._fold.categories:
            pass
        elif isinstance(event.body, Unknown):
            self.skipped += 1
            log.warning("view.event_skipped", fold=self._fold.name, sequence=event.sequence, type=event.type)
        else:
            self.state = self._fold.step(self.state, event)
        self._position, self._last = event.sequence, event
        for listener in self.on_change:
            listener(event)
        self._since_snapshot += 1
        if self._since_snapshot >= SNAPSHOT_EVERY and self._snapshots is not None and self._saving is None:
            now = asyncio.get_running_loop().time()
            if now >= self._next_snapshot:
                self._next_snapshot = now + SNAPSHOT_PAUSE
                self._save()

    async def save(self) -> None:
        """Write a snapshot, if anything changed since the last one, and return when it is written."""
        if self._saving is not None:
            await asyncio.wait([self._saving])
        if self._since_snapshot:
            self._save()
        if self._saving is not None:
            await asyncio.wait([self._saving])

    def snapshot(self) -> bytes:
        """The state as it is now, as bytes that `read_snapshot` reads; empty before the first event."""
        if self._last is None:
            return b""
        state = msgspec.Raw(msgspec.msgpack.encode(self.state))
        return msgspec.msgpack.encode(Snapshot(self._fold.schema(), self._position, state, mark_of(self._last)))

    def _save(self) -> None:
        """Begin to write: the state is taken as it is now, since the fold may change it in place."""
        if self._snapshots is None or self._last is None:
            return
        self._since_snapshot = 0
        self._saving = asyncio.create_task(self._snapshots.save(self._key, self.snapshot()))
        self._saving.add_done_callback(self._saved)

    def _saved(self, task: asyncio.Task[None]) -> None:
        self._saving = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("view.snapshot_failed", fold=self._fold.name, error=type(error).__name__)

    async def _restore(self) -> None:
        data = await self._snapshots.load(self._key) if self._snapshots else None
        if data is None:
            return
        read = read_snapshot(self._fold, data)
        if read is None:
            log.warning("view.snapshot_unreadable", fold=self._fold.name)
            return
        snapshot, state = read
        last = await self._log.get(snapshot.position)
        if last is None or mark_of(last) != snapshot.mark:
            log.warning("view.snapshot_of_another_log", fold=self._fold.name, position=snapshot.position)
            return
        self.state, self._position, self._last = state, snapshot.position, last

    async def stop(self) -> None:
        """Stop following, and leave a snapshot for the next start."""
        if self._follower is not None:
            await self._follower.stop()
        await self.save()
