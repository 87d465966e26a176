"""What adapters cost: CPU of a plain call and of a stream's chunk, beside bare aiohttp on the same upstream.

The upstream is a process of its own, and its CPU is not counted. Bare aiohttp posts the same bytes and reads the answer
through, without looking at it: what no client could do for less.
"""

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

from trunkline_actors.adapters import Adapter, Call, End
from trunkline_actors.adapters.factory import build, kind_of, kinds
from trunkline_actors.adapters.kinds import Settings

from trunkline.benchmark import served
from trunkline.benchmark.load import load
from trunkline.benchmark.table import Bench, Row

CALLS = 2_000
STREAMS = 400
CHUNKS = 100
SLICES = 5
_PAUSE_S = 0.002
_AT_ONCE = 8
_PROMPT = "Tell me about foxes. " * 20
_CALL = Call(body=b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % _PROMPT.encode(), model="m")

Ask = Callable[[int], Awaitable[None]]


async def run(bench: Bench) -> None:
    """Each kind that calls a server, over each of its ways."""
    calls, streams = max(200, int(CALLS * bench.scale)), max(40, int(STREAMS * bench.scale))
    async with AsyncExitStack() as stack:
        at_pace = (await stack.enter_async_context(served.upstream(_PAUSE_S, chunks=CHUNKS))).origin
        at_once = (await stack.enter_async_context(served.upstream(chunks=CHUNKS))).origin
        for name in kinds():
            if not kind_of(name).networked:
                continue
            # Those that speak OpenAI's wire share its SDK path.
            ways: tuple[Literal["raw", "sdk"], ...] = ("raw",) if name in _ALIKE else ("raw", "sdk")
            for way in ways:
                await _kind(bench, name, way, at_pace, at_once, calls, streams)


async def _kind(
    bench: Bench, name: str, way: Literal["raw", "sdk"], at_pace: str, at_once: str, calls: int, streams: int
) -> None:
    async with AsyncExitStack() as stack:
        path = _PATHS.get(name)
        if path is None:
            return
        for told, stream, origin in (
            ("a plain call", False, at_pace),
            ("a chunk of a stream, one by one", True, at_pace),
            ("a chunk of a stream, many at once", True, at_once),
        ):
            base = origin + _BASES.get(name, "/v1")
            adapter = build(name, Settings(provider="p", base_url=base, key="k" * 32, local=True, transport=way))
            stack.push_async_callback(adapter.close)
            bare = await stack.enter_async_context(_bare(origin + path[stream], stream=stream))
            ours = _streaming(adapter) if stream else _calling(adapter)
            each = CHUNKS if stream else 1
            yardstick, cost, rate = await _compare(bare, ours, streams if stream else calls, each)
            what = f"{name} ({way}): {told}"
            note = f"bare aiohttp {yardstick:.1f} µs"
            bench.add(Row(name=what, rate=rate, cpu_us=cost, ratio=cost / yardstick, note=note))


async def _compare(bare: Ask, ours: Ask, count: int, each: int) -> tuple[float, float, float]:
    """Microseconds of CPU for each of the `each` things that an ask brings, bare and ours; and ours a second."""
    costs: dict[Ask, list[float]] = {bare: [], ours: []}
    rates: list[float] = []
    for ask in (bare, ours):
        await load(ask, max(_AT_ONCE, count // 10), _AT_ONCE)
    of_slice = max(_AT_ONCE, count // SLICES)
    for _ in range(SLICES):
        for ask in (bare, ours):
            began, cpu = time.perf_counter(), time.process_time()
            await load(ask, of_slice, _AT_ONCE)
            costs[ask].append((time.process_time() - cpu) / of_slice / each * 1e6)
            if ask is ours:
                rates.append(of_slice * each / (time.perf_counter() - began))
    return statistics.median(costs[bare]), statistics.median(costs[ours]), statistics.median(rates)


def _calling(adapter: Adapter) -> Ask:
    async def ask(_number: int) -> None:
        answer = await adapter.complete(_CALL)
        assert answer.usage is not None

    return ask


def _streaming(adapter: Adapter) -> Ask:
    async def ask(_number: int) -> None:
        seen = 0
        async for item in adapter.stream(_CALL):
            seen += not isinstance(item, End)
        assert seen >= CHUNKS, f"{seen} chunks of {CHUNKS}"

    return ask


@asynccontextmanager
async def _bare(url: str, *, stream: bool) -> AsyncIterator[Ask]:
    import aiohttp

    body = b'{"stream":true,' + _CALL.body[1:] if stream else _CALL.body
    headers = {"Authorization": f"Bearer {'k' * 32}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def ask(_number: int) -> None:
            async with session.post(url, data=body) as response:
                if stream:
                    async for _ in response.content.iter_any():
                        pass
                else:
                    await response.read()

        yield ask


_ALIKE = frozenset({"deepseek", "openai", "openrouter"})

_BASES = {"anthropic": "", "gemini": "", "ollama": ""}
"""What follows the origin in a base URL, where that isn't /v1."""

_GEMINI = "/v1beta/models/m"
_CHAT = ("/v1/chat/completions", "/v1/chat/completions")
_PATHS = {
    "anthropic": ("/v1/messages", "/v1/messages"),
    "deepseek": _CHAT,
    "gemini": (f"{_GEMINI}:generateContent", f"{_GEMINI}:streamGenerateContent?alt=sse"),
    "ollama": ("/api/chat", "/api/chat"),
    "openai": _CHAT,
    "openai-compatible": _CHAT,
    "openrouter": _CHAT,
}
"""Where each kind asks for a whole answer, and for a stream."""
