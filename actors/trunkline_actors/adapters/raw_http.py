"""The fast way to an upstream: aiohttp, bytes in and bytes out, and everything that may go wrong typed.

A fifth of the CPU that an SDK takes for a call. What is kept to: one base URL, no redirects, no cookies, no netrc,
addresses checked as they are connected to, limits on every wait and every body, and no retry but that of a kept-alive
connection that turned out to be dead.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import faults
from trunkline_actors.adapters.faults import TIMED_OUT
from trunkline_actors.adapters.noticing import noticed
from trunkline_actors.adapters.outbound import REFUSED, AddressRefused
from trunkline_actors.adapters.transport import BODY_LIMIT, ERROR_LIMIT, is_no_stream, is_packed, packed

if TYPE_CHECKING:
    from aiohttp import ClientResponse, StreamReader

    from trunkline_actors.adapters.raw_session import RawSession

_DRAIN_S = 0.1

FailureOf = Callable[[int | None, Mapping[str, str], bytes], Failure]
"""What an error answer means in a wire format. The status is 200 where a stream was asked for and JSON came."""


class RawHttp:
    """Requests to one `base_url`, with the same `headers` (the credential's included) on each. A `Transport`.

    `timeout` is in seconds, for each single wait on the network. `local`: private addresses may be called. `secrets`
    never appear in a message. `failure_of` reads error answers; by default as OpenAI's.

    Cheap to construct: aiohttp is imported, and its session made, at the first call. Proxy settings (`HTTPS_PROXY`, …)
    are honoured; what is behind a proxy is the proxy's to check.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        local: bool = False,
        secrets: tuple[str, ...] = (),
        failure_of: FailureOf | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers or {})
        self._timeout = timeout
        self._local = local
        self._secrets = secrets
        self._failure_of = failure_of or self._openai_failure
        self._made: RawSession | None = None
        self._making = asyncio.Lock()
        self._closed = False

    async def fetch(self, path: str, body: bytes | None, timeout: float, *, method: str | None = None) -> bytes:
        """The whole answer to a request: POST with a body, GET without, or as `method` says. Raises UpstreamError."""
        with self._translated():
            async with asyncio.timeout(timeout):
                response = await self._send(path, body, method, has_deadline=timeout <= self._timeout)
                try:
                    return await _read(response, BODY_LIMIT)
                except BaseException:
                    response.close()
                    raise

    def opened(
        self, path: str, body: bytes, deadline: float
    ) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """The answer piece by piece, as it arrives, up to `deadline` by the loop's clock. Raises UpstreamError.

        Leaving by an exception (a closed generator and a cancelled task included) cuts the call. Leaving without one
        waits a moment for the end of the answer, so that its connection is kept.
        """
        return _Opened(self._stream(path, body), deadline, self._error)

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        self._closed = True
        async with self._making:  # so that a session that is being made is closed too
            if self._made is not None:
                await self._made.close()

    async def _send(
        self, path: str, body: bytes | None, method: str | None = None, *, has_deadline: bool = False
    ) -> "ClientResponse":
        """The response, its headers read and its body not. Raises UpstreamError for an error status."""
        session = self._made if self._made is not None and not self._closed else await self._session()
        verb = method or ("GET" if body is None else "POST")
        response = await session.send(verb, path, body, has_deadline=has_deadline)
        noticed(response.headers)
        unreadable = is_packed(response.headers.get("content-encoding", ""))
        if response.status < 300:
            if unreadable:
                response.close()
                raise packed(response.status)
            return response
        try:
            said = b"" if unreadable else await _read(response, ERROR_LIMIT, cut=True)
        finally:
            response.close()
        raise UpstreamError(self._failure_of(response.status, response.headers, said))

    async def _stream(self, path: str, body: bytes) -> "ClientResponse":
        """The response to a request for a stream, if it is one."""
        response = await self._send(path, body)
        if not is_no_stream(response.headers.get("content-type", "")):
            return response
        try:
            said = await _read(response, ERROR_LIMIT, cut=True)
        finally:
            response.close()
        if b'"error"' in said:
            raise UpstreamError(self._failure_of(200, response.headers, said))
        raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)

    async def _session(self) -> "RawSession":
        async with self._making:
            made = self._made
            if made is None and not self._closed:
                made = await _make_session(self._base_url, self._headers, self._timeout, self._local)
                self._made = made
            if made is None or self._is_closed():
                raise _gone()
        return made

    def _is_closed(self) -> bool:
        return self._closed

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever aiohttp, Python or a deadline raise into UpstreamError, the cause kept."""
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> UpstreamError:
        if isinstance(error, UpstreamError):
            return error
        return _gone() if self._closed else UpstreamError(failure_of_error(error))

    def _openai_failure(self, status: int | None, headers: Mapping[str, str], body: bytes) -> Failure:
        return faults.from_answer(status, headers, body, now=time.time(), secrets=self._secrets)


class _Opened:
    """One stream: entered with the response's headers read, left with its connection kept or cut."""

    def __init__(
        self,
        asking: Coroutine[None, None, "ClientResponse"],
        deadline: float,
        translated: Callable[[Exception], UpstreamError],
    ) -> None:
        self._asking = asking
        self._deadline = deadline
        self._translated = translated
        self._response: ClientResponse | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> AsyncGenerator[bytes, None]:
        try:
            async with asyncio.timeout_at(self._deadline):
                self._response = await self._asking
        except UpstreamError:
            raise
        except Exception as error:
            raise self._translated(error) from error
        # One timer for the whole stream: a timeout around each wait would cost as much as reading the chunk does.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._deadline, self._response.content.set_exception, TimeoutError())
        return self._pieces(self._response.content)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        response = self._response
        if response is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        try:
            if kind is None and not response.content.is_eof():
                await _drain(response)
        finally:
            # Cuts the connection, unless the end of the answer was read: then it was given back by that.
            response.close()

    async def _pieces(self, content: "StreamReader") -> AsyncGenerator[bytes, None]:
        while True:
            # No translation may span the yield: it would catch what the consumer does meanwhile.
            try:
                piece = await content.readany()
            except Exception as error:
                raise self._translated(error) from error
            if not piece:
                return
            yield piece


def _gone() -> UpstreamError:
    return faults.upstream_error(FailureClass.CONNECTION, "the connection to this upstream was closed")


async def _make_session(base_url: str, headers: Mapping[str, str], timeout: float, local: bool) -> "RawSession":
    # aiohttp takes a quarter of a second to import, certificates some more: not on the loop.
    def load() -> "type[RawSession]":
        from trunkline_actors.adapters.raw_session import RawSession

        return RawSession

    kind = await asyncio.to_thread(load)
    return await kind.start(base_url, headers, timeout, local)


async def _drain(response: "ClientResponse") -> None:
    # The answer is complete already: what becomes of its connection is nobody's matter.
    with suppress(Exception):
        async with asyncio.timeout(_DRAIN_S):
            while await response.content.readany():
                pass


async def _read(response: "ClientResponse", limit: int, *, cut: bool = False) -> bytes:
    """The whole body, or with `cut` what there is of it up to the limit. Raises UpstreamError where it is longer."""
    content = response.content
    piece = await content.readany()
    if content.at_eof():
        return piece
    pieces, size = [], 0
    while piece:
        pieces.append(piece)
        if (size := size + len(piece)) > limit:
            if cut:
                break
            message = f"upstream sent more than {limit} bytes"
            raise faults.upstream_error(FailureClass.INTERNAL, message, response.status)
        piece = await content.readany()
    return b"".join(pieces)


def failure_of_error(error: Exception) -> Failure:
    """The one class that an error of aiohttp, of Python's or of a deadline belongs to."""
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    import aiohttp

    # Named by its type alone: its text may hold a URL with a key, a header or a piece of the body.
    cause = getattr(error, "os_error", error)  # a ClientConnectorError's, but for one about a certificate
    if isinstance(cause, AddressRefused):
        return REFUSED
    name = type(cause).__name__
    if isinstance(error, aiohttp.ClientPayloadError) and isinstance(
        error.__cause__, aiohttp.http_exceptions.ContentEncodingError
    ):
        # The bytes arrived and can't be unpacked: what upstream sends is broken, the way to it is not.
        return Failure(kind=FailureClass.INTERNAL, message="upstream sent a body that can't be decoded")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | aiohttp.RedirectClientError):
        return Failure(kind=FailureClass.INTERNAL, message=f"upstream call failed ({name})")
    # ClientResponseError here is HTTP that can't be parsed, or a proxy's refusal: statuses are read before.
    if isinstance(error, aiohttp.ClientError | OSError | EOFError):
        return Failure(kind=FailureClass.CONNECTION, message=f"connection to upstream failed ({name})")
    return Failure(kind=FailureClass.INTERNAL, message=f"upstream call failed ({name})")
