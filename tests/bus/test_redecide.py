"""Five thousand requests of every kind, with failures, policies that change and breakers that open: each decision is
made again from the log alone and comes out the same."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from audit import check_books, events
from trunkline import errors
from trunkline.client import Gateway
from trunkline.explain import redecide
from trunkline_events.circuit import Opened
from trunkline_events.policy import PolicyPublished
from trunkline_events.thread import AttemptFailed, RequestRefused, RouteDecided

pytest_plugins = ["gateway"]

REQUESTS = 5_000
AT_ONCE = 64
CHANGES = 12
SEED = 5

POLICIES: list[dict[str, Any]] = [
    {"defaults": {"optimize": "latency", "fallbacks": ["echo"]}},
    {"rules": [{"name": "split", "when": {"model": "auto"}, "weights": {"echo": 3, "free": 1}, "fallbacks": ["dear"]}]},
    {
        "rules": [
            {"name": "tools", "when": {"features": ["tools"]}, "use": ["able"], "optimize": "least_busy"},
            {"name": "code", "when": {"hints": ["code"]}, "use": ["dear", "able"], "min_match": 0.5},
            {"name": "threads", "when": {"thread": "t1*"}, "optimize": "round_robin", "require": {"avoid": ["dear"]}},
        ],
        "defaults": {"optimize": "balanced", "on_content_filter": "fallback", "fallbacks": ["free"]},
        "analyzer": "builtin",
    },
    {"defaults": {"optimize": "quality", "min_match": 0.3, "percentile": 95, "require": {"max_cost_usd": "0.5"}}},
]


async def prepare(gw: Gateway) -> None:
    for name in ("flaky", "far"):
        await gw.providers.register(
            id=name, kind="scripted", local=name == "flaky", breaker_failures=3, breaker_open_s=0.3
        )
    more: list[dict[str, Any]] = [
        {"id": "able", "upstream": "echo", "features": ["tools"], "capabilities": {"reasoning": 0.6, "speed": 0.2}},
        {"id": "dear", "upstream": "echo", "price": {"input": "90", "output": "200"}, "capabilities": ["reasoning"]},
        {"id": "free", "provider": "flaky", "upstream": "say"},
        {"id": "shaky", "provider": "flaky", "upstream": "fail:overloaded"},
        {"id": "small", "provider": "far", "upstream": "fail:context_length", "context_window": 50},
        {"id": "key", "provider": "far", "upstream": "fail:auth", "price": {"input": "1", "output": "1"}},
        {"id": "filtered", "provider": "far", "upstream": "fail:content_filter"},
        {"id": "limited", "provider": "far", "upstream": "fail:rate_limited:0.05", "context_window": 9_000},
    ]
    for model in more:
        await gw.models.register(**{"provider": "scripted", **model})
    await gw.models.deploy(id="echo", version="2", upstream="say", weight=0.3)
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "50"})
    await gw.threads.configure(thread_id="t1", budget={"limit_usd": "0.02"}, preferences={"prefer": ["free"]})
    await gw.threads.configure(thread_id="t2", model="able", parameters={"max_tokens": 7})


def a_request(draw: random.Random) -> dict[str, Any]:
    models = ["auto"] * 6 + ["echo", "echo", "free", "shaky", "small", "key", "filtered", "limited"]
    route: dict[str, Any] = {"attempts": draw.randint(1, 4), "deadline_ms": 8_000}
    if draw.random() < 0.4:
        route["fallbacks"] = draw.sample(["echo", "free", "able", "limited", "dear"], 2)
    if draw.random() < 0.2:
        route["optimize"] = draw.choice(["cost", "latency", "quality", "least_busy"])
    if draw.random() < 0.2:
        route["capabilities"] = draw.choice([["reasoning"], {"reasoning": 0.9}, ["speed"]])
    if draw.random() < 0.1:
        route["prefer"] = ["shaky", "able"]
    if draw.random() < 0.05:
        route["max_cost_usd"] = "0.0004"
    body: dict[str, Any] = {"route": route}
    if draw.random() < 0.2:
        body["tools"] = [{"type": "function", "function": {"name": "f"}}]
    if draw.random() < 0.5:
        body["max_tokens"] = draw.randint(1, 50)
    prompt = draw.choice(["hi", "def f(x): return x  # why does this python code fail?", "word " * 60])
    thread = draw.choice([None, None, None, "t1", "t2", *(f"t{number}" for number in range(10, 30))])
    return {"model": draw.choice(models), "prompt": prompt, "thread": thread, "body": body}


@pytest.mark.timeout(240)
async def test_every_decision_of_a_mixed_run_is_decided_again(gw: Gateway) -> None:
    await prepare(gw)
    draw = random.Random(SEED)
    work = iter([a_request(draw) for _ in range(REQUESTS)])
    told: Counter[str] = Counter()
    changes = [asyncio.Event() for _ in range(CHANGES)]

    async def ask(asked: dict[str, Any], *, stream: bool) -> str:
        try:
            if stream:
                async with gw.chat.stream(
                    asked["model"], asked["prompt"], thread=asked["thread"], **asked["body"]
                ) as s:
                    async for _ in s:
                        pass
            else:
                await gw.chat.create(asked["model"], asked["prompt"], thread=asked["thread"], **asked["body"])
        except errors.TrunklineError as error:
            return error.code
        return "ok"

    async def caller(number: int) -> None:
        for asked in work:
            told[await ask(asked, stream=number % 4 == 0)] += 1
            part, rest = divmod(sum(told.values()), REQUESTS // (CHANGES + 2))
            if not rest and part <= CHANGES:
                changes[part - 1].set()

    async def operator() -> None:
        for turn, change in enumerate(changes):
            await change.wait()
            await gw.policy.publish(policy=POLICIES[turn % len(POLICIES)])
            await gw.models.update(id="dear", price={"input": str(90 - turn), "output": "200"})
            if turn % 4 == 1:
                await gw.policy.override(model="echo", for_s=0.2)
            if turn % 2:
                await gw.models.disable(id="able", force=True)
            else:
                await gw.models.enable(id="able")

    await asyncio.gather(operator(), *(caller(number) for number in range(AT_ONCE)))
    log = await gw.log()
    made = await redecide(log)
    assert made.differing == []
    happened = await events(gw)
    kinds = {type(event.body) for event in happened}
    assert {RouteDecided, AttemptFailed, RequestRefused, Opened, PolicyPublished} <= kinds, told
    assert sum(told.values()) == REQUESTS
    assert made.decisions >= REQUESTS // 2
    rules = {event.body.rule for event in happened if isinstance(event.body, RouteDecided)}
    assert {None, "split", "tools", "code", "threads"} <= rules
    check_books(happened)
