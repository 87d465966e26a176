"""Every role as the user that deploy/nats/accounts.conf has for it can do its work, and asks for nothing beside."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trunkline
from deploy_kit import Deployed, Violation, deployed
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
from vault_kit import PASSPHRASE


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
        kept = [await gw.chat.create("echo", "kept", route={"cache_s": 60}) for _ in range(2)]
        assert [one.receipt.cached for one in kept] == [False, True]
        with pytest.raises(errors.TrunklineError):
            await gw.chat.create("fails", "never")
        assert (await gw.chat.create("fails", "else", route={"fallbacks": ["echo"]})).text == "else"
        async with gw.chat.stream("slow", "long", request_id="stopped") as stream:
            await anext(stream)
            await gw.chat.abort("stopped")
            with pytest.raises(errors.Aborted):
                [piece async for piece in stream]
    assert roles.refused == []


async def test_money_is_leased_waited_for_and_given_back_between_roles(server: Deployed, roles: Gateways) -> None:
    key = await key_of(server, "chat", "read", "admin")
    async with trunkline.connect(server.url("client"), key) as gw:
        await models(gw)
        await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.1"})
        await gw.budgets.set(scope="gateway", budget={"limit_usd": "1"})
        chats = (gw.chat.create("echo", "hello", thread="t", max_tokens=20_000) for _ in range(8))
        assert [answer.text for answer in await asyncio.gather(*chats)] == ["hello"] * 8
        books = await gw.threads.get(thread_id="t")
        assert (books["reserved_usd"], books["open"]) == ("0", [])
        async with asyncio.timeout(10):
            # What was spent of a slice is told some time after.
            while (await gw.budgets.get(scope="gateway"))["settled_usd"] != books["settled_usd"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        with pytest.raises(errors.BudgetExceeded):
            await gw.chat.create("echo", "dear", thread="t", max_tokens=10**6, route={"deadline_ms": 500})
    assert roles.refused == []


async def test_what_operators_do_takes_no_more_than_their_user_may(
    server: Deployed, roles: Gateways, tmp_path: Path
) -> None:
    key = await key_of(server, "chat", "read", "admin")
    async with (
        trunkline.connect(server.url("operator"), key) as gw,
        FakeOllama("mistral", paced=False).serving() as far,
    ):
        await models(gw)
        await gw.policy.publish(policy={"rules": [{"name": "all", "use": ["echo"]}]})
        await gw.policy.override(model="tokens")
        assert (await gw.chat.create("auto", "hello")).receipt.model == "tokens"
        await gw.policy.override(model=None)
        await gw.policy.publish(policy={"rules": []})
        await gw.policy.rollback(to=1)
        await gw.routing.recommend(hints=["code"])
        for _ in range(5):
            with pytest.raises(errors.TrunklineError):
                await gw.chat.create("fails", "never", route={"attempts": 1})
        assert (await gw.circuits.get(provider="scripted"))["state"] == "open"
        await gw.circuits.reset(provider="scripted")
        await gw.secrets.unlock(PASSPHRASE)
        await gw.providers.register(id="far", kind="openai-compatible", base_url=f"{far.url}/v1", secret="main")
        await gw.secrets.set("main", "sk-secret")
        await gw.secrets.lock()
        await gw.secrets.unlock(PASSPHRASE)
        issued = await gw.keys.issue(id="team", requests_per_minute=2, budget={"limit_usd": "1"})
        await gw.keys.rotate(id="team")
        await gw.keys.revoke(id=issued["id"])
        await gw.providers.register(id="ollama-1", kind="ollama", base_url=far.url, local=True, max_concurrency=1)
        async with gw.local_models("ollama-1").pull("llama3.2") as pull:
            assert [step async for step in pull][-1].status == "success"
        await gw.local_models("ollama-1").delete("llama3.2")
        await gw.models.metrics(id="echo")
        await gw.plugins.list()
        assert "key.issued.v1" in [event.type async for event in (await gw.log()).read()]
        assert (await gw.state_at()).models
        checks = {check.name: check for check in await bus_checks(server.url("operator"))}
        wrong = {name for name, check in checks.items() if check.state == "problem"}
        assert wrong == {"store"}, "the tests' folder is a temporary one"
    assert roles.refused == []


async def test_everything_over_http_takes_no_more_than_the_edge_may(server: Deployed, roles: Gateways) -> None:
    key = await key_of(server, "chat", "read", "admin")
    async with trunkline.connect(server.url("client"), key) as gw:
        await models(gw)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(roles.edge.url, headers=headers) as http:
        asked = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
        async with http.post("/v1/chat/completions", json=asked) as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "hello"
        async with http.post("/v1/chat/completions", json={**asked, "stream": True}) as answer:
            assert "data: [DONE]" in await answer.text()
        paths = (
            *("/v1/models", "/api/models", "/api/models/health", "/api/models/echo/metrics", "/api/providers/health"),
            *("/api/routing/logs", "/api/routing/policy", "/api/circuits", "/api/events", "/plugins", "/metrics"),
            *("/livez", "/readyz", "/health", "/openapi.json"),
        )
        statuses = {}
        for path in paths:
            async with http.get(path) as answer:
                statuses[path] = answer.status
        assert set(statuses.values()) == {200}, statuses
    assert roles.refused == []
