"""What the log costs: appending and following beside nats-py itself, loading a thread, joining a long log."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats
from trunkline_actors.snapshots import KvSnapshots
from trunkline_events import headers, thread
from trunkline_events.circuit import Reset
from trunkline_events.codec import CODEC
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.subjects import LOG, log_subject
from trunkline_events.times import format_time
from trunkline_projections.folds import ATTEMPTS, GATEWAY
from trunkline_projections.runner import View

from trunkline.benchmark.history import fill, history, registrations
from trunkline.benchmark.load import SLICES, embedded, load
from trunkline.benchmark.table import Bench, Row
from trunkline.settings import Durability

FOLLOWED = 100_000
MODELS = 100
THREAD_EVENTS = 10_000


async def run(bench: Bench, events: int) -> None:
    """All of them; `events` is how long a log is joined."""
    for durability, in_flight, count in (
        ("process", 64, 20_000),
        ("always", 1, 1_000),
        ("always", 64, 8_000),
        ("always", 256, 16_000),
    ):
        await _appends(bench, durability, in_flight, int(count * bench.scale))  # type: ignore[arg-type]
    async with embedded("process") as url:
        await _follow(bench, url)
    async with embedded("process") as url:
        await _thread(bench, url)
    async with embedded("process") as url:
        await _join(bench, url, events)


# -- appending ---------------------------------------------------------------------------------------------------------


async def _appends(bench: Bench, durability: Durability, in_flight: int, count: int) -> None:
    """Ours beside `js.publish` of nats-py, both acknowledged, in turns on one log; in CPU time of this process."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded(durability))
        connection = await Connection.open(url, name="bench")
        stack.push_async_callback(connection.close)
        log = await JetStreamLog.open(connection)
        stack.push_async_callback(log.close)
        bare = await nats.connect(url)
        stack.push_async_callback(bare.close)
        js = bare.jetstream(timeout=30)
        numbers = itertools.count()
        body = CODEC.encode(Reset(provider="p", reason="x" * 400))

        async def publish(_number: int) -> None:
            name = f"b{next(numbers)}"
            fields = {headers.MSG_ID: name, headers.TYPE: "circuit.reset.v1", headers.TIME: format_time(time.time())}
            await js.publish(log_subject("circuit", name), body, headers=fields | {headers.ACTOR: "bench"})

        async def append(_number: int) -> None:
            name = f"a{next(numbers)}"
            event = Reset(provider="p", reason="x" * 400)
            await log.append(
                NewEvent(id=name, category="circuit", aggregate=name, body=event, time=time.time(), actor="bench")
            )

        rates: dict[Any, list[float]] = {publish: [], append: []}
        costs: dict[Any, list[float]] = {publish: [], append: []}
        for work in (publish, append):
            await load(work, max(20, count // 10), in_flight)
        for _ in range(SLICES):
            for work in (publish, append):
                began, cpu = time.perf_counter(), time.process_time()
                await load(work, count // SLICES, in_flight)
                costs[work].append((time.process_time() - cpu) / (count // SLICES) * 1e6)
                rates[work].append(count // SLICES / (time.perf_counter() - began))
        cost = {work: statistics.median(found) for work, found in costs.items()}
        rate = {work: statistics.median(found) for work, found in rates.items()}
        told = f"{durability}, {in_flight} in flight"
        name = f"publish with acknowledgement, bare nats-py, {told}"
        bench.add(Row(name=name, rate=rate[publish], cpu_us=cost[publish], ratio=1.0))
        note = f"{rate[append] / rate[publish]:.1f} times its rate; {log.batches} batches"
        ratio = cost[append] / cost[publish]
        bench.add(Row(name=f"append, {told}", rate=rate[append], cpu_us=cost[append], ratio=ratio, note=note))


# -- reading -----------------------------------------------------------------------------------------------------------


async def _follow(bench: Bench, url: str) -> None:
    """Follow, decode and fold, beside nats-py's ordered consumer that decodes the same bytes; in CPU time of ours."""
    count = int(FOLLOWED * bench.scale)
    async with contextlib.AsyncExitStack() as stack:
        connection = await Connection.open(url, name="bench")
        stack.push_async_callback(connection.close)
        count = await fill(connection, history(count))
        bare = await nats.connect(url)
        stack.push_async_callback(bare.close)
        log = JetStreamLog(connection)

        async def yardstick() -> None:
            await _bare_loop(bare, count)

        async def ours() -> None:
            view = View(log, ATTEMPTS)
            await view.start()
            await view.stop()

        await ours()
        base: list[float] = []
        costs: list[float] = []
        for _ in range(SLICES):
            base.append(await _cpu(yardstick) / count * 1e6)
            costs.append(await _cpu(ours) / count * 1e6)
        ratio = statistics.median(cost / other for cost, other in zip(costs, base, strict=True))
        name = "ordered consumer of nats-py, callback, decode"
        bench.add(Row(name=name, rate=1e6 / statistics.median(base), cpu_us=statistics.median(base), ratio=1.0))
        note = f"{1 / ratio:.0%} of the bare loop's rate"
        cost = statistics.median(costs)
        bench.add(Row(name="follow, decode, fold", rate=1e6 / cost, cpu_us=cost, ratio=ratio, note=note))


async def _thread(bench: Bench, url: str) -> None:
    """The state of a thread with a long past, from the log: one direct get of its last event."""
    connection = await Connection.open(url, name="bench")
    log = await JetStreamLog.open(connection)
    lines = (msgspec.structs.replace(line, aggregate="t") for line in history(THREAD_EVENTS))
    await fill(connection, lines)

    async def glance(_number: int) -> None:
        assert await log.glance("thread", "t") is not None

    async def flush(_number: int) -> None:
        await connection.nats.flush()

    await load(glance, 100, 1)
    trips = statistics.median(await load(flush, 500, 1)) * 1000
    seconds = await load(glance, 500, 1)
    p50, p99 = statistics.median(seconds) * 1000, statistics.quantiles(seconds, n=100)[98] * 1000
    name = f"the books of a thread of {THREAD_EVENTS:,} events"
    note = f"a bare round trip takes {trips:.2f} ms"
    bench.add(Row(name=name, rate=1000 / p50, p50_ms=p50, p99_ms=p99, note=note))
    await log.close()
    await connection.close()


async def _join(bench: Bench, url: str, events: int) -> None:
    """How long a process that joins a log of so many events takes to be up to date, from its connect on."""
    connection = await Connection.open(url, name="bench")
    await fill(connection, registrations(MODELS))
    began = time.perf_counter()
    await fill(connection, history(events))
    seconds = time.perf_counter() - began
    bench.add(Row(name=f"write {events:,} events in atomic batches", rate=events / seconds))
    await connection.close()
    rows: list[tuple[str, Any, bool]] = [
        ("the registry, no snapshot", GATEWAY, False),
        ("attempts under way, no snapshot", ATTEMPTS, True),
        ("the registry, with its snapshot", GATEWAY, True),
        ("attempts under way, with their snapshot", ATTEMPTS, True),
    ]
    for name, fold, keeps in rows:
        began, cpu = time.perf_counter(), time.process_time()
        connection = await Connection.open(url, name="bench")
        snapshots = KvSnapshots(connection)
        await snapshots.open()
        view: View[Any] = View(JetStreamLog(connection), fold, snapshots if keeps else None)
        await view.start()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        note = f"{seconds:.2f} s, {cpu:.2f} s of them CPU, at {view.position:,}"
        bench.add(Row(name=f"join {events:,} events: {name}", rate=1 / seconds, p50_ms=seconds * 1000, note=note))
        await view.stop()
        if fold is GATEWAY and not keeps:
            kept: View[Any] = View(JetStreamLog(connection), fold, snapshots)
            await kept.start()
            await kept.stop()
        await connection.close()


async def _cpu(work: Callable[[], Awaitable[None]]) -> float:
    before = time.process_time()
    await work()
    return time.process_time() - before


async def _bare_loop(client: Any, count: int) -> None:
    """The loop that anybody would write first: nothing but decoding."""
    decoder = msgspec.json.Decoder(thread.RouteDecided | thread.UsageRecorded | thread.AttemptFailed)
    done = asyncio.Event()
    left = count

    async def arrived(message: Any) -> None:
        nonlocal left
        decoder.decode(message.data)
        left -= 1
        if not left:
            done.set()

    subscription = await client.jetstream().subscribe(f"{LOG}.thread.>", ordered_consumer=True, cb=arrived)
    async with asyncio.timeout(120):
        await done.wait()
    await subscription.unsubscribe()
