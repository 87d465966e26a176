"""The HTTP edge of a process that starts while the log is away: it says so, and serves in full once the log is back."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import trunkline
from bare_nats import Nats
from processes import Role, running, until
from trunkline.cache import RegistryCache
from trunkline.host import ACTORS, GATEWAY

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


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
