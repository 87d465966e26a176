"""An engine on the gateway of the fixture `gw`. A pytest plugin; load `gateway` too. Never import it yourself."""

from collections.abc import AsyncIterator

import pytest
from trunkline.client import Gateway
from trunkline.workflows import Engine


@pytest.fixture
async def engine(gw: Gateway, bus_url: str) -> AsyncIterator[Engine]:
    """An open engine."""
    async with Engine(bus_url) as opened:
        yield opened
