"""The way to an OpenAI-wire upstream that a provider may be told to take (`transport: sdk`): the `openai` SDK.

The SDK carries the request and raises typed errors; bodies and streams pass by its models, as bytes. It takes some
seven times the CPU of `RawHttp` for a call, and is what that one is checked against.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import faults
from trunkline_actors.adapters.faults import TIMED_OUT
from trunkline_actors.adapters.sdk_errors import failure_of_sdk
from trunkline_actors.adapters.transport import BODY_LIMIT, ERROR_LIMIT, is_no_stream, within

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_DRAIN_S = 0.1
NO_KEY = "none"
"""The SDK insists on a key, and takes the environment's where it is given None."""


class SdkHttp:
    """Requests to one `base_url` (with its `/v1`) under one credential, carried by the SDK. A `Transport`.

    `headers` go with every request and win over the SDK's own. `timeout` is in seconds, for each wait on the network.
    `local`: private addresses may be called. `secrets` never appear in a message.

    Cheap to construct: the SDK (1.5 s to import) and its client (25 ms) are made at the first call, in a thread.
    Proxy settings (`HTTPS_PROXY`, …) are honoured as every HTTP client does; no `OPENAI_*` variable is.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        local: bool = False,
        secrets: tuple[str, ...] = (),
    ) -> None:
        headers = dict(headers or {})
        self._secrets = secrets
        self._make: Callable[[], AsyncOpenAI] = lambda: _make_client(
            base_url, api_key or NO_KEY, headers, timeout, local
        )
        self._made: AsyncOpenAI | None = None
        self._making = asyncio.Lock()
        self._closed = False

    async def fetch(self, path: str, body: bytes | None, timeout: float, *, method: str | None = None) -> bytes:
        """The whole answer to a request: POST with a body, GET without; there are no others. Raises UpstreamError."""
        if method not in {None, "GET" if body is None else "POST"}:
            raise faults.upstream_error(FailureClass.INTERNAL, f"the SDK path sends no {method}: use transport raw")
        with self._translated():
            async with asyncio.timeout(timeout):
                response = await self._send(path, body)
                try:
                    return await _read(response, BODY_LIMIT)
                finally:
                    await response.aclose()

    @asynccontextmanager
    async def opened(self, path: str, body: bytes, deadline: float) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The answer piece by piece, up to `deadline` by the loop's clock. Raises UpstreamError. As RawHttp's."""
        with self._translated():
            async with asyncio.timeout_at(deadline):
                response = await self._send(path, body)
        try:
            if is_no_stream(response.headers.get("content-type", "")):
                with self._translated():
                    async with asyncio.timeout_at(deadline):
                        raise self._not_a_stream(await _read(response, ERROR_LIMIT, cut=True))
            async with aclosing(response.aiter_bytes()) as source:
                yield self._pieces(source, deadline)
                await _drain(source)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        self._closed = True
        if self._made is not None:
            await self._made.close()

    async def _pieces(self, source: AsyncIterator[bytes], deadline: float) -> AsyncGenerator[bytes, None]:
        while True:
            # No timeout or translation may span the yield: they would catch what the consumer does meanwhile.
            with self._translated():
                async with asyncio.timeout_at(deadline):
                    piece = await anext(source, None)
            if piece is None:
                return
            yield piece

    def _not_a_stream(self, body: bytes) -> UpstreamError:
        if b'"error"' in body:
            return UpstreamError(faults.from_answer(200, {}, body, now=0.0, secrets=self._secrets))
        return faults.upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)

    async def _send(self, path: str, body: bytes | None) -> "httpx2.Response":
        """Send once, and once more where a kept-alive connection turned out to be dead: see `RawSession.send`."""
        client = await self._client()
        import openai

        try:
            return await _request(client, path, body)
        except openai.APIConnectionError as error:
            if not _died_while_idle(error):
                raise
        return await _request(client, path, body)

    async def _client(self) -> "AsyncOpenAI":
        if self._closed:
            raise faults.upstream_error(FailureClass.CONNECTION, "the connection to this upstream was closed")
        if self._made is None:
            async with self._making:
                if self._made is None:
                    self._made = await asyncio.to_thread(self._make)
        return self._made

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever the SDK, its HTTP stack or a deadline raise into UpstreamError, the cause kept."""
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            raise UpstreamError(failure_of_error(error, self._secrets)) from error


async def _request(client: "AsyncOpenAI", path: str, body: bytes | None) -> "httpx2.Response":
    """The response, its headers read and its body not. Raises the SDK's errors."""
    import httpx2
    from openai import AsyncStream

    kind = AsyncStream[object]  # asked for by the signature, unused where the response itself is cast to
    got: Any
    if body is None:
        got = await client.get(path, cast_to=httpx2.Response, stream=True, stream_cls=kind)
    else:
        got = await client.post(path, cast_to=httpx2.Response, content=body, stream=True, stream_cls=kind)
    return cast("httpx2.Response", got)


async def _read(response: "httpx2.Response", limit: int, *, cut: bool = False) -> bytes:
    return b"".join([piece async for piece in within(response.aiter_bytes(), limit, response.status_code, cut=cut)])


async def _drain(source: AsyncIterator[bytes]) -> None:
    """Read what follows the last event (the end of the HTTP body), so that the connection can be used again."""
    with suppress(Exception):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in source:
                pass


def _make_client(base_url: str, api_key: str, headers: Mapping[str, str], timeout: float, local: bool) -> "AsyncOpenAI":
    from openai import AsyncOpenAI

    from trunkline_actors.adapters.sdk_client import http_client, limits

    class Client(AsyncOpenAI):
        @property
        def default_headers(self) -> dict[str, Any]:
            # The SDK's own would add OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and OPENAI_PROJECT_ID of the environment.
            return {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": "trunkline",
                **headers,
            }

    # Whatever is left out here, the SDK looks for in the environment.
    return Client(
        api_key=api_key,
        admin_api_key="",
        webhook_secret="",
        base_url=base_url,
        timeout=limits(timeout),
        max_retries=0,
        http_client=http_client(base_url, timeout, local),
    )


def _died_while_idle(error: Any) -> bool:
    import httpx2

    lost = isinstance(error.__cause__, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.WriteError)
    return lost and "fresh" not in error.request.extensions


def failure_of_error(error: Exception, secrets: tuple[str, ...] = ()) -> Failure:
    """The one class that an error of the SDK, of its HTTP stack or of Python's belongs to."""
    if isinstance(error, TimeoutError):  # our deadline's, perhaps while the SDK is still being imported
        return TIMED_OUT
    import openai

    def read(status: int | None, headers: Mapping[str, str], body: bytes) -> Failure:
        return faults.from_answer(status, headers, body, now=time.time(), secrets=secrets)

    return failure_of_sdk(error, openai, read)
