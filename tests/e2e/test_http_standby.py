"""The HTTP edge of a process that starts while the log is away: it says so, and serves in full once the log is back."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import trunkline
from processes import Role, running, until
from trunkline.cache import RegistryCache
from trunkline.embedded.config import find_binary, pick_port
from trunkline.host import ACTORS, GATEWAY
from trunkline_events.connection import Connection, Unreachable

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


class Nats:
    """A nats-server on one port, with JetStream or without."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = str(pick_port("127.0.0.1"))
        self.url = f"nats://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *, jetstream: bool) -> None:
        self.stop()
        flags = ["-js", "-sd", str(self._folder / "store")] if jetstream else []
        with (self._folder / "nats.log").open("ab") as out:
            command = [str(find_binary()), "-a", "127.0.0.1", "-p", self._port, *flags]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        async with asyncio.timeout(20):
            while True:
                try:
                    connection = await Connection.open(self.url, name="probe", timeout=1)
                except Unreachable:
                    continue
                await connection.close()
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    server = Nats(tmp_path)
    yield server
    server.stop()


async def test_it_says_that_the_log_is_away_and_serves_once_it_is_back(nats: Nats, tmp_path: Path) -> None:
    environ = {"TRUNKLINE_DATA": str(tmp_path / "data"), "TRUNKLINE_HTTP_PORT": "0"}
    role = Role(nats.url, tmp_path, "all", *ACTORS, GATEWAY, environ=environ)

    def known() -> bool:
        cached = RegistryCache(tmp_path / "data").read()
        return cached is not None and "echo" in cached.state.registry.models

    await nats.start(jetstream=True)
    async with running(role), trunkline.connect(nats.url) as gateway:
        key = (await gateway.keys.issue(name="test"))["key"]
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        await gateway.models.register(id="echo", provider="scripted", upstream="echo")
        await until(known)
    await nats.start(jetstream=False)
    async with running(role):
        url = json.loads((tmp_path / "all.ready").read_text())["http"]
        async with aiohttp.ClientSession(base_url=url, headers={"authorization": f"Bearer {key}"}) as http:
            async with http.get("/livez") as live, http.get("/readyz") as ready, http.get("/health") as health:
                assert (live.status, ready.status, health.status) == (200, 503, 503)
                told = await health.json()
                assert list(told["modes"]) == ["registry-cached"]
                assert told["log"]["reachable"] is False
            async with http.post("/v1/chat/completions", json=CHAT) as refused:
                assert refused.status == 503, await refused.text()
                assert (await refused.json())["error"]["code"] == "unavailable"
            await nats.start(jetstream=True)
            async with asyncio.timeout(30):
                while True:
                    async with http.post("/v1/chat/completions", json=CHAT) as answer:
                        if answer.status == 200:
                            break
                        assert answer.status == 503
            async with http.get("/readyz") as ready:
                assert ready.status == 200
