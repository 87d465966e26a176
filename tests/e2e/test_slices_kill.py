"""Slices of budgets whose holder dies or stands still: the money comes back, and none of it is spent twice."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import trunkline
from audit import check_books, check_scopes, events
from processes import Role, passed, until
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline_events.budget import BudgetReserved, BudgetSettled
from trunkline_events.money import usd_from_nanos
from trunkline_events.thread import RequestRefused, RouteDecided

pytest_plugins = ["two_routers"]

PRICE = {"input": "1.00", "output": "4.00"}
LIMIT = "0.05"


@pytest.fixture
async def gw(cast: dict[str, Role], server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        for name, upstream in (("echo", "echo"), ("slow", "tokens:300@50")):
            await gateway.models.register(id=name, provider="scripted", upstream=upstream, price=PRICE)
        await gateway.budgets.set(scope="gateway", budget={"limit_usd": LIMIT})
        yield gateway


async def chats(gateway: Gateway, count: int, most: int = 500) -> None:
    """So many chats at once, all of which must be answered."""
    await asyncio.gather(*(gateway.chat.create("echo", f"hi {number}", max_tokens=most) for number in range(count)))


async def holders(gateway: Gateway) -> set[str]:
    """The processes that hold some of the budget."""
    return set((await gateway.budgets.get(scope="gateway"))["holders"])


async def nothing_reserved(gateway: Gateway) -> None:
    """Return when nobody holds anything."""
    async with asyncio.timeout(20):
        while (await gateway.budgets.get(scope="gateway"))["reserved_usd"] != "0":  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_what_a_killed_router_held_comes_back_and_what_it_spent_is_settled(
    gw: Gateway, cast: dict[str, Role]
) -> None:
    await chats(gw, 20)
    assert await holders(gw)
    await asyncio.gather(cast["first"].kill(), cast["second"].kill())
    await cast["first"].start()
    # More than is left beside the slices of the dead: it waits until the keeper has closed them.
    answer = await gw.chat.create("echo", "x", max_tokens=12_000, route={"deadline_ms": 30_000})
    assert answer.text == "x"
    await cast["first"].ended_gently()
    await nothing_reserved(gw)
    recorded = await events(gw)
    check_books(recorded)
    check_scopes(recorded)
    costs = sum(getattr(event.body, "cost_nanos", 0) for event in recorded if event.category == "thread")
    last = [event.body for event in recorded if isinstance(event.body, BudgetSettled)][-1]
    assert last.settled_nanos == costs


async def test_an_attempt_of_a_dead_router_that_lives_on_keeps_its_money_and_no_more(
    gw: Gateway, cast: dict[str, Role], server: EmbeddedServer
) -> None:
    async with trunkline.connect(server.url) as other:
        stream = asyncio.create_task(other.chat.create("slow", "x", max_tokens=400))
        while not [event for event in await events(gw) if isinstance(event.body, RouteDecided)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.gather(cast["first"].kill(), cast["second"].kill())
        await cast["first"].start()

        def shrunk() -> bool:
            return "keeper.slice_settled" in cast["core"].log.read_text()

        await until(shrunk, 15)
        kept = await gw.budgets.get(scope="gateway")
        [decided] = [event.body for event in await events(gw) if isinstance(event.body, RouteDecided)]
        assert kept["reserved_usd"] == usd_from_nanos(decided.reserve_nanos)
        answer = await stream
        await nothing_reserved(gw)
        assert (await gw.budgets.get(scope="gateway"))["settled_usd"] == answer.receipt.cost
    check_scopes(await events(gw))


async def test_a_router_that_stood_still_spends_nothing_of_a_slice_that_was_taken_from_it(
    gw: Gateway, cast: dict[str, Role]
) -> None:
    await chats(gw, 40)
    before = {one for event in await events(gw) if isinstance(event.body, BudgetReserved) for one in event.body.slices}
    cast["first"].signal(signal.SIGSTOP)
    # Some of these lie in the stopped router's socket, and are decided when it goes on.
    late = [asyncio.create_task(gw.chat.create("echo", f"late {number}", max_tokens=500)) for number in range(20)]
    await passed(8.0)
    assert "keeper.slice_settled" in cast["core"].log.read_text()
    cast["first"].signal(signal.SIGCONT)
    await asyncio.gather(*late)
    await chats(gw, 20)
    recorded = await events(gw)
    check_books(recorded)
    check_scopes(recorded)
    frozen: set[str] = set()
    for event in recorded:
        body = event.body
        if isinstance(body, BudgetSettled):
            frozen |= {name for name, one in body.slices.items() if one.frozen}
            if body.closed:
                frozen.add(body.slice)
        if isinstance(body, RouteDecided) and frozen & set(body.slices.values()):
            endings = [one.type for one in recorded if getattr(one.body, "attempt_id", "") == body.attempt_id][1:]
            assert endings == ["thread.attempt-failed.v1"], "what is void was carried out"
    assert frozen & before
    assert not [event for event in recorded if isinstance(event.body, RequestRefused)]
