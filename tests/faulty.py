"""A gateway before a real HTTP upstream that fails in a chosen way: for tests of what becomes of failures."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from trunkline.client import Gateway
from upstream import SSE, Reply, Request, Upstream

PRICE = {"input": "1.00", "output": "4.00"}
WORD = "word "


def token(text: str = WORD, finish: str | None = None) -> bytes:
    """One event of a stream."""
    chunk = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    chunk["choices"][0]["finish_reason"] = finish  # type: ignore[index]
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def streamed(*pieces: bytes, after: Any = "complete") -> Reply:
    """A stream of these pieces, as they are."""
    return Reply(list(pieces), 200, SSE, after)


def whole(text: str = "fine") -> Reply:
    """A plain answer with its usage."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    answer = {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}
    return Reply([json.dumps(answer).encode()])


def whole_stream(tokens: int = 5) -> Reply:
    """A stream that ends well."""
    return streamed(*[token()] * tokens, token("", "stop"), b"data: [DONE]\n\n")


Answer = Callable[[int], Reply]
"""How the upstream answers its n-th chat, counted from 1."""


@asynccontextmanager
async def failing(answer: Answer) -> AsyncIterator[Upstream]:
    """An upstream that answers chats so, and checks well: on connections of their own, so that none is kept alive."""
    count = 0

    async def handle(request: Request) -> Reply:
        nonlocal count
        if request.method == "GET":
            return Reply([b'{"data": []}'], headers={"content-type": "application/json", "connection": "close"})
        count += 1
        return answer(count)

    async with Upstream(handler=handle).serving() as upstream:
        yield upstream


async def register(gw: Gateway, url: str, provider: str = "up", model: str = "m", **more: Any) -> None:
    """A model of that upstream, whose client is made already: the first call of a process imports its SDK."""
    settings = {"breaker_failures": 100, "local": True, **more}
    await gw.providers.register(id=provider, kind="openai-compatible", base_url=url, **settings)
    await gw.models.register(id=model, provider=provider, price=PRICE)
    await gw.providers.check(id=provider)


def chats(upstream: Upstream) -> int:
    """How many chats it was asked."""
    return sum(request.method == "POST" for request in upstream.requests)
