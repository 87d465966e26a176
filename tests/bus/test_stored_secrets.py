"""Secrets in the vault, over the bus: a real upstream sees which key it is called with, and the disk never does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trunkline
from audit import events
from messages import Got, ask, chat_body
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_events import subjects
from upstream import Reply, Request, Upstream, answer

pytest_plugins = ["gateway"]

PASSPHRASE = "correct horse battery staple"
FIRST, SECOND = "sk-canary-first-7c1d", "sk-canary-second-a-good-deal-longer-93ab7f"
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(answer(WHOLE)).serving() as serving:
        yield serving


@asynccontextmanager
async def serving(url: str, *roles: str, **options: Any) -> AsyncIterator[Host]:
    host = await Host.start(url, roles or ("registry", "router", "provider", "keeper"), **options)
    try:
        yield host
    finally:
        await host.stop()


async def far(gw: Gateway, upstream: Upstream, **more: Any) -> None:
    """A provider whose key is the secret `main`, and its model."""
    given = {"id": "far", "kind": "openai-compatible", "base_url": upstream.url, "secret": "main", "local": True}
    await gw.providers.register(**given, **more)
    await gw.models.register(id="m", provider="far", upstream="m")


async def said(gw: Gateway, model: str = "m", **route: Any) -> Got:
    return await ask(gw._connection.nats, chat_body(model, route={"attempts": 1, **route}))


def keys_seen(upstream: Upstream) -> list[str | None]:
    return [request.headers.get("authorization") for request in upstream.requests]


async def test_a_provider_is_called_with_its_secret_before_and_after_it_is_rotated(
    gw: Gateway, upstream: Upstream
) -> None:
    await far(gw, upstream)
    made = await gw.secrets.unlock(PASSPHRASE)
    assert made["created"]
    stored = await gw.secrets.set("main", FIRST)
    assert (stored["provider"], stored["address"]) == ("far", upstream.url)
    assert (await said(gw)).json["choices"]
    rotated = await gw.secrets.rotate("main", SECOND)
    assert rotated["fingerprint"] != stored["fingerprint"]
    assert (await said(gw)).json["choices"]
    assert keys_seen(upstream) == [f"Bearer {FIRST}", f"Bearer {SECOND}"]
    assert [event.type for event in await events(gw, "secret")] == ["secret.stored.v1", "secret.rotated.v1"]
