"""What stands between a benchmark's client and its upstream, each in processes of its own."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from trunkline import client
from trunkline.benchmark.load import CHUNKS, nats_server, process

ROLES = ("registry", "router", "provider", "keeper", "gateway")


class Listening(NamedTuple):
    """A server of this machine, and the process whose CPU counts."""

    port: int
    pid: int

    @property
    def origin(self) -> str:
        """Its address without a path."""
        return f"http://127.0.0.1:{self.port}"


class Ours(NamedTuple):
    """The gateway in one process, the key it takes, and the process of its NATS server."""

    port: int
    pid: int
    key: str
    nats_pid: int


@asynccontextmanager
async def upstream(pause: float = 0.0, first: float = 0.0, chunks: int = CHUNKS) -> AsyncIterator[Listening]:
    """Says the same to everyone: its first chunk after `first` seconds, and `pause` seconds between chunks."""
    async with _listening("trunkline.benchmark.canned", str(chunks), str(pause), str(first)) as served:
        yield served


@asynccontextmanager
async def bare(origin: str) -> AsyncIterator[Listening]:
    """A reverse proxy of nothing but aiohttp before this upstream."""
    async with _listening("trunkline.benchmark.bare_proxy", origin) as served:
        yield served


@asynccontextmanager
async def ours(origin: str) -> AsyncIterator[Ours]:
    """The gateway with all of its roles, model `m` at this upstream, each event on disk before it counts."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server("always"))
        assert server.pid is not None
        ready = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ready"
        arguments = ("run", *ROLES, "--nats", server.url, "--http-port", "0")
        pid = await stack.enter_async_context(process(*arguments, ready=ready))
        async with client.connect(server.url) as gw:
            await gw.providers.register(
                id="far", kind="openai-compatible", base_url=f"{origin}/v1", local=True, max_concurrency=1000
            )
            await gw.models.register(id="m", provider="far")
            key = (await gw.keys.issue(name="bench"))["key"]
        yield Ours(int(json.loads(ready.read_text())["http"].rpartition(":")[2]), pid, key, server.pid)


@asynccontextmanager
async def _listening(module: str, *arguments: str) -> AsyncIterator[Listening]:
    """A process that prints its port and serves until its standard input is closed."""
    command: Sequence[str] = (sys.executable, "-m", module, *arguments)
    started = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        yield Listening(int(await started.stdout.readline()), started.pid)
    finally:
        started.stdin.close()
        await started.wait()
