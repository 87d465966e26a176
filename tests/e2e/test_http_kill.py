"""Whatever is killed while HTTP clients stream: each hears the whole answer or an error, and the books balance."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trunkline
from audit import check_books, events, open_attempts
from msgspec import json
from processes import Role, passed, running
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer

DEADLINE_MS = 8000
LATEST = DEADLINE_MS / 1000 + 5 + 2
"""Seconds after which everybody must have heard, and two that busy cores may add."""
CLIENTS = 12


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="always") as running_server:
        yield running_server


@pytest.fixture
async def cast(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[dict[str, Role]]:
    names = {"core": ("registry", "keeper"), "router": ("router",), "provider": ("provider",), "gateway": ("gateway",)}
    environ = {"TRUNKLINE_HTTP_PORT": "0"}
    roles = {name: Role(server.url, tmp_path, name, *what, environ=environ) for name, what in names.items()}
    async with running(*roles.values()):
        yield roles


@pytest.fixture
async def gw(cast: dict[str, Role], server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        await gateway.models.register(id="paced", provider="scripted", upstream="tokens:100@50")
        yield gateway


@pytest.fixture
async def http(gw: Gateway, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    key = (await gw.keys.issue(name="test"))["key"]
    url = json.decode((tmp_path / "gateway.ready").read_bytes())["http"]
    async with aiohttp.ClientSession(base_url=url, headers={"authorization": f"Bearer {key}"}) as session:
        yield session


async def _ask(http: aiohttp.ClientSession, number: int) -> str:
    """What a client hears in the end: `whole`, or how it was told that it isn't."""
    body = {
        "model": "paced",
        "stream": True,
        "messages": [{"role": "user", "content": "hello"}],
        "route": {"deadline_ms": DEADLINE_MS},
    }
    fields = {"x-trunkline-thread": f"t{number % 3}"}
    try:
        async with http.post("/v1/chat/completions", json=body, headers=fields) as answer:
            heard = await answer.read()
    except aiohttp.ClientError as error:
        return type(error).__name__
    if answer.status != 200:
        return str(json.decode(heard)["error"]["code"])
    last = heard.rstrip().rpartition(b"data: ")[2]
    if last == b"[DONE]":
        assert heard.count(b'"content":') >= 100
        return "whole"
    return str(json.decode(last)["error"]["code"])


async def _settled(gw: Gateway) -> None:
    recorded = await events(gw)
    async with asyncio.timeout(25):
        while open_attempts(recorded):
            recorded = await events(gw)
    check_books(recorded)
    for number in range(3):
        books = await gw.threads.get(thread_id=f"t{number}")
        assert (books["open"], books["reserved_usd"]) == ([], "0")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("victim", "allowed"),
    [
        ("router", {"whole", "unavailable", "timeout", "stopping"}),
        ("provider", {"whole", "unavailable", "timeout", "provider_error", "no_route", "aborted"}),
        ("gateway", {"whole", "ClientPayloadError", "ServerDisconnectedError", "ClientOSError"}),
        ("broker", {"whole", "unavailable", "timeout", "provider_error", "aborted"}),
    ],
)
async def test_everybody_hears_and_the_books_balance_whatever_is_killed(
    gw: Gateway,
    http: aiohttp.ClientSession,
    cast: dict[str, Role],
    server: EmbeddedServer,
    victim: str,
    allowed: set[str],
) -> None:
    began = time.monotonic()
    asking = [asyncio.create_task(_ask(http, number)) for number in range(CLIENTS)]
    await passed(0.7)
    if victim == "broker":
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
    else:
        await cast[victim].again()
    heard = await asyncio.gather(*asking)
    print(victim, sorted(heard))
    assert time.monotonic() - began < LATEST
    assert set(heard) <= allowed
    await _settled(gw)
    if victim != "gateway":  # it is back on another port
        async with asyncio.timeout(20):
            while await _ask(http, 0) != "whole":
                pass
