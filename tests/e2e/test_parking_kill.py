"""Routers that die while requests wait: whoever attends next serves them, in their order."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import trunkline
from audit import check_books, events, history
from processes import Role, until
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.errors import Aborted, BudgetExceeded
from trunkline_events.subjects import ABORT
from trunkline_events.thread import RouteDecided

pytest_plugins = ["two_routers"]

PRICE = {"input": "1.00", "output": "4.00"}


@pytest.fixture
async def gw(cast: dict[str, Role], server: EmbeddedServer) -> AsyncIterator[Gateway]:
    """A thread whose whole budget is reserved by a chat that takes some seconds."""
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        for name, upstream in (("echo", "echo"), ("slow", "tokens:150@50")):
            await gateway.models.register(id=name, provider="scripted", upstream=upstream, price=PRICE)
        await gateway.threads.configure(thread_id="t", budget={"limit_usd": "0.005"})
        holder = asyncio.create_task(gateway.chat.create("slow", "hold", thread="t", max_tokens=1000))
        while not await decided(gateway):  # noqa: ASYNC110 - another process decides
            await asyncio.sleep(0.01)
        yield gateway
        await holder


async def decided(gateway: Gateway) -> list[str]:
    """The requests that were decided, in their order."""
    return [event.body.request_id for event in await history(gateway, "t") if isinstance(event.body, RouteDecided)]


def parked(cast: dict[str, Role]) -> int:
    """How often a router put a request on the stream."""
    return sum(cast[name].log.read_text().count("request.parked") for name in ("first", "second"))


def attendant(cast: dict[str, Role]) -> Role:
    """The router that took the lead last."""
    taken = {
        name: max((line for line in cast[name].log.read_text().splitlines() if '"parking"' in line), default="")
        for name in ("first", "second")
    }
    return cast[max(taken, key=lambda name: taken[name].rpartition('"timestamp"')[2])]


async def wait_in_line(gateway: Gateway, cast: dict[str, Role], count: int) -> list[asyncio.Task[str]]:
    """So many requests, one after another, all parked."""
    waiting = []
    for number in range(count):
        before = parked(cast)
        waiting.append(asyncio.create_task(one_of_them(gateway, f"w{number}")))
        await until(lambda before=before: parked(cast) > before)  # type: ignore[misc]
    return waiting


async def one_of_them(gateway: Gateway, name: str) -> str:
    answer = await gateway.chat.create("echo", name, thread="t", request_id=name, max_tokens=1000)
    return answer.text


@pytest.mark.parametrize("victims", [("attendant",), ("other",), ("attendant", "other")])
async def test_whoever_dies_all_are_served_in_their_order(
    gw: Gateway, cast: dict[str, Role], victims: tuple[str, ...]
) -> None:
    waiting = await wait_in_line(gw, cast, 6)
    leads = attendant(cast)
    other = next(cast[name] for name in ("first", "second") if cast[name] is not leads)
    await asyncio.gather(*({"attendant": leads, "other": other}[name].again() for name in victims))
    answers = await asyncio.gather(*waiting)
    assert answers == [f"w{number}" for number in range(6)]
    recorded = await events(gw)
    check_books(recorded)
    order = await decided(gw)
    assert order[1:] == [f"w{number}" for number in range(6)]


async def test_a_request_that_waits_can_be_aborted(gw: Gateway, cast: dict[str, Role], server: EmbeddedServer) -> None:
    [waiting] = await wait_in_line(gw, cast, 1)
    await gw.command(ABORT, {"request_id": "w0"})
    with pytest.raises(Aborted):
        await waiting
    assert await decided(gw) != ["w0"]


async def test_who_waits_past_its_deadline_is_told_what_stood_in_the_way(gw: Gateway, cast: dict[str, Role]) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        await gw.chat.create("echo", "hi", thread="t", max_tokens=1000, route={"deadline_ms": 700})
    error = caught.value
    assert (error.retryable, error.metadata["budget"], len(error.metadata["requests"])) == (True, "thread", 1)
