"""What a workflow costs beside its chats: a step, a hundred runs at once, and a thousand in one process.

One run of S steps, each a chat of L seconds, takes T1. A hundred at once can take no less than T1, and no less than the
CPU time of all of them, shared by the cores. So the ratio is the wall time of all over T1 · max(1, 100 · C / n / T1):
C is the CPU time of one run in all processes, the NATS server's and the caller's too, and n the number of cores.
"""

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from trunkline import client
from trunkline.benchmark.load import nats_server, process
from trunkline.benchmark.table import Bench, Row
from trunkline.client import Gateway
from trunkline.proc import cpu_seconds, family_resident_bytes
from trunkline.settings import Durability
from trunkline.workflow_engine import finished
from trunkline.workflows import LLMStep, Workflow

STEPS = 5
AT_ONCE = 100
MANY = 1_000
CHAT_S = 0.05
"""How long a chat of a step takes: ten tokens at 200 a second."""

FIVE = Workflow("five", [LLMStep(f"step{n}", "say something about {topic}", model="slowly") for n in range(STEPS)])
INPUT = {"topic": "foxes"}


async def run(bench: Bench) -> None:
    """A run alone, a hundred at once, and a thousand, a hundred at a time."""
    async with _gateway("process") as (gw, pids):
        await _overhead(bench, gw, "process")
        await _at_once(bench, gw, pids, "process")
    async with _gateway("always") as (gw, pids):
        await _overhead(bench, gw, "always")
        await _at_once(bench, gw, pids, "always")
        await _many(bench, gw, pids[-1])


@asynccontextmanager
async def _gateway(durability: Durability) -> AsyncIterator[tuple[Gateway, list[int]]]:
    """A gateway in three processes; a client of it, and the ids of all processes, that of the runs' last."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(durability))
        assert server.pid is not None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pids = [
            await stack.enter_async_context(process("run", *roles, "--nats", server.url, ready=folder / roles[0]))
            for roles in (("registry", "keeper"), ("router", "provider"), ("workflow",))
        ]
        gw = await stack.enter_async_context(client.connect(server.url))
        await gw.providers.register(id="bench", kind="scripted", local=True)
        await gw.models.register(id="slowly", provider="bench", upstream=f"tokens:10@{10 / CHAT_S:g}")
        await _runs(gw, 5)
        yield gw, [server.pid, os.getpid(), *pids]


async def _overhead(bench: Bench, gw: Gateway, durability: Durability) -> None:
    """What a step takes beside its chat, of one run alone."""
    chats, steps = [], []
    for _ in range(max(5, int(20 * bench.scale))):
        began = time.perf_counter()
        for _ in range(STEPS):
            await gw.chat.create("slowly", "say something about foxes")
        chats.append((time.perf_counter() - began) / STEPS * 1000)
        steps.append((await _run(gw)) / STEPS * 1000)
    beside = statistics.median(steps) - statistics.median(chats)
    note = f"a chat {statistics.median(chats):.1f} ms"
    name = f"step of a workflow beside its chat, durability {durability}"
    bench.add(Row(name=name, rate=1000 / statistics.median(steps), p50_ms=beside, note=note))


async def _at_once(bench: Bench, gw: Gateway, pids: list[int], durability: Durability) -> None:
    alone = statistics.median([await _run(gw) for _ in range(5)])
    before = sum(cpu_seconds(pid) or 0.0 for pid in pids)
    began = time.perf_counter()
    await _runs(gw, AT_ONCE)
    wall = time.perf_counter() - began
    spent = sum(cpu_seconds(pid) or 0.0 for pid in pids) - before
    work = max(1.0, spent / len(os.sched_getaffinity(0)) / alone)
    bench.add(
        Row(
            name=f"{AT_ONCE} workflows of {STEPS} steps at once, durability {durability}",
            rate=AT_ONCE / wall,
            cpu_us=spent / AT_ONCE * 1e6,
            ratio=wall / (alone * work),
            p50_ms=wall * 1000,
            note=f"alone {alone * 1000:.0f} ms, work ratio {work:.2f}",
        )
    )


async def _many(bench: Bench, gw: Gateway, pid: int) -> None:
    """Whether memory stays where it is."""
    count = max(AT_ONCE * 2, int(MANY * bench.scale))
    await _runs(gw, AT_ONCE)
    before = family_resident_bytes(pid) or 0
    began = time.perf_counter()
    for _ in range(count // AT_ONCE):
        await _runs(gw, AT_ONCE)
    after = family_resident_bytes(pid) or 0
    bench.add(
        Row(
            name=f"{count:,} workflows of {STEPS} steps, {AT_ONCE} at once",
            rate=count / (time.perf_counter() - began),
            note=f"resident {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after",
        )
    )


async def _runs(gw: Gateway, count: int) -> None:
    await asyncio.gather(*(_run(gw) for _ in range(count)))


async def _run(gw: Gateway) -> float:
    """Seconds that a run takes, by its own events."""
    told: dict[str, Any] = await gw.workflows.start(definition=msgspec.to_builtins(FIVE.definition), input=INPUT)
    done = await finished(gw, told["id"])
    if done["status"] != "completed":
        raise RuntimeError(f"a run {done['status']}: {done['message']}")
    return float(done["metrics"]["duration_ms"]) / 1000
