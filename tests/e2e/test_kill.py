"""Kill anything at any time: everybody is answered, nothing acknowledged is lost, and the books balance."""

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from audit import check_books, check_receipts
from crowd import LATEST, NOISE, Crowd
from processes import Role, passed, running, until
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer

BATCH = 20
ROUNDS = [pytest.param(6), pytest.param(400, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
STEADY_SECONDS = 2.05
"""An embedded server that lived for less has died quickly; five of those in a row are the end of it."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="always") as running_server:
        yield running_server


@pytest.fixture
async def cast(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[dict[str, Role]]:
    """Two routers, two providers, and one process with the registry and the keeper."""
    roles = {
        "core": Role(server.url, tmp_path, "core", "registry", "keeper"),
        **{
            f"{role}-{n}": Role(server.url, tmp_path, f"{role}-{n}", role)
            for role in ("router", "provider")
            for n in (1, 2)
        },
    }
    async with running(*roles.values()):
        yield roles


@pytest.fixture
async def gw(cast: dict[str, Role], server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        yield gateway


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("victim", ["router", "provider"])
async def test_a_process_is_killed_again_and_again(
    gw: Gateway, cast: dict[str, Role], victim: str, rounds: int
) -> None:
    crowd = Crowd(gw)
    await crowd.prepare()
    draw = random.Random(rounds)
    for number in range(rounds):
        role = cast[f"{victim}-{1 + number % 2}"]
        crowd.call(BATCH // 2)
        await passed(draw.choice((0.0, 0.01, 0.05, 0.15)))
        await role.kill()
        crowd.call(BATCH // 2)
        await role.start()
    await crowd.check(rounds)


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_the_broker_is_killed_again_and_again(gw: Gateway, server: EmbeddedServer, rounds: int) -> None:
    back = asyncio.Event()
    server.on_restart = back.set
    crowd = Crowd(gw)
    await crowd.prepare()
    draw = random.Random(rounds)
    for number in range(rounds):
        assert server.pid is not None
        back.clear()
        crowd.call(BATCH // 2)
        await passed(draw.choice((0.0, 0.01, 0.05, 0.15)))
        os.kill(server.pid, signal.SIGKILL)
        crowd.call(BATCH // 2)
        async with asyncio.timeout(10):
            await back.wait()
        if number % 3 == 2:
            served = time.monotonic()
            await until(lambda since=served: time.monotonic() - since > STEADY_SECONDS)  # type: ignore[misc]
    await crowd.check(rounds)


async def test_everything_at_once(gw: Gateway, cast: dict[str, Role], server: EmbeddedServer) -> None:
    crowd = Crowd(gw)
    await crowd.prepare()
    crowd.call(BATCH)
    await passed(0.1)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.gather(*(role.kill() for role in cast.values()))
    await asyncio.gather(*(role.start() for role in cast.values()))
    crowd.call(BATCH)
    heard = await crowd.heard()
    assert all(one.error is None for one in heard[BATCH:])
    assert all(one.seconds < LATEST + NOISE for one in heard)
    recorded = await crowd.settled()
    check_receipts(recorded, [one.receipt for one in heard if one.receipt])
    check_books(recorded)
