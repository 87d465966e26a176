"""Serves the HTTP edge of one process, in the event loop that its actors use."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

from msgspec import Struct

from trunkline import errors
from trunkline.gateway import dialects
from trunkline.gateway.edge import Edge
from trunkline.gateway.protocol import HttpConnection

LOOK_EVERY = 1.0
BACKLOG = 2048
LAST_WORDS_S = 2.0
"""Seconds that requests may take, once their connection is cut, to abort what they began."""


class PortTaken(Exception):
    """This port can't be had, mostly since something else listens there. Choose another with --http-port."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            f"port {port} of {host} can't be had for HTTP ({reason}); choose another with --http-port, "
            "0 takes a free one"
        )
        self.port = port


class Listening(Struct, frozen=True):
    """Where the edge listens."""

    url: str
    port: int


def bound(host: str, port: int) -> socket.socket:
    """A socket that will listen here; 0 takes a free port. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortTaken(host, port, (error.strerror or str(error)).lower()) from error
    sock.setblocking(False)
    return sock


def listening(sock: socket.socket) -> Listening:
    """Where a bound socket is reached."""
    host, port = sock.getsockname()[:2]
    return Listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", port)


class HttpServer:
    """The connections of one edge."""

    def __init__(self, app: Edge) -> None:
        self.app = app
        self.connections: set[HttpConnection] = set()
        self.read_s = app.limits.read_s
        self.draining = False
        self.date = _date()
        """The header, for all answers of a second."""
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, sock: socket.socket) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        _allow_many_connections()
        self._server = await loop.create_server(lambda: HttpConnection(self), sock=sock, backlog=BACKLOG)
        self._look()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self.date = _date()
        now = loop.time()
        for connection in list(self.connections):
            connection.look(now)
        self._timer = loop.call_later(LOOK_EVERY, self._look)

    def refusal(self, message: str) -> bytes:
        """What is said to who sends no request that could be handled."""
        return dialects.body_of(errors.InvalidRequest(message, code="invalid_request", status=400), "openai")

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more; let what runs end, for `drain_s` seconds at most; then cut what is left."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drain()
        if not await self._none_left(drain_s):
            for connection in list(self.connections):
                connection.cut()
            await self._none_left(LAST_WORDS_S)
        if self._timer is not None:
            self._timer.cancel()

    async def _none_left(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections or self.app.in_flight:  # noqa: ASYNC110 - it is the last thing we do
                    await asyncio.sleep(0.01)
        return not self.connections and not self.app.in_flight


def _date() -> bytes:
    return f"date: {formatdate(usegmt=True)}\r\n".encode()


def _allow_many_connections() -> None:
    """Each takes a file descriptor, of which shells give a process only 1,024 unless it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def serving(edge: Edge, sock: socket.socket, drain_s: float) -> AsyncIterator[Listening]:
    """Serve until the block is left; then take nothing new and let what runs end, for `drain_s` at most."""
    edge.server = server = HttpServer(edge)
    found = listening(sock)
    edge.url = found.url
    await edge.start()
    await server.start(sock)
    try:
        yield found
    finally:
        edge.drains.set()
        await server.stop(drain_s)
        await edge.stop()
