"""A signal to a real process: what runs is finished, what comes is turned away or served elsewhere, then it is gone."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from audit import check_books, events, open_attempts
from processes import Role, running
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import Host


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as running_server:
        yield running_server


@pytest.fixture
async def worker(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Role]:
    """A router and a provider in one process, as `trunkline up --workers` starts them."""
    host = await Host.start(server.url, ("registry", "keeper"))
    role = Role(server.url, tmp_path, "worker", "router", "provider")
    async with running(role):
        yield role
    await host.stop()


@pytest.fixture
async def gw(worker: Role, server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        for name, script in (("echo", "echo"), ("paced", "tokens:40@40"), ("stall", "stall")):
            await gateway.models.register(id=name, provider="scripted", upstream=script)
        yield gateway


async def read(gateway: Gateway, begun: asyncio.Queue[None]) -> int:
    """A whole stream; says when it has begun."""
    chunks = 0
    async with gateway.chat.stream("paced", "hi") as answer:
        async for _ in answer:
            chunks += 1
            if chunks == 2:
                begun.put_nowait(None)
    assert answer.receipt is not None
    assert answer.receipt.finish == "stop"
    return chunks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_running_streams_finish_before_the_process_ends(
    gw: Gateway, worker: Role, number: signal.Signals
) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    streams = [asyncio.create_task(read(gw, begun)) for _ in range(8)]
    for _ in streams:
        await begun.get()
    worker.signal(number)
    assert await asyncio.gather(*streams) == [42] * 8
    assert await worker.ended() == 0
    recorded = await events(gw)
    check_books(recorded)
    assert open_attempts(recorded) == set()


async def test_what_comes_while_it_drains_is_refused_at_once_and_retryable(gw: Gateway, worker: Role) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    stream = asyncio.create_task(read(gw, begun))
    await begun.get()
    worker.signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    began = time.monotonic()
    with pytest.raises(errors.Unavailable) as caught:
        await gw.chat.create("echo", "hi")
    assert caught.value.retryable
    assert time.monotonic() - began < 5
    assert await stream == 42


async def test_a_second_process_takes_over_without_a_failed_request(
    gw: Gateway, worker: Role, server: EmbeddedServer, tmp_path: Path
) -> None:
    other = Role(server.url, tmp_path, "other", "router", "provider")
    async with running(other):
        stop = asyncio.Event()

        async def ask() -> int:
            count = 0
            while not stop.is_set():
                await gw.chat.create("echo", "hi")
                count += 1
            return count

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.sleep(0.05)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        await asyncio.sleep(0.05)
        stop.set()
        assert sum(await asyncio.gather(*asking)) > 4


async def test_a_second_signal_ends_it_at_once(gw: Gateway, worker: Role) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    stream = asyncio.create_task(read(gw, begun))
    await begun.get()
    worker.signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert worker.process.returncode is None
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 1
    assert time.monotonic() - began < 1
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
