"""`trunkline events`, as a user and a pipe have it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Trunkline, on_terminal, started
from trunkline.client import Gateway
from trunkline_events.connection import Connection

pytest_plugins = ["gateway", "console"]


async def test_replay_prints_the_log_and_ends(trunkline: Trunkline) -> None:
    done = await trunkline("events", "replay")
    assert [event["seq"] for event in done.lines] == [1, 2, 3, 4, 5]
    first_event = done.lines[0]
    assert list(first_event) == ["seq", "time", "category", "id", "event_id", "type", "actor", "cause", "data"]
    assert first_event["time"].endswith("Z")
    assert (first_event["category"], first_event["id"]) == ("provider", "scripted")
    assert first_event["data"]["provider"]["kind"] == "scripted"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("--from 4", [4, 5]),
        ("--from 0", [1, 2, 3, 4, 5]),
        ("--from 9", []),
        ("--until 2", [1, 2]),
        ("--from 2 --until 3", [2, 3]),
        ("--since 1h", [1, 2, 3, 4, 5]),
        ("--since 2020-01-01T00:00:00Z --until 2020-01-02T00:00:00Z", []),
        ("--until 1h", []),
        ("--category provider", [1]),
        ("--category provider --category model --until 2", [1, 2]),
        ("--id slow", [4]),
        ("--category thread", []),
        ("--type model.registered", [2, 3, 4, 5]),
        ("--type provider.registered.v1", [1]),
        ("--type model.reg", []),
    ],
)
async def test_replay_takes_a_part_of_the_log(arguments: str, found: list[int], trunkline: Trunkline) -> None:
    done = await trunkline("events", "replay", "--json", *arguments.split())
    assert (done.code, [event["seq"] for event in done.lines]) == (0, found)


async def test_an_event_nobody_knows_is_printed_as_it_is(trunkline: Trunkline, bus_url: str) -> None:
    connection = await Connection.open(bus_url, name="test")
    await connection.nats.jetstream().publish("trunkline.log.model.new", b'{"type":"model.sung.v9","song":1}')
    await connection.nats.jetstream().publish("trunkline.log.model.new", b"\xff")
    await connection.close()
    sung, broken = (await trunkline("events", "replay", "--id", "new")).lines
    assert (sung["type"], sung["data"]) == ("model.sung.v9", {"type": "model.sung.v9", "song": 1})
    assert "model.sung.v9" in sung["problem"]
    assert broken["data"] == "�"


async def test_tail_prints_what_happens_until_ctrl_c(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    process = await started("events", "tail", "--from", "2", "--category", "model", "--nats", bus_url, cwd=tmp_path)
    assert process.stdout is not None
    seen = [json.loads(await process.stdout.readline())["id"] for _ in range(4)]
    await gw.models.disable(id="slow")
    live = json.loads(await process.stdout.readline())
    assert (seen, live["type"]) == (["echo", "tokens", "slow", "fails"], "model.disabled.v1")
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_events_are_short_lines_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("events", "replay", "--from", "2", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    assert shown.splitlines()[0].split()[2:] == ["model", "registered", "echo"]


async def test_a_reader_that_goes_away_is_no_error(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    process = await started("events", "tail", "--from", "1", "--nats", bus_url, cwd=tmp_path)
    assert process.stdout is not None
    await process.stdout.readline()
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    for _ in range(2):
        await gw.models.disable(id="slow")
        await gw.models.enable(id="slow")
    assert process.stderr is not None
    assert await process.stderr.read() == b""
    assert await process.wait() == 141


async def test_a_bus_without_a_log_is_told_apart(server: Any, bus_url: str, alone: Trunkline) -> None:
    done = await alone("events", "replay", "--nats", bus_url)
    assert done.code == 6
    assert "no log yet; start a gateway with `trunkline up`" in done.err
    done = await alone("models", "list", "--nats", bus_url)
    assert done.code == 6
    assert "`trunkline run registry`" in done.err
