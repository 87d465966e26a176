"""`kill -9` of the server while eight writers append: nothing acknowledged is lost, nothing is stored twice."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from logs import BOTH, Modes, Writers, an_event, append, ids, open_log
from trunkline import embedded
from trunkline.embedded import EmbeddedServer
from trunkline.embedded.config import Durability
from trunkline_events.connection import Connection
from trunkline_events.log import Appended

A_LOG_EACH = 50
"""Kills after which a soak goes on with a new log, so that what the checker keeps doesn't grow without end."""

LONG = [pytest.mark.soak, pytest.mark.timeout(2 * 3600)]
GROUPED, SINGLE = (True, True), (False, False)
RUNS = [
    pytest.param("always", GROUPED, 10, id="always-grouped-10"),
    pytest.param("process", SINGLE, 3, id="process-single-3"),
    pytest.param("always", GROUPED, 1000, marks=LONG, id="always-grouped-1000"),
    pytest.param("always", SINGLE, 1000, marks=LONG, id="always-single-1000"),
    pytest.param("process", BOTH, 1000, marks=LONG, id="process-both-1000"),
]


@pytest.fixture(autouse=True)
def killed_for_a_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many quick deaths in a row are no reason to give up here."""
    monkeypatch.setattr(embedded, "QUICK_SECONDS", 0.0)


async def kill(server: EmbeddedServer) -> None:
    """`kill -9`, and serving again when this returns."""
    back = asyncio.Event()
    server.on_restart = back.set
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await back.wait()


@pytest.mark.parametrize(("durability", "group_commit", "kills"), RUNS)
async def test_nothing_acknowledged_is_lost_or_stored_twice_when_the_server_is_killed(
    tmp_path: Path, durability: Durability, group_commit: Modes, kills: int
) -> None:
    draw = random.Random(kills)
    for number in range(0, kills, A_LOG_EACH):
        store = tmp_path / str(number)
        async with (
            EmbeddedServer(store=store, port=0, durability=durability) as server,
            Writers(server.url, group_commit=group_commit) as writers,
        ):
            for _ in range(min(kills, A_LOG_EACH)):
                if draw.random() < 0.8:  # else it dies again as it has just begun to serve
                    await writers.go_on()
                await writers.store(draw.randrange(1, 200))
                await kill(server)
            await writers.go_on()
            await writers.prove()


@pytest.mark.parametrize("durability", ["always", "process"])
async def test_an_id_is_known_still_after_the_server_was_killed(tmp_path: Path, durability: Durability) -> None:
    async with EmbeddedServer(store=tmp_path, port=0, durability=durability) as server:
        connection = await Connection.open(server.url, name="test")
        log = await open_log(connection)
        await append(log, "e1", "e2")
        await kill(server)
        assert await log.append(an_event("e1")) == Appended(1, duplicate=True)
        assert await log.append(an_event("e2"), 2) == Appended(2, duplicate=True)
        assert await ids(log.read()) == ["e1", "e2"]
        await log.close()
        await connection.close()
