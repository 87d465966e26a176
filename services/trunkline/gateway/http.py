"""One HTTP request and its answer, over ASGI: no framework between a request and the bus on the hot path."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from trunkline import errors
from trunkline.gateway.asgi import LEFT

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[str, str]

JSON = "application/json"
LARGEST_BODY = 8 * 1024 * 1024
"""Bytes of a request's body that are read at most, unless the settings say otherwise."""


class HttpRequest:
    """A request as a handler has it. `params` are the parts of its path that its route names."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, largest: int = LARGEST_BODY) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._largest = largest
        self._headers: dict[str, str] | None = None
        self._watch: asyncio.Future[None] | None = None
        self.params: dict[str, str] = {}
        self.started = False
        """Whether the answer's head is out, so that nothing else can be answered any more."""
        self.status = 0
        """Of the answer, once its head is out."""
        self.route: str | None = None
        """The template of its path, once that is found; `access` is who may."""
        self.access = ""
        self.traceparent: str | None = None
        """The trace that it is a part of, where traces are recorded here."""

    @property
    def method(self) -> str:
        """Upper case."""
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        """As the client sent it, still percent-encoded: two ids must not become one."""
        raw: bytes = self._scope.get("raw_path") or self._scope["path"].encode()
        return raw.partition(b"?")[0].decode("latin-1")

    @property
    def headers(self) -> Headers:
        """By lower-case name; of a header that came twice, the last."""
        if self._headers is None:
            pairs: Iterable[tuple[bytes, bytes]] = self._scope["headers"]
            self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
        return self._headers

    @property
    def client(self) -> str:
        """The address of whoever is connected to us; empty where that is not known."""
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    def query(self) -> dict[str, str]:
        """The query's fields; of one that came twice, the last."""
        found = parse_qs(self._scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        return {name: values[-1] for name, values in found.items()}

    async def body(self) -> bytes:
        """The whole body. Raises InvalidRequest (413) where it is too large, Disconnected where the client left."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._largest:
            raise self._too_large(int(declared))
        message = await self._receive()
        first = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body"):
            if len(first) > self._largest:
                raise self._too_large(len(first))
            return bytes(first)
        parts, size = [first], len(first)
        while message.get("more_body"):
            message = await self._receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._largest:
                raise self._too_large(size)
        if message["type"] == "http.disconnect":
            raise errors.disconnected(None)
        return b"".join(parts)

    def _too_large(self, size: int) -> errors.InvalidRequest:
        return errors.InvalidRequest(
            f"the body has {size:,} bytes, more than the {self._largest:,} that are taken here; send less",
            code="invalid_request",
            status=413,
        )

    def when_left(self, then: Callable[[], None]) -> None:
        """Call this when the client goes before it has its answer, at once where it has gone. Only after the body."""
        extension = self._scope.get("extensions", {}).get(LEFT)
        if extension is not None:
            extension(then)
            return
        self._watch = asyncio.ensure_future(self.left())
        self._watch.add_done_callback(lambda watch: None if watch.cancelled() else then())

    def close(self) -> None:
        """The handler has done with it."""
        if self._watch is not None:
            self._watch.cancel()

    async def left(self) -> None:
        """Return when the client has gone. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # -- the answer ------------------------------------------------------------------------------------------------

    async def reply(self, status: int, body: bytes, fields: Headers = {}, kind: str = JSON) -> None:  # noqa: B006
        """The whole answer."""
        await self.start(status, {"content-type": kind, "content-length": str(len(body)), **fields})
        await self._send({"type": "http.response.body", "body": body})

    async def json(self, value: object, status: int = 200, fields: Headers = {}) -> None:  # noqa: B006
        """The whole answer, as JSON."""
        await self.reply(status, msgspec.json.encode(value), fields)

    async def start(self, status: int, fields: Headers) -> None:
        """The head of an answer that follows in pieces."""
        self.started, self.status = True, status
        pairs = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def piece(self, data: bytes) -> None:
        """A piece of it; waits while the client reads more slowly than we write."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """The last piece."""
        await self._send({"type": "http.response.body", "body": data})


async def until_left(request: HttpRequest, work: Awaitable[None]) -> bool:
    """Do some work, unless the client goes away first, which cancels it; whether the work was done."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.left())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            return True
        return False
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def decoded(part: str) -> str:
    """A part of a path as text."""
    return unquote(part, errors="strict")
