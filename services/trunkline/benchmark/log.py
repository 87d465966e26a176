"""What reading the log costs: following it beside nats-py's own consumer, and joining one with millions of events.

`python -m trunkline.benchmark.log` prints its rows; `--events N` sets the length of the log that is joined, `--json`
and `--quick` are those of `trunkline bench`.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import nats
from trunkline_actors.snapshots import KvSnapshots
from trunkline_events import headers, registry, thread
from trunkline_events.codec import CODEC
from trunkline_events.connection import Connection
from trunkline_events.envelope import Event
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.stream import stream_config
from trunkline_events.subjects import LOG, log_subject
from trunkline_events.times import format_time
from trunkline_events.usage import Usage
from trunkline_projections.folds import ATTEMPTS, GATEWAY
from trunkline_projections.runner import View

from trunkline import lifecycle, telemetry
from trunkline.benchmark import SLICES, Bench, Row
from trunkline.embedded import EmbeddedServer

FOLLOWED = 100_000
JOINED = 1_000_000
MODELS = 100
THREADS = 10_000
BATCH = 512
BATCHES = 8
"""Atomic batches on their way at once."""

Line = tuple[str, str, str, bytes]
"""Of one event: subject, id, type, body."""


async def follow_rows(bench: Bench, url: str) -> None:
    """Follow, decode and fold, beside nats-py's ordered consumer that decodes the same bytes; in CPU time of ours."""
    count = int(FOLLOWED * bench.scale)
    async with contextlib.AsyncExitStack() as stack:
        connection = await Connection.open(url, name="bench")
        stack.push_async_callback(connection.close)
        await fill(connection, chats(count))
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


async def join_rows(bench: Bench, url: str, events: int = JOINED) -> None:
    """How long a process that joins a log of so many events takes to be up to date, from its connect on."""
    connection = await Connection.open(url, name="bench")
    await fill(connection, _registrations())
    began = time.perf_counter()
    await fill(connection, chats(events))
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


# -- reading -----------------------------------------------------------------------------------------------------------


async def _cpu(work: Callable[[], Awaitable[None]]) -> float:
    before = time.process_time()
    await work()
    return time.process_time() - before


async def _bare_loop(client: Any, count: int) -> None:
    """The loop that anybody would write first: nothing but decoding."""
    decoder = msgspec.json.Decoder(thread.RouteDecided | thread.UsageRecorded)
    done = asyncio.Event()
    left = count

    async def arrived(message: Any) -> None:
        nonlocal left
        decoder.decode(message.data)
        left -= 1
        if not left:
            done.set()

    subscription = await client.jetstream().subscribe(f"{LOG}.thread.>", ordered_consumer=True, cb=arrived)
    await done.wait()
    await subscription.unsubscribe()


# -- writing -----------------------------------------------------------------------------------------------------------


async def fill(connection: Connection, lines: Iterable[Line]) -> None:
    """Append all of these, in atomic batches (ADR-50): the fastest way into a stream."""
    js = connection.nats.jetstream(timeout=30)
    config = stream_config()
    config.duplicate_window = 1.0  # millions of ids would fill the server's memory, and nobody repeats one here
    with contextlib.suppress(nats.js.errors.BadRequestError):  # it is there already
        await js.add_stream(config)
    rest = iter(lines)

    async def worker() -> None:
        while batch := list(itertools.islice(rest, BATCH)):
            await _append(connection, batch)

    await asyncio.gather(*(worker() for _ in range(BATCHES)))


async def _append(connection: Connection, batch: list[Line]) -> None:
    number = connection.nats.new_inbox().rpartition(".")[2]
    now = format_time(time.time())
    lines = []
    for place, (subject, event_id, kind, body) in enumerate(batch[:-1], 1):
        head = (
            f"NATS/1.0\r\n{headers.MSG_ID}: {event_id}\r\n{headers.TYPE}: {kind}\r\n{headers.TIME}: {now}\r\n"
            f"{headers.ACTOR}: router.bench\r\n{headers.CAUSE}: {event_id[:22]}\r\n"
            f"Nats-Batch-Id: {number}\r\nNats-Batch-Sequence: {place}\r\n\r\n"
        )
        lines.append(f"HPUB {subject} {len(head)} {len(head) + len(body)}\r\n{head}".encode() + body + b"\r\n")
    await connection.nats._send_command(b"".join(lines))  # noqa: SLF001 - one write for hundreds of messages
    subject, event_id, kind, body = batch[-1]
    fields = {
        headers.MSG_ID: event_id,
        headers.TYPE: kind,
        headers.TIME: now,
        headers.ACTOR: "router.bench",
        headers.CAUSE: event_id[:22],
        "Nats-Batch-Id": number,
        "Nats-Batch-Sequence": str(len(batch)),
        "Nats-Batch-Commit": "1",
    }
    answer = await connection.nats.request(subject, body, timeout=60, headers=fields)
    if b'"error"' in answer.data:
        raise RuntimeError(f"the batch was not stored: {answer.data!r}")


def chats(events: int) -> Iterable[Line]:
    """Decisions and endings of chats in turn, over many threads, eight attempts under way at each moment."""
    decided = CODEC.encode(_decided()).split(b"ATTEMPT")
    used = CODEC.encode(_used()).split(b"ATTEMPT")
    for number in range(events):
        ends = number % 2 == 1 and number > 16
        attempt = f"bench{(number - 17 if ends else number):017d}-1"
        parts, kind = (used, "thread.usage-recorded.v1") if ends else (decided, "thread.route-decided.v1")
        event_id = f"{attempt}/{'ended' if ends else 'decided'}"
        yield log_subject("thread", f"t{number % THREADS}"), event_id, kind, attempt.encode().join(parts)


def _registrations() -> Iterable[Line]:
    provider = registry.ProviderRegistered(provider=registry.Provider(id="p", kind="scripted", local=True))
    yield log_subject("provider", "p"), "p", CODEC.name(provider), CODEC.encode(provider)
    for number in range(MODELS):
        model = registry.ModelRegistered(model=registry.Model(id=f"m{number}", provider="p", upstream=f"m{number}"))
        yield log_subject("model", f"m{number}"), f"m{number}", CODEC.name(model), CODEC.encode(model)


_BOOKS: dict[str, Any] = {
    "request_id": "bench",
    "settled_nanos": 1_000,
    "tokens": Usage(input_tokens=9, output_tokens=9),
}


def _decided() -> Event:
    asked = thread.Asked(operation="chat", model="auto", stream=False, input_bound=64, features=[])
    return thread.RouteDecided(
        **_BOOKS,
        reserved_nanos=250,
        open={"ATTEMPT": thread.OpenAttempt(request_id="bench", reserve_nanos=250)},
        attempt_id="ATTEMPT",
        attempt=1,
        model="m1",
        provider="p",
        candidates=[thread.Candidate(model="m1", provider="p", score=1.5, reason="cheapest first")],
        left_out={},
        reserve_nanos=250,
        max_tokens=None,
        price_version="m1@17",
        asked=asked,
        tried=[],
        log_seq=41,
        policy_version=0,
        override=None,
        preferences={},
        stats={},
        now=1_795_262_400.25,
        draw=0.625,
        deadline=1_795_262_460.25,
        reply="_INBOX.bench.1",
    )


def _used() -> Event:
    return thread.UsageRecorded(
        **_BOOKS,
        attempt_id="ATTEMPT",
        attempt=1,
        model="m1",
        provider="p",
        usage=Usage(input_tokens=20, output_tokens=7),
        cost_nanos=123,
        price_version="m1@17",
        latency_ms=812.5,
        ttft_ms=101.25,
        finish="stop",
    )


# -- by hand -----------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run both; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.benchmark.log", description=__doc__)
    parser.add_argument("--events", type=int, default=JOINED, help="how long a log is joined")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    telemetry.configure("error")
    bench = Bench(as_json=args.json, scale=0.1 if args.quick else 1.0)
    return lifecycle.run(lambda: _run(bench, int(args.events * bench.scale)))


async def _run(bench: Bench, events: int) -> int:
    bench.heading()
    for rows in (follow_rows, lambda bench, url: join_rows(bench, url, events)):
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
            async with EmbeddedServer(store=Path(folder), port=0, durability="process") as server:
                await rows(bench, server.url)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
