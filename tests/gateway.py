"""A whole gateway in one process, on a real nats-server with a folder of its own. A pytest plugin.

`pytest_plugins = ["gateway"]` in a test module gives it these fixtures, each with those before it:

    server     a running EmbeddedServer, its store in the test's folder
    bus_url    its address
    connection a connection to it
    log        the log over that connection
    host       all roles, serving
    gw         a connected client, with the provider `scripted` and its models `echo` ($1.00 in, $4.00 out a million
               tokens), `tokens` (20 at once), `slow` (200 at 50 a second) and `fails` (unavailable)

Never import it yourself: pytest refuses a plugin that is imported already.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import ROLES, Host
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog

_MODELS = {"echo": "echo", "tokens": "tokens:20", "slow": "tokens:200@50", "fails": "fail:unavailable"}
_PRICES = {"echo": {"input": "1.00", "output": "4.00"}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server that lives as long as the test."""
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as running:
        yield running


@pytest.fixture
def bus_url(server: EmbeddedServer) -> str:
    """Where that server listens."""
    return server.url


@pytest.fixture
async def connection(bus_url: str) -> AsyncIterator[Connection]:
    """One connection to it."""
    opened = await Connection.open(bus_url, name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def log(connection: Connection) -> AsyncIterator[JetStreamLog]:
    """The log, open for appends."""
    opened = await JetStreamLog.open(connection)
    yield opened
    await opened.close()


@pytest.fixture
async def host(bus_url: str) -> AsyncIterator[Host]:
    """Every role, in this process."""
    serving = await Host.start(bus_url, ROLES)
    yield serving
    await serving.stop()


@pytest.fixture
async def gw(host: Host, bus_url: str) -> AsyncIterator[Gateway]:
    """A client of a gateway that has something to serve."""
    async with trunkline.connect(bus_url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        for name, upstream in _MODELS.items():
            await gateway.models.register(id=name, provider="scripted", upstream=upstream, price=_PRICES.get(name))
        yield gateway
