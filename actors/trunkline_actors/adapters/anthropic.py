"""Anthropic: the Messages API, over our own HTTP path or over its SDK. Both speak the same bytes."""

import asyncio
import importlib.util
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from trunkline_events.failure import Failure, FailureClass

from trunkline_actors.adapters import Adapter, Answer, Call, Chunk, End, anthropic_answer, faults
from trunkline_actors.adapters.anthropic_faults import failure_of
from trunkline_actors.adapters.anthropic_request import messages_body
from trunkline_actors.adapters.anthropic_sdk import AnthropicSdk
from trunkline_actors.adapters.anthropic_stream import StreamReader
from trunkline_actors.adapters.kinds import Kind, MissingExtra, Settings
from trunkline_actors.adapters.raw_http import RawHttp
from trunkline_actors.adapters.transport import Transport

# Later versions take fewer fields: 2026-10-21 refuses a temperature for every model. A header of a provider's
# registration replaces it.
VERSION = "2023-06-01"


class Messages:
    """One upstream that speaks Messages, over `transport`, whose base URL ends in `/v1`.

    `secrets` never appear in a message; `timeout` is in seconds, for `check`.
    """

    def __init__(self, transport: Transport, *, secrets: tuple[str, ...] = (), timeout: float = 60.0) -> None:
        self._transport = transport
        self._secrets = secrets
        self._timeout = timeout

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        got = await self._transport.fetch("/messages", messages_body(call, stream=False), call.timeout)
        return anthropic_answer.read_message(got, created=int(time.time()), secrets=self._secrets)

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given."""
        deadline = asyncio.get_running_loop().time() + call.timeout
        body = messages_body(call, stream=True)
        reader = StreamReader(include_usage=call.include_usage, created=int(time.time()), secrets=self._secrets)
        async with self._transport.opened("/messages", body, deadline) as source, aclosing(source):
            async for data in source:
                for chunk in reader.feed(data):
                    yield chunk
                if reader.done:
                    break
            else:
                for chunk in reader.finish():
                    yield chunk
            end = reader.end()
        yield end

    async def embed(self, call: Call) -> Answer:
        """Refuse: Anthropic has no embeddings."""
        raise faults.upstream_error(FailureClass.INVALID_REQUEST, "Anthropic has no embeddings: name another model")

    async def check(self) -> None:
        """Return if the list of models, which costs nothing, is answered with JSON. Raises UpstreamError."""
        body = await self._transport.fetch("/models", None, self._timeout)
        if not body.lstrip().startswith(b"{"):
            raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no list of models", 200)

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        await self._transport.close()


def _build(settings: Settings) -> Adapter:
    # People give the address with the version of the path and without.
    base_url = (settings.base_url or "https://api.anthropic.com").rstrip("/").removesuffix("/v1") + "/v1"
    headers = {"anthropic-version": VERSION, **({"x-api-key": settings.key} if settings.key else {})}
    given = {name.lower(): value for name, value in settings.headers.items()}
    secrets = tuple(s for s in (settings.key, *settings.headers.values()) if s and len(s) >= 8)

    def read(status: int | None, headers: Mapping[str, str], body: bytes) -> Failure:
        return failure_of(status, headers, body, now=time.time(), secrets=secrets)

    # Our own path needs no SDK.
    if settings.transport == "sdk" and importlib.util.find_spec("anthropic") is None:
        raise MissingExtra("anthropic")
    make = AnthropicSdk if settings.transport == "sdk" else RawHttp
    transport = make(
        base_url,
        headers=headers | given,
        timeout=settings.timeout_s,
        local=settings.local,
        secrets=secrets,
        failure_of=read,
    )
    return Messages(transport, secrets=secrets, timeout=settings.timeout_s)


ANTHROPIC = Kind(
    name="anthropic",
    build=_build,
    abilities=frozenset({"chat", "tools", "vision", "image_urls", "json_schema", "thinking"}),
    base_url="https://api.anthropic.com",
)
