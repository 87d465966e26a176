"""What the read models cost: rebuilding all of them from a long log. Events a second, and memory over time.

The log is filled with what chats leave behind: a decision with three candidates and an ending each, one in forty
attempts failing, on ten thousand threads. The rebuild is `trunkline projections rebuild` itself, in a process of its
own, as an operator runs it.
"""

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline_events import headers, subjects
from trunkline_events.codec import CODEC
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.thread import Asked, AttemptFailed, Candidate, OpenAttempt, RouteDecided, ThreadEvent
from trunkline_events.thread import UsageRecorded as Recorded
from trunkline_events.times import format_time
from trunkline_events.usage import Usage

from trunkline.benchmark import Row
from trunkline.embedded import EmbeddedServer

EVENTS = 1_000_000
THREADS = 10_000
MODELS = (
    ("gpt-large", "north"),
    ("gpt-small", "north"),
    ("llama-70b", "south"),
    ("claude-mid", "east"),
    ("tiny", "lab"),
)
START = 1_795_262_400.0
SECONDS_BETWEEN = 0.5
ACKED_EVERY = 2000
"""Publishes without an acknowledgement, then one with: the server's own queue of a stream holds 10,000."""
SAMPLE_SECONDS = 0.25


def history(count: int, seed: int = 7) -> Iterator[tuple[str, str, float, ThreadEvent]]:
    """(thread, event id, time, event): what chats leave behind, about `count` events of it."""
    draw = random.Random(seed)
    settled = [0] * THREADS
    tokens = [Usage()] * THREADS
    for number in range(count // 2):
        place = draw.randrange(THREADS)
        model, provider = draw.choice(MODELS)
        thread, request = f"thread-{place}", f"r{number:08d}"
        attempt, reserve = f"{request}-1", draw.randrange(100_000, 9_000_000)
        when = START + number * SECONDS_BETWEEN
        books: dict[str, Any] = {"limit_nanos": 5_000_000_000, "window": "none", "config_seq": 1}
        names: dict[str, Any] = {
            "request_id": request,
            "attempt_id": attempt,
            "attempt": 1,
            "model": model,
            "provider": provider,
        }
        asked = Asked(operation="chat", model="auto", stream=True, input_bound=draw.randrange(50, 9000), max_tokens=512)
        yield (
            thread,
            f"{attempt}/decided",
            when,
            RouteDecided(
                **names,
                **books,
                settled_nanos=settled[place],
                reserved_nanos=reserve,
                tokens=tokens[place],
                open={attempt: OpenAttempt(request_id=request, reserve_nanos=reserve)},
                candidates=[
                    Candidate(model=name, provider=of, score=draw.random(), reason="fits") for name, of in MODELS[:3]
                ],
                left_out={"capability": 2},
                reserve_nanos=reserve,
                max_tokens=512,
                price_version="catalogue-7",
                asked=asked,
                tried=[],
                log_seq=12,
                policy_version=3,
                override=None,
                preferences={},
                stats={},
                now=when,
                draw=0.5,
                deadline=when + 60,
                reply="_INBOX.caller",
            ),
        )
        if draw.random() < 1 / 40:
            ending: ThreadEvent = AttemptFailed(
                **names,
                **books,
                settled_nanos=settled[place],
                tokens=tokens[place],
                failure=draw.choice(["timeout", "overloaded", "rate-limited"]),
                status=503,
                latency_ms=draw.uniform(5, 60_000),
            )
        else:
            usage = Usage(input_tokens=draw.randrange(20, 4000), output_tokens=draw.randrange(1, 512))
            cost = usage.input_tokens * 500 + usage.output_tokens * 2000
            settled[place] += cost
            tokens[place] += usage
            ending = Recorded(
                **names,
                **books,
                settled_nanos=settled[place],
                tokens=tokens[place],
                usage=usage,
                cost_nanos=cost,
                price_version="catalogue-7",
                latency_ms=draw.lognormvariate(7, 1),
                ttft_ms=draw.lognormvariate(5, 1),
                finish="stop",
            )
        yield thread, f"{attempt}/ended", when + draw.uniform(0.1, 20), ending


async def fill(url: str, count: int, seed: int = 7) -> int:
    """Make the stream and put a history into it; the sequence of its last event."""
    connection = await Connection.open(url, name="trunkline bench")
    try:
        log = await JetStreamLog.open(connection)
        js = connection.nats.jetstream(timeout=30)
        for number, (thread, event_id, when, body) in enumerate(history(count, seed), 1):
            # No message id: the server would keep two minutes of them in memory, and nothing here is sent twice.
            fields = {headers.TYPE: CODEC.name(body), headers.TIME: format_time(when), headers.ACTOR: "bench"}
            fields["Trunkline-Bench"] = event_id
            subject, data = subjects.log_subject("thread", thread), CODEC.encode(body)
            if number % ACKED_EVERY:
                await connection.nats.publish(subject, data, headers=fields)
            else:
                await js.publish(subject, data, headers=fields)
        await connection.nats.flush(timeout=30)
        end = await log.end()
        await log.close()
        return end
    finally:
        await connection.close()


async def rebuilt(url: str, folder: Path) -> tuple[dict[str, Any], list[float]]:
    """Run the rebuild in a process of its own: what it printed, and its memory in MB, every quarter of a second."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline", "projections", "rebuild", "--force", "--json"),
        *("--nats", url, "--data", str(folder)),
        stdout=asyncio.subprocess.PIPE,
    )
    printed = asyncio.create_task(process.communicate())
    memory: list[float] = []
    while not printed.done():
        memory.append(_megabytes(process.pid))
        await asyncio.wait([printed], timeout=SAMPLE_SECONDS)
    out, _ = await printed
    return json.loads(out), memory


def _megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


async def run(events: int = EVENTS) -> list[Row]:
    """Fill a log of its own with so many events, and rebuild all read models from it."""
    with tempfile.TemporaryDirectory(prefix="trunkline-") as folder:
        async with EmbeddedServer(store=Path(folder) / "nats", port=0, durability="process") as server:
            began = time.monotonic()
            end = await fill(server.url, events)
            filled = end / (time.monotonic() - began)
            found, memory = await rebuilt(server.url, Path(folder) / "data")
    position, rate = found["position"], found["events_per_second"]
    assert position == end, found
    parts = [memory[len(memory) * share // 100] for share in (10, 50, 90)] if memory else [0.0] * 3
    note = f"memory {max(memory, default=0):.0f} MB at most; {', '.join(f'{part:.0f}' for part in parts)} MB on the way"
    return [
        Row(name=f"filling a log with {end:,} events", rate=filled),
        Row(name=f"all read models from {position:,} events", rate=rate, note=note),
    ]
