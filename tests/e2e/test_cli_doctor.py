"""`trunkline demo` and `trunkline doctor`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Trunkline, started
from trunkline.embedded import EmbeddedServer
from trunkline.health.promises import PROMISES, promise
from trunkline_events.connection import Connection
from trunkline_events.stream import stream_config

pytest_plugins = ["gateway", "console"]


async def test_the_demo_explains_one_chat_and_leaves_nothing(alone: Trunkline, tmp_path: Path) -> None:
    done = await alone("demo", TMPDIR=str(tmp_path))
    assert done.code == 0
    for told in ("Its events in the log", "thread.route-decided.v1", "Why this model", "reserved  $", "settled   $"):
        assert told in done.out
    assert '"level"' not in done.err, "the host's log lines don't clutter"
    assert list(tmp_path.iterdir()) == []


async def test_the_demo_in_json_is_one_object(alone: Trunkline) -> None:
    demo = (await alone("demo", "--json")).json
    assert [event["type"] for event in demo["events"]] == ["thread.route-decided.v1", "thread.usage-recorded.v1"]
    assert [candidate["model"] for candidate in demo["explanation"]["candidates"]] == ["small", "large"]
    assert demo["explanation"]["settled_usd"] == demo["receipt"]["cost"]


async def promised(url: str, **promise: Any) -> None:
    """A log that was made with this promise, before a gateway makes one."""
    connection = await Connection.open(url, name="test")
    await connection.nats.jetstream().add_stream(stream_config(**promise))
    await connection.close()


async def checks(run: Trunkline, *arguments: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in (await run("doctor", "--json", *arguments)).json["checks"]}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """As `trunkline up --ephemeral --durability process` has it."""
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as running:
        await promised(running.url, durability="process", ephemeral=True)
        yield running


async def test_the_doctor_finds_nothing_wrong_with_a_whole_gateway(trunkline: Trunkline) -> None:
    done = await trunkline("doctor", "--json")
    states = {check["name"]: check["state"] for check in done.json["checks"]}
    assert states.pop("permissions") == "unknown", "everybody on this machine may do everything"
    assert set(states.values()) == {"ok"}
    assert {"python", "nats-server", "bus", "server", "jetstream", "log", "actors", "latency", "clock"} < set(states)
    assert {"durability", "store", "disk", "copies"} < set(states)
    assert (done.code, done.json["ok"]) == (0, True)


async def test_the_doctor_says_in_the_shared_words_what_a_killed_machine_may_cost(trunkline: Trunkline) -> None:
    found = await checks(trunkline)
    assert PROMISES["process"] in found["durability"]["found"]
    assert PROMISES["process"] in " ".join((await trunkline("up", "--help")).out.split())


async def test_a_promise_that_the_server_does_not_keep_is_red(tmp_path: Path, alone: Trunkline) -> None:
    async with EmbeddedServer(store=tmp_path / "lazy", port=0, durability="process") as lazy:
        await promised(lazy.url, durability="always")
        done = await alone("doctor", "--json", "--nats", lazy.url)
    found = {check["name"]: check for check in done.json["checks"]}
    assert done.code == 1
    assert (found["durability"]["state"], found["store"]["state"]) == ("problem", "problem")
    assert "a power cut loses" in found["durability"]["found"]
    assert "sync_interval: always" in found["durability"]["next"]
    assert str(tmp_path) in found["store"]["found"]


async def test_an_up_that_promises_less_than_the_log_was_made_with_warns(tmp_path: Path) -> None:
    async def said(durability: str) -> str:
        process = await started(
            *("up", "--data", str(tmp_path / "data"), "--nats-port", "0", "--http-port", "0"),
            *("--durability", durability),
            cwd=tmp_path,
        )
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(30):
            while not (lines and lines[-1].startswith("Try:")):
                lines.append((await process.stdout.readline()).decode())
        process.terminate()
        await process.communicate()
        return "".join(lines)

    assert "WARNING" not in await said("always")
    warned = await said("process")
    assert f"the promise {promise('always')}; now it runs with {promise('process')}" in warned
    assert "--durability always" in warned
    assert "nats stream edit TRUNKLINE --metadata trunkline.durability=process" in warned


@pytest.fixture
async def bare(tmp_path: Path) -> AsyncIterator[str]:
    """A server on which nothing of ours has been yet."""
    async with EmbeddedServer(store=tmp_path / "bare", port=0, durability="process") as running:
        yield running.url


async def test_the_doctor_says_what_is_missing_and_what_to_do(bare: str, alone: Trunkline) -> None:
    done = await alone("doctor", "--nats", bare)
    assert done.code == 1
    assert "PROBLEM" in done.out
    assert "next: run an actor, which creates it: `trunkline run registry`" in done.out
    assert "next: start them with `trunkline run registry router keeper provider`" in done.out


async def test_the_doctor_without_a_bus_ends_with_6(alone: Trunkline) -> None:
    done = await alone("doctor", "--nats", "nats://127.0.0.1:1")
    assert done.code == 6
    assert "next: start one with `trunkline up`" in done.out


async def test_the_doctor_sees_a_log_that_can_be_deleted(bare: str, alone: Trunkline) -> None:
    connection = await Connection.open(bare, name="test")
    await connection.nats.jetstream().add_stream(name="TRUNKLINE", subjects=["trunkline.log.>"])
    await connection.close()
    found = await checks(alone, "--nats", bare)
    assert found["log"]["state"] == "problem"
    for name in ("deny_delete", "deny_purge", "republish", "discard"):
        assert f"{name} is" in found["log"]["found"]
