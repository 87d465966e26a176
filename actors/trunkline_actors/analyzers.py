"""Analyzers by name: our own, and others that are installed as entry points of the group `trunkline.analyzers`.

Somebody else's code runs in a thread, so that it never holds up the loop, and gets LIMIT seconds for a request. One
that raises, gives anything but names, or takes longer is as good as none for that request: it has no hints, which is
counted and told. A thread can't be ended from outside: one that is late is left alone, and another serves the next
request. At ABANDONED of them an analyzer is asked nothing more until one comes back.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from importlib.metadata import entry_points
from queue import SimpleQueue
from typing import Any

import structlog
from trunkline_events.thread import Operation

from trunkline_actors import analyzer

log = structlog.get_logger()

GROUP = "trunkline.analyzers"
BUILT_IN = "builtin"
"""The name of our own analyzer in policies."""
LIMIT = 0.05
"""Seconds for one request."""
LOAD_LIMIT = 2.0
"""Seconds for the first request to wait until an analyzer is loaded: it may import much."""
ABANDONED = 4
TOLD_EVERY = 10.0
"""Seconds between warnings of one analyzer: every request may have a reason for one."""

Analyze = Callable[[bytes, Operation], list[str]]
"""What an entry point of the group leads to: the hints of a body. It must be pure, and may be called in any thread."""

_Task = tuple[bytes, Operation, "asyncio.Future[list[str]]"]


class _Plugin:
    """One analyzer of somebody else's, and the thread that runs it."""

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self._limit = limit
        self.loaded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._analyze: Analyze | None = None
        self._late = 0
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._start()

    def _start(self) -> None:
        self._tasks = SimpleQueue()
        threading.Thread(target=self._run, args=(self._tasks,), name=f"analyzer {self.name}", daemon=True).start()

    async def hints(self, body: bytes, operation: Operation) -> list[str]:
        """What it finds. Raises whatever it raises, TimeoutError where it is late, LookupError where there is none."""
        if not self.loaded.done():
            async with asyncio.timeout(LOAD_LIMIT):
                await asyncio.shield(self.loaded)
        self.loaded.result()
        if self._late >= ABANDONED:
            raise TimeoutError("it has not come back from earlier requests")
        tasks, answer = self._tasks, self._loop.create_future()
        tasks.put((body, operation, answer))
        try:
            async with asyncio.timeout(self._limit):
                return analyzer.names(await answer)
        except TimeoutError:
            if tasks is self._tasks:  # it is the one that is late; those in line behind it have lost their time too
                tasks.put(None)
                self._late += 1
                self._start()
            raise

    # -- in its thread ---------------------------------------------------------------------------------------------

    def _run(self, tasks: "SimpleQueue[_Task | None]") -> None:
        if self._analyze is None:
            self._load()
        while (task := tasks.get()) is not None:
            body, operation, answer = task
            if self._analyze is None or answer.done():
                continue
            try:
                found = self._analyze(body, operation)
            except BaseException as error:  # noqa: BLE001 - it is not our code: nothing of it may end this thread
                self._tell(_settle, answer, None, error)
            else:
                self._tell(_settle, answer, found, None)
        self._tell(self._came_back)

    def _load(self) -> None:
        try:
            found = next(iter(entry_points(group=GROUP, name=self.name)), None)
            if found is None:
                raise LookupError(f"no analyzer {self.name!r} is installed (entry points of the group {GROUP!r})")  # noqa: TRY301
            self._analyze = found.load()
        except BaseException as error:  # noqa: BLE001 - the same
            self._tell(_settle, self.loaded, None, error)
        else:
            self._tell(_settle, self.loaded, None, None)

    def _came_back(self) -> None:
        self._late -= 1

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the process ends
            return

    def close(self) -> None:
        """Let its thread end."""
        self._tasks.put(None)


def _settle(future: "asyncio.Future[Any]", found: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
        future.exception()  # who waited may have gone


class Analyzers:
    """The analyzers that policies name. `failed` counts, by name, requests for which one was as good as none.

    `limit`: seconds that one of somebody else's gets for a request.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self.failed: Counter[str] = Counter()
        self._plugins: dict[str, _Plugin] = {}
        self._told: dict[str, float] = {}

    async def hints(self, name: str | None, body: bytes, operation: Operation) -> list[str]:
        """The hints of a request, by the analyzer of this name; none without a name. Never raises.

        It returns at once for our own, and otherwise within LIMIT, but for the time it takes to load one.
        """
        if name is None:
            return []
        if name == BUILT_IN:
            return analyzer.analyze(body, operation)
        plugin = self._plugins.get(name)
        if plugin is None:
            plugin = self._plugins[name] = _Plugin(name, self._limit)
        try:
            return await plugin.hints(body, operation)
        except Exception as error:  # noqa: BLE001 - whatever somebody else's code raises
            self._failed(name, error)
            return []

    def _failed(self, name: str, error: Exception) -> None:
        self.failed[name] += 1
        now = asyncio.get_running_loop().time()
        if now - self._told.get(name, -TOLD_EVERY) >= TOLD_EVERY:
            self._told[name] = now
            # Not its message, which may hold what it was given.
            why = str(error) if isinstance(error, LookupError | TimeoutError) else ""
            log.warning("analyzer.failed", analyzer=name, error=type(error).__name__, why=why, times=self.failed[name])

    def close(self) -> None:
        """Let the threads end that can."""
        for plugin in self._plugins.values():
            plugin.close()
