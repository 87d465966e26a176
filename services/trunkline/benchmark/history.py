"""A log with a long past: what chats leave behind, and the fastest way to get it into a stream."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import nats.js.errors
from msgspec import Struct
from trunkline_events import headers, registry
from trunkline_events.codec import CODEC
from trunkline_events.connection import Connection
from trunkline_events.envelope import Event
from trunkline_events.stream import stream_config
from trunkline_events.subjects import STREAM, log_subject
from trunkline_events.thread import Asked, AttemptFailed, Candidate, OpenAttempt, RouteDecided, ThreadEvent
from trunkline_events.thread import UsageRecorded as Recorded
from trunkline_events.times import format_time
from trunkline_events.usage import Usage

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
BATCH = 512
BATCHES = 8
"""Atomic batches on their way at once."""


class Line(Struct, frozen=True):
    """One event of a history, and when it happened."""

    category: str
    aggregate: str
    cause: str
    time: float
    body: Event


def history(count: int, seed: int = 7) -> Iterator[Line]:
    """What chats leave behind, about `count` events: a decision with three candidates and an ending each."""
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
        yield Line(
            "thread",
            thread,
            request,
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
        yield Line("thread", thread, request, when + draw.uniform(0.1, 20), ending)


def registrations(models: int) -> Iterator[Line]:
    """A provider and so many models."""
    provider = registry.ProviderRegistered(provider=registry.Provider(id="p", kind="scripted", local=True))
    yield Line("provider", "p", "bench", START, provider)
    for number in range(models):
        name = f"m{number}"
        model = registry.ModelRegistered(model=registry.Model(id=name, provider="p", upstream=name))
        yield Line("model", name, "bench", START, model)


async def fill(connection: Connection, lines: Iterable[Line]) -> int:
    """Append all of these in atomic batches (NATS ADR-50), to a log that is made if need be; its last sequence."""
    js = connection.nats.jetstream(timeout=30)
    with contextlib.suppress(nats.js.errors.BadRequestError):  # it is there already
        await js.add_stream(stream_config())
    rest = iter(lines)

    async def worker() -> None:
        while batch := list(itertools.islice(rest, BATCH)):
            await _append(connection, batch)

    await asyncio.gather(*(worker() for _ in range(BATCHES)))
    return int((await js.stream_info(STREAM)).state.last_seq)


async def _append(connection: Connection, batch: list[Line]) -> None:
    # Without message ids: millions of them would fill the server's memory, and nothing here is sent twice.
    number = connection.nats.new_inbox().rpartition(".")[2]
    messages = []
    for place, line in enumerate(batch, 1):
        fields = {
            headers.TYPE: CODEC.name(line.body),
            headers.TIME: format_time(line.time),
            headers.ACTOR: "bench",
            headers.CAUSE: line.cause,
            headers.BATCH_ID: number,
            headers.BATCH_SEQUENCE: str(place),
        }
        messages.append((log_subject(line.category, line.aggregate), "", fields, CODEC.encode(line.body)))
    subject, _, fields, body = messages.pop()
    connection.nats.publish_together(messages)
    answer = await connection.nats.request(subject, body, timeout=60, headers=fields | {headers.BATCH_COMMIT: "1"})
    if b'"error"' in answer.data:
        raise RuntimeError(f"the batch was not stored: {answer.data!r}")
