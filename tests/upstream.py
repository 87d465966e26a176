"""An HTTP upstream that misbehaves on demand, over real sockets: what no mock of a client library would show."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple

from msgspec import Struct, field


class Request(NamedTuple):
    """What was asked: `connection` numbers the TCP connections from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Reply(Struct):
    """An answer. Its body goes out piece by piece, chunked; an error while it is made cuts the connection.

    After the body: `complete` ends it well, `cut` drops the connection, `stall` keeps silent until the client leaves.
    A `status` of 0 sends nothing at all, not even a head. `chunked` false: the pieces go out bare, without a length, as
    HTTP/1.0 servers send; then the end of the connection is the end of the body.
    """

    body: list[bytes] = []
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    after: Literal["complete", "cut", "stall"] = "complete"
    pieces: AsyncIterator[bytes] | None = None
    chunked: bool = True


SSE = {"content-type": "text/event-stream"}
HANG_UP = Reply(status=0, after="cut")
SILENCE = Reply(status=0, after="stall")


def answer(content: object, status: int = 200, **headers: str) -> Reply:
    """JSON, whole. `retry_after="1"` is the header `retry-after: 1`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(content).encode()], status, {"content-type": "application/json", **named})


def events(*payloads: object, done: bool = True, after: Literal["complete", "cut", "stall"] = "complete") -> Reply:
    """An event stream, one event per piece; a payload that is bytes goes out as it is."""
    pieces = [b"data: " + (p if isinstance(p, bytes) else json.dumps(p).encode()) + b"\n\n" for p in payloads]
    return Reply([*pieces, b"data: [DONE]\n\n"] if done else pieces, 200, SSE, after)


Handler = Callable[[Request], Awaitable[Reply]]


async def stop_accepting(server: asyncio.Server) -> None:
    """Close a server, but first let what it accepted just now have its task.

    asyncio forgets a connection that was accepted right before its server was closed: nobody would close it then.
    """
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening.fileno())
    for _ in range(4):
        await asyncio.sleep(0)
    server.close()


class Upstream:
    """The server: answers each request with the next of `replies` (the last for ever), or as `handler` says."""

    def __init__(self, *replies: Reply, handler: Handler | None = None) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.left = asyncio.Event()  # a client left an answer that was stalled or being sent
        self.asked = asyncio.Event()
        self.url = ""
        self._handler = handler or self._next
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Upstream"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            await stop_accepting(server)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next(self, _request: Request) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        number = self._connections
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.requests.append(request)
                self.asked.set()
                if not await self._answer(await self._handler(request), reader, writer):
                    break
        except ConnectionError:
            self.left.set()
        except asyncio.CancelledError:
            pass  # cancelled only when the server is closed: streams would log it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be kept."""
        if reply.status:
            head = {**reply.headers, **({"transfer-encoding": "chunked"} if reply.chunked else {"connection": "close"})}
            lines = [f"HTTP/1.1 {reply.status} Whatever", *(f"{name}: {value}" for name, value in head.items())]
            writer.write("\r\n".join([*lines, "\r\n"]).encode())
            try:
                async for piece in reply.pieces or _each(reply.body):
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked else piece)
                    await writer.drain()
            except RuntimeError:
                return False
        if reply.after == "complete" and not reply.chunked:
            writer.write_eof()
            await reader.read()
            return False
        if reply.after == "complete":
            writer.write(b"0\r\n\r\n")
        elif reply.after == "stall":
            with suppress(ConnectionError):
                await reader.read()
            self.left.set()
        return reply.after == "complete"


async def _each(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    method, path, _ = first.split()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body, connection)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
