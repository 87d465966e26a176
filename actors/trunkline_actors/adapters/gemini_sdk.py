"""The way to Gemini that a provider may be told to take (`transport: sdk`): Google's `google-genai` package.

Requests are built from Google's own types and answers read by them, so that each is held to what Google knows of its
wire; then they are JSON again for the adapter. Slow, and what the raw path is checked against.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import msgspec
from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import faults, raw_http
from trunkline_actors.adapters.faults import TIMED_OUT
from trunkline_actors.adapters.gemini_faults import failure_of
from trunkline_actors.adapters.gemini_typed import bytes_of, embedded, generated, listed, split, streamed

if TYPE_CHECKING:
    import httpx2
    from google import genai

_NO_KEY = "none"  # the SDK insists on a key, and takes the environment's where it is given None
_DRAIN_S = 0.1


class Exchange:
    """One request of ours on its way through the SDK, which shows neither the request nor the response."""

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self.request: httpx2.Request | None = None
        self.response: httpx2.Response | None = None

    def died_while_idle(self) -> bool:
        """Whether it went out on a kept-alive connection and not a byte of an answer came back."""
        return self.request is not None and not {"fresh", "answered"} & set(self.request.extensions)


EXCHANGE: ContextVar[Exchange] = ContextVar("exchange")


class GeminiSdk:
    """Requests to one host under one credential, carried by the SDK. A `Transport` for Gemini's paths alone.

    `base_url` is without the version of the API. `timeout` is in seconds, for each wait on the network. `local`:
    private addresses may be called. `secrets` never appear in a message.

    Cheap to construct: the SDK (a second to import) and its client are made at the first call, in a thread. No variable
    of the environment names a key, a project or an address.
    """

    def __init__(
        self,
        base_url: str,
        version: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        local: bool = False,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self._secrets = secrets
        self._make = lambda: load()(base_url, version, key or _NO_KEY, dict(headers or {}), timeout, local)
        self._made: tuple[genai.Client, httpx2.AsyncClient] | None = None
        self._making = asyncio.Lock()
        self._closed = False

    async def fetch(self, path: str, body: bytes | None, timeout: float, *, method: str | None = None) -> bytes:
        """The whole answer to a request, by what its path asks for. Raises UpstreamError."""
        del method
        with self._translated():
            async with asyncio.timeout(timeout):
                client = await self._client()
                if body is None:
                    return await self._tried(lambda: listed(client))
                model, asked = split(path)
                ask = embedded if asked == "batchEmbedContents" else generated
                arguments = ask(client, model, body)
                return await self._tried(arguments)

    @asynccontextmanager
    async def opened(self, path: str, body: bytes, deadline: float) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The answer as events, one of a stream's each, up to `deadline` by the loop's clock. As RawHttp's."""
        exchange = Exchange(stream=True)
        with self._translated():
            async with asyncio.timeout_at(deadline):
                client = await self._client()
                asked = streamed(client, split(path)[0], body)
                source, first = await self._first(asked, exchange)
        try:
            async with aclosing(source):
                yield self._pieces(source, first, deadline)
                with suppress(Exception):
                    async with asyncio.timeout(_DRAIN_S):
                        async for _ in source:
                            pass
        finally:
            # Closing the SDK's generators closes the response some turns of the loop later only.
            if exchange.response is not None:
                await exchange.response.aclose()

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        self._closed = True
        async with self._making:
            if self._made is not None:
                await self._made[0].aio.aclose()
                await self._made[1].aclose()

    async def _tried(self, ask: Callable[[], Any]) -> bytes:
        """Ask once, and once more where a kept-alive connection turned out to be dead: see `RawSession.send`."""
        exchange = Exchange(stream=False)
        EXCHANGE.set(exchange)
        try:
            return bytes_of(await ask())
        except Exception as error:
            if not (_is_lost(error) and exchange.died_while_idle()):
                raise
        return bytes_of(await ask())

    async def _first(self, ask: Callable[[], Any], exchange: Exchange) -> tuple[AsyncGenerator[Any, None], Any]:
        EXCHANGE.set(exchange)
        source = await ask()
        try:
            return source, await anext(source, None)
        except Exception as error:
            if not (_is_lost(error) and exchange.died_while_idle()):
                raise
        source = await ask()
        return source, await anext(source, None)

    async def _pieces(
        self, source: AsyncGenerator[Any, None], chunk: Any, deadline: float
    ) -> AsyncGenerator[bytes, None]:
        while chunk is not None:
            yield b"data: " + bytes_of(chunk) + b"\n\n"
            # No timeout or translation may span the yield: they would catch what the consumer does meanwhile.
            with self._translated():
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(source, None)

    async def _client(self) -> "genai.Client":
        async with self._making:
            if self._made is None and not self._closed:
                self._made = await asyncio.to_thread(self._make)
            if self._made is None or self._is_closed():
                raise _gone()
            return self._made[0]

    def _is_closed(self) -> bool:
        return self._closed

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever the SDK, its HTTP stacks or a deadline raise into UpstreamError, the cause kept."""
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            raise (_gone() if self._closed else UpstreamError(failure_of_error(error, self._secrets))) from error


def _gone() -> UpstreamError:
    return faults.upstream_error(FailureClass.CONNECTION, "the connection to this upstream was closed")


def load() -> Callable[..., "tuple[genai.Client, httpx2.AsyncClient]"]:
    """Import the SDK and build the types of requests and answers: a second of CPU, so not on the loop."""
    from google.genai import types

    from trunkline_actors.adapters.gemini_client import make_client

    for kind in (types.Content, types.GenerateContentConfig, types.EmbedContentConfig, types.GenerateContentResponse):
        kind.model_rebuild()
    return make_client


def _is_lost(error: Exception) -> bool:
    import httpx2

    return isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.WriteError)


def failure_of_error(error: Exception, secrets: tuple[str, ...] = ()) -> Failure:
    """The one class that an error of the SDK, of any HTTP stack it may stand on, or of Python's belongs to."""
    if isinstance(error, TimeoutError):  # our deadline's, perhaps while the SDK is still being imported
        return TIMED_OUT
    import httpx
    import httpx2
    from google.genai import errors

    if isinstance(error, errors.APIError | httpx.HTTPStatusError | httpx2.HTTPStatusError):
        return _failure_of_answer(error, secrets)
    # Named by its type alone: its text may hold a URL, a header or a piece of the body.
    name = type(error).__name__
    if isinstance(error, httpx.TimeoutException | httpx2.TimeoutException):
        return TIMED_OUT
    ours = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)
    if isinstance(error, httpx.TransportError | httpx2.TransportError) and not isinstance(
        error, (*ours, httpx2.SSEError)
    ):
        return Failure(kind=FailureClass.CONNECTION, message=f"connection to upstream failed ({name})")
    if type(error).__module__.startswith("google.auth") and name == "TransportError":
        return Failure(kind=FailureClass.CONNECTION, message=f"connection to upstream failed ({name})")
    return raw_http.failure_of_error(error)


def _failure_of_answer(error: Any, secrets: tuple[str, ...]) -> Failure:
    answer = error.response
    if (said := getattr(answer, "content", None)) is not None:
        return failure_of(answer.status_code, answer.headers, said, now=time.time(), secrets=secrets)
    # Inside a stream: the response is the SDK's own then, and no answer about the error.
    return failure_of(error.code, {}, msgspec.json.encode(error.details, enc_hook=str), now=0.0, secrets=secrets)
