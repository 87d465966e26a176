"""What providers measure, as every router and every reader of metrics sees it: on a real bus, with real processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trunkline
from messages import calling, chat_body
from processes import Role, running, until
from trunkline.client import Gateway
from trunkline.errors import TrunklineError
from trunkline.host import Host
from trunkline_actors import meter as meter_module
from trunkline_actors.meter import Meter
from trunkline_actors.tallies import Line
from trunkline_events.connection import Connection
from trunkline_events.measured import NOTHING, Measured
from trunkline_events.subjects import STATISTICS

pytest_plugins = ["gateway"]

HELLO = [{"role": "user", "content": "hello"}]
CORE = ["registry", "router", "keeper"]


@asynccontextmanager
async def hosting(url: str, *roles: str) -> AsyncIterator[Host]:
    """A process of its own as far as the bus can tell."""
    serving = await Host.start(url, roles)
    try:
        yield serving
    finally:
        await serving.stop()


def seen(host: Host, model: str) -> Measured:
    return host.runtime.board.measured().get(model, NOTHING)


async def metrics(gw: Gateway, model: str, **more: Any) -> dict[str, Any]:
    return await gw.models.metrics(id=model, **more)


def totals(reply: dict[str, Any], field: str) -> int:
    return sum(point[field] for point in reply["series"])


# --- routers


async def test_a_call_on_one_process_is_on_the_board_of_every_other(gw: Gateway, bus_url: str) -> None:
    async with hosting(bus_url, "router") as other:
        await gw.chat.create("tokens", HELLO)
        await until(lambda: seen(other, "tokens").calls == 1)
        measured = seen(other, "tokens")
        assert (measured.success, measured.in_flight) == (1.0, 0)
        assert measured.p50_ms is not None
        assert measured.p50_ms == measured.p95_ms


async def test_a_call_that_runs_is_in_flight_until_it_ends(gw: Gateway, bus_url: str) -> None:
    async with hosting(bus_url, "router") as other:
        async with gw.chat.stream("slow", HELLO, request_id="r") as stream:
            await stream.__anext__()
            await until(lambda: seen(other, "slow").in_flight == 1)
            assert seen(other, "slow").calls == 0
            await gw.chat.abort("r")
        await until(lambda: seen(other, "slow").in_flight == 0)


async def test_a_failed_call_counts_against_its_model_and_an_aborted_one_does_not(gw: Gateway, host: Host) -> None:
    with pytest.raises(TrunklineError):
        await gw.chat.create("fails", HELLO)
    await until(lambda: seen(host, "fails").calls > 0)
    assert (seen(host, "fails").success, seen(host, "fails").p50_ms) == (0.0, None)
    async with gw.chat.stream("slow", HELLO, request_id="r") as stream:
        await stream.__anext__()
        await gw.chat.abort("r")
    await until(lambda: seen(host, "slow").calls == 1)
    assert (seen(host, "slow").success, seen(host, "slow").p50_ms) == (1.0, None)


async def test_a_streams_first_chunk_and_its_speed_are_measured(gw: Gateway, host: Host) -> None:
    await gw.models.register(id="paced", provider="scripted", upstream="tokens:10@100")
    async with gw.chat.stream("paced", HELLO) as stream:
        async for _ in stream:
            pass
    await until(lambda: seen(host, "paced").calls == 1)
    measured = seen(host, "paced")
    assert measured.ttft_p50_ms is not None
    assert measured.p50_ms is not None
    assert measured.ttft_p50_ms < measured.p50_ms
    assert measured.tokens_per_s is not None
    assert measured.tokens_per_s < 200, "it is scripted to speak at 100 a second"


async def test_a_router_that_joins_late_is_told_at_once(
    gw: Gateway, bus_url: str, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "REFRESH", 3600.0)  # so that only an answer to its question can help
    await gw.chat.create("tokens", HELLO)
    await until(lambda: seen(host, "tokens").calls == 1)
    async with hosting(bus_url, "router") as late:
        await until(lambda: seen(late, "tokens").calls == 1)
        assert seen(late, "tokens") == seen(host, "tokens")


async def test_what_a_killed_process_had_in_flight_goes(bus_url: str, tmp_path: Path) -> None:
    provider = Role(bus_url, tmp_path, "provider", "provider")
    async with hosting(bus_url, *CORE) as core, running(provider), trunkline.connect(bus_url) as gw:
        await gw.providers.register(id="scripted", kind="scripted", local=True)
        await gw.models.register(id="endless", provider="scripted", upstream="tokens:100000@50")
        async with calling(gw._connection.nats, chat_body("endless", stream=True), {}) as call:
            await call.next()
            await until(lambda: seen(core, "endless").in_flight == 1)
            await provider.kill()
            await until(lambda: seen(core, "endless") == NOTHING, within=30)


async def test_numbers_are_told_again_before_they_are_forgotten(
    gw: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "REFRESH", 0.1)
    heard = 0

    async def hear(_message: Any) -> None:
        nonlocal heard
        heard += 1

    await gw._connection.nats.subscribe(STATISTICS, cb=hear)
    await gw.chat.create("tokens", HELLO)
    await until(lambda: heard > 4)


async def test_a_message_that_makes_no_sense_is_ignored_and_counted(gw: Gateway, host: Host) -> None:
    for data in (b"", b"{", b'{"process": 3}', b"\xff"):
        await gw._connection.nats.publish(STATISTICS, data)
    await until(lambda: host.runtime.board.unreadable == 4)
    await gw.chat.create("tokens", HELLO)
    await until(lambda: seen(host, "tokens").calls == 1)


async def test_the_memory_of_a_meter_does_not_grow_with_the_number_of_models(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "MOST_LINES", 10)
    meter: Meter = host.runtime.meter
    for number in range(50):
        with meter.call("p", f"m{number}", "1") as call:
            call.ended(None, None)
    assert len(meter._lanes) == 10
    with meter.call("p", "m0", "1"):
        assert meter._lanes[Line("p", "m0", "1")].in_flight == 1, "those it knows are measured on"


# --- metrics over time


async def test_metrics_survive_a_restart_of_every_process(bus_url: str) -> None:
    async with hosting(bus_url, *CORE, "provider"), trunkline.connect(bus_url) as gw:
        await gw.providers.register(id="scripted", kind="scripted", local=True)
        await gw.models.register(
            id="echo", provider="scripted", upstream="echo", price={"input": "1.00", "output": "4.00"}
        )
        costs = [(await gw.chat.create("echo", HELLO)).cost for _ in range(3)]
    async with hosting(bus_url, *CORE), trunkline.connect(bus_url) as gw:
        reply = await metrics(gw, "echo")
    assert totals(reply, "calls") == 3
    assert totals(reply, "failures") == 0
    assert sum(float(point["cost_usd"]) for point in reply["series"]) == pytest.approx(sum(map(float, costs)))
    assert {point["version"] for point in reply["series"]} == {"1"}
    assert reply["now"] == {}, "the process that measured is gone, and so is what it measured just now"


async def test_metrics_say_what_is_so_now_by_version(gw: Gateway, host: Host) -> None:
    await gw.chat.create("echo", HELLO)
    await gw.models.update(id="echo", version="2")
    await gw.chat.create("echo", HELLO)
    await until(lambda: host.runtime.board.versions("echo").keys() == {"1", "2"})
    await until(lambda: all(one.calls == 1 for one in host.runtime.board.versions("echo").values()))
    now = (await metrics(gw, "echo"))["now"]
    assert {version: measured["calls"] for version, measured in now.items()} == {"1": 1, "2": 1}
    assert seen(host, "echo").calls == 1, "what its former version did says nothing about this one"
    assert (await metrics(gw, "echo", version="2"))["now"].keys() == {"2"}


@pytest.mark.parametrize(
    ("arguments", "code", "param"),
    [
        pytest.param({"id": "nobody"}, "model_not_found", "id", id="no such model"),
        pytest.param({"step_s": 90}, "invalid_request", "step_s", id="no whole minutes"),
        pytest.param({"step_s": 7 * 86_400 + 60}, "invalid_request", "step_s", id="more than 7 days"),
        pytest.param({"step_s": 60_000_000_000_000}, "invalid_request", "step_s", id="a step without end"),
        pytest.param({"step_s": 0}, "invalid_request", "step_s", id="no step"),
        pytest.param({"since": "yesterday"}, "invalid_request", "since", id="no time"),
        pytest.param({"until": "2026-13-01T00:00:00Z"}, "invalid_request", "until", id="no month"),
        pytest.param({"since": 100.0, "until": 100.0}, "invalid_request", "since", id="no time between"),
        pytest.param({"step": 60}, "invalid_request", None, id="a misspelled name"),
    ],
)
async def test_a_question_about_metrics_that_makes_no_sense_is_refused(
    gw: Gateway, arguments: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(TrunklineError) as refused:
        await gw.models.metrics(**{"id": "echo", **arguments})
    assert refused.value.code == code
    assert param is None or refused.value.param == param


async def test_a_time_may_be_given_as_text_or_as_a_number(gw: Gateway) -> None:
    reply = await metrics(gw, "echo", since="2026-11-20T12:00:30Z", until=1_795_176_061, step_s=300)
    assert (reply["since"], reply["until"]) == ("2026-11-20T12:00:00.000000Z", "2026-11-20T12:05:00.000000Z")
    assert reply["series"] == []


async def test_without_its_bucket_a_gateway_serves_and_says_that_metrics_cannot_be_read(
    gw: Gateway, connection: Connection
) -> None:
    await connection.nats.jetstream().delete_key_value("TRUNKLINE_METRICS")
    await gw.chat.create("echo", HELLO)
    with pytest.raises(TrunklineError) as refused:
        await metrics(gw, "echo")
    assert refused.value.code == "unavailable"
