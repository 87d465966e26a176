"""Budgets above threads on the bus: of a key, its team and the gateway, served from slices."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import trunkline
from audit import check_books, check_scopes, events
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.claims import key_id
from trunkline_events.budget import BudgetReserved, BudgetSettled
from trunkline_events.thread import RouteDecided, UsageRecorded

pytest_plugins = ["gateway"]

KEY = "tl-a-key-of-research"
SCOPE = f"key:{key_id(KEY)}"


@pytest.fixture
async def second(bus_url: str, host: Host) -> AsyncIterator[Host]:
    """Another process with a router."""
    serving = await Host.start(bus_url, ("router",))
    yield serving
    await serving.stop()


@pytest.fixture
async def keyed(gw: Gateway, bus_url: str) -> AsyncIterator[Gateway]:
    """A client with an API key."""
    async with trunkline.connect(bus_url, key=KEY) as gateway:
        yield gateway


async def test_a_request_takes_from_all_its_budgets(gw: Gateway, keyed: Gateway) -> None:
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "5"})
    await gw.budgets.set(scope="team:research", budget={"limit_usd": "1"})
    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "0.5"}, team="research")
    answer = await keyed.chat.create("echo", "hello", thread="t", max_tokens=20)
    recorded = await events(gw)
    [decided] = [event.body for event in recorded if isinstance(event.body, RouteDecided)]
    [ended] = [event.body for event in recorded if isinstance(event.body, UsageRecorded)]
    assert set(decided.slices) == {"gateway", "team:research", SCOPE}
    assert (decided.key, ended.key, ended.slices) == (key_id(KEY), key_id(KEY), decided.slices)
    for scope in decided.slices:
        while (await gw.budgets.get(scope=scope))["settled_usd"] != answer.receipt.cost:
            await asyncio.sleep(0.05)
    check_scopes(await events(gw))


async def test_what_is_spent_of_a_shared_budget_is_refused_and_says_so(gw: Gateway, keyed: Gateway) -> None:
    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "0.0001", "window": "month"})
    with pytest.raises(errors.BudgetExceeded) as caught:
        await keyed.chat.create("echo", "hello", max_tokens=1000)
    told = caught.value.metadata
    assert (told["budget"], told["limit_usd"], told["window"]) == (SCOPE, "0.0001", "month")
    assert told["resets_at"].endswith("T00:00:00.000000Z")
    assert caught.value.retryable is False
    await gw.chat.create("echo", "hello", max_tokens=1000)  # without the key


async def test_a_hot_budget_takes_no_append_for_each_request(gw: Gateway, keyed: Gateway) -> None:
    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "1"})
    await asyncio.gather(*(keyed.chat.create("echo", "hello", max_tokens=50) for _ in range(200)))
    recorded = await events(gw)
    assert sum(isinstance(event.body, BudgetReserved | BudgetSettled) for event in recorded) < 20
    check_scopes(recorded)


async def test_money_in_somebodys_slice_is_refused_to_nobody(gw: Gateway, keyed: Gateway, second: Host) -> None:
    """Two routers, and a budget that either of them alone would need whole."""
    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "0.02"})
    answers = await asyncio.gather(*(keyed.chat.create("echo", "hi", max_tokens=4_000) for _ in range(60)))
    assert len(answers) == 60
    recorded = await events(gw)
    check_books(recorded)
    check_scopes(recorded)
