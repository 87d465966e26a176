"""Each test of a log runs on every implementation, and on JetStream with every way of appending."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from logs import EagerPace
from trunkline.embedded import EmbeddedServer
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Log
from trunkline_events.memory import MemoryLog


@pytest.fixture(params=["memory", "jetstream", "jetstream, one by one", "jetstream, always in batches"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    if request.param == "memory":
        yield MemoryLog()
        return
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server:
        connection = await Connection.open(server.url, name="test")
        opened = await JetStreamLog.open(connection, group_commit="one by one" not in request.param)
        if "batches" in request.param:
            opened._writer.pace = EagerPace()
        yield opened
        await opened.close()
        await connection.close()
