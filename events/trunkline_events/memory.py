"""The log in memory: for tests and examples. It keeps the contract of the real one and forgets all with the process."""

import asyncio
import inspect
from collections.abc import AsyncGenerator

from trunkline_events.codec import CODEC, Codec
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.log import ALL, Appended, Conflict, Handler, Scope
from trunkline_events.subjects import log_subject
from trunkline_events.tasks import end_task


class MemoryLog:
    """A `Log` that lives in this process. Bodies pass through the codec, as they would on their way to a disk."""

    def __init__(self, codec: Codec = CODEC) -> None:
        self._codec = codec
        self._events: list[RecordedEvent] = []
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
        self._ids[event.id] = recorded.sequence
        self._last[event.category, event.aggregate] = recorded
        async with self._grown:
            self._grown.notify_all()
        return Appended(recorded.sequence)

    async def last(self, category: str, aggregate: str) -> RecordedEvent | None:
        return self._last.get((category, aggregate))

    async def get(self, sequence: int) -> RecordedEvent | None:
        return self._events[sequence - 1] if 0 < sequence <= len(self._events) else None

    async def end(self, scope: Scope = ALL) -> int:
        return next((e.sequence for e in reversed(self._events) if scope.covers(e.category, e.aggregate)), 0)

    async def read(
        self, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> AsyncGenerator[RecordedEvent, None]:
        for event in self._events[after : len(self._events)]:
            if scope.covers(event.category, event.aggregate) and (since is None or event.time >= since):
                yield event

    async def follow(
        self, handler: Handler, after: int = 0, *, scope: Scope = ALL, since: float | None = None
    ) -> "_MemoryFollower":
        return _MemoryFollower(self._events, self._grown, handler, after, scope, since)

    async def aggregates(self, category: str) -> list[str]:
        return sorted(aggregate for of, aggregate in self._last if of == category)


class _MemoryFollower:
    def __init__(
        self,
        events: list[RecordedEvent],
        grown: asyncio.Condition,
        handler: Handler,
        after: int,
        scope: Scope,
        since: float | None,
    ) -> None:
        self._events, self._grown = events, grown
        self._handler, self._scope, self._since = handler, scope, since
        self._index = after
        self._start_end = len(events)
        self.position = after
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            async with self._grown:
                await self._grown.wait_for(lambda: len(self._events) > self._index)
            while self._index < len(self._events):
                await self._hand_over(self._events[self._index])
                async with self._grown:
                    self._index += 1
                    self._grown.notify_all()

    async def _hand_over(self, event: RecordedEvent) -> None:
        if not self._scope.covers(event.category, event.aggregate):
            return
        if self._since is not None and event.time < self._since:
            return
        try:
            outcome = self._handler(event)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:  # noqa: BLE001 - the contract: a handler's error ends nothing
            asyncio.get_running_loop().call_exception_handler({"message": "log handler failed", "exception": error})
        self.position = event.sequence

    async def caught_up(self) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: self._index >= self._start_end)

    async def reached(self, sequence: int) -> None:
        async with self._grown:
            await self._grown.wait_for(lambda: self._index >= sequence)

    async def stop(self) -> None:
        await end_task(self._task)
