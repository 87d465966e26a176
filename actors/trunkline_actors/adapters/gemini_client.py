"""Google's SDK and the HTTP client beneath it, kept as a gateway needs them. Imported when the first call is made."""

from collections.abc import AsyncIterator, Mapping

import httpx2
from google import genai
from google.genai import types
from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters import faults
from trunkline_actors.adapters.gemini_answer import rest_of
from trunkline_actors.adapters.gemini_faults import failure_of
from trunkline_actors.adapters.gemini_sdk import EXCHANGE
from trunkline_actors.adapters.sdk_client import bound, http_client, limits
from trunkline_actors.adapters.sse import EventDecoder
from trunkline_actors.adapters.transport import BODY_LIMIT, ERROR_LIMIT, is_no_stream


def make_client(
    base_url: str, version: str, key: str, headers: Mapping[str, str], timeout: float, local: bool
) -> tuple[genai.Client, httpx2.AsyncClient]:
    """The SDK, to be kept as long as it is used, and the HTTP client that it doesn't close itself."""
    http = http_client(base_url, timeout, local)
    waits = limits(timeout).as_dict()

    async def note_request(request: httpx2.Request) -> None:
        # The SDK's own timeout would be sent to Google too, as one for the whole answer.
        request.extensions["timeout"] = waits
        EXCHANGE.get().request = request

    async def note_response(response: httpx2.Response) -> None:
        EXCHANGE.get().response = response
        if EXCHANGE.get().stream and response.status_code == 200:
            await _refuse_unless_a_stream(response, (key,))
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Events(response.stream)
        elif response.status_code < 300:
            bound(response, BODY_LIMIT, cut=False)

    hooks = http.event_hooks
    http.event_hooks = {"request": [*hooks["request"], note_request], "response": [*hooks["response"], note_response]}
    options = types.HttpOptions(
        base_url=base_url,
        api_version=version,
        headers=dict(headers),
        # One attempt; without this the SDK tries again by itself after some seconds, over aiohttp at least.
        retry_options=types.HttpRetryOptions(attempts=1),
        # Left to itself the SDK takes aiohttp where it can, follows redirects, and calls any address.
        httpx_async_client=http,
        # Two parts that are never used, given so that no certificates are read for them (50 ms).
        httpx_client=httpx2.Client(transport=httpx2.BaseTransport()),
        async_client_args={"ssl": True},
    )
    return genai.Client(vertexai=False, api_key=key, http_options=options), http


async def _refuse_unless_a_stream(response: httpx2.Response, secrets: tuple[str, ...]) -> None:
    if not is_no_stream(response.headers.get("content-type", "")):
        return
    bound(response, ERROR_LIMIT, cut=True)
    said = await response.aread()
    if b'"error"' in said:
        raise UpstreamError(failure_of(200, response.headers, said, now=0.0, secrets=secrets))
    raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)


class _Events(httpx2.AsyncByteStream):
    """Whole events alone: the SDK takes a comment between them, and a piece that was cut off, for JSON."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = EventDecoder()
        async for piece in self._stream:
            for payload in decoder.feed(piece):
                yield _event(payload)
        for payload in rest_of(decoder):
            yield _event(payload)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _event(payload: bytes) -> bytes:
    return b"data: " + payload.replace(b"\n", b"\ndata: ") + b"\n\n"
