"""One request on a connection and its answer, as ASGI 3 has them."""

import asyncio
from collections.abc import Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trunkline.gateway.protocol import HttpConnection

Message = MutableMapping[str, Any]

LEFT = "trunkline.left"
"""The ASGI extension by which a handler is called when the client has gone, without a task that waits for it."""

STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}

_GONE: Message = {"type": "http.disconnect"}


class Exchange:
    """One request and its answer, as ASGI has them."""

    def __init__(self, connection: "HttpConnection", scope: Message, *, keeps: bool, continues: bool) -> None:
        self.connection = connection
        self.scope = scope
        self.keeps = keeps
        self._continues = continues
        self._body: list[bytes] = []
        self.waiting_bytes = 0
        self.complete = False
        self._given = False
        self.gone = False
        self._wakes: asyncio.Future[None] | None = None
        self._on_left: Callable[[], None] | None = None
        self._head: bytes | None = None
        self._chunked = False
        self._silent = False
        self.started = False
        self.ended = False
        self.task: asyncio.Task[None] | None = None

    # -- from the connection ---------------------------------------------------------------------------------------

    def arrived(self, data: bytes) -> None:
        """A part of the body."""
        if not self.ended:
            self._body.append(data)
            self.waiting_bytes += len(data)
            self._wake()

    def completed(self) -> None:
        """The body is whole."""
        self.complete = True
        self._wake()

    def left(self) -> None:
        """The client has gone."""
        self.gone = True
        self._wake()
        if self._on_left is not None and not self.ended:
            self._on_left()

    def over(self) -> None:
        """The application has done with it: it holds on to nothing that holds on to it, and goes at once."""
        self._on_left = None
        self.scope["extensions"].clear()

    def _wake(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)

    # -- for the application ---------------------------------------------------------------------------------------

    def when_left(self, then: Callable[[], None]) -> None:
        """Call this when the client goes, at once where it has gone."""
        self._on_left = then
        if self.gone:
            then()

    async def receive(self) -> Message:
        """ASGI: the body in the parts it came in, then that the client has gone."""
        while not self.gone:
            if self._body or (self.complete and not self._given):
                data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
                self._body.clear()
                self.waiting_bytes = 0
                self._given = self.complete
                self.connection.read_on()
                return {"type": "http.request", "body": data, "more_body": not self.complete}
            if self._continues and not self.started:
                self._continues = False
                self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._wakes = asyncio.get_running_loop().create_future()
            await self._wakes
            self._wakes = None
        return _GONE

    async def send(self, message: Message) -> None:
        """ASGI: the head of the answer and its parts. What a client is sent that has gone is dropped."""
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        data: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        if self._silent:
            data = b""
        elif self._chunked:
            data = (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + (b"" if more else b"0\r\n\r\n")
        if self._head is not None:
            data, self._head = self._head + data, None
        if data:
            self.connection.write(data)
        if not more:
            self.ended = True
            self.connection.answered(self)
        elif self.connection.paused:
            await self.connection.resumed()

    def _start(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.started = True
        connection = self.connection
        self._silent = self.scope["method"] == "HEAD" or status in (204, 304)
        # What we were not sent yet we don't wait for: the connection can't be used again.
        self.keeps = self.keeps and self.complete and not connection.server.draining
        lines = [name + b": " + value for name, value in fields]
        names = {name for name, _ in fields}
        if b"content-length" not in names and status not in (204, 304):
            if self.scope["http_version"] == "1.0":
                self.keeps = False
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked")
        if not self.keeps:
            lines.append(b"connection: close")
        elif self.scope["http_version"] == "1.0":
            lines.append(b"connection: keep-alive")
        block = b"\r\n".join(lines)
        if block.count(b"\r") + block.count(b"\n") != 2 * (len(lines) - 1):
            block = b"\r\n".join([line.translate(None, b"\r\n") for line in lines])
        first = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._head = first + connection.server.date + block + b"\r\n\r\n"
