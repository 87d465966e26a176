"""Ten thousand bad messages: each is answered, nothing falls, nothing is left behind."""

import asyncio
import random
import time
from collections import Counter

import msgspec
import pytest
import structlog
from audit import check_books, events, open_attempts
from mutations import mutated
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.dispatch import Dispatch
from trunkline_actors.pricing import FREE
from trunkline_actors.supervisor import Supervised
from trunkline_events import headers, subjects
from trunkline_events.thread import Books

pytest_plugins = ["gateway"]

MESSAGES = 10_000
AT_ONCE = 64
ANSWER_WITHIN = 15.0
SILENT = {subjects.JOIN, subjects.PULSE}
"""Only who has the request answers a join, and nobody a pulse."""

MESSAGE = {"role": "user", "content": "hello there"}
CHAT = {
    "model": "echo",
    "messages": [{"role": "system", "content": "be brief"}, MESSAGE],
    "max_tokens": 20,
    "stream": False,
    "metadata": {"thread_id": "fuzz"},
    "tools": [],
    "route": {"attempts": 1, "deadline_ms": 2000, "fallbacks": ["echo"], "max_cost_usd": "0.5", "clamp": True},
}
GOOD: dict[str, object] = {
    subjects.CHAT: CHAT,
    subjects.EMBEDDINGS: {"model": "echo", "input": ["a", "b"], "route": {"deadline_ms": 2000}},
    subjects.ABORT: {"request_id": "nobody's"},
    subjects.JOIN: {"scope": "0" * 24, "inbox": "_INBOX.nobody"},
    subjects.PULSE: {"process": "p", "roles": ["router"], "attempts": ["a-1"], "answered": ["a-1"], "position": 1},
    "trunkline.models.register": {
        "id": "victim",
        "provider": "scripted",
        "upstream": "echo",
        "capabilities": {"reasoning": 0.5},
        "features": ["tools"],
        "price": {"input": "1.0", "output": "2.0"},
        "context_window": 1000,
        "tags": ["a"],
    },
    "trunkline.models.update": {"id": "victim", "tags": ["x"], "price": {"input": "1", "output": "2"}, "reason": "r"},
    "trunkline.models.list": {"limit": 10, "after": "a", "provider": "scripted", "status": "enabled"},
    **{f"trunkline.models.{verb}": {"id": "victim", "reason": "r"} for verb in ("enable", "disable", "retire")},
    **{f"trunkline.models.{verb}": {"id": "victim"} for verb in ("remove", "get")},
    "trunkline.providers.register": {"id": "spare", "kind": "scripted", "local": True, "timeout_s": 5, "headers": {}},
    "trunkline.providers.update": {"id": "spare", "max_concurrency": 5, "headers": {"x": "y"}},
    "trunkline.providers.list": {"limit": 10},
    **{f"trunkline.providers.{verb}": {"id": "spare"} for verb in ("remove", "get", "check")},
    "trunkline.models.deploy": {"id": "victim", "version": "2", "weight": 0.5, "price": {"input": "1", "output": "2"}},
    "trunkline.models.promote": {"id": "victim"},
    "trunkline.models.discover": {"capabilities": {"reasoning": 0.5}, "features": ["tools"], "context_window": 10},
    "trunkline.models.catalogue": {"kind": "openai", "capabilities": ["speed"], "features": ["tools"], "limit": 3},
    "trunkline.threads.configure": {
        "thread_id": "fuzz",
        "budget": {"limit_usd": "100", "window": "day"},
        "model": "echo",
        "parameters": {"temperature": 0.5, "stop": ["x"], "max_tokens": 10_000},
        "preferences": {"prefer": ["echo"], "optimize": "cost", "capabilities": {"reasoning": 0.0}},
    },
    "trunkline.threads.get": {"thread_id": "fuzz"},
    "trunkline.threads.list": {"limit": 10, "after": ""},
    "trunkline.provider.scripted.ready": {"any": 1},
    "trunkline.provider.scripted.check": {"any": 1},
}
FOR_PROVIDERS = ("trunkline.provider.scripted.chat", "trunkline.provider.scripted.embeddings")
HEADERS = [
    {},
    {},
    {headers.THREAD: "fuzz"},
    {headers.THREAD: "%00%ff"},
    {headers.REQUEST: "%"},
    {headers.REQUEST: "x" * 300},
    {headers.REPLY: "trunkline.log.model.x"},
    {"traceparent": "junk", "Nats-Msg-Id": "1", "Status": "503"},
    {headers.KEY: "\u00e9\u20ac"},
]


def dispatch(number: int) -> bytes:
    return msgspec.json.encode(
        Dispatch(
            request_id=f"f{number}",
            attempt_id=f"f{number}-1",
            attempt=1,
            attempts=1,
            thread="fuzz",
            books=Books(),
            books_seq=0,
            operation="chat",
            model="echo",
            upstream="echo",
            rate=FREE,
            reserve_nanos=0,
            input_bound=1,
            stream=False,
            decided_at=time.time(),
            deadline=9e9,
            listeners=["_INBOX.nobody"],
        )
    )


def draw_message(draw: random.Random, number: int) -> tuple[str, bytes, dict[str, str]]:
    subject = draw.choice([*GOOD, *FOR_PROVIDERS, subjects.CHAT, subjects.CHAT, subjects.CHAT])
    if subject in FOR_PROVIDERS:
        body = mutated(draw, dispatch(number)) + b"\n" + mutated(draw, msgspec.json.encode(CHAT))
    else:
        body = mutated(draw, msgspec.json.encode(GOOD[subject]))
    return subject, body, draw.choice(HEADERS)


def actors(host: Host) -> list[Supervised]:
    assert host._fleet is not None
    return [*host._routers, *host._others, *(supervised for _, supervised in host._fleet._serving.values())]


@pytest.mark.parametrize("seed", [20_261_120])
async def test_ten_thousand_bad_messages(gw: Gateway, host: Host, seed: int) -> None:
    nats: Client = gw._connection.nats
    draw = random.Random(seed)
    codes: Counter[str] = Counter()
    unanswered: list[tuple[str, bytes]] = []
    messages = iter([draw_message(draw, number) for number in range(MESSAGES)])

    async def send() -> None:
        for subject, body, fields in messages:
            if subject in SILENT:
                await nats.publish(subject, body, reply=nats.new_inbox(), headers=fields or None)
                continue
            try:
                got = await nats.request(subject, body, timeout=ANSWER_WITHIN, headers=fields or None)
            except TimeoutError:
                unanswered.append((subject, body))
            else:
                codes[(got.headers or {}).get(headers.ERROR_CODE, "200")] += 1

    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(90):
            await asyncio.gather(*(send() for _ in range(AT_ONCE)))
        async with asyncio.timeout(5):
            while any(one.actor and one.actor.in_flight for one in actors(host)):  # noqa: ASYNC110 - joins tell nobody
                await asyncio.sleep(0.02)
    print(dict(codes))
    assert unanswered == []
    fallen = [entry for entry in logs if entry["event"] in {"endpoint.failed", "actor.task_failed", "actor.restarting"}]
    assert fallen == []
    assert codes["500"] == 0
    assert codes["400"] > MESSAGES / 3
    for supervised in actors(host):
        assert supervised.restarts == 0
        assert supervised.actor is not None
        assert supervised.actor.actor_inbox.empty()
    assert host.runtime.open == set()
    assert host.runtime.held == set()
    recorded = await events(gw)
    check_books(recorded)
    assert open_attempts(recorded) == set()
    assert (await gw.chat.create("echo", "still here")).text == "still here"
