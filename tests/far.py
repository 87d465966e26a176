"""A provider whose upstream is a misbehaving HTTP server, and how to wait until nothing of it is open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import upstream as up
from trunkline.client import Gateway
from trunkline_events import headers
from trunkline_events.thread import Ending
from upstream import Reply, Upstream

PRICE = {"input": "1.00", "output": "4.00"}
THREAD = {headers.THREAD: "t"}
WORD = {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
LAST = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}}
WHOLE = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
    "usage": USAGE["usage"],
}


@asynccontextmanager
async def serving(gw: Gateway, upstream: Upstream) -> AsyncIterator[Upstream]:
    """The model `m` is this upstream."""
    async with upstream.serving():
        await gw.providers.register(id="far", kind="openai-compatible", base_url=upstream.url, local=True)
        await gw.models.register(id="m", provider="far", upstream="m", price=PRICE)
        yield upstream


def then_silent(*payloads: object) -> Reply:
    return up.events(*payloads, done=False, after="stall")


async def wait_for_the_end(gw: Gateway, thread: str = "t") -> None:
    """Return when nothing of this thread is open."""
    async with asyncio.timeout(10):
        async for event in gw.events("thread", id=thread, since=0):
            if isinstance(event.body, Ending):
                return
