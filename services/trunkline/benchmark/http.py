"""What a chat costs over HTTP, beside a reverse proxy of bare aiohttp on the same upstream, in turns, in one run.

The upstream and the proxy are processes of their own, and so is the gateway, with all of its roles and with both events
of every chat in its log. Counted is the CPU of the gateway's process, or of the proxy's.
"""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trunkline.benchmark import served
from trunkline.benchmark.asker import Asker, body
from trunkline.benchmark.load import CHUNKS, SLICES, load
from trunkline.benchmark.table import Bench, Row
from trunkline.proc import cpu_seconds

AT_ONCE = 32
FIRST_S = 0.05
"""Seconds until the upstream's first chunk, where the time to the first chunk is measured."""
PAUSE_S = 0.01
"""Seconds between chunks, so that each is read and written by itself."""


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


Measured = tuple[Asker, int]
"""Who asks, and the process whose CPU counts."""


@asynccontextmanager
async def _both(pause: float, delay: float, *, stream: bool) -> AsyncIterator[tuple[Measured, Measured]]:
    """The bare proxy and the gateway, before one upstream."""
    asked = body(stream=stream)
    async with contextlib.AsyncExitStack() as stack:
        origin = (await stack.enter_async_context(served.upstream(pause, delay))).origin
        bare = await stack.enter_async_context(served.bare(origin))
        ours = await stack.enter_async_context(served.ours(origin))
        fields = {"authorization": f"Bearer {ours.key}"}
        askers = [Asker(port, asked, fields) for port in (bare.port, ours.port)]
        for asker in askers:
            stack.callback(asker.hang_up)
        yield (askers[0], bare.pid), (askers[1], ours.pid)
