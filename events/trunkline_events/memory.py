"""The log in memory: for tests and examples. It keeps the contract of the real one and forgets all with the process."""

import asyncio
import inspect
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Collection

from trunkline_events.codec import CODEC, Codec
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.log import ALL, Appended, Conflict, Handler, Scope
from trunkline_events.log_waiting import FollowerStopped
from trunkline_events.subjects import log_subject
from trunkline_events.tasks import end_task


class MemoryLog:
    """A `Log` that lives in this process. Bodies pass through the codec, as they would on their way to a disk.

    `clock` tells the Unix time at which an event is stored.
    """

    def __init__(self, codec: Codec = CODEC, clock: Callable[[], float] = time.time) -> None:
        self._codec = codec
        self._clock = clock
        self._events: list[RecordedEvent] = []
        self._stored_at: list[int] = []
        """In microseconds, for each event; they never go back, whatever the clock does."""
        self._ids: dict[str, int] = {}
        self._last: dict[tuple[str, str], RecordedEvent] = {}
        self._grown = asyncio.Condition()

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        last = self._last.get((event.category, event.aggregate))
        if expected is not None and expected != (last.sequence if last else 0):
            raise Conflict(log_subject(event.category, event.aggregate), expected)
        if event.id in self._ids:
            return Appended(self._ids[event.id], duplicate=True)
        name = self._codec.name(event.body)
        recorded = RecordedEvent(
            sequence=len(self._events) + 1,
            id=event.id,
            category=event.category,
            aggregate=event.aggregate,
            type=name,
            body=self._codec.decode(name, self._codec.encode(event.body)),
            time=event.time,
            actor=event.actor,
            cause=event.cause,
            traceparent=event.traceparent,
        )
        # Stored before the first await, so that no other append can slip in between the check and the store.
        self._events.append(recorded)
        self._stored_at.append(max(_micros(self._clock()), *self._stored_at[-1:], 0))
        self._ids[event.id] = recorded.sequence
        self._last[event.category, event.aggregate] = recorded
        async with self._grown:
            self._grown.notify_all()
        return Appended(recorded.sequence)

    async def last(self, category: str, aggregate: str) -> RecordedEvent | None:
        return self._last.get((category, aggregate))

    async def glance(self, category: str, aggregate: str) -> RecordedEvent | None:
        return await self.last(category, aggregate)

    async def get(self, sequence: int) -> RecordedEvent | None:
        return self._events[sequence - 1] if 0 < sequence <= len(self._events) else None

    async def end(self, scope: Scope = ALL) -> int:
        return next((e.sequence for e in reversed(self._events) if scope.covers(e.category, e.aggregate)), 0)

    async def read(
        self, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        for event in self._events[self._first(after, since) : len(self._events)]:
            if scope.covers(event.category, event.aggregate):
                yield event

    async def follow(
        self, handler: Handler, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> "_MemoryFollower":
        return _MemoryFollower(self._events, self._grown, handler, self._first(after, since), scope)

    def _first(self, after: int, since: float | None) -> int:
        return after if since is None else max(after, bisect_left(self._stored_at, _micros(since)))

    async def position_at(self, moment: float) -> int:
        return bisect_right(self._stored_at, _micros(moment))

    async def last_of_each(
        self, category: str, up_to: int, *, only: Collection[str] | None = None, after: str = ""
    ) -> AsyncGenerator[RecordedEvent, None]:
        last = {event.aggregate: event for event in self._events[: max(up_to, 0)] if event.category == category}
        for aggregate in sorted(last):
            if aggregate > after and (only is None or aggregate in only):
                yield last[aggregate]

    async def aggregates(self, category: str) -> list[str]:
        return sorted(aggregate for of, aggregate in self._last if of == category)


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)


class _MemoryFollower:
    def __init__(
        self,
        events: list[RecordedEvent],
        grown: asyncio.Condition,
        handler: Handler,
        after: int,
        scope: Scope,
    ) -> None:
        self._events, self._grown = events, grown
        self._handler, self._scope = handler, scope
        self._index = after
        self._start_end = len(events)
        self.position = after
        self._stopped = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopped:
            async with self._grown:
                await self._grown.wait_for(lambda: len(self._events) > self._index)
            while self._index < len(self._events) and not self._stopped:
                await self._hand_over(self._events[self._index])
                async with self._grown:
                    self._index += 1
                    self._grown.notify_all()

    async def _hand_over(self, event: RecordedEvent) -> None:
        if not self._scope.covers(event.category, event.aggregate):
            return
        try:
            outcome = self._handler(event)
            if inspect.isawaitable(outcome):
                await outcome
        except (Exception, asyncio.CancelledError) as error:  # the contract: a handler's error ends nothing
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and (self._stopped or (task and task.cancelling())):
                raise
            asyncio.get_running_loop().call_exception_handler({"message": "log handler failed", "exception": error})
        self.position = event.sequence

    async def caught_up(self) -> None:
        await self.reached(self._start_end)

    async def reached(self, sequence: int) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: self._index >= sequence or self._stopped)
        if self._index < sequence:
            raise FollowerStopped(self._index, sequence)

    async def stop(self) -> None:
        self._stopped = True
        if self._task is not asyncio.current_task():  # a handler may stop its own follower
            await end_task(self._task)
        async with self._grown:
            self._grown.notify_all()
