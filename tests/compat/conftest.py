"""What every client is pointed at: `trunkline up` as it is, in front of llama.cpp's own server.

    served    the gateway, for all tests of a run
    gw        our own client of it, for what a test sets up or looks at
    asked     runs a scenario of a client as that gateway's user
    flaky     a model whose upstream fails once, in a way that the gateway passes on at once
    few       a key for twenty requests a minute
    poor      a key whose budget pays for nothing
    refusals  counts what was refused for want of money

Models: `tiny` at llama.cpp, which calls `get_weather` where it is offered tools, obeys a schema, and thinks where the
prompt says so; at our scripted provider `echo`, `cut`, which breaks off in the middle of a stream, and `vectors`.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trunkline
import upstream as up
from audit import history, kinds
from compat_kit import Asked, Served, found
from trunkline.client import Gateway
from upstream import Reply, Request, Upstream

_CAN = ["tools", "json_schema", "thinking"]
PRICE = {"input": "1.00", "output": "2.00"}
PAGE = Reply([b"<html>busy</html>"], 200, {"content-type": "text/html"})
"""Told to the client at once as 502 `provider_error`, which clients retry: the gateway itself asks only others."""


@contextmanager
def _up(folder: Path) -> Iterator[dict[str, Any]]:
    ready = folder / "ready.json"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TRUNKLINE_"))}
    flags = ("--ephemeral", "--nats-port", "0", "--http-port", "0", "--ready-file", str(ready))
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "trunkline", "up", *flags]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=folder)
    try:
        until = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, "trunkline up is not ready after a minute"
            time.sleep(0.01)
        yield json.loads(ready.read_text())
    finally:
        process.terminate()
        process.wait(60)


async def _furnish(nats: str, engine: str) -> str:
    async with trunkline.connect(nats) as gateway:
        await gateway.providers.register(id="engine", kind="openai-compatible", base_url=f"{engine}/v1", local=True)
        await gateway.models.register(id="tiny", provider="engine", features=_CAN, price=PRICE)
        await gateway.providers.register(id="breaking", kind="scripted", local=True, breaker_failures=1000)
        await gateway.models.register(id="cut", provider="breaking", upstream="cut:4", price=PRICE)
        await gateway.models.register(id="vectors", provider="scripted", upstream="echo", features=["embeddings"])
        return str((await gateway.keys.issue(id="clients", scopes=["chat"]))["key"])


@pytest.fixture(scope="session")
def served(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The gateway, with the engine registered as any OpenAI-compatible server is."""
    with _up(tmp_path_factory.mktemp("gateway")) as ready:
        key = asyncio.run(_furnish(ready["nats"], engine))
        yield Served(ready["nats"], ready["http"], key)


@pytest.fixture
async def gw(served: Served) -> AsyncIterator[Gateway]:
    """A client of the gateway, over its bus."""
    async with trunkline.connect(served.nats) as gateway:
        yield gateway


@pytest.fixture
def asked(served: Served) -> Asked:
    """Runs scenarios of clients at that gateway."""

    async def run(client: str, scenario: str, *arguments: str, key: str | None = None) -> Any:
        one = served if key is None else served._replace(key=key)
        return await found(client, scenario, *arguments, environ=one.environment)

    return run


@pytest.fixture
async def flaky(gw: Gateway) -> AsyncIterator[Upstream]:
    """The model `flaky` fails the first time that it is asked, and answers `again` from then on."""
    failed: list[Request] = []

    async def handler(request: Request) -> Reply:
        if not failed:
            failed.append(request)
            return PAGE
        streamed = json.loads(request.body).get("stream")
        return up.events(*_chunks("again"), _LAST) if streamed else up.answer(_WHOLE)

    async with Upstream(handler=handler).serving() as upstream:
        await gw.providers.register(id="flaky", kind="openai-compatible", base_url=upstream.url, local=True)
        await gw.models.register(id="flaky", provider="flaky", upstream="flaky", price=PRICE)
        yield upstream
        await gw.models.remove(id="flaky", force=True)
        await gw.providers.remove(id="flaky", force=True)


@pytest.fixture
async def refusals(gw: Gateway) -> Callable[[], Awaitable[int]]:
    """Counts the requests that were refused money, so that a second attempt is seen whatever a client tells of it."""

    async def count() -> int:
        return kinds(await history(gw)).count("refused")

    return count


@pytest.fixture
async def poor(gw: Gateway) -> str:
    """A key with a budget that pays for nothing."""
    return str((await gw.keys.issue(scopes=["chat"], budget={"limit_usd": "0.000001"}))["key"])


@pytest.fixture
async def few(gw: Gateway) -> str:
    """A key for twenty requests a minute."""
    return str((await gw.keys.issue(scopes=["chat"], requests_per_minute=20))["key"])


_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "flaky",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "again"}, "finish_reason": "stop"}],
    "usage": _USAGE,
}
_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "flaky"}
_LAST = {**_CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": _USAGE}


def _chunks(*words: str) -> list[dict[str, Any]]:
    return [
        {**_CHUNK, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
        for word in words
    ]
