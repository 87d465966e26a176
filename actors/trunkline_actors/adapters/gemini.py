"""Gemini (generateContent, v1beta), for callers who speak OpenAI's Chat Completions."""

import asyncio
import importlib.util
import re
import time
from collections.abc import AsyncGenerator, Mapping
from uuid import uuid4

from trunkline_events.failure import Failure, FailureClass

from trunkline_actors.adapters import Adapter, Answer, Call, Chunk, End, faults
from trunkline_actors.adapters.gemini_answer import Made, StreamReader, read_completion, read_embeddings
from trunkline_actors.adapters.gemini_faults import failure_of
from trunkline_actors.adapters.gemini_request import chat_body, embeddings_body, model_path
from trunkline_actors.adapters.gemini_sdk import GeminiSdk
from trunkline_actors.adapters.kinds import Kind, MissingExtra, Settings
from trunkline_actors.adapters.raw_http import RawHttp
from trunkline_actors.adapters.transport import Transport

BASE_URL = "https://generativelanguage.googleapis.com"
_VERSION = re.compile(r"/(v\d+[a-z0-9]*)$")


class Gemini:
    """One upstream, reached over `transport`. `timeout` is in seconds, for `check`; each call brings its own.

    `secrets` never appear in a message.
    """

    def __init__(self, transport: Transport, *, timeout: float = 60.0, secrets: tuple[str, ...] = ()) -> None:
        self._transport = transport
        self._timeout = timeout
        self._secrets = secrets

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        body, _ = chat_body(call)
        said = await self._transport.fetch(f"/{model_path(call.model)}:generateContent", body, call.timeout)
        return read_completion(said, _made(call), secrets=self._secrets)

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given."""
        body, candidates = chat_body(call)
        deadline = asyncio.get_running_loop().time() + call.timeout
        reader = StreamReader(
            _made(call), candidates=candidates, include_usage=call.include_usage, secrets=self._secrets
        )
        path = f"/{model_path(call.model)}:streamGenerateContent?alt=sse"
        async with self._transport.opened(path, body, deadline) as source:
            async for data in source:
                for chunk in reader.feed(data):
                    yield chunk
                if reader.done:
                    break
            for chunk in reader.finish():
                yield chunk
        yield reader.end()

    async def embed(self, call: Call) -> Answer:
        """Answer an embeddings request. Raises UpstreamError."""
        body, as_base64 = embeddings_body(call)
        said = await self._transport.fetch(f"/{model_path(call.model)}:batchEmbedContents", body, call.timeout)
        return read_embeddings(said, call.model, as_base64=as_base64, secrets=self._secrets)

    async def check(self) -> None:
        """Return if a list of models is answered with JSON. Raises UpstreamError."""
        body = await self._transport.fetch("/models?pageSize=1", None, self._timeout)
        if not body.lstrip().startswith(b"{"):
            raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no list of models", 200)

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        await self._transport.close()


def _made(call: Call) -> Made:
    return Made(ident=uuid4().hex, now=int(time.time()), model=call.model)


def _has_sdk() -> bool:
    try:
        return importlib.util.find_spec("google.genai") is not None
    except ModuleNotFoundError:  # not even the namespace `google`
        return False


def _build(settings: Settings) -> Adapter:
    """People give the address with or without the version of the API; without, it is v1beta."""
    url = (settings.base_url or BASE_URL).rstrip("/")
    found = _VERSION.search(url)
    version = found[1] if found else "v1beta"
    root = url.removesuffix(f"/{version}")
    secrets = tuple(s for s in (settings.key, *settings.headers.values()) if s and len(s) >= 8)
    transport: Transport
    if settings.transport == "sdk":  # our own path needs no package
        if not _has_sdk():
            raise MissingExtra("gemini")
        transport = GeminiSdk(
            root,
            version,
            key=settings.key,
            headers=settings.headers,
            timeout=settings.timeout_s,
            local=settings.local,
            secrets=secrets,
        )
    else:

        def failure(status: int | None, headers: Mapping[str, str], body: bytes) -> Failure:
            return failure_of(status, headers, body, now=time.time(), secrets=secrets)

        # In a header, never in the URL: URLs are logged, by proxies too.
        key = {"x-goog-api-key": settings.key} if settings.key else {}
        transport = RawHttp(
            f"{root}/{version}",
            headers={**key, **settings.headers},
            timeout=settings.timeout_s,
            local=settings.local,
            secrets=secrets,
            failure_of=failure,
        )
    return Gemini(transport, timeout=settings.timeout_s, secrets=secrets)


GEMINI = Kind(
    name="gemini",
    build=_build,
    abilities=frozenset({"chat", "embeddings", "tools", "vision", "image_urls", "json_schema", "thinking"}),
    base_url=BASE_URL,
)
