"""A request over HTTP goes to the router of its own process where no other could take it, else to who is idle."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
import trunkline
from audit import check_books, events
from bare_nats import Nats
from messages import chat_body
from nats.aio.msg import Msg
from processes import until
from trunkline.client import Gateway
from trunkline.gateway import call, pulses
from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.server import bound, serving
from trunkline.host import ROLES, Host
from trunkline_actors.dispatch import Pulse, encode
from trunkline_events import jetstream, subjects

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


async def test_a_chat_that_comes_while_the_server_is_away_is_answered_when_it_is_back_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((jetstream, "APPEND_TIMEOUT"), (call, "RESEND_AFTER")):
        monkeypatch.setattr(module, name, 0.8)
    nats = Nats(tmp_path)
    await nats.start(jetstream=True)
    host = await Host.start(nats.url, ROLES)
    edge = Edge(host.runtime, Access(), ROUTES)
    try:
        async with trunkline.connect(nats.url) as gw:
            await gw.providers.register(id="scripted", kind="scripted", local=True)
            await gw.models.register(
                id="echo", provider="scripted", upstream="echo", price={"input": "1", "output": "1"}
            )
            with bound("127.0.0.1", 0) as sock:
                async with serving(edge, sock, 5.0), aiohttp.ClientSession(base_url=edge.url) as http:
                    await until(edge.pulses.routes_alone)
                    nats.stop()
                    await until(lambda: not host.runtime.bus.nats.is_connected)
                    asking = asyncio.create_task(http.post("/v1/chat/completions", data=chat_body("echo", "hi")))
                    await asyncio.sleep(1.5)  # longer than an append, or an edge, has patience
                    await nats.start(jetstream=True)
                    async with await asking as answer:
                        assert answer.status == 200
            recorded = await events(gw, "thread")
            check_books(recorded)
            assert [one.type for one in recorded] == ["thread.route-decided.v1", "thread.usage-recorded.v1"]
    finally:
        await host.stop()
        nats.stop()


async def test_a_stream_and_many_at_once_stay_there_too(gw: Gateway, edge: Edge, http: aiohttp.ClientSession) -> None:
    await until(edge.pulses.routes_alone)

    async def one(number: int) -> None:
        body = chat_body("echo", f"hello {number}", stream=True)
        async with http.post("/v1/chat/completions", data=body) as answer:
            assert (await answer.text()).rstrip().endswith("data: [DONE]")

    await asyncio.gather(*(one(number) for number in range(50)))
    check_books(await events(gw))
