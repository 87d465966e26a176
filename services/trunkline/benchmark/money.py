"""What budgets cost: the check in a chat, one hot thread, one hot key, and what slices save on a shared budget."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from trunkline_actors import slices
from trunkline_actors.catalogue import listed
from trunkline_actors.claims import key_id
from trunkline_actors.escrow import Escrow
from trunkline_actors.money import Budget, Underfunded
from trunkline_actors.rates import Rates
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided
from trunkline_events.budget import GATEWAY, ScopeBooks
from trunkline_events.connection import Connection

from trunkline import __version__, client
from trunkline.benchmark.chats import plain
from trunkline.benchmark.load import IN_FLIGHT, embedded, gateway, load
from trunkline.benchmark.table import Bench, Row

Take = Callable[[int], Awaitable[None]]

KEY = "tl-the-key-of-the-benchmark"
PLENTY = "1000000"
THREADS = 1_000
HOLDERS = 4
PRICE = {"input": "1.00", "output": "4.00"}
NANOS = 100_000
"""What each request of the contention figures reserves; it costs a tenth."""


async def run(bench: Bench, _events: int) -> None:
    """Chats with and without budgets, then slices beside an append for each request."""
    async with gateway("process") as (url, pid):
        async with client.connect(url) as gw:
            await gw.models.register(id="priced", provider="bench", upstream="say:forty-two", price=PRICE)
            for number in range(THREADS):
                await gw.threads.configure(thread_id=f"b{number}", budget={"limit_usd": PLENTY, "window": "month"})
            await gw.threads.configure(thread_id="hot", budget={"limit_usd": PLENTY, "window": "month"})
        many: dict[str, Callable[[int], str]] = {
            "no budget": lambda number: f"t{number % THREADS}",
            "budgets": lambda number: f"b{number % THREADS}",
        }
        costs = {
            name: await plain(
                bench, url, pid, f"chat, 1,000 threads, {name}", IN_FLIGHT, 10_000, model="priced", thread=thread
            )
            for name, thread in many.items()
        }
        without, checked = costs.values()
        if without:
            told = f"{checked / without:.2f} times"
            bench.add(Row(name="the check of a thread's budget", rate=1e6 / max(1.0, checked - without), note=told))
        await plain(bench, url, pid, "chat, no thread, no budget", IN_FLIGHT, 10_000, model="priced")
        await plain(
            bench,
            url,
            pid,
            "chat, one hot thread with a budget",
            IN_FLIGHT,
            3_000,
            model="priced",
            thread=lambda _: "hot",
        )
        async with client.connect(url) as gw:
            await gw.budgets.set(scope=f"key:{key_id(KEY)}", budget={"limit_usd": PLENTY}, team="bench")
        await plain(bench, url, pid, "chat, one hot key", IN_FLIGHT, 10_000, model="priced", key=KEY)
        async with client.connect(url) as gw:
            for scope in ("team:bench", "gateway"):
                await gw.budgets.set(scope=scope, budget={"limit_usd": PLENTY})
        await plain(bench, url, pid, "chat, one hot key, team and gateway", IN_FLIGHT, 10_000, model="priced", key=KEY)
    await _contention(bench)


async def _contention(bench: Bench) -> None:
    """One budget and four processes' worth of routers that take from it, in slices and with an append each."""
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded("always"))
        runtimes = []
        for number in range(HOLDERS):
            connection = await Connection.open(url, name="bench")
            rates = Rates(listed)
            runtime = await Runtime.start(connection, name=f"bench-{number}", version=__version__, rates=rates)
            stack.push_async_callback(runtime.stop)
            runtimes.append(runtime)
        await _set_budget(runtimes[0])
        rate = {}
        for name, taking in (("an append for each request", _appending), ("slices", _leasing)):
            async with taking(runtimes) as take:
                count = max(200, int((2_000 if taking is _appending else 20_000) * bench.scale))
                await load(take, count // 10, IN_FLIGHT)
                began, cpu = time.perf_counter(), time.process_time()
                await load(take, count, IN_FLIGHT)
                rate[name] = count / (time.perf_counter() - began)
                each = (time.process_time() - cpu) / count * 1e6
            told = f"{rate[name] / rate['an append for each request']:.0f} times the rate"
            bench.add(
                Row(name=f"one budget, {HOLDERS} routers, always, {name}", rate=rate[name], cpu_us=each, note=told)
            )


async def _set_budget(runtime: Runtime) -> None:
    await _decide(runtime, "set", lambda books, now: slices.configure(books, "r", _BUDGET, None, None, now))
    await runtime.gateway.catch_up()


_BUDGET = Budget(limit_usd=PLENTY)


async def _decide(runtime: Runtime, command_id: str, decide: Callable[[ScopeBooks, float], Any]) -> Decided:
    command: Command[ScopeBooks] = Command(
        category="budget", aggregate=GATEWAY, id=command_id, decide=decide, actor="bench", persistent=True
    )
    while True:
        decided = await runtime.shell.execute(runtime.scopes, command)
        if isinstance(decided, Decided):
            return decided


@contextlib.asynccontextmanager
async def _appending(runtimes: list[Runtime]) -> AsyncIterator[Take]:
    """Each request leases what it needs, and settles it when it ends: two appends, each with an expectation."""
    numbers = itertools.count()

    async def take(number: int) -> None:
        runtime, name = runtimes[number % HOLDERS], f"one-{next(numbers)}"
        ask = slices.Lease(
            slice=name,
            holder=runtime.name,
            request_id="r",
            thread="t",
            spent_nanos=0,
            free_nanos=0,
            needed_nanos=NANOS,
            wanted_nanos=NANOS,
            floor_nanos=NANOS,
            ahead=1,
        )
        await _decide(runtime, f"{name}/leased", lambda books, now: slices.lease(GATEWAY, books, ask, now))
        settle = slices.Settle(slice=name, spent_nanos=NANOS // 10, keep_nanos=0, closed=True)
        await _decide(runtime, f"{name}/settled", lambda books, now: slices.settle(books, settle, now))

    yield take


@contextlib.asynccontextmanager
async def _leasing(runtimes: list[Runtime]) -> AsyncIterator[Take]:
    """Each request takes from its router's slice, which is leased, reported on and topped up as in use."""
    tasks: set[asyncio.Task[Any]] = set()

    def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    escrows = [Escrow(runtime, spawn) for runtime in runtimes]
    for escrow in escrows:
        await escrow.start()
    numbers = itertools.count()

    async def take(number: int) -> None:
        escrow, runtime = escrows[number % HOLDERS], runtimes[number % HOLDERS]
        attempt = f"a{next(numbers)}"
        while (fund := escrow.funds("", runtime.clock(), {})[0]).free_nanos < NANOS:
            short = Underfunded(
                code="budget_exceeded",
                message="",
                scope=GATEWAY,
                needed_nanos=NANOS,
                wanted_nanos=NANOS,
                floor_nanos=NANOS,
            )
            await escrow.lease(short, attempt, "t")
        escrow.take(attempt, attempt, {fund.scope: fund.slice}, NANOS)
        await asyncio.sleep(0)
        escrow.give_back(attempt, NANOS // 10)

    yield take
    for escrow in escrows:
        await escrow.stop()
