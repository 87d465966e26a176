"""Ollama, on its own API: chat, embeddings, and its models. https://github.com/ollama/ollama/blob/main/docs/api.md

Two transports: our own HTTP path, and the `ollama` package as the reference it is held against.
"""

import asyncio
import secrets as randomness
import time
from collections.abc import AsyncGenerator, Mapping

import msgspec
from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import Answer, Call, Chunk, End, faults, ollama_models, ollama_request, ollama_wire
from trunkline_actors.adapters.kinds import Kind, Settings
from trunkline_actors.adapters.management import PullProgress
from trunkline_actors.adapters.ollama_wire import Identity, StreamReader
from trunkline_actors.adapters.raw_http import RawHttp
from trunkline_actors.adapters.transport import Transport
from trunkline_actors.managed import Described, LocalModel

_encode = msgspec.json.encode

PULL_SECONDS = 7 * 86_400.0
"""The longest that a pull may take."""
SILENCE_SECONDS = 1_800.0
"""The longest that a pull may be silent, or say nothing that can be read: while it verifies a large file it does."""
ADDRESS = "http://127.0.0.1:11434"


class Ollama:
    """One Ollama. Its address may be given as people have it: with `/v1` or `/api` behind it, or without.

    Cheap to construct: what speaks HTTP is imported at the first call.
    """

    def __init__(self, settings: Settings) -> None:
        url = (settings.base_url or ADDRESS).rstrip("/")
        self._url = url.removesuffix("/v1").removesuffix("/api").rstrip("/")
        self._settings = settings
        self._headers = dict(settings.headers)
        if settings.key:
            self._headers["Authorization"] = f"Bearer {settings.key}"
        given = (settings.key, *settings.headers.values())
        self._secrets = tuple(one for one in given if one and len(one) >= 8)
        self._made: Transport | None = None
        self._patient: Transport | None = None
        self._making = asyncio.Lock()
        self._closed = False

    # -- chat and embeddings ---------------------------------------------------------------------------------------

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        body = _encode(ollama_request.chat_request(call, stream=False))
        answer = await (await self._transport()).fetch("/api/chat", body, call.timeout)
        return ollama_wire.read_completion(answer, _identity(call), secrets=self._secrets)

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given."""
        body = _encode(ollama_request.chat_request(call, stream=True))
        deadline = asyncio.get_running_loop().time() + call.timeout
        reader = StreamReader(_identity(call), include_usage=call.include_usage, secrets=self._secrets)
        transport = await self._transport()
        async with transport.opened("/api/chat", body, deadline) as source:
            while not reader.done:
                data = await anext(source, None)
                for chunk in reader.finish() if data is None else reader.feed(data):
                    yield chunk
                if data is None:
                    break
            end = reader.end()
        yield end

    async def embed(self, call: Call) -> Answer:
        """Answer an embeddings request. Raises UpstreamError."""
        wanted = ollama_request.embed_request(call)
        answer = await (await self._transport()).fetch("/api/embed", _encode(wanted.body), call.timeout)
        return ollama_wire.read_embeddings(answer, call.model, wanted.encoding, secrets=self._secrets)

    async def check(self) -> None:
        """Return if the list of models can be read. Raises UpstreamError."""
        ollama_models.read_models(await self._ask("/api/tags"), None)

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        self._closed = True
        for transport in (self._made, self._patient):
            if transport is not None:
                await transport.close()

    # -- its models ------------------------------------------------------------------------------------------------

    def same_model(self, one: str, other: str) -> bool:
        """Whether two names mean the same model: a name without a tag means `latest`."""
        return ollama_models.full_name(one) == ollama_models.full_name(other)

    async def local_models(self) -> list[LocalModel]:
        """The models whose files it has. Raises UpstreamError."""
        tags = await self._ask("/api/tags")
        try:
            running: bytes | None = await self._ask("/api/ps")
        except UpstreamError as error:
            if error.failure.kind is not FailureClass.MODEL_NOT_FOUND:  # older versions have no /api/ps
                raise
            running = None
        return ollama_models.read_models(tags, running)

    async def describe(self, model: str) -> Described:
        """What it knows of a model. Raises UpstreamError."""
        return ollama_models.read_described(await self._ask("/api/show", {"model": model}))

    async def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Fetch a model's files. Raises UpstreamError; closing the iterator ends the pull."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        deadline = heard + PULL_SECONDS
        reader = ollama_models.PullReader(self._secrets)
        if self._patient is None:
            self._patient = await self._make(SILENCE_SECONDS)
        async with self._patient.opened("/api/pull", _encode({"model": model, "stream": True}), deadline) as source:
            async for data in source:
                told = reader.feed(data)
                for progress in told:
                    yield progress
                if any(progress.status for progress in told):
                    heard = loop.time()
                elif loop.time() - heard > SILENCE_SECONDS:
                    message = "upstream said nothing of the pull for too long; pull the model again, what came is kept"
                    raise faults.upstream_error(FailureClass.TIMEOUT, message, 200)
            for progress in reader.finish():
                yield progress

    async def delete(self, model: str) -> None:
        """Delete a model's files. Raises UpstreamError."""
        await self._ask("/api/delete", {"model": model}, "DELETE")

    async def _ask(self, path: str, request: Mapping[str, object] | None = None, method: str | None = None) -> bytes:
        body = None if request is None else _encode(request)
        return await (await self._transport()).fetch(path, body, self._settings.timeout_s, method=method)

    async def _transport(self) -> Transport:
        if self._closed:
            raise faults.upstream_error(FailureClass.CONNECTION, "the connection to this upstream was closed")
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await self._make(self._settings.timeout_s)
        return self._made

    async def _make(self, timeout: float) -> Transport:
        settings = self._settings
        if settings.transport == "sdk":
            try:
                return await asyncio.to_thread(self._make_package, timeout)
            except Exception as error:  # an address that is none; its text may hold a secret
                message = f"upstream call failed ({type(error).__name__}); look at the provider's base_url"
                raise faults.upstream_error(FailureClass.INTERNAL, message) from error
        return RawHttp(
            self._url,
            headers=self._headers,
            timeout=timeout,
            local=settings.local,
            secrets=self._secrets,
            failure_of=self._failure_of,
        )

    def _make_package(self, timeout: float) -> Transport:
        from trunkline_actors.adapters.ollama_sdk import PackageTransport

        settings = self._settings
        return PackageTransport(
            self._url,
            headers=self._headers,
            timeout=timeout,
            local=settings.local,
            secrets=self._secrets,
        )

    def _failure_of(self, status: int | None, headers: Mapping[str, str], body: bytes) -> Failure:
        return ollama_wire.failure_of(status, headers, body, now=time.time(), secrets=self._secrets)


def _identity(call: Call) -> Identity:
    return Identity(f"chatcmpl-{randomness.token_hex(8)}", int(time.time()), call.model)


OLLAMA = Kind(
    name="ollama",
    build=Ollama,
    abilities=frozenset({"chat", "embeddings", "tools", "vision", "json_schema", "thinking", "management"}),
    base_url=ADDRESS,
)
