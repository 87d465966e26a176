"""Processes that stand still for ten seconds: nobody is ended while he lives, nothing is ended or billed twice."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from audit import check_books, events, history, kinds, open_attempts
from processes import Role, passed, running, until
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import Host
from trunkline_actors.keeper import LEASE_SECONDS
from trunkline_events.envelope import RecordedEvent
from trunkline_events.thread import Orphaned

# A broker that stands still takes connections and says nothing: nats-py gives up, and leaves them to be collected.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

STILL = 10.0
"""Seconds: two leases."""
NOISE = 1.5
"""Seconds that two busy cores may add."""
SCRIPTS = {"echo": "echo", "short": "tokens:100@40", "long": "tokens:600@40"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as running_server:
        yield running_server
    gc.collect()  # here, and not in whichever test comes next


@pytest.fixture
async def host(server: EmbeddedServer) -> AsyncIterator[Host]:
    """All but the provider, which is the process that tests do things to."""
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
        for name, script in SCRIPTS.items():
            await gateway.models.register(
                id=name, provider="scripted", upstream=script, price={"input": "1.00", "output": "4.00"}
            )
        yield gateway


class Caller:
    """One request, and how it went: `finish` of the receipt, or the error."""

    def __init__(self, gateway: Gateway, model: str, thread: str | None, *, streamed: bool) -> None:
        self._gateway = gateway
        self._model = model
        self._thread = thread
        self._streamed = streamed
        self.begun = asyncio.Event()
        self.answered = float("inf")
        self.chunks = 0
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> str:
        try:
            return await (self._stream() if self._streamed else self._plain())
        finally:
            self.answered = time.monotonic()

    async def _stream(self) -> str:
        async with self._gateway.chat.stream(self._model, "hi", thread=self._thread, max_tokens=700) as answer:
            async for chunk in answer:
                self.chunks += bool(chunk.text)  # silent ones come while nothing else does
                self.begun.set()
        assert answer.receipt is not None
        return answer.receipt.finish

    async def _plain(self) -> str:
        answer = await self._gateway.chat.create(self._model, "hi", thread=self._thread, max_tokens=700)
        return answer.receipt.finish


async def calling(gateway: Gateway) -> list[Caller]:
    """Callers of all sorts, when those that stream have begun to hear and the rest are decided."""
    callers = [
        Caller(gateway, model, thread and f"{thread}-{model}-{streamed}", streamed=streamed)
        for model in ("short", "long")
        for thread in ("t", None)
        for streamed in (True, False)
    ]
    await asyncio.gather(*(caller.begun.wait() for caller in callers if caller._streamed))
    await passed(0.3)
    return callers


async def settled(gateway: Gateway) -> list[RecordedEvent]:
    """The log, when nothing in it is open."""
    async with asyncio.timeout(30):
        while open_attempts(recorded := await events(gateway, "thread")):  # noqa: ASYNC110 - other processes write it
            await asyncio.sleep(0.05)
    return recorded


async def test_nobody_is_ended_while_the_broker_stands_still(
    gw: Gateway, provider: Role, server: EmbeddedServer
) -> None:
    """Streams that end meanwhile, and streams that don't, are answered in full once it goes on."""
    callers = await calling(gw)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    await passed(STILL)
    os.kill(server.pid, signal.SIGCONT)
    assert await asyncio.gather(*(caller.task for caller in callers)) == ["stop"] * len(callers)
    assert sorted(caller.chunks for caller in callers if caller._streamed) == [100, 100, 600, 600]
    recorded = await settled(gw)
    assert sorted(kinds(recorded)) == ["route-decided"] * len(callers) + ["usage-recorded"] * len(callers)
    check_books(recorded)


async def test_a_provider_that_stood_still_beside_its_broker_is_not_ended(
    gw: Gateway, provider: Role, server: EmbeddedServer
) -> None:
    """Nobody could have heard it: of two leases without a broker, and a second with one, the second counts."""
    caller = Caller(gw, "short", "t", streamed=True)
    await caller.begun.wait()
    assert server.pid is not None
    provider.signal(signal.SIGSTOP)
    os.kill(server.pid, signal.SIGSTOP)
    await passed(STILL)
    os.kill(server.pid, signal.SIGCONT)
    await passed(1.0)
    provider.signal(signal.SIGCONT)
    assert await caller.task == "stop"
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]


async def test_what_a_provider_had_that_stood_still_ends_once_and_is_billed_once(gw: Gateway, provider: Role) -> None:
    """It is taken for dead and its callers told; then it goes on with all of it, and with what came meanwhile."""
    callers = await calling(gw)
    provider.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    late = [Caller(gw, "short", thread, streamed=streamed) for thread in ("late", None) for streamed in (True, False)]
    answers = await asyncio.gather(*(caller.task for caller in [*callers, *late]), return_exceptions=True)
    assert max(caller.answered for caller in callers) - stopped < LEASE_SECONDS + 2 + NOISE
    assert {type(answer) for answer in answers} == {errors.Unavailable}
    recorded = await settled(gw)
    assert sorted(kinds(recorded)) == ["orphaned"] * len(answers) + ["route-decided"] * len(answers)
    await passed(max(0.0, stopped + STILL - time.monotonic()))
    provider.signal(signal.SIGCONT)
    # What it had it ends, each in its own time; what reached it too late it leaves alone.
    await until(lambda: provider.log.read_text().count("attempt.ended") == len(callers), within=25)
    assert (await gw.chat.create("echo", "hi", thread="after")).text == "hi"
    again = await events(gw, "thread")
    check_books(again)
    assert [event.sequence for event in again[: len(recorded)]] == [event.sequence for event in recorded]
    assert kinds(again[len(recorded) :]) == ["route-decided", "usage-recorded"]
    for event in recorded:
        if isinstance(event.body, Orphaned):
            assert event.body.cost_nanos > 0
    for thread in {event.aggregate for event in recorded} - {"-"}:
        books = await gw.threads.get(thread_id=thread)
        assert (books["open"], books["reserved_usd"]) == ([], "0")
