"""A process that stood still, or whose append went unanswered: what others did meanwhile counts, and costs once."""

import asyncio
import os
import signal
from typing import cast

import pytest
from audit import check_books, events, open_attempts
from embedded_kit import eventually
from messages import ask, calling, chat_body
from msgspec import structs
from nats.aio.client import Client
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import Host
from trunkline_actors import endings, runtime
from trunkline_actors.claims import scope_of
from trunkline_actors.courier import Courier
from trunkline_actors.inflight import Run
from trunkline_actors.ledger import end, has_ended
from trunkline_events import headers
from trunkline_events.envelope import NewEvent
from trunkline_events.log import Conflict
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import AttemptFailed, Ending, Orphaned, RequestRefused, RouteDecided

pytest_plugins = ["gateway"]


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


async def orphan(host: Host, decision: RouteDecided, aggregate: str) -> None:
    """End an attempt as a keeper does that takes its process for dead."""
    process = host.runtime
    attempt = endings.of_decision(aggregate, decision)
    await end(process.shell, process.ledger, attempt, endings.orphaned(attempt, 0.0), actor="keeper")


async def the_decision(gw: Gateway) -> tuple[RouteDecided, int]:
    [found] = [event for event in await events(gw) if isinstance(event.body, RouteDecided)]
    return cast("RouteDecided", found.body), found.sequence


@pytest.mark.parametrize("thread", [None, "t"])
async def test_a_provider_that_stood_still_does_not_end_again_what_a_keeper_ended(
    gw: Gateway, host: Host, nats: Client, thread: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the duplicate window has long passed: the ending is looked for in the log."""
    fields = {headers.THREAD: thread} if thread else {}
    async with calling(nats, chat_body("slow", stream=True), fields) as call:
        await call.next()
        decision, sequence = await the_decision(gw)
        aggregate = thread or NO_THREAD
        process = host.runtime
        assert not await has_ended(process.log, process.ledger, aggregate, decision.attempt_id, sequence)
        await orphan(host, decision, aggregate)
        assert await has_ended(process.log, process.ledger, aggregate, decision.attempt_id, sequence)
        monkeypatch.setattr(runtime, "STANDSTILL", -1.0)  # as after a standstill: every look is one too late
        await eventually(lambda: not process.open, within=10)
    endings_seen = [event.body for event in await events(gw) if isinstance(event.body, Ending)]
    assert [type(one) for one in endings_seen] == [Orphaned]


@pytest.mark.parametrize("thread", ["t", None])
async def test_a_decision_that_is_not_acknowledged_is_withdrawn_and_costs_nothing(
    gw: Gateway, host: Host, server: EmbeddedServer, nats: Client, thread: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker stores it while it is paused for us: nothing was sent, so nothing is billed as lost."""
    monkeypatch.setattr("trunkline_events.jetstream.APPEND_TIMEOUT", 0.5)
    await gw.chat.create("echo", "warm", thread="t")
    assert server.pid is not None
    async with calling(nats, chat_body("echo"), {headers.THREAD: thread} if thread else {}) as call:
        await nats.flush()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(0)
            paused = asyncio.get_running_loop().time()
            await eventually(lambda: asyncio.get_running_loop().time() - paused > 1.5)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        answer = await call.next(20)
    if headers.ERROR_CODE in answer.fields:
        assert answer.error["code"] == "unavailable"
    while open_attempts(await events(gw)):  # noqa: ASYNC110 - another process writes the log
        await asyncio.sleep(0.02)
    recorded = await events(gw)
    check_books(recorded)
    assert not [event for event in recorded if isinstance(event.body, Orphaned)]


@pytest.mark.parametrize("thread", ["t", NO_THREAD])
async def test_what_arrives_after_its_withdrawal_is_not_stored(gw: Gateway, host: Host, thread: str) -> None:
    """The log's answer to a read may overtake an append that was sent before it."""
    await gw.chat.create("echo", "warm", thread=None if thread == NO_THREAD else thread)
    decision, _ = await the_decision(gw)
    late = structs.replace(decision, request_id="r", attempt_id="r-1")
    process = host.runtime
    seen = await process.log.last("thread", thread)
    assert seen is not None
    run = Run(request_id="r", scope=None, thread=thread, listeners=[])
    await Courier(process).withdraw_uncertain(run, late)
    event = NewEvent(id="r-1/decided", category="thread", aggregate=thread, body=late, time=late.now, actor="test")
    if thread == NO_THREAD:
        assert (await process.log.append(event)).duplicate
    else:
        with pytest.raises(Conflict):
            await process.log.append(event, seen.sequence)
    recorded = await events(gw)
    check_books(recorded)
    assert [one.body.code for one in recorded if isinstance(one.body, RequestRefused)] == ["unavailable"]
    # Withdrawn again, it is withdrawn once.
    await Courier(process).withdraw_uncertain(run, late)
    assert len(await events(gw)) == len(recorded)


async def test_a_repeat_of_a_request_that_was_withdrawn_is_served(gw: Gateway, host: Host, nats: Client) -> None:
    run = Run(request_id="r", scope=scope_of("", "t", "r"), thread="t", listeners=[])
    await gw.chat.create("echo", "warm", thread="t")
    decision, _ = await the_decision(gw)
    withdrawn = structs.replace(decision, request_id="r", attempt_id=run.attempt_id(1))
    await Courier(host.runtime).withdraw_uncertain(run, withdrawn)
    answer = await ask(nats, chat_body("echo"), {headers.THREAD: "t", headers.REQUEST: "r"})
    assert headers.ERROR_CODE not in answer.fields
    check_books(await events(gw))


async def test_a_provider_process_that_fails_is_not_taken_for_one_that_never_began(
    gw: Gateway, host: Host, nats: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attempt may be settled: no other candidate is called, and the caller is told that it is unknown."""

    async def fall(*_: object) -> None:
        raise RuntimeError("the provider's own code is broken")

    monkeypatch.setattr("trunkline_actors.attempting.Attempting._record", fall)
    answer = await ask(nats, chat_body("echo", route={"fallbacks": ["tokens"]}))
    assert answer.error["code"] == "internal"
    decided = [event for event in await events(gw) if isinstance(event.body, RouteDecided)]
    assert len(decided) == 1
    assert not [event for event in await events(gw) if isinstance(event.body, AttemptFailed)]


async def test_a_pulse_is_told_in_parts_where_there_is_much_to_tell(
    gw: Gateway, host: Host, nats: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "PULSE_PART", 10)
    heard: list[int] = []

    async def listen(message: object) -> None:
        heard.append(len(message.data))  # type: ignore[attr-defined]

    subscription = await nats.subscribe("trunkline.pulse", cb=listen)
    await nats.flush()
    host.runtime.held.update(f"attempt-{number}" for number in range(95))
    await host.runtime.beat()
    await eventually(lambda: len(heard) >= 10)
    assert max(heard) < 2_000
    host.runtime.held.clear()
    await subscription.unsubscribe()


async def test_a_log_that_is_behind_takes_on_no_more_requests(gw: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline_actors.router.MAX_BACKLOG", -1)
    with pytest.raises(errors.Unavailable, match="behind"):
        await gw.chat.create("echo", "hello")
    assert not [event for event in await events(gw) if isinstance(event.body, RouteDecided)]
