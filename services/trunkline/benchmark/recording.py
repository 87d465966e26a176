"""What recording every request costs: the same chats with it and without, in turns, in one run.

Two gateways stand side by side before one upstream, each with a server of its own; what differs is that one sends all
traces and metrics to a collector, a process that takes everything. The CPU is that of router, provider and, over HTTP,
the edge, in one process, the exporter's thread included; it has a core of its own, where there are two.
"""

import asyncio
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection

from trunkline import client
from trunkline.benchmark import served
from trunkline.benchmark.load import IN_FLIGHT, embedded, load, process
from trunkline.benchmark.placing import Cores, on_core, two_cores
from trunkline.benchmark.table import Bench, Row
from trunkline.proc import cpu_seconds

ROUNDS = 11
COUNT = 4_000
CHAT = {"model": "bench", "messages": [{"role": "user", "content": "What is the answer to everything?"}]}

_COLLECTOR = """
import asyncio
async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\\r")[0]))
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

Ask = Callable[[int], Awaitable[None]]


async def run(bench: Bench) -> None:
    """Chats over the bus, then over HTTP."""
    cores = two_cores()
    for over, make in (("the bus", _over_bus), ("HTTP", _over_http)):
        async with AsyncExitStack() as stack:
            stack.enter_context(on_core(cores and cores.others))
            endpoint = await stack.enter_async_context(_collector())
            origin = (await stack.enter_async_context(served.upstream())).origin
            off_pid, off = await stack.enter_async_context(_gateway(make, None, origin, cores))
            on_pid, on = await stack.enter_async_context(_gateway(make, endpoint, origin, cores))
            for ask in (off, on):
                await load(ask, COUNT // 2, IN_FLIGHT)
            count = max(1_000, int(COUNT * bench.scale))
            costs: dict[str, list[float]] = {"off": [], "on": []}
            for number in range(ROUNDS):
                turns = [("off", off_pid, off), ("on", on_pid, on)]
                for name, pid, ask in turns if number % 2 else reversed(turns):
                    costs[name].append(await _cost(pid, ask, count))
        ratio = statistics.median(on / off for off, on in zip(costs["off"], costs["on"], strict=True))
        for name, note in (("off", ""), ("on", f"{ratio:.3f} times the CPU without, median of pairs")):
            cpu = statistics.median(costs[name])
            row = Row(
                name=f"chat over {over}, telemetry {name}, {IN_FLIGHT} in flight",
                rate=1e6 / cpu,
                cpu_us=cpu,
                ratio=ratio if name == "on" else 1.0,
                note=note,
            )
            bench.add(row)


async def _cost(pid: int, ask: Ask, count: int) -> float:
    """CPU microseconds a chat."""
    before = cpu_seconds(pid)
    await load(ask, count, IN_FLIGHT)
    after = cpu_seconds(pid)
    if before is None or after is None:
        raise RuntimeError("this needs Linux's /proc")
    return (after - before) / count * 1e6


@asynccontextmanager
async def _collector() -> AsyncIterator[str]:
    started = await asyncio.create_subprocess_exec(sys.executable, "-c", _COLLECTOR, stdout=asyncio.subprocess.PIPE)
    assert started.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await started.stdout.readline())}"
    finally:
        started.kill()
        await started.wait()


Make = Callable[[str, str, str], AsyncIterator[Ask]]


@asynccontextmanager
async def _gateway(
    make: Make, endpoint: str | None, origin: str, cores: Cores | None
) -> AsyncIterator[tuple[int, Ask]]:
    """A gateway whose process is to be measured, and a way to ask it."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded("process"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "trunkline.yaml"
        config.write_text(f"otlp: {endpoint}\n" if endpoint else "{}\n")
        others, measured = ("registry", "keeper"), ("router", "provider", "gateway")
        common = ("--nats", url, "--http-port", "0", "--config", str(config))
        await stack.enter_async_context(process("run", *others, *common, ready=folder / "one"))
        with on_core(cores and cores.gateways):
            pid = await stack.enter_async_context(process("run", *measured, *common, ready=folder / "two"))
        async with client.connect(url) as gw:
            await gw.providers.register(
                id="bench", kind="openai-compatible", base_url=f"{origin}/v1", local=True, max_concurrency=1000
            )
            await gw.models.register(id="bench", provider="bench", upstream="m")
            key = (await gw.keys.issue(id="bench"))["key"]
        edge = msgspec.json.decode((folder / "two").read_bytes())["http"]
        ask = await stack.enter_async_context(asynccontextmanager(make)(url, edge, key))
        yield pid, ask


async def _over_bus(url: str, _edge: str, _key: str) -> AsyncIterator[Ask]:
    connection = await Connection.open(url, name="bench")
    body = msgspec.json.encode(CHAT)

    async def ask(_number: int) -> None:
        message = await connection.nats.request(subjects.CHAT, body, timeout=30)
        if headers.EVENT not in (message.headers or {}):
            raise RuntimeError(f"not an answer: {message.data!r}")

    yield ask
    await connection.close()


async def _over_http(_url: str, edge: str, key: str) -> AsyncIterator[Ask]:
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    async with aiohttp.ClientSession(base_url=edge, connector=connector) as session:
        fields = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        body = msgspec.json.encode(CHAT)

        async def ask(_number: int) -> None:
            async with session.post("/v1/chat/completions", data=body, headers=fields) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"not an answer: {await answer.read()!r}")
                await answer.read()

        yield ask
