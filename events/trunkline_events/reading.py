"""Events as an asynchronous generator, over what follows a log: each once, in order, held back by who reads them."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable

from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import ALL, Log, Scope
from trunkline_events.log_waiting import FollowerStopped
from trunkline_events.tasks import end_task

BEHIND = 1024
"""Events a reader may be behind before its consumer is held back."""

_NEVER = 2**63


class _Pile:
    """What was handed over and not read yet."""

    def __init__(self) -> None:
        self._events: deque[RecordedEvent] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._ended: FollowerStopped | None = None

    def put(self, event: RecordedEvent) -> Awaitable[None] | None:
        """The log's handler: what it gives back is awaited before the next event comes."""
        self._events.append(event)
        self._wake()
        if len(self._events) < BEHIND:
            return None
        self._room = asyncio.get_running_loop().create_future()
        return self._room

    def end(self, watch: "asyncio.Task[None]") -> None:
        """No more will come: said once what came is read."""
        error = None if watch.cancelled() else watch.exception()
        self._ended = error if isinstance(error, FollowerStopped) else self._ended
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def take(self) -> RecordedEvent:
        """The next event. Raises FollowerStopped where none can come."""
        while not self._events:
            if self._ended is not None:
                raise self._ended
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        event = self._events.popleft()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return event


async def events_of(
    log: Log, after: int = 0, *, scope: Scope = ALL, since: float | None = None, until: int | None = None
) -> AsyncGenerator[RecordedEvent, None]:
    """The events in scope, as they come; up to the sequence `until` of one of them, else for ever.

    Raises LogUnavailable where the log can't be followed, and FollowerStopped once its connection is closed for good.
    """
    pile = _Pile()
    follower = await log.follow(pile.put, after, scope=scope, since=since)
    watch = asyncio.create_task(follower.reached(_NEVER))
    watch.add_done_callback(pile.end)
    try:
        while True:
            event = await pile.take()
            yield event
            if until is not None and event.sequence >= until:
                return
    finally:
        await follower.stop()
        await end_task(watch)
