"""The API while the log has no leader: what is known is told, and told to be old; what needs the log is refused."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
import trunkline
from api_kit import problems
from cluster import NAMES, cluster_of_three
from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.server import bound, serving
from trunkline.host import ROLES, Host


@pytest.mark.soak
async def test_reads_are_stale_and_the_log_is_unavailable_without_a_leader(tmp_path: Path) -> None:
    async with cluster_of_three(tmp_path) as cluster:
        host = await Host.start(cluster.url, ROLES, replicas=3)
        try:
            async with trunkline.connect(cluster.url) as gateway:
                await gateway.providers.register(id="scripted", kind="scripted", local=True)
                await gateway.models.register(id="echo", provider="scripted", upstream="echo")
            edge = Edge(host.runtime, Access(), ROUTES)
            with bound("127.0.0.1", 0) as sock:
                async with serving(edge, sock, 1.0), aiohttp.ClientSession(base_url=edge.url) as http:
                    for name in NAMES[:2]:
                        cluster.kill(name)
                    told = await _stale(http)
                    assert [one["id"] for one in told["models"]] == ["echo"]
                    assert problems("GET", "/api/models", 200, told) == []
                    async with http.get("/api/events") as answer:
                        assert answer.status == 503
                        assert (await answer.json())["error"]["code"] == "unavailable"
        finally:
            await host.stop()


async def _stale(http: aiohttp.ClientSession) -> dict[str, list[dict[str, str]]]:
    """A stale answer: a server that led answers for some seconds yet, until it notices that it is alone."""
    async with asyncio.timeout(40):
        while True:
            async with http.get("/api/models") as answer:
                told: dict[str, list[dict[str, str]]] = await answer.json()
                if told.get("stale"):
                    return told
            await asyncio.sleep(0.1)
