"""`trunkline bench`: what a chat costs, as ratios against bare nats-py measured in the same run.

Machines differ and are noisy; a ratio of CPU times taken minutes apart on one machine holds. Every figure is taken with
the server, the gateway's processes and the client as separate processes, as they are in use.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
from msgspec import Struct
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection

from trunkline import client, lifecycle, telemetry
from trunkline.embedded import EmbeddedServer
from trunkline.proc import cpu_seconds
from trunkline.settings import Durability

IN_FLIGHT = 64
CHUNKS = 50
SLICES = 5


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table. Times are microseconds of CPU an operation; `ratio` is against the bare request/reply."""

    name: str
    rate: float
    cpu_us: float | None = None
    ratio: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""


class Bench:
    """The rows of one run, each printed when it is known."""

    def __init__(self, *, as_json: bool, scale: float) -> None:
        self._as_json = as_json
        self.scale = scale

    def add(self, row: Row) -> None:
        """Print a row."""
        if self._as_json:
            print(msgspec.json.encode(row).decode(), flush=True)  # noqa: T201
            return
        cells = (
            f"{row.name:<58}",
            f"{row.rate:>9,.0f}/s",
            f"{row.cpu_us:>8.0f} µs" if row.cpu_us is not None else " " * 11,
            f"{row.ratio:>6.1f}×" if row.ratio is not None else " " * 7,
            f"{row.p50_ms:>7.2f} ms" if row.p50_ms is not None else " " * 10,
            f"{row.p99_ms:>7.2f} ms" if row.p99_ms is not None else " " * 10,
            row.note,
        )
        print("  ".join(cells).rstrip(), flush=True)  # noqa: T201

    def heading(self) -> None:
        """Print what the columns are."""
        if not self._as_json:
            print(f"{'':<58}  {'rate':>11}  {'CPU each':>11}  {'ratio':>7}  {'p50':>10}  {'p99':>10}")  # noqa: T201


def main(argv: Sequence[str]) -> int:
    """Run the benchmarks; `--json` for a line of JSON a row, `--quick` for a tenth of the work."""
    telemetry.configure("error")
    bench = Bench(as_json="--json" in argv, scale=0.1 if "--quick" in argv else 1.0)
    return lifecycle.run(lambda: _run(bench))


async def _run(bench: Bench) -> int:
    bench.heading()
    await _start_up(bench)
    async with _server("process") as url, _bare(url) as bare:
        cost = statistics.median([await bare(int(4_000 * bench.scale)) for _ in range(SLICES)])
        bench.add(Row(name="bare nats-py request/reply, both sides", rate=1e6 / cost, cpu_us=cost, ratio=1.0))
    async with _gateway("process") as (url, pid):
        await _plain(bench, url, pid, "chat, process, no thread", IN_FLIGHT, 20_000)
        await _plain(
            bench, url, pid, "chat, process, 1,000 threads", IN_FLIGHT, 10_000, thread=lambda i: f"t{i % 1000}"
        )
        await _plain(bench, url, pid, "chat, process, with request ids", IN_FLIGHT, 5_000, request=lambda i: f"r{i}")
        await _plain(bench, url, pid, "chat, process, one in flight", 1, 3_000)
        await _streams(bench, url, pid, "stream of 50 chunks, process", 1_000)
    async with _gateway("always") as (url, pid):
        await _plain(bench, url, pid, "chat, always, no thread", IN_FLIGHT, 5_000)
        await _plain(bench, url, pid, "chat, always, distinct threads", IN_FLIGHT, 5_000, thread=lambda i: f"t{i}")
        await _plain(bench, url, pid, "chat, always, one in flight", 1, 1_000)
        await _streams(bench, url, pid, "stream of 50 chunks, always", 500)
    return 0


# -- figures -----------------------------------------------------------------------------------------------------------


async def _start_up(bench: Bench) -> None:
    for name, arguments in (("trunkline --version", ["--version"]), ("trunkline --help", ["--help"])):
        seconds = [await _timed(arguments) for _ in range(5)]
        bench.add(Row(name=name, rate=1 / min(seconds), p50_ms=statistics.median(seconds) * 1000, note="whole process"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        async with _process(
            "up", "--data", folder, "--nats-port", "0", "--http-port", "0", ready=Path(folder) / "ready"
        ):
            seconds = [time.perf_counter() - began]
    bench.add(Row(name="trunkline up, until it serves", rate=1 / seconds[0], p50_ms=seconds[0] * 1000))


async def _timed(arguments: list[str]) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline", *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    await process.wait()
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
    body = _body(stream=False)

    async def ask(_number: int) -> None:
        await asker.request("bare", body, timeout=10)

    async def measure(count: int) -> float:
        cpu = time.process_time()
        await _load(ask, count, IN_FLIGHT)
        return (time.process_time() - cpu) / count * 1e6

    await measure(1_000)
    yield measure
    await asker.close()
    await answerer.close()


async def _plain(
    bench: Bench,
    url: str,
    pid: int,
    name: str,
    in_flight: int,
    count: int,
    *,
    thread: Callable[[int], str] | None = None,
    request: Callable[[int], str] | None = None,
) -> None:
    connection = await Connection.open(url, name="bench")
    body = _body(stream=False)

    async def ask(number: int) -> None:
        fields = {}
        if thread:
            fields[headers.THREAD] = thread(number)
        if request:
            fields[headers.REQUEST] = request(number)
        message = await connection.nats.request(subjects.CHAT, body, timeout=30, headers=fields or None)
        if headers.EVENT not in (message.headers or {}):
            raise RuntimeError(f"not an answer: {message.data!r}")

    await _load(ask, max(20, count // 20), in_flight, first=-count)
    await _measure(bench, name, url, pid, ask, int(count * bench.scale), in_flight)
    await connection.close()


async def _streams(bench: Bench, url: str, pid: int, name: str, count: int) -> None:
    connection = await Connection.open(url, name="bench")
    body = _body(stream=True)

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

    await _load(ask, 50, IN_FLIGHT)
    await _measure(bench, name, url, pid, ask, int(count * bench.scale), IN_FLIGHT)
    await connection.close()


async def _measure(
    bench: Bench, name: str, url: str, pid: int, ask: Callable[[int], Awaitable[None]], count: int, in_flight: int
) -> None:
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
            latencies += await _load(ask, size, in_flight, first=number * size)
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


async def _load(ask: Callable[[int], Awaitable[None]], count: int, in_flight: int, first: int = 0) -> list[float]:
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


def _body(*, stream: bool) -> bytes:
    return msgspec.json.encode(
        {
            "model": "bench-stream" if stream else "bench",
            "messages": [{"role": "user", "content": "What is the answer to everything?"}],
            "stream": stream,
        }
    )


# -- processes ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _server(durability: Durability) -> AsyncIterator[str]:
    # Beside the working folder and not under a temporary one: those may lie in memory, where a sync costs nothing.
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        async with EmbeddedServer(store=Path(folder), port=0, durability=durability) as server:
            yield server.url


@asynccontextmanager
async def _gateway(durability: Durability) -> AsyncIterator[tuple[str, int]]:
    """A gateway whose router and provider share one process; its address, and that process's id."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(_server(durability))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        await stack.enter_async_context(_process("run", "registry", "keeper", "--nats", url, ready=folder / "one"))
        pid = await stack.enter_async_context(
            _process("run", "router", "provider", "--nats", url, ready=folder / "two")
        )
        async with client.connect(url) as gateway:
            await gateway.providers.register(id="bench", kind="scripted", local=True)
            await gateway.models.register(id="bench", provider="bench", upstream="say:forty-two")
            await gateway.models.register(id="bench-stream", provider="bench", upstream=f"tokens:{CHUNKS}")
        yield url, pid


@asynccontextmanager
async def _process(*arguments: str, ready: Path) -> AsyncIterator[int]:
    """A process of ours, from when it serves until it has ended."""
    command = (sys.executable, "-m", "trunkline", *arguments, "--ready-file", str(ready))
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(30):
            while not ready.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
                await asyncio.sleep(0.005)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
