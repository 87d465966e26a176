"""`trunkline demo` and `trunkline doctor`."""

from pathlib import Path
from typing import Any

from cli_kit import Trunkline
from trunkline_events.connection import Connection

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


async def test_the_doctor_finds_nothing_wrong_with_a_whole_gateway(trunkline: Trunkline) -> None:
    done = await trunkline("doctor", "--json")
    states = {check["name"]: check["state"] for check in done.json["checks"]}
    assert states.pop("durability") == "unknown"
    assert set(states.values()) == {"ok"}
    assert {"python", "nats-server", "bus", "server", "jetstream", "log", "actors", "latency", "clock"} == set(states)
    assert (done.code, done.json["ok"]) == (0, True)


async def test_the_doctor_says_what_is_missing_and_what_to_do(server: Any, bus_url: str, alone: Trunkline) -> None:
    done = await alone("doctor", "--nats", bus_url)
    assert done.code == 1
    assert "PROBLEM" in done.out
    assert "next: run an actor, which creates it: `trunkline run registry`" in done.out
    assert "next: start them with `trunkline run registry router keeper provider`" in done.out


async def test_the_doctor_without_a_bus_ends_with_6(alone: Trunkline) -> None:
    done = await alone("doctor", "--nats", "nats://127.0.0.1:1")
    assert done.code == 6
    assert "next: start one with `trunkline up`" in done.out


async def test_the_doctor_sees_a_log_that_can_be_deleted(server: Any, bus_url: str, alone: Trunkline) -> None:
    connection = await Connection.open(bus_url, name="test")
    await connection.nats.jetstream().add_stream(name="TRUNKLINE", subjects=["trunkline.log.>"])
    await connection.close()
    found = {check["name"]: check for check in (await alone("doctor", "--json", "--nats", bus_url)).json["checks"]}
    assert found["log"]["state"] == "problem"
    for name in ("deny_delete", "deny_purge", "republish", "discard"):
        assert f"{name} is" in found["log"]["found"]
