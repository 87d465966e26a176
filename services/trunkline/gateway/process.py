"""The edge of one process: what it stands on, and for how long it serves."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.server import Listening, serving
from trunkline.lifecycle import DRAIN_SECONDS
from trunkline.standby import Serving

log = structlog.get_logger()


@asynccontextmanager
async def http_edge(process: Serving, sock: socket.socket, drain_s: float = DRAIN_SECONDS) -> AsyncIterator[Listening]:
    """Serve HTTP on a bound socket with what `process` stands on; at the end let what runs end, `drain_s` at most."""
    edge = Edge(process.runtime, Access(lambda: process.runtime.door), ROUTES)
    process.on_take_up.append(edge.stand_on)
    async with serving(edge, sock, drain_s) as listening:
        log.info("edge.serving", url=listening.url)
        yield listening
    log.info("edge.stopped")
