"""A whole gateway with its HTTP edge, in one process, on a real nats-server. A pytest plugin.

`pytest_plugins = ["gateway", "edge_kit"]` in a test module gives it, beside the fixtures of `gateway`:

    edge      the served Edge, on a port of its own
    edge_url  its address, such as http://127.0.0.1:43210

Models are there once the fixture `gw` is used too.
"""

from collections.abc import AsyncIterator

import pytest
from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.server import bound, serving
from trunkline.host import Host


@pytest.fixture
async def edge(host: Host) -> AsyncIterator[Edge]:
    """The edge of that gateway's process."""
    served = Edge(host.runtime, Access(), ROUTES)
    with bound("127.0.0.1", 0) as sock:
        async with serving(served, sock, 5.0):
            yield served


@pytest.fixture
def edge_url(edge: Edge) -> str:
    """Where it listens."""
    return edge.url
