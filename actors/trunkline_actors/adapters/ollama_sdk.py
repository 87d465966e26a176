"""Ollama over the `ollama` package: a `Transport` that hands each path to the package's own method for it.

The reference that the raw path is held against. Imported when the first call is made: pydantic and httpx are heavy.

The package's traps, and what is done about them: an image given as text is a file that it reads and sends, so images
are bytes here; it takes OLLAMA_API_KEY from the environment to whatever host, so the header is ours or absent; errors
of httpx and of JSON leak; its models drop the ids of calls, and of a tool's schema what lies deeper than one level.
"""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import httpcore
import httpx
import msgspec
import ollama
from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import faults
from trunkline_actors.adapters.guarded import Guarded
from trunkline_actors.adapters.json_lines import LineCutter
from trunkline_actors.adapters.ollama_wire import failure_of
from trunkline_actors.adapters.outbound import REFUSED, AddressRefused
from trunkline_actors.adapters.transport import BODY_LIMIT, ERROR_LIMIT, is_packed, packed, within

_CONNECT_S = 5.0
_DRAIN_S = 0.1
_UNKNOWN = {"/api/chat": ("truncate",)}
"""What the package has no argument for."""


class PackageTransport:
    """Requests to one Ollama, under one credential. A `Transport`, for the paths of Ollama's API and no others."""

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], timeout: float, local: bool, secrets: tuple[str, ...]
    ) -> None:
        self._secrets = secrets
        self._timeout = timeout
        self._closed = False
        self._client = ollama.AsyncClient(
            base_url,
            headers={"Accept-Encoding": "identity", **headers},
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_S)),
            follow_redirects=False,
            transport=_Connections(guarded=not local),
        )
        if "authorization" not in {name.lower() for name in headers}:
            self._client._client.headers.pop("authorization", None)  # noqa: SLF001 - that of the environment

    async def fetch(self, path: str, body: bytes | None, timeout: float, *, method: str | None = None) -> bytes:
        """The whole answer, as the package's model of it. Raises UpstreamError."""
        with self._translated():
            async with asyncio.timeout(timeout):
                answer = await self._method(path)(**_arguments(path, body))
                return _written(answer)

    @asynccontextmanager
    async def opened(self, path: str, body: bytes, deadline: float) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The parts of a stream, each as a line. Raises UpstreamError."""
        with self._translated():
            parts = await self._method(path)(**{**_arguments(path, body), "stream": True})
        async with aclosing(parts), aclosing(self._lines(parts, deadline)) as lines:
            yield lines
            # Whoever has read the last part does not wait for the end of the answer, which gives its connection back.
            with suppress(Exception):
                async with asyncio.timeout(_DRAIN_S):
                    async for _ in parts:
                        pass

    async def _lines(self, parts: Any, deadline: float) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        while True:
            with self._translated():
                # For each part, since empty lines end each single wait on the network and make none.
                async with asyncio.timeout_at(min(deadline, loop.time() + self._timeout)):
                    part = await anext(parts, None)
            if part is None:
                return
            yield _written(part) + b"\n"

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        self._closed = True
        await self._client.close()  # type: ignore[no-untyped-call]

    def _method(self, path: str) -> Callable[..., Any]:
        client = self._client
        methods: dict[str, Callable[..., Any]] = {
            "/api/chat": client.chat,
            "/api/embed": client.embed,
            "/api/tags": client.list,
            "/api/ps": client.ps,
            "/api/show": client.show,
            "/api/pull": client.pull,
            "/api/delete": client.delete,
        }
        return methods[path]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            if self._closed:
                raise faults.upstream_error(
                    FailureClass.CONNECTION, "the connection to this upstream was closed"
                ) from error
            raise UpstreamError(_failure(error, self._secrets)) from error


def _arguments(path: str, body: bytes | None) -> dict[str, Any]:
    given: dict[str, Any] = msgspec.json.decode(body) if body else {}
    for name in _UNKNOWN.get(path, ()):
        given.pop(name, None)
    for message in given.get("messages", ()):
        if "images" in message:
            message["images"] = [base64.b64decode(data, validate=True) for data in message["images"]]
    return given


def _written(answer: Any) -> bytes:
    written: str = answer.model_dump_json(by_alias=True, exclude_none=True)
    return written.encode()


class _Connections(httpx.AsyncHTTPTransport):
    """Connections only to addresses that may be called, and once more where a kept-alive one was dead."""

    def __init__(self, *, guarded: bool) -> None:
        super().__init__(limits=httpx.Limits(max_connections=None, max_keepalive_connections=100))
        if guarded:
            network: Any = Guarded(httpcore.AnyIOBackend(), httpcore.ConnectError)
            self._pool._network_backend = network  # noqa: SLF001 - there is no other way in

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fresh = False

        async def trace(event: str, _info: Mapping[str, Any]) -> None:
            nonlocal fresh
            fresh = fresh or event == "connection.connect_tcp.started"

        request.extensions["trace"] = trace
        try:
            return _bounded(await super().handle_async_request(request))
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if fresh:
                raise
        return _bounded(await super().handle_async_request(request))


def _bounded(response: httpx.Response) -> httpx.Response:
    """With a body that whoever reads it can read to its end. Raises UpstreamError for packed answers."""
    unreadable = is_packed(response.headers.pop("content-encoding", ""))
    assert isinstance(response.stream, httpx.AsyncByteStream)
    if response.status_code >= 300:
        response.stream = _Bounded(response.stream, 0 if unreadable else ERROR_LIMIT, response.status_code, cut=True)
    elif unreadable:
        raise packed(response.status_code)
    elif "ndjson" in response.headers.get("content-type", ""):
        response.stream = _Lines(response.stream)
    else:
        response.stream = _Bounded(response.stream, BODY_LIMIT, response.status_code, cut=False)
    return response


class _Bounded(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, limit: int, status: int, *, cut: bool) -> None:
        self._stream = stream
        self._pieces = within(stream, limit, status, cut=cut)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Lines(httpx.AsyncByteStream):
    """A stream of JSON lines as httpx and the package can read it, whose idea of a line is that of `str.splitlines`.

    They end lines at three characters more that may stand in a text, and fail on an empty one.
    """

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        cutter = LineCutter()
        async for piece in self._stream:
            lines = [line for line in cutter.feed(piece) if line.strip()]
            if lines:
                yield b"".join(_escaped(line) + b"\n" for line in lines)
        if left := cutter.finish().strip():
            yield _escaped(left)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _escaped(line: bytes) -> bytes:
    for character in ("\x85", "\u2028", "\u2029"):
        line = line.replace(character.encode(), b"\\u%04x" % ord(character))
    return line


def _failure(error: Exception, secrets: tuple[str, ...]) -> Failure:
    """The one class that an error of the package, of httpx or of Python's belongs to."""
    if isinstance(error, ollama.ResponseError):
        # Inside a stream its status is -1. The answer it was made of is behind it, with the headers it dropped.
        answer = getattr(error.__context__, "response", None)
        status = error.status_code if error.status_code > 0 else None
        body = msgspec.json.encode({"error": error.error})
        return failure_of(status, {} if answer is None else answer.headers, body, now=time.time(), secrets=secrets)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return Failure(kind=FailureClass.TIMEOUT, message="upstream did not answer in time")
    if isinstance(error, AddressRefused):
        return REFUSED
    # Named by its type alone: its text may hold a URL with a key, a header or a piece of the body.
    name = type(error).__name__
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL | ValueError):
        # JSON that is none, and what pydantic has no place for: upstream answered something else.
        return Failure(kind=FailureClass.INTERNAL, message=f"upstream call failed ({name})")
    if isinstance(error, httpx.TransportError | OSError | EOFError):
        return Failure(kind=FailureClass.CONNECTION, message=f"connection to upstream failed ({name})")
    return Failure(kind=FailureClass.INTERNAL, message=f"upstream call failed ({name})")
