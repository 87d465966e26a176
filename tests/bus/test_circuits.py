"""Circuit breakers on the bus: shared by all processes, shown, reset by hand, and no harm where the log is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from audit import events, kinds
from processes import until
from structlog.testing import capture_logs
from trunkline import errors
from trunkline.client import Gateway
from trunkline.health.bus import bus_checks
from trunkline.host import Host
from trunkline_actors.adapters.scripted import Scripted
from trunkline_events.circuit import Reset
from trunkline_events.envelope import NewEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Appended, LogUnavailable
from trunkline_projections.circuits import CLOSED, Circuit

pytest_plugins = ["gateway"]

BRIEFLY = 0.3
"""Seconds that a circuit stays open, where a test waits for its end."""


@pytest.fixture
async def second(bus_url: str, host: Host) -> AsyncIterator[Host]:
    """Another process with every role that calls upstream."""
    serving = await Host.start(bus_url, ("router", "provider"))
    yield serving
    await serving.stop()


@pytest.fixture
async def shaky(gw: Gateway) -> Gateway:
    """A gateway with the provider `shaky`: three failures in a row open its circuit, for a minute."""
    await gw.providers.register(id="shaky", kind="scripted", local=True, breaker_failures=3)
    for model, upstream in (("down", "fail:unavailable"), ("up", "echo"), ("odd", "fail:invalid_request")):
        await gw.models.register(id=model, provider="shaky", upstream=upstream)
    return gw


async def call(gateway: Gateway, model: str, **more: Any) -> str:
    """`answered`, or the code of the error."""
    try:
        await gateway.chat.create(model, "hi", route={"attempts": 1}, **more)
    except errors.TrunklineError as error:
        return error.code
    return "answered"


async def circuit_is(host: Host, so: Callable[[Circuit], bool], provider: str = "shaky") -> Circuit:
    """What this process knows of a circuit, once it is so."""
    async with asyncio.timeout(5):
        while not so(circuit := host.runtime.gateway.state.circuits.get(provider, CLOSED)):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    return circuit


async def trip(gateway: Gateway, *hosts: Host) -> None:
    """Open the circuit of `shaky`, and return when these processes know."""
    for _ in range(3):
        await call(gateway, "down")
    for host in hosts:
        await circuit_is(host, lambda circuit: circuit.state == "open")


async def trip_briefly(gateway: Gateway, *hosts: Host) -> None:
    """Open the circuit of `shaky`, and return when it is time to probe it."""
    await gateway.providers.update(id="shaky", breaker_open_s=BRIEFLY)
    await trip(gateway, *hosts)
    shown = await gateway.circuits.get(provider="shaky")
    await until(lambda: time.time() >= shown["retry_at"])


async def test_a_circuit_opens_in_every_process_and_nobody_calls(shaky: Gateway, host: Host, second: Host) -> None:
    await trip(shaky, host, second)
    assert [await call(shaky, "up") for _ in range(6)] == ["no_route"] * 6
    recorded = await events(shaky, "circuit", aggregate="shaky")
    assert kinds(recorded) == ["call-failed", "call-failed", "opened"]
    shown = await shaky.circuits.get(provider="shaky")
    assert (shown["state"], shown["failures"], shown["seq"]) == ("open", 3, recorded[-1].sequence)
    assert shown["retry_at"] == pytest.approx(shown["opened_at"] + 60)


async def test_a_success_forgets_failures_and_other_failures_do_not_count(shaky: Gateway, host: Host) -> None:
    for model in ("down", "down", "odd", "odd", "odd"):
        await call(shaky, model)
    await circuit_is(host, lambda circuit: circuit.failures == 2)
    await call(shaky, "up")
    await circuit_is(host, lambda circuit: circuit.failures == 0)
    await call(shaky, "down")
    await circuit_is(host, lambda circuit: circuit.failures == 1)
    assert (await shaky.circuits.get(provider="shaky"))["state"] == "closed"
    assert kinds(await events(shaky, "circuit")) == ["call-failed", "call-failed", "recovered", "call-failed"]


async def test_concurrent_failures_all_count_in_few_events(shaky: Gateway, host: Host, second: Host) -> None:
    await shaky.providers.update(id="shaky", breaker_failures=1000)
    await asyncio.gather(*(call(shaky, "down") for _ in range(100)))
    await circuit_is(host, lambda circuit: circuit.failures == 100)
    assert len(await events(shaky, "circuit")) < 100


async def test_no_event_is_appended_while_all_is_well(shaky: Gateway) -> None:
    await asyncio.gather(*(call(shaky, "up") for _ in range(20)))
    assert await events(shaky, "circuit") == []


async def test_one_of_many_probes_and_its_success_closes_the_circuit(shaky: Gateway, host: Host, second: Host) -> None:
    await shaky.models.register(id="slow-up", provider="shaky", upstream="tokens:20@20")
    await trip_briefly(shaky, host, second)
    outcomes = await asyncio.gather(*(call(shaky, "slow-up") for _ in range(20)))
    assert outcomes.count("answered") == 1
    assert set(outcomes) <= {"answered", "unavailable", "no_route"}
    await circuit_is(host, lambda circuit: circuit.state == "closed")
    recorded = await events(shaky, "circuit")
    assert kinds(recorded)[-2:] == ["probe-started", "closed"]
    assert kinds(recorded).count("probe-started") == 1


async def test_a_probe_that_fails_opens_the_circuit_for_longer(shaky: Gateway, host: Host) -> None:
    await trip_briefly(shaky, host)
    before = await shaky.circuits.get(provider="shaky")
    assert await call(shaky, "down") == "unavailable"
    after = await circuit_is(host, lambda circuit: circuit.failures == 4)
    assert after.state == "open"
    assert after.opened_at is not None
    assert after.retry_at == pytest.approx(after.opened_at + BRIEFLY)
    assert after.opened_at > before["retry_at"]


async def test_an_abort_of_a_probe_aborts_it_and_another_may_probe_at_once(shaky: Gateway, host: Host) -> None:
    await shaky.models.register(id="still", provider="shaky", upstream="stall")
    await trip_briefly(shaky, host)
    calling = asyncio.create_task(call(shaky, "still", request_id="the-probe"))
    await circuit_is(host, lambda circuit: circuit.state == "half-open")
    await shaky.chat.abort("the-probe")
    assert await calling == "aborted"
    await circuit_is(host, lambda circuit: circuit.state == "open")
    assert await call(shaky, "up") == "answered"
    await circuit_is(host, lambda circuit: circuit.state == "closed")


async def test_a_reset_closes_a_circuit_everywhere_before_it_is_answered(
    shaky: Gateway, host: Host, second: Host
) -> None:
    await trip(shaky, host, second)
    reply = await shaky.circuits.reset(provider="shaky", reason="mended")
    assert [one.runtime.gateway.state.circuits["shaky"].state for one in (host, second)] == ["closed", "closed"]
    assert (reply["state"], reply["changed"]) == ("closed", True)
    assert await call(shaky, "up") == "answered"
    [*_, reset] = await events(shaky, "circuit")
    assert (reset.sequence, reset.body) == (reply["seq"], Reset(provider="shaky", reason="mended"))
    assert (await shaky.circuits.reset(provider="shaky"))["changed"] is False
    assert (await events(shaky, "circuit"))[-1] == reset


async def test_circuits_are_listed_by_page_and_by_state(shaky: Gateway, host: Host) -> None:
    await trip(shaky, host)
    first = await shaky.circuits.list(limit=1)
    assert ([one["provider"] for one in first["circuits"]], first["after"]) == (["scripted"], "scripted")
    rest = await shaky.circuits.list(after="scripted")
    assert ([one["provider"] for one in rest["circuits"]], rest["after"]) == (["shaky"], None)
    opened = await shaky.circuits.list(state="open")
    assert [one["provider"] for one in opened["circuits"]] == ["shaky"]
    assert (await shaky.circuits.list(state="half-open"))["circuits"] == []


async def test_the_history_of_a_circuit_ends_with_its_last_event(shaky: Gateway, host: Host) -> None:
    await trip(shaky, host)
    await shaky.circuits.reset(provider="shaky", reason="mended")
    told = (await shaky.circuits.history(provider="shaky"))["events"]
    assert [event["type"] for event in told] == [
        "circuit.call-failed.v1",
        "circuit.call-failed.v1",
        "circuit.opened.v1",
        "circuit.reset.v1",
    ]
    assert (told[0]["failure"], told[0]["failures"], told[-1]["reason"]) == ("unavailable", 1, "mended")
    assert (await shaky.circuits.history(provider="shaky", limit=2))["events"] == told[-2:]
    assert (await shaky.circuits.history(provider="scripted"))["events"] == []


@pytest.mark.parametrize("verb", ["get", "reset", "history"])
async def test_a_provider_that_is_not_registered_is_not_found(gw: Gateway, verb: str) -> None:
    with pytest.raises(errors.NotFound, match="trunkline providers list"):
        await getattr(gw.circuits, verb)(provider="nobody")


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("list", {"limit": 0}),
        ("list", {"state": "ajar"}),
        ("history", {"provider": "scripted", "limit": 1001}),
        ("history", {"provider": "-"}),
        ("get", {}),
    ],
)
async def test_arguments_that_make_no_sense_are_refused(gw: Gateway, verb: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequest):
        await getattr(gw.circuits, verb)(**arguments)


async def test_a_provider_registered_again_begins_with_a_closed_circuit(
    shaky: Gateway, host: Host, second: Host
) -> None:
    await trip(shaky, host, second)
    for model in ("down", "up", "odd"):
        await shaky.models.remove(id=model)
    await shaky.providers.remove(id="shaky")
    assert len((await shaky.circuits.history(provider="shaky"))["events"]) == 3
    await shaky.providers.register(id="shaky", kind="scripted", local=True, breaker_failures=3)
    await shaky.models.register(id="down", provider="shaky", upstream="fail:unavailable")
    assert (await shaky.circuits.get(provider="shaky"))["state"] == "closed"
    assert await call(shaky, "down") == "unavailable"
    await circuit_is(host, lambda circuit: circuit.failures == 1)
    await trip(shaky, host, second)


async def test_an_open_circuit_outlives_every_process(shaky: Gateway, host: Host, bus_url: str) -> None:
    await trip(shaky, host)
    another = await Host.start(bus_url, ("router",))
    try:
        assert another.runtime.gateway.state.circuits["shaky"].state == "open"
    finally:
        await another.stop()


async def test_an_answer_does_not_wait_for_a_log_that_takes_no_circuit_events(
    shaky: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be appended then is counted with the next failure."""
    append = JetStreamLog.append
    away = True

    async def fails(self: JetStreamLog, event: NewEvent, expected: int | None = None) -> Appended:
        if away and event.category == "circuit":
            raise LogUnavailable("the log does not answer")
        return await append(self, event, expected)

    monkeypatch.setattr(JetStreamLog, "append", fails)
    with capture_logs() as lines:
        assert [await call(shaky, "down") for _ in range(2)] == ["unavailable", "unavailable"]
    assert "breaker.not_recorded" in {line["event"] for line in lines}
    assert await call(shaky, "up", thread="t") == "answered"
    assert [await call(shaky, "down") for _ in range(2)] == ["unavailable", "unavailable"]
    away = False
    assert await call(shaky, "down") == "unavailable"
    await circuit_is(host, lambda circuit: circuit.state == "open" and circuit.failures == 3)


async def test_without_the_log_nobody_probes(shaky: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    await trip_briefly(shaky, host)
    calls = 0
    complete = Scripted.complete

    async def counted(self: Scripted, asked: Any) -> Any:
        nonlocal calls
        calls += 1
        return await complete(self, asked)

    append = JetStreamLog.append

    async def fails(self: JetStreamLog, event: NewEvent, expected: int | None = None) -> Appended:
        if event.category == "circuit":
            raise LogUnavailable("the log does not answer")
        return await append(self, event, expected)

    monkeypatch.setattr(Scripted, "complete", counted)
    monkeypatch.setattr(JetStreamLog, "append", fails)
    assert await call(shaky, "up") == "unavailable"
    assert calls == 0


async def test_the_doctor_says_which_circuit_is_open_and_what_to_do(shaky: Gateway, host: Host, bus_url: str) -> None:
    [check] = [one for one in await bus_checks(bus_url) if one.name == "circuits"]
    assert (check.state, check.found) == ("ok", "all closed (2)")
    await trip(shaky, host)
    [check] = [one for one in await bus_checks(bus_url) if one.name == "circuits"]
    assert check.state == "problem"
    assert "shaky is open after 3 failures" in check.found
    assert "trunkline circuits reset shaky" in check.next


async def test_callers_in_a_hurry_open_no_circuit_and_an_upstream_that_is_too_slow_does(
    shaky: Gateway, host: Host
) -> None:
    await shaky.models.register(id="slow-down", provider="shaky", upstream="stall")
    hurried = [shaky.chat.create("slow-down", "hi", route={"attempts": 1, "deadline_ms": 100}) for _ in range(5)]
    told = await asyncio.gather(*hurried, return_exceptions=True)
    assert [getattr(error, "code", None) for error in told] == ["timeout"] * 5
    assert "circuit" not in {event.category for event in await events(shaky)}
    await shaky.providers.update(id="shaky", timeout_s=0.1)
    for _ in range(3):
        assert await call(shaky, "slow-down") == "timeout"
    await circuit_is(host, lambda circuit: circuit.state == "open")
