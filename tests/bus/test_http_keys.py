"""API keys over HTTP: every route asks for its scope, in the dialect of its clients."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
import trunkline
from keys_kit import every_kind
from msgspec import structs
from trunkline.client import Gateway
from trunkline.gateway.access import Access, Principal
from trunkline.gateway.edge import Edge
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.routes import Route
from trunkline.gateway.server import bound, serving
from trunkline.host import Host

pytest_plugins = ["gateway"]

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello there"}]}


async def let_in(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """Stands where a handler would be."""
    await request.json({"id": who.id})


async def served(host: Host, routes: list[Route]) -> AsyncIterator[str]:
    edge = Edge(host.runtime, Access(lambda: host.runtime.door), routes)
    with bound("127.0.0.1", 0) as sock:
        async with serving(edge, sock, 5.0):
            yield edge.url


@pytest.fixture
async def guarded(host: Host) -> AsyncIterator[str]:
    """An edge with every route there is, which answers with who was let in."""
    async for url in served(host, [structs.replace(route, handler=let_in) for route in ROUTES]):
        yield url


@pytest.fixture
async def real(host: Host) -> AsyncIterator[str]:
    """An edge as it is."""
    async for url in served(host, ROUTES):
        yield url


def path_of(route: Route) -> str:
    return "/".join("x" if part.startswith("{") else part for part in route.path.split("/"))


async def test_every_route_lets_in_whom_its_scope_says_and_nobody_else(gw: Gateway, host: Host, guarded: str) -> None:
    held = await every_kind(gw, host)
    wrong, cells = [], 0
    async with aiohttp.ClientSession(base_url=guarded) as http:
        for route in ROUTES:
            for who, key in held.keys.items():
                fields = {"authorization": f"Bearer {key}"} if key else {}
                async with http.request(route.method, path_of(route), headers=fields) as answer:
                    cells += 1
                    if answer.status != (held.expected(who, route.access) or 200):
                        wrong.append((route.method, route.path, who, answer.status))
    assert wrong == []
    assert cells == len(ROUTES) * len(held.keys) > 60


def test_a_route_that_changes_something_takes_admin_and_none_is_open_but_for_operations() -> None:
    for route in ROUTES:
        if route.access == "open":
            assert route.method == "GET", route.path
        if route.path.startswith("/api/") and route.method in {"PUT", "PATCH", "DELETE"}:
            assert route.access == "admin", route.path
        if route.path.startswith("/v1/") and route.method == "POST":
            assert route.access == "chat", route.path


async def test_neither_a_host_nor_a_rewritten_path_nor_a_forwarded_address_opens_a_door(
    gw: Gateway, guarded: str
) -> None:
    key = (await gw.keys.issue(scopes=["chat"]))["key"]
    tricks = {
        "host": "127.0.0.1:4222",
        "x-forwarded-for": "127.0.0.1",
        "x-original-url": "/health",
        "x-http-method-override": "GET",
        "x-forwarded-host": "localhost",
    }
    async with aiohttp.ClientSession(base_url=guarded) as http:
        for name, value in tricks.items():
            async with http.get("/api/models", headers={name: value}) as answer:
                assert answer.status == 401, name
            async with http.get("/api/models", headers={name: value, "authorization": f"Bearer {key}"}) as answer:
                assert answer.status == 403, name


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Basic dGw6eA==", "tl-", "Bearer tl-\xe9", "Bearer a b"])
async def test_a_header_that_is_no_key_is_no_key(gw: Gateway, guarded: str, given: str) -> None:
    async with (
        aiohttp.ClientSession(base_url=guarded) as http,
        http.get("/api/models", headers={"authorization": given}) as answer,
    ):
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error = (await answer.json())["error"]
        assert (error["type"], error["code"]) == ("authentication_error", "unauthenticated")


async def test_a_key_comes_as_openais_clients_send_it_or_as_anthropics_do(gw: Gateway, guarded: str) -> None:
    key = (await gw.keys.issue(id="search", scopes=["read"]))["key"]
    async with aiohttp.ClientSession(base_url=guarded) as http:
        for fields in ({"authorization": f"bearer {key}"}, {"x-api-key": key}):
            async with http.get("/api/models", headers=fields) as answer:
                assert await answer.json() == {"id": "search"}


async def test_a_chat_is_decided_and_paid_for_as_the_key_it_came_with(gw: Gateway, host: Host, real: str) -> None:
    host.runtime.door.required = True
    await gw.act_as_itself()
    key = (await gw.keys.issue(id="search", models=["echo"], requests_per_minute=2))["key"]
    await gw.budgets.set(scope="key:search", budget={"limit_usd": "1"})
    async with aiohttp.ClientSession(base_url=real, headers={"authorization": f"Bearer {key}"}) as http:
        async with http.post("/v1/chat/completions", json={**HELLO, "model": "tokens"}) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["code"] == "permission_denied"
        for left, stream in ((1, False), (0, True)):
            async with http.post("/v1/chat/completions", json={**HELLO, "stream": stream}) as answer:
                assert answer.status == 200, await answer.text()
                assert answer.headers["x-ratelimit-limit-requests"] == "2"
                assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
                assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
                await answer.read()
        async with http.post("/v1/chat/completions", json=HELLO) as answer:
            assert answer.status == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 31
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
            assert "x-should-retry" not in answer.headers
            error = (await answer.json())["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limited")
    books = await gw.budgets.get(scope="key:search")
    assert float(books["settled_usd"]) + float(books["reserved_usd"]) > 0


async def test_a_command_over_http_is_asked_on_the_bus_as_whoever_asked_it(gw: Gateway, host: Host, real: str) -> None:
    key = (await gw.keys.issue(scopes=["read"]))["key"]
    host.runtime.door.required = True
    async with (
        aiohttp.ClientSession(base_url=real, headers={"authorization": f"Bearer {key}"}) as http,
        http.get("/api/models") as answer,
    ):
        assert answer.status == 200
        assert "echo" in await answer.text()


async def test_errors_of_keys_are_in_anthropics_shape_for_anthropics_clients(gw: Gateway, real: str) -> None:
    reader = (await gw.keys.issue(scopes=["read"]))["key"]
    few = (await gw.keys.issue(requests_per_minute=1))["key"]
    body = {**HELLO, "max_tokens": 5}
    async with aiohttp.ClientSession(base_url=real) as http:
        for key, status, kind in (
            ("", 401, "authentication_error"),
            (reader, 403, "permission_error"),
            (few, 200, None),
            (few, 429, "rate_limit_error"),
        ):
            async with http.post("/v1/messages", json=body, headers={"x-api-key": key}) as answer:
                assert answer.status == status, await answer.text()
                told = await answer.json()
                if kind is not None:
                    assert (told["type"], told["error"]["type"]) == ("error", kind)


async def test_a_revoked_key_is_refused_over_http_as_soon_as_that_is_answered(gw: Gateway, real: str) -> None:
    key = (await gw.keys.issue(id="search"))["key"]
    async with aiohttp.ClientSession(base_url=real, headers={"authorization": f"Bearer {key}"}) as http:
        async with http.post("/v1/chat/completions", json=HELLO) as answer:
            assert answer.status == 200
        await gw.keys.revoke(id="search")
        async with http.post("/v1/chat/completions", json=HELLO) as answer:
            assert answer.status == 401
            assert "was revoked" in (await answer.json())["error"]["message"]


async def test_a_key_that_the_edge_let_in_is_let_in_by_a_bus_that_asks(gw: Gateway, host: Host, bus_url: str) -> None:
    key = (await gw.keys.issue(scopes=["chat"]))["key"]
    host.runtime.door.required = True
    async with trunkline.connect(bus_url, key) as theirs:
        async with theirs.chat.stream("slow", "hi") as stream:
            await anext(stream)
        # Leaving it aborted the request, with the key that may.
        assert (await theirs.chat.create("echo", "hi")).text == "hi"
