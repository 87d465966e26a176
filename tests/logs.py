"""What tests of logs share: events to append, and a handler that remembers."""

import asyncio
import time
from collections.abc import AsyncIterator

from trunkline_events.circuit import Reset
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.log import Follower, Log
from trunkline_events.registry import ModelEnabled


def an_event(name: str, aggregate: str = "a", category: str = "circuit") -> NewEvent:
    body = Reset(provider=aggregate, reason=name) if category == "circuit" else ModelEnabled(id=aggregate, reason=name)
    return NewEvent(id=name, category=category, aggregate=aggregate, body=body, time=time.time(), actor="test")


async def append(log: Log, *names: str, aggregate: str = "a", category: str = "circuit") -> int:
    """Append without expectation; the sequence of the last one."""
    appended = [await log.append(an_event(name, aggregate, category)) for name in names]
    return appended[-1].sequence


class Heard:
    """A handler that keeps what it is told, and says when that is so much."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []
        self._more = asyncio.Condition()

    async def __call__(self, event: RecordedEvent) -> None:
        async with self._more:
            self.events.append(event)
            self._more.notify_all()

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(10), self._more:
            await self._more.wait_for(lambda: len(self.events) >= count)
        return self.ids


async def within(follower: Follower, sequence: int | None = None) -> None:
    async with asyncio.timeout(10):
        await (follower.caught_up() if sequence is None else follower.reached(sequence))


async def ids(events: AsyncIterator[RecordedEvent]) -> list[str]:
    return [event.id async for event in events]
