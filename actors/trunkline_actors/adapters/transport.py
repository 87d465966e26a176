"""How bytes get to an upstream and back: one protocol, one module for each way. What they mean is the adapter's."""

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters import faults

BODY_LIMIT = 256 * 1024 * 1024
"""Bytes of a whole answer, at most."""
ERROR_LIMIT = 1024 * 1024
"""Bytes that are read of an answer that is an error."""

_PACKINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})

STREAM_TYPES = ("text/event-stream", "application/x-ndjson")


def is_no_stream(content_type: str) -> bool:
    """Whether an answer to a request for a stream can't be one: a page or a JSON document. Types unheard of may be."""
    kind = content_type.lower()
    return not kind.startswith(STREAM_TYPES) and ("json" in kind or "html" in kind)


def is_packed(content_encoding: str) -> bool:
    """Whether a body would have to be unpacked. We never ask for one: a megabyte of it may hold a thousand."""
    return not _PACKINGS.isdisjoint(name.strip() for name in content_encoding.lower().split(","))


def packed(status: int) -> UpstreamError:
    """What a call comes to whose answer is packed."""
    return faults.upstream_error(FailureClass.INTERNAL, "upstream sent an encoding nobody asked for", status)


async def within(pieces: AsyncIterable[bytes], limit: int, status: int, *, cut: bool) -> AsyncGenerator[bytes, None]:
    """The pieces of a body up to so many bytes. What is longer is cut there, or UpstreamError is raised."""
    left = limit
    async for piece in pieces:
        if len(piece) > left:
            if not cut:
                raise faults.upstream_error(FailureClass.INTERNAL, f"upstream sent more than {limit} bytes", status)
            yield piece[:left]
            return
        left -= len(piece)
        yield piece


class Transport(Protocol):
    """Requests to one upstream, under one credential. One instance serves many calls at once.

    Paths follow the base URL. Whatever goes wrong is raised as UpstreamError: an error status with the class that the
    adapter's reading of its body gives, a connection that fails as `connection`, waiting too long as `timeout`.
    Redirects are refused, and nothing is tried again, but for one immediate retry of a kept-alive connection that was
    dead.
    """

    async def fetch(self, path: str, body: bytes | None, timeout: float, *, method: str | None = None) -> bytes:
        """The whole answer to a request: POST with a body, GET without, or as `method` says. `timeout` in seconds."""
        ...

    def opened(
        self, path: str, body: bytes, deadline: float
    ) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """The answer piece by piece, as it arrives, up to `deadline` by the loop's clock.

        Raises UpstreamError on entering where the answer is no stream (by its content type, see STREAM_TYPES), such as
        an HTML page or a JSON error under status 200. Leaving early cuts the call at once; after the end the connection
        is kept.
        """
        ...

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        ...
