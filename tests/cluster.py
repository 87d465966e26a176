"""Three real nats-servers as deploy/cluster.conf makes them, each of which can be killed, paused and started again."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import nats.js.errors
from trunkline.embedded_config import find_binary, pick_port
from trunkline_events.connection import Connection, Unreachable

CONFIG = Path(__file__).parents[1] / "deploy" / "cluster.conf"
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
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return ",".join(self.url_of(name) for name in NAMES)

    def url_of(self, name: str, user: str = "actor:a") -> str:
        return f"nats://{user}@127.0.0.1:{self.ports[name]}"

    def start(self, name: str) -> None:
        """Start one server, on the folder and ports it always has."""
        routes = ", ".join(f"nats-route://127.0.0.1:{port}" for port in self._cluster_ports.values())
        environment = {
            "TRUNKLINE_SERVER": name,
            "TRUNKLINE_STORE": str(self._folder / name),
            "TRUNKLINE_LISTEN": f"127.0.0.1:{self.ports[name]}",
            "TRUNKLINE_CLUSTER_LISTEN": f"127.0.0.1:{self._cluster_ports[name]}",
            "TRUNKLINE_ROUTES": f"[{routes}]",
            "TRUNKLINE_ACTOR_PASSWORD": "a",
            "TRUNKLINE_CLIENT_PASSWORD": "c",
            "TRUNKLINE_ADMIN_PASSWORD": "s",
        }
        with (self._folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [find_binary(), "-c", str(self._config)], env=os.environ | environment, stderr=output, stdout=output
            )

    def kill(self, name: str) -> None:
        """`kill -9`, and gone when this returns."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

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
                await js.delete_stream("PROBE")
                return True
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
                    if info.cluster and info.cluster.leader in self.processes:
                        return str(info.cluster.leader)
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes.values():
            process.wait()


@asynccontextmanager
async def cluster_of_three(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that is ready for streams with three copies."""
    cluster = Cluster(folder)
    try:
        for name in NAMES:
            cluster.start(name)
        await cluster.ready()
        yield cluster
    finally:
        cluster.stop()
