"""The keeper among real processes: one leads, the dead are noticed, and who only paused is not taken for dead."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats.js.errors
import pytest
import trunkline
from audit import check_books, history, kinds, open_attempts
from nats.js.kv import KeyValue
from processes import Role, passed, running, until
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import Host
from trunkline_actors.keeper import LEASE_SECONDS, KeeperActor
from trunkline_events.subjects import LEASES_BUCKET
from trunkline_events.thread import Orphaned

NOISE = 1.5
"""Seconds that two busy cores may add."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as running_server:
        yield running_server


@pytest.fixture
async def host(server: EmbeddedServer) -> AsyncIterator[Host]:
    """Registry, router and keeper; the provider is the process that tests do things to."""
    serving = await Host.start(server.url, ("registry", "router", "keeper"))
    yield serving
    await serving.stop()


@pytest.fixture
async def provider(host: Host, server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[Role]:
    role = Role(server.url, tmp_path, "provider", "provider")
    async with running(role):
        yield role


@pytest.fixture
async def gw(provider: Role, server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        for name, script in (("echo", "echo"), ("paced", "tokens:100@40"), ("stall", "stall")):
            await gateway.models.register(
                id=name, provider="scripted", upstream=script, price={"input": "1.00", "output": "4.00"}
            )
        yield gateway


async def leader(bucket: KeyValue) -> str:
    """The process that leads; empty where none does."""
    try:
        return str((await bucket.get("keeper")).value.decode())
    except nats.js.errors.KeyNotFoundError:
        return ""


async def test_when_the_leading_keeper_is_killed_another_leads_within_two_seconds(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    keepers = [Role(server.url, tmp_path, f"keeper-{number}", "keeper") for number in (1, 2)]
    async with running(*keepers), trunkline.connect(server.url) as gateway:
        bucket = await gateway._connection.nats.jetstream().key_value(LEASES_BUCKET)
        for _ in range(2):
            first = await leader(bucket)
            leading = next(keeper for keeper in keepers if f"-{keeper.process.pid}-" in first)
            await leading.kill()
            killed = time.monotonic()
            async with asyncio.timeout(10):
                while await leader(bucket) in {"", first}:  # noqa: ASYNC110 - a lease runs out in silence
                    await asyncio.sleep(0.02)
            assert time.monotonic() - killed < 2 + NOISE
            await leading.start()


async def test_a_provider_that_paused_for_less_than_a_lease_is_not_orphaned(gw: Gateway, provider: Role) -> None:
    chunks = 0
    async with gw.chat.stream("paced", "hi", thread="t") as answer:
        async for chunk in answer:
            chunks += bool(chunk.text)  # silent ones come while nothing else does
            if chunks == 3 and chunk.text:
                provider.signal(signal.SIGSTOP)
                await passed(3.0)
                provider.signal(signal.SIGCONT)
    assert answer.receipt is not None
    assert (answer.receipt.finish, chunks) == ("stop", 100)
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_killed_provider_left_is_orphaned_and_its_caller_told(
    gw: Gateway, provider: Role, streamed: bool
) -> None:
    async def ask() -> None:
        if not streamed:
            await gw.chat.create("stall", "hi", thread="t", request_id="r", max_tokens=100)
        async with gw.chat.stream("paced", "hi", thread="t", request_id="r", max_tokens=100) as answer:
            async for _ in answer:
                begun.set()

    begun = asyncio.Event()
    asking = asyncio.create_task(ask())
    async for _ in gw.events("thread", id="t", since=0):
        break
    if streamed:
        await begun.wait()
    else:
        await passed(0.2)  # the decision is in the log; let it reach the provider
    await provider.kill()
    killed = time.monotonic()
    with pytest.raises(errors.Unavailable, match="was lost") as caught:
        await asking
    assert time.monotonic() - killed < LEASE_SECONDS + 2 + NOISE
    assert caught.value.retryable is False
    assert caught.value.request_id == "r"
    assert caught.value.metadata["settled"] == "thread.orphaned.v1"
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "orphaned"]
    orphaned = recorded[-1]
    assert isinstance(orphaned.body, Orphaned)
    assert caught.value.metadata["event"] == orphaned.sequence
    assert orphaned.body.provider == "scripted"
    assert orphaned.body.cost_nanos > 0
    check_books(recorded)
    books = await gw.threads.get(thread_id="t")
    assert (books["open"], books["reserved_usd"]) == ([], "0")
    with pytest.raises(errors.Conflict):  # the same id must not be run and billed again
        await gw.chat.create("echo", "hi", thread="t", request_id="r", route={"deadline_ms": 5000})


async def test_nobody_is_orphaned_for_a_broker_that_was_away(
    gw: Gateway, provider: Role, server: EmbeddedServer
) -> None:
    back = asyncio.Event()
    server.on_restart = back.set
    async with gw.chat.stream("paced", "hi", thread="t") as answer:
        await anext(answer)
        assert server._process is not None
        server._process.kill()
        await back.wait()
        with contextlib.suppress(errors.Disconnected):  # what was sent meanwhile is lost, unless it was buffered
            async for _ in answer:
                pass
    async with asyncio.timeout(10):
        while open_attempts(await history(gw, "t")):  # noqa: ASYNC110 - the log may be away a moment
            await asyncio.sleep(0.05)
    assert "orphaned" not in kinds(await history(gw, "t"))


async def test_a_keeper_leads_again_when_the_broker_was_started_anew(host: Host, server: EmbeddedServer) -> None:
    keeper = next(one.actor for one in host._others if isinstance(one.actor, KeeperActor))
    back = asyncio.Event()
    server.on_restart = back.set
    assert isinstance(keeper, KeeperActor)
    await until(lambda: keeper.leads)
    assert server._process is not None
    server._process.kill()
    await back.wait()
    await until(lambda: not keeper.leads, within=3)  # the lease was in the server's memory
    await until(lambda: keeper.leads, within=3 + NOISE)
