"""What a chat costs over HTTP, beside a reverse proxy of bare aiohttp on the same upstream, in turns, in one run.

The upstream and the proxy are processes of their own, and so is the gateway, with all of its roles and with both events
of every chat in its log. Counted is the CPU of the gateway's process, or of the proxy's.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from trunkline import client
from trunkline.benchmark.load import CHUNKS, SLICES, embedded, load, process
from trunkline.benchmark.table import Bench, Row
from trunkline.proc import cpu_seconds

AT_ONCE = 32
FIRST_S = 0.05
"""Seconds until the upstream's first chunk, where the time to the first chunk is measured."""
PAUSE_S = 0.01
"""Seconds between chunks, so that each is read and written by itself."""

Ask = Callable[[int], Awaitable[None]]


class _Client:
    """Keeps connections open and asks on them: as little work for each answer as may be."""

    def __init__(self, port: int, body: bytes, key: str) -> None:
        self._port = port
        fields = f"host: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        self._request = (
            f"POST /v1/chat/completions HTTP/1.1\r\n{fields}content-length: {len(body)}\r\n\r\n".encode() + body
        )
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.first: list[float] = []

    async def ask(self, _number: int) -> None:
        """One answer, read to its end; `first` has the seconds until the first chunk of each stream."""
        began = time.perf_counter()
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"not an answer: {head!r} {await reader.read(2000)!r}")
        if b"transfer-encoding: chunked" in head:
            heard = b""
            while not heard.endswith(b"0\r\n\r\n"):
                part = await reader.read(65536)
                if not heard:
                    self.first.append(time.perf_counter() - began)
                heard = (heard + part)[-64:] if part else b"0\r\n\r\n"
        else:
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        self._free.append((reader, writer))

    def close(self) -> None:
        """Hang up."""
        for _, writer in self._free:
            writer.close()


async def run(bench: Bench) -> None:
    """Plain chats, chunks of streams, and the time to the first chunk."""
    await _costs(bench, "chat over HTTP", max(200, int(5_000 * bench.scale)), 0.0, stream=False)
    streams = max(AT_ONCE * SLICES, int(1_600 * bench.scale))
    await _costs(bench, "chunk of a stream over HTTP, back to back", streams, 0.0, stream=True)
    await _costs(bench, "chunk of a stream over HTTP, one by one", streams, PAUSE_S, stream=True)
    await _firsts(bench)


async def _costs(bench: Bench, name: str, count: int, pause: float, *, stream: bool) -> None:
    each = CHUNKS if stream else 1
    async with _both(pause, 0.0, stream=stream) as (bare, ours):
        costs: tuple[list[float], list[float]] = ([], [])
        rates: list[float] = []
        latencies: list[float] = []
        for asking, _ in (bare, ours):
            await load(asking.ask, AT_ONCE * 4, AT_ONCE)
        size = count // SLICES
        for _ in range(SLICES):
            for place, (asking, pid) in enumerate((bare, ours)):
                before, began = cpu_seconds(pid), time.perf_counter()
                took = await load(asking.ask, size, AT_ONCE)
                after = cpu_seconds(pid)
                if before is None or after is None:
                    raise RuntimeError("CPU times are read from /proc, which this system does not have")
                costs[place].append((after - before) / size / each * 1e6)
                if place:
                    rates.append(size * each / (time.perf_counter() - began))
                    latencies += took
    ratio = statistics.median(ours / base for base, ours in zip(*costs, strict=True))
    quantiles = statistics.quantiles(latencies, n=100)
    bench.add(
        Row(
            name=f"{name}, {AT_ONCE} at once",
            rate=statistics.median(rates),
            cpu_us=statistics.median(costs[1]),
            ratio=ratio,
            p50_ms=quantiles[49] * 1000,
            p99_ms=quantiles[98] * 1000,
            note=f"bare aiohttp {statistics.median(costs[0]):.1f} µs",
        )
    )


async def _firsts(bench: Bench) -> None:
    async with _both(0.0, FIRST_S, stream=True) as (bare, ours):
        for asking, _ in (bare, ours):
            await load(asking.ask, 5, 1)
            asking.first.clear()
            await load(asking.ask, max(20, int(100 * bench.scale)), 1)
        medians = [statistics.median(asking.first) * 1000 for asking, _ in (bare, ours)]
        quantiles = statistics.quantiles(ours[0].first, n=100)
        bench.add(
            Row(
                name=f"first chunk over HTTP, upstream's after {FIRST_S * 1000:g} ms",
                rate=1000 / medians[1],
                ratio=medians[1] / medians[0],
                p50_ms=quantiles[49] * 1000,
                p99_ms=quantiles[98] * 1000,
                note=f"bare aiohttp {medians[0]:.1f} ms",
            )
        )


Measured = tuple[_Client, int]
"""Who asks, and the process whose CPU counts."""


@asynccontextmanager
async def _both(pause: float, delay: float, *, stream: bool) -> AsyncIterator[tuple[Measured, Measured]]:
    """The bare proxy and the gateway, before one upstream."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Tell me about foxes. " * 20}]}).encode()
    if stream:
        body = body[:-1] + b',"stream":true}'
    async with contextlib.AsyncExitStack() as stack:
        upstream, _ = await stack.enter_async_context(
            _listening("trunkline.benchmark.canned", str(CHUNKS), str(pause), str(delay))
        )
        origin = f"http://127.0.0.1:{upstream}"
        bare_port, bare_pid = await stack.enter_async_context(_listening("trunkline.benchmark.bare_proxy", origin))
        url = await stack.enter_async_context(embedded("always"))
        ready = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ready"
        roles = ("registry", "router", "provider", "keeper", "gateway")
        pid = await stack.enter_async_context(process("run", *roles, "--nats", url, "--http-port", "0", ready=ready))
        port = int(json.loads(ready.read_text())["http"].rpartition(":")[2])
        async with client.connect(url) as gw:
            await gw.providers.register(
                id="far", kind="openai-compatible", base_url=f"{origin}/v1", local=True, max_concurrency=1000
            )
            await gw.models.register(id="m", provider="far")
            key = (await gw.keys.issue(name="bench"))["key"]
        bare, ours = _Client(bare_port, body, key), _Client(port, body, key)
        stack.callback(bare.close)
        stack.callback(ours.close)
        yield (bare, bare_pid), (ours, pid)


@asynccontextmanager
async def _listening(module: str, *arguments: str) -> AsyncIterator[tuple[int, int]]:
    """A process that prints its port and serves until its standard input is closed; that port, and its id."""
    command: Sequence[str] = (sys.executable, "-m", module, *arguments)
    started = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        yield int(await started.stdout.readline()), started.pid
    finally:
        started.stdin.close()
        await started.wait()
