"""Requests that only others' reservations keep out wait in order, and are served when money comes back."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from audit import check_books, events, history, kinds
from messages import chat_body, register
from nats.aio.client import Client, Msg
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.claims import scope_of
from trunkline_actors.money import MAX_OPEN
from trunkline_actors.parked import Parked, pack
from trunkline_events import headers
from trunkline_events.subjects import CROWD, PARKED, PARKED_STREAM
from trunkline_events.thread import RouteDecided

pytest_plugins = ["gateway"]

PRICE = {"input": "1.00", "output": "4.00"}


@pytest.fixture
async def second(bus_url: str, host: Host) -> AsyncIterator[Host]:
    """Another process with a router."""
    serving = await Host.start(bus_url, ("router",))
    yield serving
    await serving.stop()


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


async def until_decided(gateway: Gateway, count: int) -> None:
    """Return when so many requests were decided."""
    async with asyncio.timeout(5):
        while sum(isinstance(event.body, RouteDecided) for event in await events(gateway)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_parked(nats: Client, count: int) -> None:
    """Return when so many requests were put on the stream."""
    async with asyncio.timeout(5):
        while (await nats.jetstream().stream_info(PARKED_STREAM)).state.last_seq < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_many_requests_of_tiny_cost_and_huge_bounds_all_succeed(gw: Gateway, second: Host) -> None:
    """Each fits the budget alone; together they reserve fifty times as much."""
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.1"})
    answers = await asyncio.gather(
        *(gw.chat.create("echo", f"hi {number}", thread="t", max_tokens=20_000) for number in range(50))
    )
    assert [answer.text for answer in answers] == [f"hi {number}" for number in range(50)]
    recorded = await history(gw, "t")
    check_books(recorded)
    assert kinds(recorded).count("refused") == 0
    books = await gw.threads.get(thread_id="t")
    assert (books["open"], books["reserved_usd"]) == ([], "0")


async def test_who_came_first_is_served_first(gw: Gateway, second: Host, nats: Client) -> None:
    await register(gw, PRICE, paced="tokens:10@50")
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.005"})
    first = asyncio.create_task(gw.chat.create("paced", "hold", thread="t", max_tokens=1000))
    await until_decided(gw, 1)
    waiting = []
    for number in range(8):
        waiting.append(
            asyncio.create_task(gw.chat.create("paced", "x", thread="t", request_id=f"w{number}", max_tokens=1000))
        )
        await until_parked(nats, number + 1)
    await asyncio.gather(first, *waiting)
    order = [event.body.request_id for event in await history(gw, "t") if isinstance(event.body, RouteDecided)]
    assert order[1:] == [f"w{number}" for number in range(8)]


async def test_a_thread_with_as_many_requests_as_it_may_run_lets_more_wait(gw: Gateway) -> None:
    await register(gw, PRICE, paced="tokens:20@100")
    answers = await asyncio.gather(
        *(gw.chat.create("paced", "x", thread="t", max_tokens=100) for _ in range(MAX_OPEN + 16))
    )
    assert len(answers) == MAX_OPEN + 16
    most = max(len(event.body.open) for event in await history(gw, "t") if isinstance(event.body, RouteDecided))
    assert most == MAX_OPEN


async def test_a_newcomer_waits_behind_those_who_wait(gw: Gateway, second: Host, nats: Client) -> None:
    """Also where it would fit beside what is running, and on a router that attends to nobody."""
    await register(gw, PRICE, paced="tokens:10@50")
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.005"})
    first = asyncio.create_task(gw.chat.create("paced", "hold", thread="t", max_tokens=1000))
    await until_decided(gw, 1)
    big = asyncio.create_task(gw.chat.create("echo", "big", thread="t", request_id="big", max_tokens=1100))
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: Msg) -> None:
        told.put_nowait(message.data)

    await nats.subscribe(CROWD, cb=hear)
    async with asyncio.timeout(5):
        while b"thread:t" not in await told.get():
            pass
    small = [
        asyncio.create_task(gw.chat.create("echo", "s", thread="t", request_id=f"s{number}", max_tokens=10))
        for number in range(6)
    ]
    await asyncio.gather(first, big, *small)
    order = [event.body.request_id for event in await history(gw, "t") if isinstance(event.body, RouteDecided)]
    assert order[1] == "big"


async def test_prompts_that_wait_are_gone_when_they_are_served(gw: Gateway, nats: Client) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.1"})
    await asyncio.gather(*(gw.chat.create("echo", "hi", thread="t", max_tokens=20_000) for _ in range(10)))
    state = (await nats.jetstream().stream_info(PARKED_STREAM)).state
    assert state.last_seq > 0
    assert state.messages == 0


async def test_what_is_parked_twice_is_served_and_billed_once(gw: Gateway, second: Host, nats: Client) -> None:
    """As where a router asks again for what it can't know to be there."""
    inbox, answers = nats.new_inbox(), asyncio.Queue[Msg]()

    async def hear(message: Msg) -> None:
        answers.put_nowait(message)

    await nats.subscribe(inbox, cb=hear)
    parked = Parked(
        request_id="r",
        operation="chat",
        thread="t",
        listeners=[inbox],
        attempt=1,
        deadline=time.time() + 10,
        at="thread:t",
        taken=nats.new_inbox(),
        scope=scope_of("", "t", "r"),
    )
    js = nats.jetstream()
    for _ in range(2):
        await js.publish(PARKED, pack(parked, chat_body("tokens")))
    async with asyncio.timeout(10):
        answer = await answers.get()
        while (await js.stream_info(PARKED_STREAM)).state.messages:  # noqa: ASYNC110 - the server counts
            await asyncio.sleep(0.01)
    assert (answer.headers or {})[headers.REQUEST] == "r"
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "usage-recorded"]


async def test_what_is_no_parked_request_is_dropped(gw: Gateway, nats: Client) -> None:
    js = nats.jetstream()
    forged = Parked(
        request_id="r", operation="chat", thread="t", listeners=["trunkline.log.model.m"], attempt=1, deadline=9e9,
        at="thread:t", taken=nats.new_inbox(),
    )  # fmt: skip
    for data in (b"not json", b"{}\n{}", pack(forged, chat_body("echo"))):
        await js.publish(PARKED, data)
    async with asyncio.timeout(10):
        while (await js.stream_info(PARKED_STREAM)).state.messages:  # noqa: ASYNC110 - the server counts
            await asyncio.sleep(0.01)
    assert await history(gw, "t") == []
    assert (await gw.chat.create("echo", "hello", thread="t")).text == "hello"
