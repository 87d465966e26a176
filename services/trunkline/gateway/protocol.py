"""HTTP/1.1 on one connection: requests for an ASGI application, with bounds on what a client may hold up.

A client may be slow, rude or gone. It gets `read_s` seconds for a request's head and body, and as long again in which
to take nothing of its answer; no head over 64 KiB; and what is written waits until it was read.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from trunkline.gateway.asgi import LEFT, STATUS_LINES, Exchange, Message

if TYPE_CHECKING:
    from trunkline.gateway.server import HttpServer

LARGEST_HEAD = 64 * 1024
MOST_HEADERS = 200
WRITE_AHEAD = 64 * 1024
"""Bytes written that may wait to be sent; who writes more waits."""
READ_AHEAD = 256 * 1024
"""Bytes of a body that may wait to be read."""
IDLE_S = 75.0
LINGER_S = 2.0
"""Seconds that we read on after an answer that ends the connection, so that its client gets to see it."""


class HttpConnection(asyncio.Protocol):
    """A client's connection. Its requests are answered one after another, in the order they came."""

    def __init__(self, server: "HttpServer") -> None:
        self.server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._now: Exchange | None = None
        self._next: deque[Exchange] = deque()
        self._reading: Exchange | None = None
        self._reading_since: float | None = None
        self._idle_since = 0.0
        self._head_bytes = 0
        self._too_large = False
        self._stopped = False
        self._linger_until: float | None = None
        self._paused_since: float | None = None
        self._resumed: asyncio.Future[None] | None = None
        self._read_paused = False
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._continues = False

    # -- the transport ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD)
        self._peer = transport.get_extra_info("peername")
        self._reading_since = self._loop.time()
        self.server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return  # it is read so that our last words arrive, and not minded
        if self._reading_since is None and self._reading is None:
            self._reading_since = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._stop_reading()  # we know no other protocol, and answer in this one
            return
        except httptools.HttpParserError as error:
            self._refuse(*_reason(error, self._too_large))
            return
        if self._reading is None and self._reading_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD:
                self._refuse(431, _LARGE_HEAD)

    def eof_received(self) -> bool:
        return False  # who wants no more of us wants no answer either

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self._stopped = True
        self._wake_writer()
        exchanges = [one for one in (self._now, self._reading, *self._next) if one is not None]
        for exchange in dict.fromkeys(exchanges):
            exchange.left()
        self._next.clear()

    def pause_writing(self) -> None:
        self._paused_since = self._loop.time()

    def resume_writing(self) -> None:
        self._paused_since = None
        self._wake_writer()

    @property
    def paused(self) -> bool:
        """Whether more is written than the client has read."""
        return self._paused_since is not None

    async def resumed(self) -> None:
        """Wait until it has read enough, or has gone."""
        self._resumed = self._loop.create_future()
        await self._resumed

    def _wake_writer(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def write(self, data: bytes) -> None:
        """Send this."""
        self._transport.write(data)

    def read_on(self) -> None:
        """Somebody has read what had come; see whether there is more."""
        if self._read_paused and not self._next:
            self._read_paused = False
            self._transport.resume_reading()

    def _read_less(self) -> None:
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    # -- the parser ------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url, self._fields, self._continues, self._head_bytes = b"", [], False, 0
        if self._reading_since is None:
            self._reading_since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._continues = True
        self._fields.append((name, value))
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > LARGEST_HEAD or len(self._fields) > MOST_HEADERS:
            self._too_large = True
            raise ValueError(_LARGE_HEAD)

    def on_headers_complete(self) -> None:
        parser = self._parser
        path, _, query = self._url.partition(b"?")
        scope: Message = {
            "type": "http",
            "method": parser.get_method().decode("ascii"),
            "path": "",
            "raw_path": path,
            "query_string": query,
            "http_version": parser.get_http_version(),
            "headers": self._fields,
            "client": self._peer,
            "extensions": {},
        }
        exchange = Exchange(self, scope, keeps=parser.should_keep_alive(), continues=self._continues)
        scope["extensions"][LEFT] = exchange.when_left
        self._reading = exchange
        self._head_bytes = 0
        if self._now is None:
            self._begin(exchange)
        else:
            self._next.append(exchange)
            self._read_less()

    def on_body(self, data: bytes) -> None:
        exchange = self._reading
        if exchange is not None:
            exchange.arrived(data)
            if exchange.waiting_bytes > READ_AHEAD:
                self._read_less()

    def on_message_complete(self) -> None:
        self._reading_since = None
        exchange, self._reading = self._reading, None
        if exchange is not None:
            exchange.completed()

    # -- requests --------------------------------------------------------------------------------------------------

    def _begin(self, exchange: Exchange) -> None:
        self._now = exchange
        exchange.task = self._loop.create_task(self._run(exchange))

    async def _run(self, exchange: Exchange) -> None:
        try:
            await self.server.app(exchange.scope, exchange.receive, exchange.send)
        except Exception:  # noqa: BLE001 - the application has logged it; an answer that began can't be ended well
            self._transport.abort()
        else:
            if not exchange.ended and not exchange.gone:
                self._transport.abort()
        finally:
            exchange.over()

    def answered(self, exchange: Exchange) -> None:
        """The answer is written in full: to the next request, or to the end of the connection."""
        self._now = None
        if not exchange.keeps or self.server.draining:
            self._next.clear()
            self._end(read_all=exchange.complete)
            return
        self._idle_since = self._loop.time()
        if self._next:
            self._begin(self._next.popleft())
        self.read_on()

    def _end(self, *, read_all: bool) -> None:
        self._stopped = True
        if read_all or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()
        self._linger_until = self._loop.time() + LINGER_S
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    def _stop_reading(self) -> None:
        self._stopped = True
        if self._now is not None:
            self._now.keeps = False

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, or never becomes a whole one; then end."""
        if self._now is not None and (self._now.started or self._now is not self._reading):
            self._stop_reading()  # those before it are answered first
            return
        body = self.server.refusal(message)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.write(STATUS_LINES[status] + self.server.date + head + body)
        exchange, self._now, self._reading_since = self._now, None, None
        if exchange is not None:
            exchange.left()
        self._end(read_all=False)

    # -- the clock -------------------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Called about once a second: end what has taken too long."""
        limit = self.server.read_s
        if self._linger_until is not None:
            if now > self._linger_until:
                self._transport.abort()
        elif self._paused_since is not None and now - self._paused_since > limit:
            self._transport.abort()
        elif self._reading_since is not None and now - self._reading_since > limit:
            self._refuse(408, f"the request was not whole within {limit:g} s; send it faster, or less of it")
            self._reading_since = None
        elif self._now is None and self._reading_since is None and now - self._idle_since > IDLE_S:
            self._transport.close()

    def drain(self) -> None:
        """Take no more requests; go when what runs is answered."""
        if self._now is None and self._linger_until is None:
            self._transport.close()

    def cut(self) -> None:
        """Go now."""
        self._transport.abort()


_LARGE_HEAD = f"the headers have more than {LARGEST_HEAD:,} bytes, or are more than {MOST_HEADERS}; send less"


def _reason(error: Exception, too_large: bool) -> tuple[int, str]:
    if too_large:
        return 431, _LARGE_HEAD
    return 400, f"this is no HTTP/1.1 request ({error}); see RFC 9112"
