"""`gw.events`: every event once and in order, whatever dies meanwhile; and a reader that dawdles stalls nobody."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trunkline
from cluster import cluster_of_three
from logs import an_event
from msgspec import structs
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline_events.circuit import Reset
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import LogUnavailable
from trunkline_events.reading import BEHIND
from trunkline_events.subjects import STREAM

READER = """
import asyncio, sys, trunkline

async def main(url, since, count):
    async with trunkline.connect(url) as gw:
        async for event in gw.events(since=since):
            print(event.sequence, event.id, flush=True)
            count -= 1
            if not count:
                break

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="always") as running:
        yield running


@asynccontextmanager
async def log_on(url: str, replicas: int = 1) -> AsyncIterator[JetStreamLog]:
    connection = await Connection.open(url, name="writer")
    try:
        log = await JetStreamLog.open(connection, replicas=replicas)
        yield log
        await log.close()
    finally:
        await connection.close()


async def write(log: JetStreamLog, first: int, count: int) -> None:
    """Append so many events, several at once, each until it is acknowledged."""

    async def keep(number: int) -> None:
        while True:
            with contextlib.suppress(LogUnavailable):
                await log.append(an_event(f"e{number}", f"a{number % 7}"))
                return

    for start in range(first, first + count, 25):
        await asyncio.gather(*(keep(n) for n in range(start, min(start + 25, first + count))))


class Reader:
    """Iterates over `gw.events` in the background, slowly where `pause` says so."""

    def __init__(self, gw: Gateway, since: int = 0, *, pause: float = 0.0) -> None:
        self.events: list[RecordedEvent] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._pause = pause
        self._more = asyncio.Condition()
        self._task = asyncio.create_task(self._read(gw, since))

    async def _read(self, gw: Gateway, since: int) -> None:
        async with aclosing(gw.events(since=since)) as events:
            async for event in events:
                await self.gate.wait()
                async with self._more:
                    self.events.append(event)
                    self._more.notify_all()
                if self._pause:
                    await asyncio.sleep(self._pause)

    async def until(self, count: int, within: float = 40.0) -> None:
        async with asyncio.timeout(within), self._more:
            await self._more.wait_for(lambda: len(self.events) >= count or self._task.done())
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def everything(log: JetStreamLog, after: int) -> list[RecordedEvent]:
    """The log after a sequence, read again where a cluster that elects its leaders does not answer yet."""
    while True:
        with contextlib.suppress(LogUnavailable):
            return [event async for event in log.read(after)]


async def prove(log: JetStreamLog, *readers: Reader, after: int = 0) -> None:
    """Each reader was told all that is stored after where it began, once, in order, and no more."""
    stored = await everything(log, after)
    assert [event.sequence for event in stored] == list(range(after + 1, after + 1 + len(stored)))
    for reader in readers:
        await reader.until(len(stored))
        assert reader.events == stored


# -- what dies


async def test_each_event_comes_once_though_the_server_is_killed_three_times(server: EmbeddedServer) -> None:
    async with log_on(server.url) as log, trunkline.connect(server.url) as gw:
        quick, slow = Reader(gw), Reader(gw, pause=0.001)
        writing = asyncio.create_task(write(log, 0, 800))
        for quarter in (1, 2, 3):
            await quick.until(quarter * 200)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
        await writing
        await prove(log, quick, slow)
        assert len(quick.events) == 800
        for reader in (quick, slow):
            await reader.stop()


async def test_each_event_comes_once_though_a_reader_waits_while_the_server_is_killed(server: EmbeddedServer) -> None:
    async with log_on(server.url) as log, trunkline.connect(server.url) as gw:
        reader = Reader(gw)
        await write(log, 0, 100)
        await reader.until(100)
        reader.gate.clear()
        await write(log, 100, BEHIND + 200)  # more than the iterator keeps, so that its consumer is held back
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        await write(log, BEHIND + 300, 100)
        reader.gate.set()
        await prove(log, reader)
        await reader.stop()


async def test_each_event_comes_once_though_the_connection_breaks(server: EmbeddedServer) -> None:
    async with log_on(server.url) as log, trunkline.connect(server.url) as gw:
        readers = [Reader(gw), Reader(gw, pause=0.001)]
        for turn in range(5):
            await write(log, turn * 60, 60)
            await gw._connection.nats.force_reconnect()
        await prove(log, *readers)
        for reader in readers:
            await reader.stop()


async def test_each_event_comes_once_though_the_consumer_is_deleted(server: EmbeddedServer) -> None:
    async with log_on(server.url) as log, trunkline.connect(server.url) as gw:
        reader = Reader(gw)
        js = log._connection.nats.jetstream()
        await write(log, 0, 50)
        await reader.until(1)
        for consumer in await js.consumers_info(STREAM):
            await js.delete_consumer(STREAM, consumer.name)
        await write(log, 50, 50)
        await prove(log, reader)
        await reader.stop()


async def test_each_event_comes_once_though_the_leader_dies(tmp_path: Path) -> None:
    async with (
        cluster_of_three(tmp_path) as cluster,
        log_on(cluster.url, replicas=3) as log,
        trunkline.connect(cluster.url) as gw,
    ):
        readers = [Reader(gw), Reader(gw, pause=0.001)]
        writing = asyncio.create_task(write(log, 0, 300))
        await readers[0].until(100)
        cluster.kill(await cluster.leader(log._connection, STREAM))
        await writing
        await prove(log, *readers)
        assert len(readers[0].events) == 300
        for reader in readers:
            await reader.stop()


# -- from anywhere


async def test_a_reader_goes_on_behind_any_event_it_has(server: EmbeddedServer) -> None:
    async with log_on(server.url) as log, trunkline.connect(server.url) as gw:
        await write(log, 0, 500)
        chance = random.Random(3)
        seen: list[int] = []
        while len(seen) < 500:
            wanted = chance.randrange(1, 80)
            async with aclosing(gw.events(since=len(seen))) as events:
                async for event in events:
                    seen.append(event.sequence)
                    wanted -= 1
                    if not wanted or len(seen) == 500:
                        break
        assert seen == list(range(1, 501))


async def test_a_new_process_goes_on_where_another_was_killed(server: EmbeddedServer) -> None:
    async with log_on(server.url) as log:
        writing = asyncio.create_task(write(log, 0, 400))
        lines: list[str] = []
        for goal in (70, 200, 400):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", READER, server.url, str(len(lines)), str(400 - len(lines)), stdout=-1
            )
            assert process.stdout is not None
            while len(lines) < goal:
                lines.append((await process.stdout.readline()).decode())
            if goal < 400:
                process.kill()
            await process.communicate()  # what it wrote before it died and nobody read is read again
        await writing
        assert lines == [f"{event.sequence} {event.id}\n" async for event in log.read()]


async def test_an_iterator_ends_when_its_connection_is_closed_for_good(tmp_path: Path) -> None:
    async with (
        EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server,
        log_on(server.url) as log,
    ):
        await write(log, 0, 1)
        async with trunkline.connect(server.url) as gw:
            events = gw.events(since=0)
            assert (await anext(events)).sequence == 1
        with pytest.raises(errors.Unavailable, match="follow the log anew"):
            await anext(events)


@pytest.mark.parametrize("since", [-1, 10**30, -0.5, float("nan"), float("inf")])
async def test_a_start_that_is_none_is_refused(tmp_path: Path, since: float) -> None:
    async with (
        EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server,
        log_on(server.url),
        trunkline.connect(server.url) as gw,
    ):
        with pytest.raises(errors.InvalidRequest, match="since"):
            await anext(gw.events(since=since))


# -- who dawdles


async def test_a_reader_that_takes_nothing_holds_up_nobody_and_keeps_little(tmp_path: Path) -> None:
    count, size = 20_000, 500
    async with (
        EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server,
        log_on(server.url) as log,
        trunkline.connect(server.url) as gw,
    ):
        dawdling: Any = gw.events(since=0)  # looked into below, which its type does not foresee
        await write(log, 0, 1)
        first = await anext(dawdling)
        lively = Reader(gw, 1)  # on the same connection
        bodies = [Reset(provider="p", reason="x" * size) for _ in range(50)]
        for start in range(1, count, 1000):
            numbers = range(start, min(start + 1000, count))
            events = [structs.replace(an_event(f"e{n}"), body=bodies[n % 50]) for n in numbers]
            await asyncio.gather(*(log.append(event) for event in events))
        await lively.until(count - 1)
        frame = dawdling.ag_frame.f_locals["events"].ag_frame
        assert len(frame.f_locals["pile"]._events) <= BEHIND
        waiting = sum(len(delivery[1]) for delivery in frame.f_locals["follower"]._queue)
        assert waiting < count * size / 2, "most of it waits in the server"
        async with asyncio.timeout(30):
            rest = [await anext(dawdling) for _ in range(count - 1)]
        assert [event.sequence for event in (first, *rest)] == list(range(1, count + 1))
        assert rest == lively.events
        await dawdling.aclose()
        await lively.stop()
