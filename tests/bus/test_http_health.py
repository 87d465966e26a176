"""The probes of the edge: does it live, can it serve, what does the gateway do without."""

import asyncio

import aiohttp
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.gateway.edge import Edge
from trunkline.host import Host

pytest_plugins = ["gateway", "edge_kit"]


async def test_all_is_well_where_the_log_answers_and_a_router_is_there(
    http: aiohttp.ClientSession, gw: Gateway, host: Host
) -> None:
    async with http.get("/livez") as live, http.get("/readyz") as ready, http.get("/health") as health:
        assert (live.status, ready.status, health.status) == (200, 200, 200)
        assert (await ready.json()) == {"status": "ok", "reasons": []}
        told = await health.json()
    assert told["status"] == "ok"
    assert told["position"] == host.position
    assert told["log"] == {"reachable": True, "end": await (await gw.log()).end()}
    assert [one["process"] for one in told["processes"]] == [host.runtime.name]
    assert "router" in told["processes"][0]["roles"]


async def test_a_process_that_drains_is_alive_and_not_ready(http: aiohttp.ClientSession, edge: Edge) -> None:
    edge.drains.set()
    async with http.get("/livez") as live, http.get("/readyz") as ready:
        assert (live.status, ready.status) == (200, 503)
        assert "stopping" in (await ready.json())["reasons"][0]


async def test_without_a_router_it_is_not_ready(bus_url: str) -> None:
    from trunkline.gateway.access import Access
    from trunkline.gateway.paths import ROUTES
    from trunkline.gateway.server import bound, serving

    host = await Host.start(bus_url, ["gateway"])
    try:
        with bound("127.0.0.1", 0) as sock:
            edge = Edge(host.runtime, Access(), ROUTES)
            async with serving(edge, sock, 1), aiohttp.ClientSession(base_url=edge.url) as http:
                async with http.get("/readyz") as ready:
                    assert ready.status == 503
                    assert "trunkline run router" in (await ready.json())["reasons"][0]
                router = await Host.start(bus_url, ["router"])
                async with http.get("/readyz") as ready:
                    assert ready.status == 200
                await router.stop()
    finally:
        await host.stop()


async def test_a_degraded_mode_is_shown_and_one_that_refuses_chats_makes_it_unready(
    http: aiohttp.ClientSession, host: Host
) -> None:
    host.runtime.degraded.enter("no-statistics", "none yet")
    await host.runtime.beat()
    async with http.get("/health") as health, http.get("/readyz") as ready:
        told = await health.json()
        assert (health.status, told["status"], ready.status) == (200, "degraded", 200)
        assert told["modes"]["no-statistics"]["processes"] == [host.runtime.name]
    host.runtime.degraded.enter("log-unreachable", "no leader")
    async with http.get("/readyz") as ready:
        assert ready.status == 503
        assert "log-unreachable" in (await ready.json())["reasons"][0]


async def test_a_bus_that_is_away_is_told_within_seconds(http: aiohttp.ClientSession, server: EmbeddedServer) -> None:
    await server.stop()
    async with asyncio.timeout(10):
        async with http.get("/livez") as live:
            assert live.status == 200
        async with http.get("/readyz") as ready:
            assert ready.status == 503
