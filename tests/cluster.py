"""Three real nats-servers as deploy/nats/cluster.conf makes them: each can be killed, paused and started again."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import nats.js.errors
import trunkline
from deploy_kit import KEYS, NATS, PUBLIC
from processes import Role, running
from trunkline.client import Gateway
from trunkline.embedded.config import find_binary, pick_port
from trunkline.errors import TrunklineError
from trunkline.health.bus import bus_checks
from trunkline.health.check import Check
from trunkline.host import ACTORS
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.subjects import REQUESTS_BUCKET, SNAPSHOTS_BUCKET, STREAM

CONFIG = NATS / "cluster.conf"
NAMES = ("n1", "n2", "n3")
READY_SECONDS = 30


class Cluster:
    """A cluster of three on loopback. `url` names all its servers, as the user `actor`."""

    def __init__(self, folder: Path, config: Path = CONFIG) -> None:
        self._folder = folder
        self._config = config
        ports = iter({pick_port("127.0.0.1") for _ in range(24)})
        self.ports = {name: next(ports) for name in NAMES}
        self._cluster_ports = {name: next(ports) for name in NAMES}
        self._monitors = {name: next(ports) for name in NAMES}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return ",".join(self.url_of(name) for name in NAMES)

    def url_of(self, name: str) -> str:
        return f"nats://actor:{KEYS['TRUNKLINE_ACTOR_SEED']}@127.0.0.1:{self.ports[name]}"

    def environment(self, name: str, store: str) -> dict[str, str]:
        """What deploy/nats/cluster.conf takes from the environment of one server."""
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in self._cluster_ports.values())
        return {
            "TRUNKLINE_SERVER": name,
            "TRUNKLINE_STORE": store,
            "TRUNKLINE_LISTEN": f"127.0.0.1:{self.ports[name]}",
            "TRUNKLINE_CLUSTER_LISTEN": f"127.0.0.1:{self._cluster_ports[name]}",
            "TRUNKLINE_ROUTES": f"[{routes}]",
            "TRUNKLINE_MONITOR": f"127.0.0.1:{self._monitors[name]}",
            **PUBLIC,
        }

    def start(self, name: str) -> None:
        """Start one server, on the folder and ports it always has."""
        environment = self.environment(name, str(self._folder / name))
        with (self._folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [find_binary(), "-c", str(self._config)], env=os.environ | environment, stderr=output, stdout=output
            )

    def kill(self, name: str) -> None:
        """`kill -9`, and gone when this returns."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def runs(self, name: str) -> bool:
        return name in self.processes

    def pause(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGCONT)

    async def ready(self) -> None:
        """Return when JetStream answers with three peers: streams with three copies can be made."""
        async with asyncio.timeout(READY_SECONDS):
            while not await self._has_three_peers():  # noqa: ASYNC110 - other processes make it so
                await asyncio.sleep(0.1)

    async def _has_three_peers(self) -> bool:
        trouble = (Unreachable, nats.errors.Error, nats.js.errors.Error, TimeoutError)
        with contextlib.suppress(*trouble):
            connection = await Connection.open(self.url, name="probe", timeout=1)
            try:
                js = connection.nats.jetstream(timeout=1)
                await js.add_stream(name="PROBE", subjects=["trunkline.probe"], num_replicas=3)
                return True  # it stays: nobody may delete a stream here
            finally:
                await connection.close()
        return False

    async def leader(self, connection: Connection, stream: str) -> str:
        """The server that leads this stream now; waits until there is one."""
        js = connection.nats.jetstream(timeout=1)
        async with asyncio.timeout(READY_SECONDS):
            while True:
                with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, TimeoutError):
                    info = await js.stream_info(stream)
                    if info.cluster and info.cluster.leader and self.runs(info.cluster.leader):
                        return str(info.cluster.leader)
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes.values():
            process.wait()


@asynccontextmanager
async def cluster_of_three(folder: Path, kit: type[Cluster] = Cluster) -> AsyncIterator[Cluster]:
    """A cluster that is ready for streams with three copies."""
    cluster = kit(folder)
    try:
        for name in NAMES:
            cluster.start(name)
        await cluster.ready()
        yield cluster
    finally:
        cluster.stop()


# -- what a gateway on such a cluster must do, however its servers are run ---------------------------------------------


async def doctor(cluster: Cluster, *, until: Callable[[dict[str, Check]], bool]) -> dict[str, Check]:
    """What the doctor finds, once it finds that."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            found = {check.name: check for check in await bus_checks(cluster.url)}
            if until(found):
                return found
            await asyncio.sleep(0.1)


async def chats(gateway: Gateway, words: str) -> None:
    """One chat, asked again until it is answered: without a leader there are no acknowledgements for some seconds."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            with contextlib.suppress(TrunklineError):
                assert (await gateway.chat.create("echo", words)).text == words
                return


async def check_that_a_gateway_outlives_any_server(cluster: Cluster, folder: Path) -> None:
    """`TRUNKLINE_REPLICAS=3 trunkline run` on a whole cluster, without a follower, and without the leader."""
    roles = Role(cluster.url, folder, "all", *ACTORS, environ={"TRUNKLINE_REPLICAS": "3"})
    connection = await Connection.open(cluster.url, name="test")
    try:
        async with running(roles), trunkline.connect(cluster.url) as gateway:
            await gateway.providers.register(id="scripted", kind="scripted", local=True)
            await gateway.models.register(id="echo", provider="scripted", upstream="echo")
            await chats(gateway, "whole")
            streams = await connection.nats.jetstream().streams_info()
            kept = {one.config.name: one.config.num_replicas for one in streams if one.config.storage == "file"}
            assert set(kept) >= {STREAM, f"KV_{REQUESTS_BUCKET}", f"KV_{SNAPSHOTS_BUCKET}"}
            assert set(kept.values()) == {3}
            found = await doctor(cluster, until=lambda found: found["copies"].state == "ok")
            assert "3 copies of every event" in found["copies"].found
            assert {found[name].state for name in ("durability", "disk", "permissions", "log", "actors")} == {"ok"}

            leader = await cluster.leader(connection, STREAM)
            for victim, words in ((next(name for name in NAMES if name != leader), "a follower"), (leader, "a leader")):
                cluster.kill(victim)
                await chats(gateway, f"without {words}")
                found = await doctor(cluster, until=lambda found: "copies" in found)
                assert found["copies"].state == "problem"
                assert f"{victim} does not answer" in found["copies"].found
                assert found["durability"].state == "ok"
                cluster.start(victim)
                await doctor(cluster, until=lambda found: "copies" in found and found["copies"].state == "ok")
            await chats(gateway, "whole again")
            log = await gateway.log()
            ended = [event async for event in log.read() if event.type == "thread.usage-recorded.v1"]
            assert len({event.id for event in ended}) == len(ended) >= 4
    finally:
        await connection.close()
