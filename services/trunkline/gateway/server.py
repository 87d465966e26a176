"""Serves the HTTP edge of one process, in the event loop that its actors use."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from trunkline.gateway.edge import Edge


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
        raise PortTaken(host, port, os.strerror(error.errno or 0).lower()) from error
    sock.setblocking(False)
    return sock


def listening(sock: socket.socket) -> Listening:
    """Where a bound socket is reached."""
    host, port = sock.getsockname()[:2]
    return Listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", port)


@asynccontextmanager
async def serving(edge: Edge, sock: socket.socket, drain_s: float) -> AsyncIterator[Listening]:
    """Serve until the block is left; then take nothing new and let what runs end, for `drain_s` at most."""
    import uvicorn

    config = uvicorn.Config(
        edge,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([sock]))  # noqa: SLF001 - `serve` would take over the process's signals
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(0.005)
        if task.done():
            await task
        found = listening(sock)
        edge.url = found.url
        yield found
    finally:
        edge.draining = True
        server.should_exit = True
        await task
        sock.close()
