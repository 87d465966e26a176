"""What it adds that the first choice refuses the connection, beside the same chat sent to the second directly."""

import socket
import statistics

import msgspec
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection

from trunkline import client
from trunkline.benchmark.load import SLICES, gateway, load
from trunkline.benchmark.table import Bench, Row
from trunkline.settings import Durability

CHATS = 500
TARGET_MS = 20.0
"""Milliseconds that a fail-over may add."""


async def run(bench: Bench) -> None:
    """Both durabilities, one chat at a time: waits show there, and not in throughput."""
    for durability in ("process", "always"):
        await _measure(bench, durability)


async def _measure(bench: Bench, durability: Durability) -> None:
    async with gateway(durability) as (url, _pid):
        async with client.connect(url) as gw:
            # A breaker would keep the request from being refused at all.
            await gw.providers.register(
                id="refused",
                kind="openai-compatible",
                base_url=f"http://127.0.0.1:{_closed_port()}/v1",
                local=True,
                breaker_failures=1_000_000,
            )
            await gw.models.register(id="refused", provider="refused", price={"input": "0", "output": "0"})
        connection = await Connection.open(url, name="bench")
        direct, around = _body("bench"), _body("refused")

        async def ask(body: bytes, attempts: str) -> None:
            message = await connection.nats.request(subjects.CHAT, body, timeout=30)
            if (message.headers or {}).get(headers.ATTEMPTS) != attempts or headers.EVENT not in message.headers:
                raise RuntimeError(f"not an answer of attempt {attempts}: {message.data!r}")

        for _ in range(50):  # the first imports the SDK
            await ask(direct, "1")
            await ask(around, "2")
        count = max(10, int(CHATS * bench.scale) // SLICES)
        straight: list[float] = []
        bent: list[float] = []
        for _ in range(SLICES):  # side by side: the machine's moods then fall on both
            straight += await load(lambda _number: ask(direct, "1"), count, 1)
            bent += await load(lambda _number: ask(around, "2"), count, 1)
        await connection.close()
    base = statistics.median(straight)
    _add(bench, f"chat, {durability}, directly", straight, base, "")
    added = (statistics.median(bent) - base) * 1000
    met = "" if added <= TARGET_MS else f", more than {TARGET_MS:g}"
    _add(bench, f"chat, {durability}, first choice refused", bent, base, f"adds {added:.1f} ms{met}; ratio of p50s")


def _add(bench: Bench, name: str, seconds: list[float], base: float, note: str) -> None:
    quantiles = statistics.quantiles(seconds, n=100)
    bench.add(
        Row(
            name=name,
            rate=len(seconds) / sum(seconds),
            ratio=quantiles[49] / base,
            p50_ms=quantiles[49] * 1000,
            p99_ms=quantiles[98] * 1000,
            note=note,
        )
    )


def _closed_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _body(model: str) -> bytes:
    return msgspec.json.encode(
        {
            "model": model,
            "messages": [{"role": "user", "content": "What is the answer to everything?"}],
            "route": {"fallbacks": ["bench"]} if model != "bench" else {},
        }
    )
