"""Keeps a fold up to date with the log, in memory, starting from a snapshot where there is one."""

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


class Snapshot(msgspec.Struct, frozen=True):
    """A state and the sequence of the last event in it, as bytes of MessagePack."""

    schema: str
    position: int
    state: msgspec.Raw


class Snapshots(Protocol):
    """Where snapshots are kept. Losing one costs time and nothing else."""

    async def load(self, name: str) -> bytes | None:
        """The newest snapshot of this name, or None."""
        ...

    async def save(self, name: str, data: bytes) -> None:
        """Keep this one instead. Never raises: a snapshot that isn't kept is only missed."""
        ...


class View(Generic[S]):
    """A fold and its position, following the log. `state` is the fold of every event up to `position`."""

    def __init__(self, log_: Log, fold: Fold[S], snapshots: Snapshots | None = None) -> None:
        self._log = log_
        self._fold = fold
        self._snapshots = snapshots
        self._scope = Scope(fold.categories)
        self._follower: Follower | None = None
        self._since_snapshot = 0
        self.state = fold.initial()
        self.skipped = 0
        self._position = 0
        self.on_change: list[Callable[[RecordedEvent], None]] = []

    @property
    def position(self) -> int:
        """The sequence of the last event of our categories in `state`."""
        return self._position

    async def start(self) -> None:
        """Load the snapshot, follow the log from there, and return when everything in it is in `state`."""
        await self._restore()
        self._follower = await self._log.follow(self._apply, self._position, scope=self._scope)
        await self._follower.caught_up()
        log.debug("view.ready", fold=self._fold.name, position=self._position)

    async def catch_up(self) -> None:
        """Return when `state` holds everything that was in the log when this was called: read your writes."""
        end = await self._log.end(self._scope)
        await self.reached(end)

    async def reached(self, sequence: int) -> None:
        """Return when `state` holds the event at `sequence`, one of our categories."""
        if self._follower is not None and self._position < sequence:
            await self._follower.reached(sequence)

    async def _apply(self, event: RecordedEvent) -> None:
        if event.sequence <= self._position:
            return  # told again, since a reconnect cut short the snapshot that was being kept after it
        if isinstance(event.body, Unknown):
            self.skipped += 1
            log.warning("view.event_skipped", fold=self._fold.name, sequence=event.sequence, type=event.type)
        else:
            self.state = self._fold.step(self.state, event)
        self._position = event.sequence
        for listener in self.on_change:
            listener(event)
        self._since_snapshot += 1
        if self._since_snapshot >= SNAPSHOT_EVERY:
            await self.save()

    async def save(self) -> None:
        """Write a snapshot, if anything changed since the last one."""
        if self._snapshots is None or not self._since_snapshot:
            return
        self._since_snapshot = 0
        state = msgspec.Raw(msgspec.msgpack.encode(self.state))
        snapshot = Snapshot(self._fold.schema(), self._position, state)
        await self._snapshots.save(self._fold.name, msgspec.msgpack.encode(snapshot))

    async def _restore(self) -> None:
        data = await self._snapshots.load(self._fold.name) if self._snapshots else None
        if data is None:
            return
        try:
            snapshot = msgspec.msgpack.decode(data, type=Snapshot)
            if snapshot.schema == self._fold.schema() and snapshot.position <= await self._log.end():
                self.state = msgspec.msgpack.decode(snapshot.state, type=self._fold.state)
                self._position = snapshot.position
        except msgspec.DecodeError:
            log.warning("view.snapshot_unreadable", fold=self._fold.name)

    async def stop(self) -> None:
        """Stop following, and leave a snapshot for the next start."""
        if self._follower is not None:
            await self._follower.stop()
        await self.save()
