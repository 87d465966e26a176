"""Requests that only others' reservations keep out wait in order, and are served when money comes back."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import trunkline
from audit import check_books, events, history, kinds
from messages import ask, calling, chat_body, register
from nats.aio.client import Client
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_events import headers
from trunkline_events.thread import RouteDecided

pytest_plugins = ["gateway"]

PRICE = {"input": "1.00", "output": "4.00"}


@pytest.fixture
async def second(bus_url: str, host: Host) -> AsyncIterator[Host]:
    """Another process with a router."""
    serving = await Host.start(bus_url, ("router",))
    yield serving
    await serving.stop()


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


async def test_who_came_first_is_served_first(gw: Gateway, second: Host) -> None:
    await register(gw, PRICE, paced="tokens:10@50")
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.005"})
    first = asyncio.create_task(gw.chat.create("paced", "hold", thread="t", max_tokens=1000))
    while not [event for event in await events(gw) if isinstance(event.body, RouteDecided)]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    waiting = []
    for number in range(8):
        waiting.append(
            asyncio.create_task(gw.chat.create("paced", "x", thread="t", request_id=f"w{number}", max_tokens=1000))
        )
        await asyncio.sleep(0.03)
    await asyncio.gather(first, *waiting)
    order = [event.body.request_id for event in await history(gw, "t") if isinstance(event.body, RouteDecided)]
    assert order[1:] == [f"w{number}" for number in range(8)]


async def test_who_waits_past_the_deadline_is_told_what_stood_in_the_way(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.005"})
    hold = asyncio.create_task(gw.chat.create("slow", "hold", thread="t", request_id="holder", max_tokens=1000))
    hold.cancel()
