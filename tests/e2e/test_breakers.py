"""Four routers and two providers as processes, on a real upstream: one probe, and a circuit that outlives them all."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from audit import events, kinds
from processes import Role, running, until
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline_events.circuit import Opened, ProbeStarted
from trunkline_events.thread import RouteDecided
from upstream import Reply, Request, Upstream, answer

OPEN_SECONDS = 1.5
CROWD = 60
WELL = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "well"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class Patient:
    """An upstream that is down until it has healed, and takes its time then."""

    def __init__(self) -> None:
        self.healed = False
        self.may_answer = asyncio.Event()

    async def answers(self, _: Request) -> Reply:
        if not self.healed:
            return answer({"error": {"message": "down"}}, status=503)
        await self.may_answer.wait()
        return answer(WELL)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="always") as started:
        yield started


@pytest.fixture
async def cast(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[list[Role]]:
    """Four routers, two providers, and one process with the registry and the keeper."""
    roles = [Role(server.url, tmp_path, f"router-{n}", "router") for n in range(4)]
    roles += [Role(server.url, tmp_path, f"provider-{n}", "provider") for n in range(2)]
    roles.append(Role(server.url, tmp_path, "core", "registry", "keeper"))
    async with running(*roles):
        yield roles


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
async def upstream(patient: Patient) -> AsyncIterator[Upstream]:
    async with Upstream(handler=patient.answers).serving() as serving:
        yield serving


@pytest.fixture
async def gw(cast: list[Role], server: EmbeddedServer, upstream: Upstream) -> AsyncIterator[Gateway]:
    """A gateway whose model `m` is behind that upstream, with `spare` beside it."""
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(
            id="shaky",
            kind="openai-compatible",
            base_url=upstream.url,
            local=True,
            breaker_failures=5,
            breaker_open_s=OPEN_SECONDS,
        )
        await gateway.providers.register(id="spare", kind="scripted", local=True)
        await gateway.models.register(id="m", provider="shaky")
        await gateway.models.register(id="spare", provider="spare", upstream="say:spare")
        yield gateway


async def call(gateway: Gateway, **route: object) -> str:
    """What was answered, or the code of the error."""
    try:
        return (await gateway.chat.create("m", "hi", route={"attempts": 2, **route})).text
    except errors.TrunklineError as error:
        return error.code


async def trip(gateway: Gateway) -> Opened:
    """Open the circuit, and return how."""
    while True:
        await call(gateway, attempts=1)
        for event in await events(gateway, "circuit"):
            if isinstance(event.body, Opened):
                return event.body


async def until_closed(gateway: Gateway) -> None:
    """Return when calls flow again: that is written beside the answer."""
    async with asyncio.timeout(5):
        while (await gateway.circuits.get(provider="shaky"))["state"] != "closed":
            pass


async def test_of_a_crowd_at_many_routers_one_request_probes(gw: Gateway, upstream: Upstream, patient: Patient) -> None:
    opened = await trip(gw)
    assert opened.failures == len(upstream.requests) == 5
    assert set(await asyncio.gather(*(call(gw, fallbacks=["spare"]) for _ in range(20)))) == {"spare"}
    assert len(upstream.requests) == 5, "an open circuit is not called"
    patient.healed = True
    await until(lambda: time.time() >= opened.retry_at)
    crowd = [
        asyncio.create_task(call(gw, attempts=1, **({"fallbacks": ["spare"]} if number % 2 else {})))
        for number in range(CROWD)
    ]
    await until(lambda: sum(task.done() for task in crowd) == CROWD - 1)
    assert len(upstream.requests) == 6, "one real request probed"
    patient.may_answer.set()
    outcomes = await asyncio.gather(*crowd)
    assert outcomes.count("well") == 1
    assert set(outcomes) <= {"well", "spare", "unavailable", "no_route"}
    await until_closed(gw)
    assert kinds(await events(gw, "circuit"))[-2:] == ["probe-started", "closed"]
    decided = [event for event in await events(gw, "thread") if isinstance(event.body, RouteDecided)]
    assert len({event.actor for event in decided}) == 4, "all four routers were asked"
    assert set(await asyncio.gather(*(call(gw) for _ in range(20)))) == {"well"}


async def test_a_circuit_stays_open_when_every_process_is_killed(
    gw: Gateway, cast: list[Role], upstream: Upstream
) -> None:
    await gw.providers.update(id="shaky", breaker_open_s=60)
    await trip(gw)
    called = len(upstream.requests)
    await asyncio.gather(*(role.again() for role in cast))
    assert (await gw.circuits.get(provider="shaky"))["state"] == "open"
    assert set(await asyncio.gather(*(call(gw) for _ in range(20)))) == {"no_route"}
    assert len(upstream.requests) == called
    await gw.circuits.reset(provider="shaky")
    await call(gw, attempts=1)
    assert len(upstream.requests) == called + 1


async def test_a_probe_that_dies_with_its_process_is_followed_by_another(
    gw: Gateway, cast: list[Role], upstream: Upstream, patient: Patient
) -> None:
    await gw.providers.update(id="shaky", timeout_s=1)
    opened = await trip(gw)
    called = len(upstream.requests)
    patient.healed = True
    await until(lambda: time.time() >= opened.retry_at)
    probing = asyncio.create_task(call(gw, attempts=1))
    await until(lambda: len(upstream.requests) == called + 1)
    [first] = [event.body for event in await events(gw, "circuit") if isinstance(event.body, ProbeStarted)]
    await asyncio.gather(*(role.again() for role in cast if role.name.startswith("provider")))
    patient.may_answer.set()
    assert await call(gw) == "no_route", "its time is not over"
    await until(lambda: time.time() >= first.until)
    assert await call(gw) == "well"
    assert await probing != "well"
    await until_closed(gw)
