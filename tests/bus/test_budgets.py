"""Budgets above threads on the bus: of a key, its team and the gateway, served from slices."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trunkline
from audit import check_books, check_scopes, events, history, kinds
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors import endings
from trunkline_actors.claims import key_id
from trunkline_actors.ledger import end
from trunkline_events.budget import BudgetReserved, BudgetSettled, ScopeWarned
from trunkline_events.log import LogUnavailable
from trunkline_events.thread import BudgetWarned, RouteDecided, UsageRecorded

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
        async with asyncio.timeout(5):
            while (await gw.budgets.get(scope=scope))["settled_usd"] != answer.receipt.cost:  # noqa: ASYNC110
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


async def test_the_same_of_a_team_whose_keys_share_it(gw: Gateway, bus_url: str) -> None:
    keys = ("tl-one", "tl-two")
    await gw.budgets.set(scope="team:research", budget={"limit_usd": "0.00025"})
    for key in keys:
        await gw.budgets.set(scope=f"key:{key_id(key)}", budget={"limit_usd": "1"}, team="research")
    spent = 0
    for number in range(20):
        async with trunkline.connect(bus_url, key=keys[number % 2]) as gateway:
            try:
                await gateway.chat.create("echo", "hello", max_tokens=20)
                spent += 1
            except errors.BudgetExceeded as error:
                assert error.metadata["budget"] == "team:research"  # noqa: PT017 - either is right, in this order
                break
    assert 0 < spent < 20
    check_scopes(await events(gw))


async def test_a_lower_limit_counts_what_is_spent_and_not_what_lies_in_slices(gw: Gateway, keyed: Gateway) -> None:
    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "1"})
    answer = await keyed.chat.create("echo", "hello", max_tokens=50)
    shown = await gw.budgets.set(scope=SCOPE, budget={"limit_usd": answer.receipt.cost})
    assert (shown["settled_usd"], shown["reserved_usd"]) == (answer.receipt.cost, "0")
    with pytest.raises(errors.Conflict, match="spent or reserved already"):
        await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "0"})


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"scope": "thread:t"}, "scope"),
        ({"scope": "team:"}, "scope"),
        ({"scope": "key:" + "k" * 200}, "scope"),
        ({"scope": "gateway", "team": "x"}, "team"),
        ({"scope": "key:tl-a-key-itself"}, "scope"),
        ({"scope": "key:40F89E395B66422F"}, "scope"),
        ({"scope": SCOPE, "team": "-"}, "team"),
        ({"scope": SCOPE, "team": "t" * 126}, "team"),
        ({"scope": "gateway", "budget": {"limit_usd": "much"}}, "budget.limit_usd"),
        ({"scope": "gateway", "budget": {"time_zone": "Mars"}}, "budget.time_zone"),
        ({"scope": "gateway", "budget": {"warn_at": 80}}, "budget.warn_at"),
        ({"scope": "gateway", "budget": {"window": "week"}}, "budget.window"),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused_with_the_field_at_fault(
    gw: Gateway, arguments: dict[str, Any], param: str
) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await gw.budgets.set(**arguments)
    assert caught.value.param == param


async def test_budgets_are_listed_and_one_that_is_not_set_is_not_found(gw: Gateway) -> None:
    with pytest.raises(errors.NotFound):
        await gw.budgets.get(scope="gateway")
    for scope in ("team:b", "gateway", "team:a"):
        await gw.budgets.set(scope=scope, budget={"limit_usd": "1"})
    page = await gw.budgets.list(limit=2)
    assert ([one["scope"] for one in page["budgets"]], page["after"]) == (["gateway", "team:a"], "team:a")
    rest = await gw.budgets.list(after="team:a")
    assert ([one["scope"] for one in rest["budgets"]], rest["after"]) == (["team:b"], None)


async def test_a_warning_is_told_once_in_each_budget(gw: Gateway, keyed: Gateway) -> None:
    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "0.001", "warn_at": 0.1})
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.001", "warn_at": 0.1})
    for _ in range(4):
        await keyed.chat.create("echo", "hello there " * 3, thread="t", max_tokens=20)
    async with asyncio.timeout(5):
        while not [event for event in await events(gw, "budget") if isinstance(event.body, ScopeWarned)]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    recorded = await events(gw)
    assert sum(isinstance(event.body, ScopeWarned) for event in recorded) == 1
    assert sum(isinstance(event.body, BudgetWarned) for event in recorded) == 1
    check_scopes(recorded)


async def test_a_decision_that_can_not_be_checked_for_want_of_the_log_is_withdrawn_at_no_cost(
    gw: Gateway, keyed: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> bool:
        raise LogUnavailable("the log does not answer")

    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "1"})
    with monkeypatch.context() as patched:
        patched.setattr("trunkline_actors.escrow.Escrow.may_spend", unavailable)
        with pytest.raises(errors.Unavailable):
            await keyed.chat.create("echo", "hello", max_tokens=1000, thread="t")
    async with asyncio.timeout(10):
        while kinds(await history(gw, "t")) != ["route-decided", "attempt-failed"]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        while (await gw.budgets.get(scope=SCOPE))["reserved_usd"] != "0":  # noqa: ASYNC110 - given back when idle
            await asyncio.sleep(0.1)
    answer = await keyed.chat.create("echo", "hello", max_tokens=1000, thread="t")
    assert answer.text == "hello"
    check_scopes(await events(gw))


async def test_what_a_keeper_ended_before_it_could_be_withdrawn_is_spent_of_every_budget(
    gw: Gateway, keyed: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> bool:
        [decided] = [event.body for event in await events(gw) if isinstance(event.body, RouteDecided)]
        attempt = endings.of_decision("t", decided)
        await end(host.runtime.shell, host.runtime.ledger, attempt, endings.orphaned(attempt, 0.0), actor="keeper")
        raise LogUnavailable("the log does not answer")

    await gw.budgets.set(scope=SCOPE, budget={"limit_usd": "1"})
    monkeypatch.setattr("trunkline_actors.escrow.Escrow.may_spend", unavailable)
    with pytest.raises(errors.Unavailable):
        await keyed.chat.create("echo", "hello", max_tokens=1000, thread="t")
    books = await gw.threads.get(thread_id="t")
    async with asyncio.timeout(10):
        while (await gw.budgets.get(scope=SCOPE))["settled_usd"] != books["settled_usd"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert books["settled_usd"] != "0"
