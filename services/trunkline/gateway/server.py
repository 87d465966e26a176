"""Serves the HTTP edge of one process, in the event loop that its actors use."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from trunkline.gateway.edge import Edge


class PortTaken(Exception):
    """Something else listens on this port. Choose another with --http-port; 0 takes a free one."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"port {port} of {host} is taken; choose another with --http-port, 0 for a free one")
        self.port = port


class Listening(Struct, frozen=True):
    """Where the edge listens."""

    url: str
    port: int


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortTaken(host, port) from error
    sock.listen(2048)
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def serving(edge: Edge, host: str, port: int, drain_s: float) -> AsyncIterator[Listening]:
    """Serve until the block is left; then take nothing new and let what runs end, for `drain_s` at most."""
    import uvicorn

    sock = listen(host, port)
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
        name = f"[{host}]" if ":" in host else host
        yield Listening(f"http://{name}:{sock.getsockname()[1]}", sock.getsockname()[1])
    finally:
        edge.draining = True
        server.should_exit = True
        await task
        sock.close()
