"""What a chat costs, as ratios against bare nats-py measured in the same run.

Every figure is taken with the server, the gateway's processes and the client as separate processes, as they are in use.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection

from trunkline.benchmark.load import IN_FLIGHT, SLICES, embedded, gateway, load, process
from trunkline.benchmark.table import Bench, Row
from trunkline.proc import cpu_seconds


async def run(bench: Bench) -> None:
    """Start-up, the yardstick, chats and streams in both durabilities."""
    await _start_up(bench)
    async with embedded("process") as url, _bare(url) as bare:
        cost = statistics.median([await bare(int(4_000 * bench.scale)) for _ in range(SLICES)])
        bench.add(Row(name="bare nats-py request/reply, both sides", rate=1e6 / cost, cpu_us=cost, ratio=1.0))
    async with gateway("process") as (url, pid):
        await plain(bench, url, pid, "chat, process, no thread", IN_FLIGHT, 20_000)
        await plain(bench, url, pid, "chat, process, 1,000 threads", IN_FLIGHT, 10_000, thread=lambda i: f"t{i % 1000}")
        await plain(bench, url, pid, "chat, process, with request ids", IN_FLIGHT, 5_000, request=lambda i: f"r{i}")
        await plain(bench, url, pid, "chat, process, no thread", 256, 10_000)
        await plain(bench, url, pid, "chat, process, one in flight", 1, 3_000)
        await _streams(bench, url, pid, "stream of 50 chunks, process", 1_000)
    async with gateway("always") as (url, pid):
        await plain(bench, url, pid, "chat, always, no thread", IN_FLIGHT, 5_000)
        await plain(bench, url, pid, "chat, always, distinct threads", IN_FLIGHT, 5_000, thread=lambda i: f"t{i}")
        await plain(bench, url, pid, "chat, always, no thread", 256, 5_000)
        await plain(bench, url, pid, "chat, always, one in flight", 1, 1_000)
        await _streams(bench, url, pid, "stream of 50 chunks, always", 500)


async def _start_up(bench: Bench) -> None:
    for name, arguments in (("trunkline --version", ["--version"]), ("trunkline --help", ["--help"])):
        seconds = [await _timed(arguments) for _ in range(5)]
        bench.add(Row(name=name, rate=1 / min(seconds), p50_ms=statistics.median(seconds) * 1000, note="whole process"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        async with process(
            "up", "--data", folder, "--nats-port", "0", "--http-port", "0", ready=Path(folder) / "ready"
        ):
            seconds = [time.perf_counter() - began]
    bench.add(Row(name="trunkline up, until it serves", rate=1 / seconds[0], p50_ms=seconds[0] * 1000))


async def _timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline", *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    await started.wait()
    return time.perf_counter() - began


@asynccontextmanager
async def _bare(url: str) -> AsyncIterator[Callable[[int], Awaitable[float]]]:
    """nats-py request and reply, both sides in this process: CPU microseconds each, for so many of them.

    The yardstick is nats-py as it comes, without our short cuts.
    """
    asker, answerer = await nats.connect(url), await nats.connect(url)

    async def answer(message: Any) -> None:
        await answerer.publish(message.reply, message.data)

    await answerer.subscribe("bare", cb=answer)
    await answerer.flush()
    body = _body()

    async def ask(_number: int) -> None:
        await asker.request("bare", body, timeout=10)

    async def measure(count: int) -> float:
        cpu = time.process_time()
        await load(ask, count, IN_FLIGHT)
        return (time.process_time() - cpu) / count * 1e6

    await measure(1_000)
    yield measure
    await asker.close()
    await answerer.close()


async def plain(
    bench: Bench,
    url: str,
    pid: int,
    name: str,
    in_flight: int,
    count: int,
    *,
    model: str = "bench",
    thread: Callable[[int], str] | None = None,
    request: Callable[[int], str] | None = None,
    key: str | None = None,
) -> float:
    """Chats that are not streamed, so many at once: a row, and the CPU microseconds each took the gateway's process."""
    connection = await Connection.open(url, name="bench")
    body = _body(model)

    async def ask(number: int) -> None:
        fields = {headers.KEY: key} if key else {}
        if thread:
            fields[headers.THREAD] = thread(number)
        if request:
            fields[headers.REQUEST] = request(number)
        message = await connection.nats.request(subjects.CHAT, body, timeout=30, headers=fields or None)
        if headers.EVENT not in (message.headers or {}):
            raise RuntimeError(f"not an answer: {message.data!r}")

    await load(ask, max(20, count // 20), in_flight, first=-count)
    cost = await _measure(bench, name, url, pid, ask, int(count * bench.scale), in_flight)
    await connection.close()
    return cost


async def _streams(bench: Bench, url: str, pid: int, name: str, count: int) -> None:
    connection = await Connection.open(url, name="bench")
    body = _body("bench-stream", stream=True)

    async def ask(_number: int) -> None:
        done = asyncio.Event()

        async def arrived(message: Any) -> None:
            if not message.data:
                done.set()

        inbox = connection.nats.new_inbox()
        subscription = await connection.nats.subscribe(inbox, cb=arrived)
        await connection.nats.publish(subjects.CHAT, body, reply=inbox)
        await done.wait()
        await subscription.unsubscribe()

    await load(ask, 50, IN_FLIGHT)
    await _measure(bench, name, url, pid, ask, int(count * bench.scale), IN_FLIGHT)
    await connection.close()


async def _measure(
    bench: Bench, name: str, url: str, pid: int, ask: Callable[[int], Awaitable[None]], count: int, in_flight: int
) -> float:
    """Measure in slices, each beside a slice of the yardstick: the machine's moods then fall on both."""
    size = max(50, count // SLICES)
    costs: list[float] = []
    ratios: list[float] = []
    latencies: list[float] = []
    seconds = 0.0
    async with _bare(url) as bare:
        for number in range(SLICES):
            base = await bare(2_000)
            before, began = cpu_seconds(pid), time.perf_counter()
            latencies += await load(ask, size, in_flight, first=number * size)
            seconds += time.perf_counter() - began
            after = cpu_seconds(pid)
            if before is not None and after is not None:
                costs.append((after - before) / size * 1e6)
                ratios.append(costs[-1] / base)
    quantiles = statistics.quantiles(latencies, n=100)
    cpu = statistics.median(costs) if costs else None
    bench.add(
        Row(
            name=f"{name}, {in_flight} in flight" if in_flight > 1 else name,
            rate=len(latencies) / seconds,
            cpu_us=cpu,
            ratio=statistics.median(ratios) if ratios else None,
            p50_ms=quantiles[49] * 1000,
            p99_ms=quantiles[98] * 1000,
            note="" if cpu is None else f"one core: {1e6 / cpu:,.0f}/s",
        )
    )
    return cpu or 0.0


def _body(model: str = "bench", *, stream: bool = False) -> bytes:
    return msgspec.json.encode(
        {
            "model": model,
            "messages": [{"role": "user", "content": "What is the answer to everything?"}],
            "stream": stream,
        }
    )
