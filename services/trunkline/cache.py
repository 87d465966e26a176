"""The registry on disk: what a process that starts while the log is away can still tell. Losing it costs no event."""

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path

import structlog
from msgspec import Struct
from trunkline_actors.runtime import Runtime
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import LogError
from trunkline_events.tasks import end_task
from trunkline_projections.folds import GATEWAY, Gateway
from trunkline_projections.runner import Snapshot, mark_of, read_snapshot

log = structlog.get_logger()

FILE = Path("cache") / "gateway.snapshot"
"""Below the data folder."""
PAUSE = 3.0
"""Seconds between two writings, however much changes."""


class Cached(Struct, frozen=True):
    """What lies on disk: the fold at a position of the log, and when it was written, Unix time."""

    snapshot: Snapshot
    state: Gateway
    written: float


class RegistryCache:
    """The file, in the folder `data`. What can't be read is as good as none, what can't be written is only missed."""

    def __init__(self, data: Path) -> None:
        self.path = data / FILE
        self._warned = False

    def read(self) -> Cached | None:
        """What is there; None where there is nothing, or nothing that this version can read."""
        try:
            data = self.path.read_bytes()
            written = self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cache.unreadable", path=str(self.path), error=error.strerror, next="see its permissions")
            return None
        read = read_snapshot(GATEWAY, data)
        if read is None:
            log.warning("cache.unusable", path=str(self.path), reason="damaged, or of another version")
            return None
        return Cached(*read, written)

    def write(self, data: bytes) -> None:
        """Put this in its place, as a whole or not at all."""
        beside = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, beside = tempfile.mkstemp(prefix=".gateway.", dir=self.path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(self.path)
        except OSError as error:
            if not self._warned:  # and then it goes on without
                log.warning("cache.not_written", path=str(self.path), error=error.strerror, next="give --data a folder")
            self._warned = True
            if beside is not None:
                with contextlib.suppress(OSError):
                    Path(beside).unlink()

    def drop(self) -> None:
        """Throw it away."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Keeping:
    """Keeps the file up to date with what a process knows."""

    def __init__(self, cache: RegistryCache, runtime: Runtime) -> None:
        self._cache = cache
        self._runtime = runtime
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what lies there of another log is thrown away."""
        self._runtime.gateway.on_change.append(self._on_change)
        self._task = asyncio.create_task(self._keep())

    def _on_change(self, event: RecordedEvent) -> None:
        if event.category != "budget":  # which changes all the time, and nobody reads here
            self._changed.set()

    async def _keep(self) -> None:
        await self._check()
        while True:
            self._changed.clear()
            await self._write()
            await asyncio.sleep(PAUSE)
            await self._changed.wait()

    async def _check(self) -> None:
        cached = await asyncio.to_thread(self._cache.read)
        if cached is None:
            return
        with contextlib.suppress(LogError):
            there = await self._runtime.log.get(cached.snapshot.position)
            if there is None or mark_of(there) != cached.snapshot.mark:
                log.warning("cache.of_another_log", path=str(self._cache.path), position=cached.snapshot.position)
                self._cache.drop()

    async def _write(self) -> None:
        data = self._runtime.gateway.snapshot()
        if data:
            await asyncio.to_thread(self._cache.write, data)

    async def stop(self) -> None:
        """Write it a last time."""
        await end_task(self._task)
        await self._write()
