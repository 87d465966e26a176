"""A whole gateway that has to do with less: while the log has no leader, and under an override."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trunkline
from cluster import NAMES, Cluster, cluster_of_three
from processes import until
from trunkline.client import Gateway
from trunkline.errors import TrunklineError, Unavailable
from trunkline.health.bus import bus_checks
from trunkline.health.check import Check
from trunkline.host import ROLES, Host
from trunkline_actors.degraded import NO_STATISTICS
from trunkline_events.envelope import RecordedEvent
from trunkline_events.gateway import GatewayFact
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import STREAM

pytest_plugins = ["gateway"]


async def told(gateway: Gateway) -> list[RecordedEvent]:
    """The events of the gateway itself."""
    log = await gateway.log()
    return [event async for event in log.read() if event.category == "gateway"]


def short(events: list[RecordedEvent]) -> list[tuple[str, str]]:
    return [(event.type.split(".")[1], cast("GatewayFact", event.body).mode) for event in events]


async def doctored(url: str, until: Callable[[dict[str, Check]], bool]) -> dict[str, Check]:
    """What the doctor finds, once it finds that."""
    async with asyncio.timeout(40):
        while True:
            found = {check.name: check for check in await bus_checks(url)}
            if until(found):
                return found


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of_three(tmp_path) as three:
        yield three


@pytest.fixture
async def widespread(cluster: Cluster) -> AsyncIterator[Host]:
    """Every role, on the cluster."""
    serving = await Host.start(cluster.url, ROLES, replicas=3)
    yield serving
    await serving.stop()


async def test_without_a_leader_reads_are_answered_chats_refused_and_all_is_told_afterwards(
    cluster: Cluster, widespread: Host
) -> None:
    """Two servers of three are gone, and with them every leader; the third still carries messages."""
    host = widespread
    async with trunkline.connect(cluster.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        await gateway.models.register(id="echo", provider="scripted", upstream="echo")
        await _chats(gateway)
        position = (await gateway.models.get(id="echo"))["seq"]
        await until(lambda: not host.runtime.held)  # what the router has yet to hear would be lost with a server

        gone = NAMES[:2]
        for name in gone:
            cluster.kill(name)
        with pytest.raises(TrunklineError) as refused:
            await gateway.chat.create("echo", "hello")
        assert isinstance(refused.value, Unavailable), "and never 401"
        for read in (
            lambda: gateway.models.get(id="echo"),
            lambda: gateway.models.list(),
            lambda: gateway.providers.get(id="scripted"),
        ):
            assert (await _stale(read))["seq"] == position
        await _stale(lambda: gateway.circuits.get(provider="scripted"))
        assert "log-unreachable" in host.runtime.degraded.since
        found = await doctored(cluster.url, lambda found: "log-unreachable" in found)
        assert found["log-unreachable"].state == "problem"
        assert host.runtime.name in found["log-unreachable"].found

        for name in gone:
            cluster.start(name)
        await cluster.leader(host.runtime.connection, STREAM)
        await _chats(gateway)
        events = await _told(gateway, 2)
        assert short(events)[:2] == [("degraded", "log-unreachable"), ("recovered", "log-unreachable")]
        assert {event.aggregate for event in events} == {host.runtime.name}
        began, ended = cast("Any", events[0].body), cast("Any", events[1].body)
        assert began.since == ended.since < ended.until <= events[1].time
        assert "stale" not in await gateway.models.get(id="echo")


async def _told(gateway: Gateway, count: int) -> list[RecordedEvent]:
    """So many events of degraded modes, once they are there: servers that came back need a while to lead."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(TrunklineError, LogUnavailable):
                events = await told(gateway)
                if len(events) >= count:
                    return events
            await asyncio.sleep(0.1)


async def _chats(gateway: Gateway) -> None:
    async with asyncio.timeout(40):
        while True:
            try:
                assert (await gateway.chat.create("echo", "hello")).text == "hello"
            except TrunklineError:
                await asyncio.sleep(0.1)
            else:
                return


async def _stale(read: Callable[[], Any]) -> dict[str, Any]:
    """A stale answer: a server that led answers for some seconds yet, until it notices that it is alone."""
    async with asyncio.timeout(40):
        while True:
            with contextlib.suppress(TrunklineError):
                answer = cast("dict[str, Any]", await read())
                if answer.get("stale"):
                    return answer
            await asyncio.sleep(0.1)


async def test_an_override_of_one_process_is_told_to_all(bus_url: str) -> None:
    host = await Host.start(bus_url, ROLES, forced="tokens")
    async with trunkline.connect(bus_url) as gateway:
        assert host.runtime.forced == "tokens"
        async with asyncio.timeout(10):
            while not await told(gateway):  # noqa: ASYNC110 - a task of the host appends it
                await asyncio.sleep(0.02)
        assert short(await told(gateway)) == [("degraded", "routing-override")]
        found = {check.name: check for check in await bus_checks(bus_url)}
        assert found["routing-override"].state == "problem"
        await host.stop()
        assert short(await told(gateway)) == [("degraded", "routing-override"), ("recovered", "routing-override")]


async def test_a_process_without_routers_is_under_no_override(bus_url: str) -> None:
    host = await Host.start(bus_url, ("registry", "keeper"), forced="tokens")
    assert host.runtime.degraded.since == {}
    await host.stop()


async def test_missing_statistics_are_told_once_each_way(gw: Gateway, host: Host) -> None:
    modes = host.runtime.degraded
    for _ in range(20):
        modes.enter(NO_STATISTICS, "of latency")
    assert list(modes.since) == [NO_STATISTICS]
    for _ in range(20):
        modes.leave(NO_STATISTICS)
    async with asyncio.timeout(20):
        while modes.since:  # noqa: ASYNC110 - it ends by itself
            await asyncio.sleep(0.05)
        while len(await told(gw)) < 2:  # noqa: ASYNC110 - a task of the host appends them
            await asyncio.sleep(0.05)
    assert short(await told(gw)) == [("degraded", NO_STATISTICS), ("recovered", NO_STATISTICS)]


async def test_a_gateway_that_lacks_nothing_says_nothing(gw: Gateway, bus_url: str) -> None:
    assert (await gw.chat.create("echo", "hello")).text == "hello"
    assert "stale" not in await gw.models.get(id="echo")
    found = {check.name: check for check in await bus_checks(bus_url)}
    assert found["modes"].state == "ok"
    assert await told(gw) == []
