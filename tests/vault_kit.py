"""A far provider whose key is the stored secret `main`, and hosts beside the first one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from messages import Got, ask, chat_body
from trunkline.client import Gateway
from trunkline.host import Host
from upstream import Upstream, answer

PASSPHRASE = "correct horse battery staple"
FIRST, SECOND = "sk-canary-first-7c1d", "sk-canary-second-a-good-deal-longer-93ab7f"
MESSAGE = {"role": "assistant", "content": "hi"}
WHOLE = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
}


def well() -> Upstream:
    """An upstream that answers every chat."""
    return Upstream(answer(WHOLE))


@asynccontextmanager
async def serving(url: str, *roles: str, **options: Any) -> AsyncIterator[Host]:
    """A host with these roles; without any, all of them."""
    host = await Host.start(url, roles or ("registry", "router", "provider", "keeper"), **options)
    try:
        yield host
    finally:
        await host.stop()


async def far(gw: Gateway, upstream: Upstream, **more: Any) -> None:
    """The provider `far`, with its model `m`."""
    given = {"id": "far", "kind": "openai-compatible", "base_url": upstream.url, "secret": "main", "local": True}
    await gw.providers.register(**{**given, **more})
    await gw.models.register(id="m", provider="far", upstream="m")


async def said(gw: Gateway, **route: Any) -> Got:
    """The answer to a chat with `m`."""
    return await ask(gw._connection.nats, chat_body("m", route={"attempts": 1, **route}))


def keys_seen(upstream: Upstream) -> list[str]:
    """What the upstream was called with, in order."""
    return [request.headers.get("authorization", "").removeprefix("Bearer ") for request in upstream.requests]
