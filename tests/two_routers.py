"""Two routers as processes that can be killed, and one with everything else. A pytest plugin.

`pytest_plugins = ["two_routers"]` in a test module gives it `server` and `cast`: the roles `first` and `second`, which
are routers, and `core`. Never import it yourself: pytest refuses a plugin that is imported already.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from processes import Role, running
from trunkline.embedded import EmbeddedServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server that lives as long as the test."""
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as started:
        yield started


@pytest.fixture
async def cast(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[dict[str, Role]]:
    """The processes, by name."""
    roles = {name: Role(server.url, tmp_path, name, "router") for name in ("first", "second")}
    roles["core"] = Role(server.url, tmp_path, "core", "registry", "provider", "keeper")
    async with running(*roles.values()):
        yield roles
