"""A server that stands still for five seconds: every append ends in time and is told how, and then all go on."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest
from logs import BOTH, Modes, Writers
from trunkline.embedded import EmbeddedServer
from trunkline_events.jetstream import APPEND_TIMEOUT

STILL = 5.0
MARGIN = 2.0
"""Seconds that two busy cores may add to a deadline."""

LONG = [pytest.mark.soak, pytest.mark.timeout(3600)]
RUNS = [
    pytest.param(BOTH, 1, id="both-1"),
    pytest.param((True, True), 50, marks=LONG, id="grouped-50"),
    pytest.param((False, False), 50, marks=LONG, id="single-50"),
]


async def stand_still(server: EmbeddedServer, writers: Writers) -> None:
    """SIGSTOP for STILL seconds, and until an append was given up, which is after APPEND_TIMEOUT."""
    assert server.pid is not None
    loop = asyncio.get_running_loop()
    began, before = loop.time(), len(writers.unanswered)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await writers.give_up(before + 1, within=APPEND_TIMEOUT + MARGIN)
        async with asyncio.timeout_at(began + STILL + MARGIN):
            while loop.time() < began + STILL:  # noqa: ASYNC110 - standing still is what is tested
                await asyncio.sleep(0.05)
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize(("group_commit", "times"), RUNS)
async def test_appends_to_a_server_that_stands_still_end_in_time_and_all_go_on_afterwards(
    tmp_path: Path, group_commit: Modes, times: int
) -> None:
    async with (
        EmbeddedServer(store=tmp_path, port=0, durability="always") as server,
        Writers(server.url, group_commit=group_commit) as writers,
    ):
        for _ in range(times):
            await writers.go_on()
            await stand_still(server, writers)
            await writers.go_on(2)
        assert writers.longest < APPEND_TIMEOUT + MARGIN
        assert all(re.search("no acknowledgement for w|does not answer", str(one)) for one in writers.unanswered)
        await writers.prove()
