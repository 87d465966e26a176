"""What `nats micro` sees, and that two processes share the load. Wire format: ADR-32."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest
from messages import Call
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline.host import Host

pytest_plugins = ["gateway"]

SEMVER = re.compile(r"\d+\.\d+\.\d+(?:-[\w.-]+)?(?:\+[\w.-]+)?")
NAME = re.compile(r"[A-Za-z0-9_-]+")
# Two hosts: each a router, a provider and a keyholder; one of them also registry, threads, budgets, policy, metrics,
# routing, circuits, plugins, secrets, keys, keeper and workflow.
SERVICES = 2 * 3 + 12


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


@pytest.fixture
async def second(gw: Gateway, bus_url: str) -> AsyncIterator[Host]:
    host = await Host.start(bus_url, ("router", "provider"))
    yield host
    await host.stop()


async def discover(nats: Client, verb: str, count: int, *rest: str) -> list[dict[str, Any]]:
    call = Call(nats)
    await call.send(".".join(("$SRV", verb, *rest)), b"", {})
    try:
        return [(await call.next(5)).json for _ in range(count)]
    finally:
        assert call.arrived.empty()
        await call.leave()


@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
async def test_every_actor_answers_with_who_it_is(nats: Client, second: Host, verb: str) -> None:
    found = await discover(nats, verb, SERVICES)
    assert {one["type"] for one in found} == {
        f"io.nats.micro.v1.{ {'PING': 'ping', 'INFO': 'info', 'STATS': 'stats'}[verb] }_response"
    }
    assert len({one["id"] for one in found}) == SERVICES
    for one in found:
        assert NAME.fullmatch(one["name"])
        assert SEMVER.fullmatch(one["version"])
        assert all(isinstance(value, str) for value in one["metadata"].values())
    assert len({one["metadata"]["process"] for one in found}) == 2


async def test_one_service_and_one_instance_can_be_asked_alone(nats: Client, second: Host) -> None:
    routers = await discover(nats, "PING", 2, "trunkline-router")
    alone = await discover(nats, "PING", 1, "trunkline-router", routers[0]["id"])
    assert alone == [routers[0]]


async def test_info_describes_the_endpoints(nats: Client, second: Host) -> None:
    router = (await discover(nats, "INFO", 2, "trunkline-router"))[0]
    assert router["description"]
    endpoints = {one["name"]: one for one in router["endpoints"]}
    assert endpoints["chat"] == {
        "name": "chat",
        "subject": "trunkline.chat",
        "queue_group": "trunkline",
        "metadata": {},
    }
    assert endpoints["abort"]["queue_group"] == ""
    provider = (await discover(nats, "INFO", 2, "trunkline-provider"))[0]
    assert provider["metadata"]["instance"] == "scripted"
    assert "trunkline.provider.scripted.chat" in {one["subject"] for one in provider["endpoints"]}


async def test_two_processes_share_the_load_and_count_it(gw: Gateway, nats: Client, second: Host) -> None:
    await asyncio.gather(*(gw.chat.create("echo", "hi") for _ in range(60)))
    await asyncio.gather(*(gw.chat.create("nope", "hi") for _ in range(6)), return_exceptions=True)
    for name, requests, errors in (("trunkline-router", 66, 6), ("trunkline-provider", 60, 0)):
        chats = [
            next(one for one in service["endpoints"] if one["name"] == "chat")
            for service in await discover(nats, "STATS", 2, name)
        ]
        assert all(chat["num_requests"] > 5 for chat in chats)
        assert sum(chat["num_requests"] for chat in chats) == requests
        assert sum(chat["num_errors"] for chat in chats) == errors
        for chat in chats:
            assert chat["average_processing_time"] == chat["processing_time"] // chat["num_requests"]
            assert chat["data"] == {"in_flight": 0, "waiting": 0}


async def test_statistics_say_since_when(nats: Client, second: Host) -> None:
    for one in await discover(nats, "STATS", SERVICES):
        assert datetime.fromisoformat(one["started"]).tzinfo is not None
        for endpoint in one["endpoints"]:
            assert set(endpoint) >= {
                "name",
                "subject",
                "queue_group",
                "num_requests",
                "num_errors",
                "last_error",
                "processing_time",
                "average_processing_time",
            }
