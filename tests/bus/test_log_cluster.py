"""Three servers keep one log: whichever of them dies or stands still, nothing acknowledged is lost or told twice."""

import asyncio
import contextlib
import gc
import random
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
from cluster import Cluster, cluster_of_three
from logs import BOTH, Modes, Writers
from nats.js import api
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.subjects import STREAM

A_LOG_EACH = 25
"""Rounds after which a soak goes on with a new cluster, so that what the checker keeps doesn't grow without end."""

CURRENT_WITHIN = 60.0
"""Seconds until a server that was away has all of the log again."""

NO_LEADER = 40.0
"""Seconds that writers may go without an acknowledgement: an election takes 4 to 9, and now and then a second one."""

# A server that stands still takes connections and says nothing: nats-py gives up, and leaves them to be collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")

SUITE = ["pause", "leader", "other"]
MORE = ["leader", "leader", "other", "leader"] * 25
LONG = [pytest.mark.soak, pytest.mark.timeout(4 * 3600)]
RUNS = [
    pytest.param(BOTH, SUITE, id="3"),
    pytest.param(BOTH, ["pause", *MORE], marks=LONG, id="both-100"),
    pytest.param((True, True), ["pause", *MORE], marks=LONG, id="grouped-100"),
]


async def until_current(cluster: Cluster, writers: Writers) -> None:
    """Return when the log has a leader and both others have all of it, while it grows."""
    known: api.ClusterInfo | None = None
    began = asyncio.get_running_loop().time()
    while not (known and known.leader and [one.current for one in known.replicas or []] == [True, True]):
        assert asyncio.get_running_loop().time() < began + CURRENT_WITHIN, known
        await writers.store(1, within=NO_LEADER)
        known = await _asked(cluster) or known


async def _asked(cluster: Cluster) -> api.ClusterInfo | None:
    """How the copies of the log stand; None where whoever was asked did not say."""
    with contextlib.suppress(Unreachable, nats.errors.Error, nats.js.errors.Error, TimeoutError):
        connection = await Connection.open(cluster.url, name="probe", timeout=5)
        try:
            return (await connection.nats.jetstream(timeout=1).stream_info(STREAM)).cluster
        finally:
            await connection.close()
    return None


async def kill_one(cluster: Cluster, writers: Writers, name: str) -> None:
    """`kill -9`, on with the two others, and back."""
    cluster.kill(name)
    await writers.go_on(within=NO_LEADER)
    cluster.start(name)
    await until_current(cluster, writers)
    await writers.go_on(within=NO_LEADER)


async def spread(cluster: Cluster, writers: Writers, leader: str) -> None:
    """Return when not all writers are connected to this server: the others go on while it stands still."""
    first = writers.connections[0].nats
    async with asyncio.timeout(30):
        while {one.nats.connected_url.port for one in writers.connections} == {cluster.ports[leader]}:
            await first.force_reconnect()
            while not first.is_connected or first.connected_url is None:  # noqa: ASYNC110 - nats-py has no event for it
                await asyncio.sleep(0.05)


async def pause_leader(cluster: Cluster, writers: Writers, leader: str) -> None:
    """Stopped until another leads and has stored more: then it wakes up and believes for a moment that it leads."""
    await spread(cluster, writers, leader)
    others = [name for name in cluster.processes if name != leader]
    probe = await Connection.open(",".join(map(cluster.url_of, others)), name="probe", timeout=10)
    cluster.pause(leader)
    try:
        async with asyncio.timeout(NO_LEADER):
            while await cluster.leader(probe, STREAM) == leader:  # noqa: ASYNC110 - the others elect one
                await asyncio.sleep(0.1)
        await writers.store(100, within=NO_LEADER)
    finally:
        cluster.resume(leader)
        await probe.close()
    await writers.go_on(within=NO_LEADER)
    await until_current(cluster, writers)


@pytest.mark.parametrize(("group_commit", "rounds"), RUNS)
async def test_nothing_acknowledged_is_lost_or_told_twice_whichever_server_fails(
    tmp_path: Path, group_commit: Modes, rounds: list[str]
) -> None:
    draw = random.Random(len(rounds))
    for first in range(0, len(rounds), A_LOG_EACH):
        folder = tmp_path / str(first)
        folder.mkdir()
        async with (
            cluster_of_three(folder) as cluster,
            Writers(cluster.url, group_commit=group_commit, replicas=3) as writers,
        ):
            await writers.go_on(within=NO_LEADER)
            for what in rounds[first : first + A_LOG_EACH]:
                await writers.store(draw.randrange(1, 200), within=NO_LEADER)
                leader = await cluster.leader(writers.connections[0], STREAM)
                if what == "pause":
                    await pause_leader(cluster, writers, leader)
                elif what == "leader":
                    await kill_one(cluster, writers, leader)
                else:
                    others = [name for name in cluster.processes if name != leader]
                    await kill_one(cluster, writers, draw.choice(others))
            await writers.prove()
    gc.collect()
