"""The bus for a library that is synchronous: a loop in a thread, with a log on it as soon as a server answers."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from eventsourcing.persistence import ProgrammingError

from trunkline_events.connection import Connection, Unreachable
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Log
from trunkline_events.loop_thread import LoopThread

log = structlog.get_logger()

RETRY_SECONDS = 0.5
ANSWER_SECONDS = 10.0

T = TypeVar("T")


def _closed() -> Exception:
    return ProgrammingError("this application is closed; make another one")


class UpstreamBus:
    """A connection that waits for its server. Its thread starts with its first use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.RLock()  # `post` may come from a finaliser, in the midst of any of this
        self._thread: LoopThread[UpstreamBus] | None = None
        self._opening: asyncio.Task[Connection] | None = None

    def call(self, work: Callable[[Log], Awaitable[T]]) -> T:
        """Run on the loop and wait. Raises what it raises, and TimeoutError where the bus or the log is not there."""

        async def timed() -> T:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await work(await self.log())

        return self._started().call(timed)

    def post(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run on the loop without waiting. Does nothing once closed."""
        self._started().post(work)

    def _started(self) -> "LoopThread[UpstreamBus]":
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread("trunkline-upstream", self._session, _closed)
                self._thread.open()
            return self._thread

    @asynccontextmanager
    async def _session(self) -> AsyncIterator["UpstreamBus"]:
        try:
            yield self
        finally:
            if self._opening is not None:
                self._opening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await self._opening).close()

    async def log(self) -> Log:
        """The log, once a server answers."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return JetStreamLog(await asyncio.shield(self._opening))

    async def _open(self) -> Connection:
        told = False
        while True:
            try:
                return await Connection.open(self._url, name="trunkline projector")
            except Unreachable as error:
                if not told:
                    log.warning("upstream.waiting", reason=str(error))
                    told = True
                await asyncio.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """Close the connection and end the thread. Idempotent."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.close()
