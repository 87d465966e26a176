"""A whole gateway with its HTTP edge, in one process, on a real nats-server. A pytest plugin.

`pytest_plugins = ["gateway", "edge_kit"]` in a test module gives it, beside the fixtures of `gateway`:

    edge_limits  what a request may take; a module may have a fixture of this name with others
    edge         the served Edge, on a port of its own
    edge_url     its address, such as http://127.0.0.1:43210
    http         an aiohttp session there, once the models of the fixture `gw` are registered

Never import this module yourself: pytest refuses a plugin that is imported already.
"""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from trunkline.client import Gateway
from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge, Limits
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.server import bound, serving
from trunkline.host import Host


@pytest.fixture
def edge_limits() -> Limits:
    """What a request may take."""
    return Limits()


@pytest.fixture
async def edge(host: Host, edge_limits: Limits) -> AsyncIterator[Edge]:
    """The edge of that gateway's process."""
    served = Edge(host.runtime, Access(), ROUTES, edge_limits)
    with bound("127.0.0.1", 0) as sock:
        async with serving(served, sock, 5.0):
            yield served


@pytest.fixture
def edge_url(edge: Edge) -> str:
    """Where it listens."""
    return edge.url


@pytest.fixture
async def http(edge_url: str, gw: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the edge."""
    async with aiohttp.ClientSession(base_url=edge_url) as session:
        yield session
