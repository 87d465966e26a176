"""`trunkline events`, as a user and a pipe have it."""

import asyncio
import json
import os
import pty
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cli_kit import SCRIPT, Trunkline, environment, on_terminal, started
from trunkline.cli.events import _asked as events_asked
from trunkline.cli.events import _replay as replay
from trunkline.cli.main import main
from trunkline.cli.parser import build_parser
from trunkline.client import Gateway
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog

pytest_plugins = ["gateway", "console"]


async def test_replay_prints_the_log_and_ends(trunkline: Trunkline) -> None:
    done = await trunkline("events", "replay")
    assert [event["seq"] for event in done.lines] == [1, 2, 3, 4, 5]
    first_event = done.lines[0]
    assert list(first_event) == ["seq", "time", "category", "id", "event_id", "type", "actor", "cause", "data"]
    assert first_event["time"].endswith("Z")
    assert (first_event["category"], first_event["id"]) == ("provider", "scripted")
    assert first_event["data"]["provider"]["kind"] == "scripted"


PARTS = [
    ("--from 4", [4, 5]),
    ("--from 0", [1, 2, 3, 4, 5]),
    ("--from 5", [5]),
    ("--from 6", []),
    ("--from 9", []),
    ("--from 9223372036854775807", []),
    ("--until 2", [1, 2]),
    ("--until 99", [1, 2, 3, 4, 5]),
    ("--until 0", []),
    ("--from 2 --until 3", [2, 3]),
    ("--from 4 --until 3", []),
    ("--from 4 --until 0s", [4, 5]),
    ("--from 4 --until 2099-01-01T00:00:00Z", [4, 5]),
    ("--from 2 --until 2020-01-01T00:00:00Z", []),
    ("--since 1h", [1, 2, 3, 4, 5]),
    ("--since 1h --until 4", [1, 2, 3, 4]),
    ("--since 999999999w --until 4", [1, 2, 3, 4]),
    ("--since 2099-01-01T00:00:00Z", []),
    ("--since 2020-01-01T00:00:00Z --until 2020-01-02T00:00:00Z", []),
    ("--until 1h", []),
    ("--category provider", [1]),
    ("--category provider --category model --until 2", [1, 2]),
    ("--id slow", [4]),
    ("--id slow --from 5", []),
    ("--id scripted --since 1h", [1]),
    ("--id nobody", []),
    ("--category provider --id slow", []),
    ("--category thread", []),
    ("--type model.registered", [2, 3, 4, 5]),
    ("--type model.registered --type provider.registered --from 1 --until 2", [1, 2]),
    ("--type provider.registered.v1", [1]),
    ("--type model.reg", []),
]


async def test_replay_takes_a_part_of_the_log(gw: Gateway) -> None:
    found = []
    for arguments, _ in PARTS:
        args = build_parser().parse_args(["events", "replay", *arguments.split()])
        events: list[RecordedEvent] = []
        await replay(gw, events_asked(args, time.time()), events.append)
        found.append((arguments, [event.sequence for event in events]))
    assert found == PARTS


async def test_flags_reach_the_replay(trunkline: Trunkline) -> None:
    flags = "--from 2 --until 4 --category model --id slow --type model.registered --json"
    done = await trunkline("events", "replay", *flags.split())
    assert (done.code, [event["seq"] for event in done.lines], done.err) == (0, [4], "")


async def test_a_time_between_two_events_parts_the_log(trunkline: Trunkline, gw: Gateway) -> None:
    between = datetime.now(UTC).isoformat()
    await gw.models.disable(id="slow")
    early, late = await asyncio.gather(
        trunkline("events", "replay", "--until", between), trunkline("events", "replay", "--since", between)
    )
    assert [[event["seq"] for event in done.lines] for done in (early, late)] == [[1, 2, 3, 4, 5], [6]]


WRONG = [
    ("--from -1", "--from"),
    ("--from 99999999999999999999", "--from"),
    ("--until -1", "count from 1"),
    ("--until soon", "is no time"),
    ("--since 2026-11-20", "is no time"),
    ("--category modell", "'modell' is not a category"),
    ("--id=", "--id"),
    ("--from 1 --since 1h", "not allowed with"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_makes_no_sense_is_a_usage_error(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "replay", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


async def test_an_empty_log_is_replayed_as_nothing(alone: Trunkline, bus_url: str) -> None:
    connection = await Connection.open(bus_url, name="test")
    await JetStreamLog.open(connection)
    await connection.close()
    done = await alone("events", "replay", "--nats", bus_url, "--since", "1h", "--until", "0s")
    assert (done.code, done.out, done.err) == (0, "", "")


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


async def beside_a_terminal(*arguments: str, cwd: Path, **more: str) -> tuple[str, str]:
    """What a command prints on stderr, a terminal, and on stdout, a pipe."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stdin=theirs, stdout=-1, stderr=theirs, cwd=cwd, env=environment(**more)
    )
    os.close(theirs)
    out, _ = await process.communicate()
    seen = os.read(ours, 1 << 20).decode()
    os.close(ours)
    return seen, out.decode()


async def test_events_are_short_lines_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("events", "replay", "--from", "2", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    assert shown.splitlines()[0].split()[2:] == ["model", "registered", "echo"]


@pytest.mark.parametrize("colour", [False, True])
async def test_a_replay_into_a_file_shows_its_progress_on_the_terminal(
    gw: Gateway, bus_url: str, tmp_path: Path, colour: bool
) -> None:
    more = {} if colour else {"NO_COLOR": "1"}
    seen, out = await beside_a_terminal("events", "replay", cwd=tmp_path, TRUNKLINE_NATS=bus_url, **more)
    assert len(out.splitlines()) == 5
    assert "100%  event 5 of 5, " in seen
    assert seen.endswith("\r\n")
    assert ("\x1b[36m" in seen) is colour


async def test_a_replay_that_is_interrupted_ends_as_such(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    log = await gw.log()
    connection = await Connection.open(bus_url, name="test")
    js = connection.nats.jetstream()
    await asyncio.gather(*(js.publish("trunkline.log.model.m", b"x" * 1000) for _ in range(1000)))
    await connection.close()
    assert await log.end() == 1005
    process = await started("events", "replay", "--nats", bus_url, cwd=tmp_path)  # more than the pipe holds
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def test_the_head_of_a_replay_is_no_error(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    connection = await Connection.open(bus_url, name="test")
    js = connection.nats.jetstream()
    await asyncio.gather(*(js.publish("trunkline.log.model.m", b"x" * 1000) for _ in range(1000)))
    await connection.close()
    process = await started("events", "replay", "--nats", bus_url, cwd=tmp_path)
    assert process.stdout is not None
    await process.stdout.readline()
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    assert process.stderr is not None
    assert await process.stderr.read() == b""
    assert await process.wait() == 141


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
