"""Kill processes of workflows and providers at any time: every run ends as if nobody had, and is paid for once."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trunkline
import workflow_flows as flows
from audit import check_books, history
from processes import Role, passed, running
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.workflow_engine import finished
from trunkline_events.subjects import WORKFLOWS
from trunkline_events.thread import Orphaned, UsageRecorded

RUNS = [pytest.param(16), pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
MODULE = Path(flows.__file__)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as started:
        yield started


@pytest.fixture
async def cast(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[dict[str, Role]]:
    calls = {"FLOWS_CALLS": str(tmp_path / "calls")}
    roles = {"core": Role(server.url, tmp_path, "core", "registry", "router", "keeper")}
    for number in (1, 2):
        roles[f"provider-{number}"] = Role(server.url, tmp_path, f"provider-{number}", "provider")
        name, imported = f"workflow-{number}", ("workflow", "--import", str(MODULE))
        roles[name] = Role(server.url, tmp_path, name, *imported, environ=calls)
    async with running(*roles.values()):
        yield roles


@pytest.fixture
async def gw(cast: dict[str, Role], server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        price = {"input": "1.00", "output": "4.00"}
        await gateway.models.register(id="echo", provider="scripted", upstream="echo", price=price)
        yield gateway


async def _begin(gw: Gateway, run: str) -> None:
    asked = {
        "definition": msgspec.to_builtins(flows.JOB.definition),
        "input": {"topic": f"topic {run}", "list": ["a", "b"]},
        "id": run,
        "thread": f"t-{run}",
    }
    while True:
        try:
            await gw.command(f"{WORKFLOWS}.start", asked, timeout=2)
            return
        except errors.Unavailable:  # whoever was asked was killed: the same id begins the same run once
            await passed(0.1)


@pytest.mark.parametrize("runs", RUNS)
async def test_every_run_ends_as_if_nobody_had_been_killed_and_each_step_is_billed_once(
    gw: Gateway, cast: dict[str, Role], runs: int
) -> None:
    draw = random.Random(runs)
    names = [f"run-{number}" for number in range(runs)]

    async def chaos() -> None:
        while True:
            await passed(draw.choice((0.05, 0.3, 1.0, 2.0)))
            await cast[f"{draw.choice(('workflow', 'provider'))}-{draw.choice((1, 2))}"].again()

    killing = asyncio.create_task(chaos())
    try:
        for name in names:
            await _begin(gw, name)
            await passed(draw.choice((0.0, 0.05)))
        async with asyncio.timeout(runs * 5):
            told = await asyncio.gather(*(finished(gw, name) for name in names))
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
    for name, one in zip(names, told, strict=True):
        why = (one["failed_step"], one["code"], one["message"], one["steps"])
        assert (one["status"], one["output"]) == ("completed", flows.expected(f"topic {name}")), why
        await _check_bill(gw, name)


async def _check_bill(gw: Gateway, run: str) -> None:
    """Each of its five chats was settled once; what a killed provider had is settled as that, beside it."""
    events = await history(gw, f"t-{run}")
    check_books(events)
    settled = Counter(event.body.request_id for event in events if isinstance(event.body, UsageRecorded))
    assert set(settled.values()) == {1}, settled
    steps = {request.rpartition("-")[0].rpartition("-")[0] for request in settled}
    orphaned = [event for event in events if isinstance(event.body, Orphaned)]
    assert len(steps) == 5, (settled, orphaned)


async def begin_waiting(gw: Gateway, count: int) -> None:
    """So many runs that go on when they are told to, which nobody does."""
    wait = {"name": "waits", "steps": [{"kind": "wait", "name": "w", "signal": "go"}]}
    for number in range(count):
        await gw.workflows.start(definition=wait, id=f"w-{number}")


async def test_a_run_is_taken_up_within_three_seconds_of_its_process_being_killed(
    gw: Gateway, cast: dict[str, Role]
) -> None:
    await begin_waiting(gw, 8)
    listed = (await gw.workflows.list(status="running"))["runs"]
    victim = Counter(one["by"] for one in listed).most_common(1)[0][0]
    (role,) = [role for name, role in cast.items() if name.startswith("workflow") and str(role.process.pid) in victim]
    await role.kill()
    async with asyncio.timeout(3):
        while any(one["by"] == victim for one in (await gw.workflows.list(status="running"))["runs"]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await role.start()


async def test_a_process_that_stood_still_takes_no_run_from_one_that_goes_on(
    gw: Gateway, cast: dict[str, Role]
) -> None:
    """What it has not heard of others meanwhile says nothing about them."""
    await begin_waiting(gw, 16)
    still = cast["workflow-2"]

    async def led_by_others() -> dict[str, str]:
        listed = (await gw.workflows.list(status="running"))["runs"]
        return {one["id"]: one["by"] for one in listed if f"-{still.process.pid}-" not in one["by"]}

    before = await led_by_others()
    assert before
    still.signal(signal.SIGSTOP)
    await passed(3)
    still.signal(signal.SIGCONT)
    await passed(1)
    after = await led_by_others()
    assert {run: after.get(run) for run in before} == before
