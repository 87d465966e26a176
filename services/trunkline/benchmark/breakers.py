"""How long a circuit takes to be open on every router: from the upstream's failure that trips it, over processes."""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from nats.aio.client import Msg
from trunkline_actors.dispatch import Pulse
from trunkline_events import subjects
from trunkline_events.connection import Connection

from trunkline import client, errors
from trunkline.benchmark.load import embedded, process
from trunkline.benchmark.table import Bench, Row

ROUTERS = 4
PROVIDERS = 2
FAILURES = 5
ROUNDS = 50
_DOWN = b"HTTP/1.1 503 Down\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def run(bench: Bench) -> None:
    """Trip a circuit again and again, with four routers and two providers as processes."""
    rounds = max(5, int(ROUNDS * bench.scale))
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded("always"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roles = ["registry", *["router"] * ROUTERS, *["provider"] * PROVIDERS]
        for number, role in enumerate(roles):
            ready = folder / str(number)
            await stack.enter_async_context(process("run", role, "--nats", url, ready=ready))
        failed_at: list[float] = []
        server = await stack.enter_async_context(await asyncio.start_server(_fails(failed_at), "127.0.0.1", 0))
        port = server.sockets[0].getsockname()[1]
        gw = await stack.enter_async_context(client.connect(url))
        await gw.providers.register(
            id="down",
            kind="openai-compatible",
            base_url=f"http://127.0.0.1:{port}/v1",
            local=True,
            breaker_failures=FAILURES,
        )
        await gw.models.register(id="m", provider="down")
        listener = await Connection.open(url, name="bench")
        stack.push_async_callback(listener.close)
        readers = _Readers()
        await listener.nats.subscribe(subjects.PULSE, cb=readers.heard)
        took = [await _round(gw, readers, failed_at) for _ in range(rounds)]
    took.sort()
    bench.add(
        Row(
            name=f"circuit open on {ROUTERS} routers after the tripping failure",
            rate=1000 / statistics.fmean(took),
            p50_ms=statistics.median(took),
            p99_ms=took[int(len(took) * 0.99)],
            note=f"most {took[-1]:.1f} ms of {rounds}",
        )
    )


async def _round(gw: client.Gateway, readers: "_Readers", failed_at: list[float]) -> float:
    """Milliseconds from the last failure the upstream answered until every router has said that it read the opening."""
    failed_at.clear()
    readers.reached.clear()
    for _ in range(FAILURES):
        with contextlib.suppress(errors.TrunklineError):
            await gw.chat.create("m", "hi", route={"attempts": 1})
    while (shown := await gw.circuits.get(provider="down"))["state"] != "open":
        pass
    done = await readers.all_reached(shown["seq"])
    await gw.circuits.reset(provider="down")
    return (done - failed_at[FAILURES - 1]) * 1000


class _Readers:
    """When each router process said that it has read how far: it says so at once, one hop later."""

    def __init__(self) -> None:
        self.reached: dict[str, list[tuple[int, float]]] = {}
        self._more = asyncio.Event()

    async def heard(self, message: Msg) -> None:
        pulse = msgspec.json.decode(message.data, type=Pulse)
        if pulse.roles == ["router"]:
            self.reached.setdefault(pulse.process, []).append((pulse.position, time.perf_counter()))
            self._more.set()

    async def all_reached(self, sequence: int) -> float:
        """When the last of them first told of this sequence."""
        while True:
            self._more.clear()
            first = [
                min((at for position, at in told if position >= sequence), default=None)
                for told in self.reached.values()
            ]
            if len(first) >= ROUTERS and None not in first:
                return max(at for at in first if at is not None)
            await self._more.wait()


def _fails(failed_at: list[float]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                failed_at.append(time.perf_counter())
                writer.write(_DOWN)
                await writer.drain()
        writer.close()

    return serve
