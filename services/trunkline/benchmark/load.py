"""What benchmarks share: servers and processes to measure, asking many things at once, and the yardstick."""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from trunkline import client
from trunkline.embedded import EmbeddedServer
from trunkline.settings import Durability

IN_FLIGHT = 64
CHUNKS = 50
TEXT = " The quick brown fox"
"""What an upstream says in each chunk of a stream."""
REPEATED = 10
"""How often it says so in a plain answer."""
SLICES = 5
"""Each figure is taken in slices, each beside a slice of its yardstick: the machine's moods then fall on both."""


async def load(ask: Callable[[int], Awaitable[None]], count: int, in_flight: int, first: int = 0) -> list[float]:
    """Ask `count` times, `in_flight` at once; how long each took, in seconds."""
    numbers = iter(range(first, first + count))
    latencies: list[float] = []

    async def worker() -> None:
        for number in numbers:
            began = time.perf_counter()
            await ask(number)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return latencies


async def load_for(ask: Callable[[int], Awaitable[None]], seconds: float, in_flight: int) -> tuple[int, float]:
    """Ask for so long, `in_flight` at once; how many were answered, and the seconds until the last one was."""
    began = time.perf_counter()
    counts = [0] * in_flight

    async def worker(place: int) -> None:
        while time.perf_counter() - began < seconds:
            await ask(place)
            counts[place] += 1

    async with asyncio.TaskGroup() as group:
        for place in range(in_flight):
            group.create_task(worker(place))
    return sum(counts), time.perf_counter() - began


async def load_steadily(ask: Callable[[int], Awaitable[None]], per_second: float, count: int) -> list[float]:
    """Ask at a steady pace, however long answers take; how long each took since it was asked, in seconds."""
    began = time.perf_counter()
    latencies: list[float] = []

    async def one(number: int) -> None:
        asked = time.perf_counter()
        await ask(number)
        latencies.append(time.perf_counter() - asked)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(began + number / per_second - time.perf_counter())
            group.create_task(one(number))
    return latencies


@asynccontextmanager
async def nats_server(durability: Durability) -> AsyncIterator[EmbeddedServer]:
    """A NATS server whose store is gone afterwards."""
    # Beside the working folder and not under a temporary one: those may lie in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        async with EmbeddedServer(store=Path(folder), port=0, durability=durability) as server:
            yield server


@asynccontextmanager
async def embedded(durability: Durability) -> AsyncIterator[str]:
    """The address of such a server."""
    async with nats_server(durability) as server:
        yield server.url


@asynccontextmanager
async def gateway(durability: Durability) -> AsyncIterator[tuple[str, int]]:
    """A gateway whose router and provider share one process; its address, and that process's id."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded(durability))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await stack.enter_async_context(process("run", "registry", "keeper", "--nats", url, ready=folder / "one"))
        pid = await stack.enter_async_context(process("run", "router", "provider", "--nats", url, ready=folder / "two"))
        async with client.connect(url) as gw:
            await gw.providers.register(id="bench", kind="scripted", local=True)
            await gw.models.register(id="bench", provider="bench", upstream="say:forty-two")
            await gw.models.register(id="bench-stream", provider="bench", upstream=f"tokens:{CHUNKS}")
        yield url, pid


@asynccontextmanager
async def process(*arguments: str, ready: Path) -> AsyncIterator[int]:
    """A process of ours, from when it serves until it has ended."""
    command = (sys.executable, "-m", "trunkline", *arguments, "--ready-file", str(ready))
    started = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
                await asyncio.sleep(0.005)
        yield started.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.terminate()
        await started.wait()
