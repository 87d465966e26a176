"""Explaining a request from the log, and trying a policy on those that were served."""

import asyncio
from typing import Any

import pytest
import trunkline
from trunkline import errors
from trunkline.client import Gateway
from trunkline.dry_run import dry_run
from trunkline.explain import explain, redecide
from trunkline_actors.dry_run import summary
from trunkline_actors.policies import read
from trunkline_actors.pricing import UNLISTED
from trunkline_actors.rates import Rates
from trunkline_events.policy import Policy, Rule, When

pytest_plugins = ["gateway"]

RATES = Rates(lambda _kind, _upstream, _now: UNLISTED)


async def ask(gw: Gateway, model: str = "auto", **more: Any) -> str:
    answer = await gw.chat.create(model, "one two three", request_id=more.pop("request_id", None), **more)
    assert answer.receipt is not None
    return answer.receipt.request_id


async def test_a_request_is_explained_with_candidates_attempts_and_what_others_would_have_cost(gw: Gateway) -> None:
    await gw.models.register(
        id="dear", provider="scripted", upstream="echo", price={"input": "10", "output": "10"}, tags=["t"]
    )
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "5"})
    route = {"fallbacks": ["dear", "echo"]}
    await ask(gw, "fails", request_id="r", thread="t", route=route)
    told = await explain(await gw.log(), "r", thread="t")
    first, second = told["attempts"]
    assert (first["model"], first["ended"]["failure"], first["again"]) == ("fails", "unavailable", [])
    assert (second["model"], second["state"]["tried"]) == ("dear", [{"model": "fails", "failure": "unavailable"}])
    assert [(one["model"], one["reason"], one["chosen"]) for one in second["candidates"]] == [
        ("dear", "fallback", True),
        ("echo", "fallback", False),
        ("fails", "failed already for this request", False),
    ]
    assert (
        second["candidates"][0]["would_have_cost_usd"] == told["cost_usd"] == second["ended"]["cost_usd"] == "0.00006"
    )
    assert second["candidates"][1]["would_have_cost_usd"] == "0.000015"
    assert second["state"]["budget"] == {"limit_usd": "5", "settled_usd": "0", "reserved_usd": "0"}
    assert told["refused"] is None
    assert await explain(await gw.log(), event=second["ended"]["seq"]) == told
    assert await explain(await gw.log(), event=first["seq"]) == told


async def test_a_refusal_is_explained(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="poor", budget={"limit_usd": "0.000001"})
    with pytest.raises(errors.BudgetExceeded):
        await ask(gw, "echo", request_id="r", thread="poor")
    told = await explain(await gw.log(), "r")
    assert (told["attempts"], told["refused"]["code"], told["cost_usd"]) == ([], "budget_exceeded", "0")


async def test_what_is_no_request_is_not_explained(gw: Gateway) -> None:
    with pytest.raises(errors.NotFound, match="is none of a request"):
        await explain(await gw.log(), event=1)
    with pytest.raises(errors.NotFound, match="no event of a request 'nobody'"):
        await explain(await gw.log(), "nobody")


async def test_a_policy_is_tried_on_the_last_requests(gw: Gateway) -> None:
    for _ in range(3):
        await ask(gw, "tokens")
    await asyncio.gather(*(ask(gw, "echo") for _ in range(4)))
    policy = Policy(rules=[Rule(name="r", when=When(model="auto"), use=["echo"])])
    for _ in range(2):
        await ask(gw, route={"prefer": []})
    told = summary(await dry_run(await gw.log(), policy, RATES, last=6))
    assert (told.requests, told.same, dict(told.moved)) == (6, 4, {("tokens", "echo"): 2})
    assert told.compared == 6
    assert told.would_be_nanos > told.was_nanos, "what was free costs something now"
    everything = summary(await dry_run(await gw.log(), policy, RATES, last=1_000))
    assert everything.requests == 9
    since = summary(await dry_run(await gw.log(), policy, RATES, last=1, since=1.0))
    assert since.requests == 9


async def test_a_policy_that_serves_nobody_says_so(gw: Gateway) -> None:
    await ask(gw)
    policy, problems = read({"rules": [{"name": "r", "require": {"tags": ["none"]}}]})
    assert problems == []
    told = summary(await dry_run(await gw.log(), policy, RATES, last=10))
    assert dict(told.refused) == {"no_route": 1}


async def test_what_happens_later_does_not_change_how_a_decision_is_made_again(gw: Gateway) -> None:
    await ask(gw, "echo")
    await gw.models.remove(id="echo")
    await ask(gw, "tokens")
    made = await redecide(await gw.log())
    assert (made.decisions, made.differing) == (2, [])
    first = next(one for one in [event async for event in (await gw.log()).read()] if one.category == "thread")
    assert (await redecide(await gw.log(), after=first.sequence)).decisions == 1
    assert (await redecide(await gw.log(), until=first.sequence)).decisions == 1


async def test_requests_that_share_an_id_are_told_apart_by_key_and_by_time(gw: Gateway, bus_url: str) -> None:
    costs = {}
    for key in ("one", "two"):
        async with trunkline.connect(bus_url, key=key) as caller:
            answer = await caller.chat.create("echo", "word " * (3 if key == "one" else 9), request_id="r")
            assert answer.receipt is not None
            costs[key] = (answer.receipt.event, answer.receipt.cost)
    for seq, cost in costs.values():
        told = await explain(await gw.log(), event=seq)
        assert ([one["attempt"] for one in told["attempts"]], told["cost_usd"]) == ([1], cost)
    assert (await explain(await gw.log(), "r"))["cost_usd"] == costs["two"][1]
    with pytest.raises(errors.TrunklineError):
        await ask(gw, "fails", request_id="again", route={"attempts": 1})
    await gw.models.update(id="fails", upstream="echo")
    await ask(gw, "fails", request_id="again")
    told = await explain(await gw.log(), "again")
    assert [one["ended"]["type"] for one in told["attempts"]] == ["thread.usage-recorded.v1"]
    policy = Policy(rules=[Rule(name="r", use=["tokens"])])
    tried = summary(await dry_run(await gw.log(), policy, RATES, last=100))
    assert tried.requests == 4


async def test_what_a_dry_run_can_not_know_is_told(gw: Gateway) -> None:
    for _ in range(2):
        await ask(gw)
    policy = Policy(rules=[Rule(name="r", optimize="latency")], analyzer="builtin")
    told = summary(await dry_run(await gw.log(), policy, RATES, last=10))
    assert (told.requests, told.blind, told.unhinted) == (2, 2, 2)
