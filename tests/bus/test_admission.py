"""The limits of a provider instance on the bus: its slots are shared by all processes, its pauses kept by all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from audit import check_books, events, history
from faulty import chats, register, whole
from messages import calling, chat_body
from processes import until
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.provider import ProviderActor
from trunkline_events.connection import Connection
from trunkline_events.thread import Aborted, AttemptFailed, RouteDecided
from upstream import Reply, Request, Upstream

pytest_plugins = ["gateway"]


class Counting(Upstream):
    """An upstream that knows how many chats it has at once; it answers them when it is let, or after a moment."""

    def __init__(self, seconds: float = 0.03, answer: Callable[[], Reply] = whole) -> None:
        super().__init__(handler=self._count)
        self._seconds = seconds
        self._reply = answer
        self.now = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def _count(self, request: Request) -> Reply:
        if request.method == "GET":
            return Reply([b'{"data": []}'])
        self.now += 1
        self.most = max(self.most, self.now)
        await self.gate.wait()
        await asyncio.sleep(self._seconds)
        self.now -= 1
        return self._reply()


@pytest.fixture
async def second(bus_url: str, host: Host) -> AsyncIterator[Host]:
    """Another process that serves every instance."""
    serving = await Host.start(bus_url, ("router", "provider"))
    yield serving
    await serving.stop()


def actor_of(host: Host, provider: str = "up") -> ProviderActor:
    assert host._fleet is not None
    actor = host._fleet._serving[provider][1].actor
    assert isinstance(actor, ProviderActor)
    return actor


@asynccontextmanager
async def full(gw: Gateway, limit: int = 1, **more: Any) -> AsyncIterator[Counting]:
    """An upstream whose every slot is taken, by requests named `holds-1`, …; they end when `gate` is set."""
    async with Counting(0.0).serving() as upstream:
        assert isinstance(upstream, Counting)
        await register(gw, upstream.url, max_concurrency=limit, **more)
        upstream.gate.clear()
        holding = [
            asyncio.create_task(gw.chat.create("m", "hi", request_id=f"holds-{number}")) for number in range(limit)
        ]
        await until(lambda: upstream.now == limit)
        try:
            yield upstream
        finally:
            upstream.gate.set()
            await asyncio.gather(*holding)


@pytest.mark.parametrize("limit", [1, 3])
async def test_two_processes_never_have_more_calls_under_way_than_the_limit(
    gw: Gateway, host: Host, second: Host, limit: int
) -> None:
    async with Counting().serving() as upstream:
        assert isinstance(upstream, Counting)
        await register(gw, upstream.url, max_concurrency=limit)
        asked = [gw.chat.create("m", "hi", thread=f"t{number}", route={"attempts": 1}) for number in range(30)]
        done = await asyncio.gather(*asked)
        assert {one.text for one in done} == {"fine"}
        assert upstream.most == limit
        assert chats(upstream) == 30
        served = {event.actor for event in await events(gw, "thread") if event.type == "thread.usage-recorded.v1"}
        assert served == {host.runtime.name, second.runtime.name}, "both have their share"
    check_books(await events(gw))


async def test_a_busy_caller_does_not_keep_another_waiting(gw: Gateway, host: Host) -> None:
    ended: list[str] = []

    async def ask(thread: str, number: int) -> None:
        await gw.chat.create("m", "hi", thread=thread, request_id=f"{thread}-{number}")
        ended.append(thread)

    async with full(gw) as upstream:
        line = actor_of(host)._admission._line
        asking = []
        for thread, count in (("busy", 6), ("quiet", 1)):
            asking += [asyncio.create_task(ask(thread, number)) for number in range(count)]
            await until(lambda: line.waiting == len(asking))  # noqa: B023 - it is awaited right here
        upstream.gate.set()
        await asyncio.gather(*asking)
    assert "quiet" in ended[:3]


async def test_an_attempt_that_is_aborted_in_line_leaves_it_and_costs_nothing(gw: Gateway, host: Host) -> None:
    async with full(gw) as upstream:
        line = actor_of(host)._admission._line
        waiting = asyncio.create_task(gw.chat.create("m", "hi", thread="t", request_id="waits"))
        await until(lambda: line.waiting == 1)
        await gw.chat.abort("waits")
        with pytest.raises(errors.Aborted):
            await waiting
        assert line.waiting == 0
        assert chats(upstream) == 1
    ended = [event.body for event in await history(gw, "t")][-1]
    assert isinstance(ended, Aborted)
    assert (ended.cost_nanos, ended.usage.input_tokens, ended.reserved_nanos) == (0, 0, 0)


async def test_a_stream_whose_caller_goes_away_in_line_leaves_it(
    gw: Gateway, host: Host, connection: Connection
) -> None:
    async with full(gw) as upstream:
        line = actor_of(host)._admission._line
        body, fields = chat_body("m", stream=True), {"Trunkline-Thread": "t"}
        async with calling(connection.nats, body, fields) as caller:
            await until(lambda: line.waiting == 1)
            await caller.leave()
            await until(lambda: line.waiting == 0)
        assert chats(upstream) == 1
    await until_ended(gw, "t")


async def until_ended(gw: Gateway, thread: str) -> None:
    async with asyncio.timeout(5):
        while not isinstance((await history(gw, thread))[-1].body, Aborted):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_attempt_whose_turn_does_not_come_in_time_fails_over_without_a_call(gw: Gateway) -> None:
    async with full(gw, queue_timeout_s=0.4) as upstream:
        done = await gw.chat.create("m", "hi", thread="t", route={"fallbacks": ["echo"], "attempts": 1})
        assert done.receipt.model == "echo"
        assert chats(upstream) == 1
    failed = next(event.body for event in await history(gw, "t") if isinstance(event.body, AttemptFailed))
    assert failed.failure == "overloaded"


async def test_a_call_that_fails_frees_its_slot(gw: Gateway) -> None:
    async with Counting(0.0, lambda: Reply([b'{"error": {}}'], 500)).serving() as upstream:
        await register(gw, upstream.url, max_concurrency=2)
        for _ in range(6):
            with pytest.raises(errors.TrunklineError):
                await gw.chat.create("m", "hi", route={"attempts": 1, "deadline_ms": 3000})
        assert chats(upstream) == 6


async def test_a_process_that_dies_leaves_its_slots_to_the_others(gw: Gateway, second: Host) -> None:
    """As far as a slot is kept after use: a process that is stopped gives all of them back."""
    async with Counting(0.0).serving() as upstream:
        await register(gw, upstream.url, max_concurrency=2)
        await asyncio.gather(*(gw.chat.create("m", "hi") for _ in range(12)))
        await second.stop()
        asked = (gw.chat.create("m", "hi", route={"attempts": 1}) for _ in range(12))
        assert {one.text for one in await asyncio.gather(*asked)} == {"fine"}


# -- rate limits


def spent(seconds: str) -> Reply:
    """An answer that leaves no further request for so long."""
    reply = whole()
    limits = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": seconds}
    return Reply(reply.body, 200, {**reply.headers, **limits})


async def test_every_process_pauses_where_an_answer_says_that_no_call_is_left(
    gw: Gateway, host: Host, second: Host
) -> None:
    async with Counting(0.0, lambda: spent("30s")).serving() as upstream:
        await register(gw, upstream.url)
        await gw.chat.create("m", "hi")
        pauses = [actor_of(one)._pauses for one in (host, second)]
        began = time.monotonic()
        await until(lambda: all(one.problem() for one in pauses))
        assert time.monotonic() - began < 1.0
        route = {"fallbacks": ["echo"], "attempts": 1}
        others = await asyncio.gather(
            *(gw.chat.create("m", "hi", thread=f"t{number}", route=route) for number in range(12))
        )
        assert {one.receipt.model for one in others} == {"echo"}
        assert chats(upstream) == 1
        with pytest.raises(errors.TrunklineError) as raised:
            await gw.chat.create("m", "hi", route={"deadline_ms": 2000})
    assert raised.value.code == "rate_limited"
    assert 20 < raised.value.metadata["retry_after"] <= 30


async def test_a_request_waits_for_the_end_of_a_pause_where_nothing_else_is_left(gw: Gateway) -> None:
    replies = iter([spent("700ms"), whole()])
    async with Counting(0.0, lambda: next(replies)).serving() as upstream:
        await register(gw, upstream.url)
        await gw.chat.create("m", "hi")
        began = time.monotonic()
        done = await gw.chat.create("m", "hi", thread="t")
        assert time.monotonic() - began > 0.5
        assert done.text == "fine"
        assert chats(upstream) == 2
    decided = [event.body for event in await history(gw, "t") if isinstance(event.body, RouteDecided)]
    assert decided[-1].basis.failures == ["rate_limited"]


async def test_a_refusal_for_the_rate_pauses_as_long_as_it_says(gw: Gateway, host: Host) -> None:
    refusal = Reply([b'{"error": {"code": "rate_limit_exceeded"}}'], 429, {"retry-after": "30"})
    async with Counting(0.0, lambda: refusal).serving() as upstream:
        await register(gw, upstream.url)
        for _ in range(3):
            with pytest.raises(errors.RateLimited):
                await gw.chat.create("m", "hi", route={"deadline_ms": 2000})
        assert chats(upstream) == 1
        assert actor_of(host)._pauses.problem() is not None


async def test_nobody_can_make_a_pause_longer_than_it_may_be(gw: Gateway, host: Host, connection: Connection) -> None:
    await connection.nats.publish("trunkline.provider.scripted.paused", b'{"until": 9e99}')
    await connection.nats.publish("trunkline.provider.scripted.paused", b"nonsense")
    await connection.nats.flush()
    pauses = actor_of(host, "scripted")._pauses
    await until(lambda: pauses.problem() is not None)
    problem = pauses.problem()
    assert problem is not None
    assert problem.retry_after is not None
    assert problem.retry_after <= 60
