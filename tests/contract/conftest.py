"""The implementations that each suite runs against."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from trunkline.embedded import EmbeddedServer
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Log
from trunkline_events.memory import MemoryLog


@pytest.fixture(params=["memory", "jetstream"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    if request.param == "memory":
        yield MemoryLog()
        return
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server:
        connection = await Connection.open(server.url, name="test")
        opened = await JetStreamLog.open(connection)
        yield opened
        await opened.close()
        await connection.close()
