"""Two escrows on one budget: what is leased has a holder, comes back when it is asked for, and is reported."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from audit import check_limits, events
from trunkline.client import Gateway
from trunkline_actors import escrow as escrow_module
from trunkline_actors.catalogue import listed
from trunkline_actors.escrow import Escrow
from trunkline_actors.money import Fund, Underfunded, Waiting
from trunkline_actors.purse import hold_of
from trunkline_actors.rates import Rates
from trunkline_actors.runtime import Runtime
from trunkline_events.connection import Connection

pytest_plugins = ["gateway"]

DOLLAR = 10**9


@asynccontextmanager
async def a_router(url: str, name: str) -> AsyncIterator[tuple[Escrow, Runtime]]:
    """The escrow of a process of its own."""
    tasks: set[asyncio.Task[Any]] = set()

    def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    connection = await Connection.open(url, name=name)
    runtime = await Runtime.start(connection, name=name, version="1", rates=Rates(listed))
    escrow = Escrow(runtime, spawn)
    await escrow.start()
    yield escrow, runtime
    await asyncio.gather(*tasks)
    await escrow.stop()
    await runtime.stop()


@pytest.fixture
async def budget(gw: Gateway) -> None:
    """The gateway's, of one dollar."""
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "1"})


def short(nanos: int) -> Underfunded:
    return Underfunded(
        code="budget_exceeded", message="", scope="gateway", needed_nanos=nanos, wanted_nanos=nanos, floor_nanos=nanos
    )


def fund_of(escrow: Escrow, runtime: Runtime) -> Fund:
    [fund] = escrow.funds("", runtime.clock(), {})
    return fund


async def test_what_one_does_not_need_is_given_to_the_other(gw: Gateway, bus_url: str, budget: None) -> None:
    async with a_router(bus_url, "a") as (first, one), a_router(bus_url, "b") as (second, other):
        fund = fund_of(first, one)
        assert await first.lease(short(DOLLAR * 9 // 10), "r", "t") is None
        first.take("a-1", "a", {"gateway": fund.slice}, DOLLAR // 10)
        fund_of(second, other)
        assert await second.lease(short(DOLLAR * 8 // 10), "q", "t") is None
        assert fund_of(second, other).free_nanos >= DOLLAR * 8 // 10
        first.give_back("a-1", DOLLAR // 20)
    check_limits(await events(gw))
    shown = await gw.budgets.get(scope="gateway")
    assert (shown["settled_usd"], shown["reserved_usd"], shown["holders"]) == ("0.05", "0", [])


async def test_who_holds_the_rest_is_named(gw: Gateway, bus_url: str, budget: None) -> None:
    async with a_router(bus_url, "a") as (first, one), a_router(bus_url, "b") as (second, other):
        fund = fund_of(first, one)
        assert await first.lease(short(DOLLAR), "r", "t") is None
        first.take("a-1", "the holder", {"gateway": fund.slice}, DOLLAR)
        fund_of(second, other)
        answer = await second.lease(short(DOLLAR // 2), "q", "t")
        assert isinstance(answer, Waiting)
        assert answer.metadata["requests"] == ["the holder"]
        first.give_back("a-1")


async def test_a_purse_that_ends_while_it_leases_leaves_nothing_without_a_holder(
    gw: Gateway, bus_url: str, budget: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the others to give back, and that takes a moment, in which it looks as if nobody used it."""
    monkeypatch.setattr(escrow_module, "IDLE_SECONDS", -1.0)
    async with a_router(bus_url, "a") as (first, one), a_router(bus_url, "b") as (second, other):
        fund = fund_of(first, one)
        assert await first.lease(short(DOLLAR), "r", "t") is None
        first.take("a-1", "a", {"gateway": fund.slice}, DOLLAR)
        fund_of(second, other)
        leasing = asyncio.create_task(second.lease(short(DOLLAR // 2), "q", "t"))
        while not leasing.done():
            second._urgent.set()
            first.give_back("a-1")
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while (await gw.budgets.get(scope="gateway"))["reserved_usd"] != "0":  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_nothing_is_lost_of_a_lease_or_report_that_nobody_acknowledged(
    gw: Gateway, bus_url: str, budget: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored without an answer is money in nobody's hands until the next report, and no more than that."""
    async with a_router(bus_url, "a") as (first, one):
        fund = fund_of(first, one)
        assert await first.lease(short(DOLLAR // 10), "r", "t") is None
        first.take("a-1", "a", {"gateway": fund.slice}, DOLLAR // 10)
        learn = first._learn
        monkeypatch.setattr(first, "_learn", lambda *_: None)
        await first.lease(short(DOLLAR // 2), "r", "t")
        monkeypatch.setattr(first, "_learn", learn)
        known = one.scopes.known("gateway")
        assert known is not None
        [held] = known.books.slices.values()
        assert held.granted_nanos > fund_of(first, one).free_nanos + DOLLAR // 10
        first.give_back("a-1", DOLLAR // 20)
    check_limits(await events(gw))
    shown = await gw.budgets.get(scope="gateway")
    assert (shown["settled_usd"], shown["reserved_usd"]) == ("0.05", "0")


async def test_what_one_decision_gives_back_is_not_what_another_of_the_same_attempt_holds(
    gw: Gateway, bus_url: str, budget: None
) -> None:
    """Where a request is on its way twice, both decide its first attempt, and one of the two is not stored."""
    async with a_router(bus_url, "a") as (first, one):
        fund = fund_of(first, one)
        assert await first.lease(short(DOLLAR // 2), "r", "t") is None
        free = fund_of(first, one).free_nanos
        stored, lost = hold_of("r-1", 0.25), hold_of("r-1", 0.75)
        for hold in (stored, lost):
            first.take(hold, "r", {"gateway": fund.slice}, DOLLAR // 10)
        first.give_back(lost)
        assert fund_of(first, one).free_nanos == free - DOLLAR // 10
        first.give_back(stored, DOLLAR // 20)
    assert (await gw.budgets.get(scope="gateway"))["settled_usd"] == "0.05"
