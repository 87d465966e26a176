"""Fixtures that run the console script `trunkline`. A pytest plugin; for those of `trunkline`, load `gateway` too.

Never import it yourself: pytest refuses a plugin that is imported already. What can be imported is in `cli_kit`.
"""

from pathlib import Path

import pytest
from cli_kit import Done, Trunkline, ended
from trunkline.client import Gateway


@pytest.fixture
def alone(tmp_path: Path) -> Trunkline:
    """Runs `trunkline` where there is no gateway, unless it is told of one."""

    async def run(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
        return await ended(*arguments, stdin=stdin, cwd=tmp_path, **more)

    return run


@pytest.fixture
def trunkline(gw: Gateway, bus_url: str, alone: Trunkline) -> Trunkline:
    """Runs `trunkline` as a client of a running gateway."""

    async def run(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
        return await alone(*arguments, stdin=stdin, TRUNKLINE_NATS=bus_url, **more)

    return run
