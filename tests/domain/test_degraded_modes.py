"""Modes of a process, on a log in memory: what is told of them, how often, and in which order."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from trunkline_actors.degraded import LOG_UNREACHABLE, MOST_UNTOLD, NO_STATISTICS, ROUTING_OVERRIDE, Degraded
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent
from trunkline_events.gateway import GatewayFact, GatewayRecovered
from trunkline_events.log import ALL, Appended, LogUnavailable, Scope
from trunkline_events.memory import MemoryLog


class Away(MemoryLog):
    """A log that can go away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        if self.away:
            raise LogUnavailable("away")
        return await super().append(event, expected)

    async def end(self, scope: Scope = ALL) -> int:
        if self.away:
            raise LogUnavailable("away")
        return await super().end(scope)


class Process:
    """One process with a log of its own; `now` is its clock, `told` counts its changes."""

    def __init__(self) -> None:
        self.log = Away()
        self.nats = SimpleNamespace(is_connected=True)
        self.now = 1_000.0
        self.told = 0
        connection = cast("Connection", SimpleNamespace(nats=self.nats))
        self.modes = Degraded("p", self.log, connection, lambda: self.now, self._tell, steady=0.1)

    def _tell(self) -> None:
        self.told += 1

    async def events(self, count: int) -> list[tuple[Any, ...]]:
        """The events, when there are so many."""
        async with asyncio.timeout(10):
            while await self.log.end() < count:  # noqa: ASYNC110 - a task beside appends them
                await asyncio.sleep(0.01)
        found = [event async for event in self.log.read()]
        assert {(event.category, event.aggregate, event.actor) for event in found} <= {("gateway", "p", "p")}
        facts = [cast("GatewayFact", event.body) for event in found]
        return [(event.type, fact.mode, fact.since) for event, fact in zip(found, facts, strict=True)]


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    one = Process()
    one.modes.start()
    yield one
    await one.modes.stop()


BEGAN, ENDED = "gateway.degraded.v1", "gateway.recovered.v1"


async def test_a_mode_is_told_once_when_it_begins_and_once_when_it_ends(process: Process) -> None:
    for moment in range(100):
        process.now = 1_000.0 + moment
        process.modes.enter(NO_STATISTICS, "of latency")
    assert process.modes.since == {NO_STATISTICS: 1_000.0}
    assert await process.events(1) == [(BEGAN, NO_STATISTICS, 1_000.0)]
    for _ in range(100):
        process.modes.leave(NO_STATISTICS)
        process.now += 1
    assert await process.events(2) == [(BEGAN, NO_STATISTICS, 1_000.0), (ENDED, NO_STATISTICS, 1_000.0)]
    ended = [event.body async for event in process.log.read()][-1]
    assert isinstance(ended, GatewayRecovered)
    assert ended.until == 1_099.0, "it ended when it was first left"
    assert process.modes.since == {}
    assert process.told == 2


async def test_a_mode_that_comes_and_goes_with_every_request_is_one_mode(process: Process) -> None:
    for _ in range(50):
        process.modes.enter(NO_STATISTICS)
        process.modes.leave(NO_STATISTICS)
        await asyncio.sleep(0)
    assert process.modes.since == {NO_STATISTICS: 1_000.0}
    assert len(await process.events(2)) == 2
    process.now = 2_000.0
    process.modes.enter(NO_STATISTICS)
    assert (await process.events(3))[-1] == (BEGAN, NO_STATISTICS, 2_000.0), "and later it is another one"


async def test_what_was_never_entered_is_not_left(process: Process) -> None:
    process.modes.leave(NO_STATISTICS)
    process.modes.enter(ROUTING_OVERRIDE)
    assert await process.events(1) == [(BEGAN, ROUTING_OVERRIDE, 1_000.0)]


async def test_what_happened_while_the_log_was_away_is_told_in_order_when_it_is_back(process: Process) -> None:
    process.log.away = True
    process.modes.log_failed()
    assert process.modes.log_away
    process.now = 1_001.0
    process.modes.enter(NO_STATISTICS)
    process.log.away = False  # and now
    told = await process.events(3)
    assert told == [
        (BEGAN, LOG_UNREACHABLE, 1_000.0),
        (BEGAN, NO_STATISTICS, 1_001.0),
        (ENDED, LOG_UNREACHABLE, 1_000.0),
    ]
    assert not process.modes.log_away


async def test_a_log_that_goes_again_at_once_is_found_back_again(process: Process) -> None:
    process.modes.log_failed()
    await process.events(1)
    process.log.away = True
    process.modes.log_failed()
    assert LOG_UNREACHABLE in process.modes.since
    process.log.away = False
    async with asyncio.timeout(10):
        while process.modes.log_away:  # noqa: ASYNC110 - a task beside finds it
            await asyncio.sleep(0.01)
    assert len(await process.events(2)) == 2


async def test_a_log_that_can_not_be_heard_of_without_a_connection_is_no_mode_of_its_own(process: Process) -> None:
    process.nats.is_connected = False
    process.modes.log_failed()
    assert process.modes.since == {}


async def test_an_orderly_end_ends_every_mode(process: Process) -> None:
    process.modes.enter(ROUTING_OVERRIDE, "every request goes to m")
    await process.modes.stop()
    assert await process.events(2) == [(BEGAN, ROUTING_OVERRIDE, 1_000.0), (ENDED, ROUTING_OVERRIDE, 1_000.0)]


async def test_a_log_that_stays_away_costs_no_more_than_so_many_events(process: Process) -> None:
    process.log.away = True
    for number in range(MOST_UNTOLD + 50):
        process.modes.enter(f"mode-{number}")
    assert len(process.modes._untold) == MOST_UNTOLD
