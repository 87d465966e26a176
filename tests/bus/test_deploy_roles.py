"""Every role as the user that deploy/nats/accounts.conf has for it: it can do its work, and nothing that isn't its."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trunkline
from deploy_kit import USERS, Deployed, Violation, deployed, intruding
from ollama_kit import FakeOllama
from trunkline import errors
from trunkline.client import Gateway
from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.server import bound, serving
from trunkline.health.bus import bus_checks
from trunkline.host import ACTORS, Host
from trunkline.projector import Projector
from trunkline.projector.store import store_of
from trunkline.settings import Settings
from trunkline_events.connection import Connection
from trunkline_events.subjects import CATEGORIES, STREAM
from vault_kit import PASSPHRASE

ROLES = ("registry", "router", "provider", "keeper", "projector", "gateway")
PEOPLE = ("operator", "client")
assert {*ROLES, *PEOPLE, "actor"} == set(USERS)

APPENDS = {
    "registry": {"model", "provider", "policy", "thread", "budget", "circuit", "gateway", "secret", "plugin", "key"},
    "router": {"thread", "budget", "gateway"},
    "provider": {"thread", "budget", "circuit", "model", "plugin", "gateway"},
    "keeper": {"thread", "budget", "gateway"},
    "projector": set(),
    "gateway": {"gateway"},
    "operator": set(),
    "client": set(),
}
"""The categories whose events each user may append."""


class Gateways:
    """Each role in a host of its own, as its own user; the edge's address."""

    def __init__(self, server: Deployed, edge: Edge) -> None:
        self.server = server
        self.edge = edge

    @property
    def refused(self) -> list[Violation]:
        return self.server.refused()


@asynccontextmanager
async def all_roles(server: Deployed, folder: Path) -> AsyncIterator[Gateways]:
    async with AsyncExitStack() as stack:
        for role in ACTORS:  # the registry first: it makes what API keys are hashed under
            host = await Host.start(server.url(role), [role], require_keys=True)
            stack.push_async_callback(host.stop)
        projector = Projector(server.url("projector"), store_of(Settings(data=folder)))
        projector.start()
        stack.push_async_callback(projector.stop)
        host = await Host.start(server.url("gateway"), ["gateway"])
        stack.push_async_callback(host.stop)
        edge = Edge(host.runtime, Access(lambda: host.runtime.door), ROUTES)
        sock = stack.enter_context(bound("127.0.0.1", 0))
        await stack.enter_async_context(serving(edge, sock, 5.0))
        yield Gateways(server, edge)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Deployed]:
    async with deployed(tmp_path) as running:
        yield running


@pytest.fixture
async def roles(server: Deployed, tmp_path: Path) -> AsyncIterator[Gateways]:
    async with all_roles(server, tmp_path) as serving:
        yield serving


async def key_of(server: Deployed, *scopes: str) -> str:
    """The first key, as the operator issues it."""
    async with trunkline.connect(server.url("operator")) as gw:
        assert await gw.act_as_itself()
        return str((await gw.keys.issue(scopes=list(scopes)))["key"])


async def models(gw: Gateway) -> None:
    await gw.providers.register(id="scripted", kind="scripted", local=True)
    for name, upstream in {
        "echo": "echo",
        "tokens": "tokens:20",
        "slow": "tokens:200@50",
        "fails": "fail:unavailable",
    }.items():
        await gw.models.register(
            id=name, provider="scripted", upstream=upstream, price={"input": "1.00", "output": "4.00"}
        )


async def test_a_client_chats_streams_and_stops_with_every_role_under_its_own_user(
    server: Deployed, roles: Gateways
) -> None:
    key = await key_of(server, "chat", "read", "admin")
    async with trunkline.connect(server.url("client"), key) as gw:
        await models(gw)
        assert (await gw.chat.create("echo", "hello", thread="t")).text == "hello"
        async with gw.chat.stream("tokens", "count") as stream:
            assert len([piece async for piece in stream]) > 20
        first = await gw.chat.create("echo", "once", request_id="r")
        again = await gw.chat.create("echo", "once", request_id="r")
        assert (again.receipt.replayed, again.receipt.event) == (True, first.receipt.event)
        with pytest.raises(errors.TrunklineError):
            await gw.chat.create("fails", "never")
        assert (await gw.chat.create("fails", "else", route={"fallbacks": ["echo"]})).text == "else"
        async with gw.chat.stream("slow", "long", request_id="stopped") as stream:
            await anext(stream)
            await gw.chat.abort("stopped")
            with pytest.raises(errors.Aborted):
                [piece async for piece in stream]
    assert roles.refused == []
