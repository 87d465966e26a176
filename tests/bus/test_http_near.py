"""A request over HTTP goes to the router of its own process where no other could take it, else to who is idle."""

import asyncio

import aiohttp
import pytest
from audit import check_books, events
from messages import chat_body
from nats.aio.msg import Msg
from processes import until
from trunkline.client import Gateway
from trunkline.gateway import pulses
from trunkline.gateway.edge import Edge
from trunkline_actors.dispatch import Pulse, encode
from trunkline_events import subjects

pytest_plugins = ["gateway", "edge_kit"]

KNOWN_AFTER = 0.4


@pytest.fixture(autouse=True)
def _known_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulses, "FORGOTTEN", KNOWN_AFTER)


async def said_on_the_bus(gw: Gateway, http: aiohttp.ClientSession) -> int:
    """How many messages a chat over HTTP makes on the subject for chats."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    nats = gw._connection.nats
    spy = await nats.subscribe(subjects.CHAT, cb=hear)
    await nats.flush()
    async with http.post("/v1/chat/completions", data=chat_body("echo", "hello")) as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"][0]["message"]["content"] == "hello"
    await spy.drain()
    return len(heard)


async def beat(gw: Gateway, roles: list[str]) -> None:
    pulse = Pulse(process="other", roles=roles, attempts=[], answered=[], position=0)
    await gw._connection.nats.publish(subjects.PULSE, encode(pulse))
    await gw._connection.nats.flush()


async def test_a_chat_stays_in_the_process_once_it_is_known_to_route_alone(
    gw: Gateway, edge: Edge, http: aiohttp.ClientSession
) -> None:
    assert not edge.pulses.routes_alone(), "of others it has not had the time to hear"
    assert await said_on_the_bus(gw, http) == 1
    await until(edge.pulses.routes_alone)
    await beat(gw, ["gateway", "provider"])
    assert await said_on_the_bus(gw, http) == 0
    check_books(await events(gw))


async def test_a_chat_is_for_whoever_is_idle_while_another_process_routes_too(
    gw: Gateway, edge: Edge, http: aiohttp.ClientSession
) -> None:
    await until(edge.pulses.routes_alone)
    await beat(gw, ["router"])
    await until(lambda: not edge.pulses.routes_alone())
    assert await said_on_the_bus(gw, http) == 1
    await until(edge.pulses.routes_alone)  # it is heard of no more


async def test_without_a_router_of_its_own_a_process_asks_on_the_bus(
    gw: Gateway, edge: Edge, http: aiohttp.ClientSession
) -> None:
    await until(edge.pulses.routes_alone)
    taken = edge.bus.local.pop(subjects.CHAT)
    assert await said_on_the_bus(gw, http) == 1
    edge.bus.local[subjects.CHAT] = taken


async def test_a_stream_and_many_at_once_stay_there_too(gw: Gateway, edge: Edge, http: aiohttp.ClientSession) -> None:
    await until(edge.pulses.routes_alone)

    async def one(number: int) -> None:
        body = chat_body("echo", f"hello {number}", stream=True)
        async with http.post("/v1/chat/completions", data=body) as answer:
            assert (await answer.text()).rstrip().endswith("data: [DONE]")

    await asyncio.gather(*(one(number) for number in range(50)))
    check_books(await events(gw))
