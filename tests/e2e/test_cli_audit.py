"""`trunkline audit`, as a user and a pipe have it."""

import asyncio
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli_kit import Trunkline, on_terminal
from trunkline.cli.events import _asked as events_asked
from trunkline.cli.events import read_position
from trunkline.cli.main import main
from trunkline.cli.parser import build_parser
from trunkline.client import Gateway
from trunkline_events.connection import Connection

pytest_plugins = ["gateway", "console"]

SECTIONS = ["models", "providers", "policy", "circuits", "budgets", "threads"]

# Events 1 to 5 of the fixture: a provider and its models echo, tokens, slow and fails.


async def test_the_state_is_shown_as_it_was(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t1", budget={"limit_usd": "0.5"})
    await gw.chat.create("echo", "hello", thread="t1")
    await gw.models.disable(id="echo")
    then = (await trunkline("audit", "state", "--at", "7", "--json")).json
    assert list(then) == ["seq", "time", *SECTIONS, "after", "unknown"]
    assert then["seq"] == 7
    assert {model["id"]: model["status"] for model in then["models"]}["echo"] == "enabled"
    assert then["circuits"] == [
        {"provider": "scripted", "state": "closed", "failures": 0, "opened_at": None, "retry_at": None}
    ]
    (books,) = then["threads"]
    assert (books["thread_id"], books["settled_usd"], len(books["open"]), books["seq"]) == ("t1", "0", 1, 7)
    assert float(books["reserved_usd"]) > 0
    now = (await trunkline("audit", "state", "--json")).json
    assert now["seq"] == 9
    assert {model["id"]: model["status"] for model in now["models"]}["echo"] == "disabled"
    assert (now["threads"][0]["reserved_usd"], now["threads"][0]["open"]) == ("0", [])


async def test_a_time_is_taken_as_well_as_a_sequence(trunkline: Trunkline, gw: Gateway) -> None:
    before = datetime.now(UTC).isoformat()
    await gw.models.remove(id="slow")
    assert (await trunkline("audit", "state", "--at", before, "--json")).json["seq"] == 5
    assert (await trunkline("audit", "state", "--at", "0s", "--json")).json["seq"] == 6


async def test_budgets_are_shown_as_they_were(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "1", "window": "day", "warn_at": 0.5})
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "2"})
    before, after = await asyncio.gather(*(trunkline("audit", "state", "--at", at, "--json") for at in "67"))
    [then], [now] = before.json["budgets"], after.json["budgets"]
    assert then == {
        "scope": "gateway",
        "limit_usd": "1",
        "window": "day",
        "time_zone": "UTC",
        "warn_at": 0.5,
        "settled_usd": "0",
        "reserved_usd": "0",
        "team": None,
        "holders": [],
        "seq": 6,
    }
    assert (now["limit_usd"], now["window"], now["warn_at"], now["seq"]) == ("2", "none", None, 7)


async def test_each_line_in_a_pipe_says_what_it_is_of(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t1", budget={"limit_usd": "0.5", "window": "day"})
    await gw.budgets.set(scope="team:a", budget={"limit_usd": "5", "window": "month", "time_zone": "Europe/Berlin"})
    done = await trunkline("audit", "state", "--at", "7")
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["models", "echo"],
        ["models", "fails"],
        ["models", "slow"],
        ["models", "tokens"],
        ["providers", "scripted"],
        ["policy", "0"],
        ["circuits", "scripted"],
        ["budgets", "team:a"],
        ["threads", "t1"],
    ]
    assert lines[0][2:] == ["scripted", "echo", "1", "enabled", "1.00/4.00", "-"]
    assert lines[-2][2:] == ["5", "month", "Europe/Berlin", "0", "0", "-", "-", "7"]
    assert lines[-1][2:] == ["0.5", "day", "0", "0", "-", "0 in, 0 out", "6"]
    assert done.err.startswith("the state after event 7, at 20")


async def test_the_policy_is_shown_with_its_rules_and_what_is_forced(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.policy.publish(policy={"rules": [{"name": "all", "use": ["echo"]}]})
    await gw.policy.override(model="tokens")
    told = await trunkline("audit", "state")
    assert "policy\t1\tall\ttokens\t7" in told.out.splitlines()
    asked = (await trunkline("audit", "state", "--at", "6", "--json")).json["policy"]
    assert (asked["version"], asked["policy"]["rules"][0]["use"], asked["override"]) == (1, ["echo"], None)


async def test_the_state_is_tables_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("audit", "state", "--at", "2", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    said, *sections = [part.splitlines() for part in shown.replace("\r\n", "\n").split("\n\n")]
    assert said[0].startswith("the state after event 2, at ")
    assert [section[0] for section in sections] == SECTIONS
    assert sections[0][1].split() == ["id", "provider", "upstream", "version", "status", "price", "tags"]
    assert sections[0][2].split() == ["echo", "scripted", "echo", "1", "enabled", "1.00/4.00", "-"]
    assert sections[4:] == [["budgets", "none"], ["threads", "none"]]
    assert "\x1b" not in shown


async def test_threads_come_by_name_or_by_page(trunkline: Trunkline, gw: Gateway) -> None:
    for name in ("a", "b/1", "c"):
        await gw.threads.configure(thread_id=name, budget={})
    page, rest, named = await asyncio.gather(
        trunkline("audit", "state", "--limit", "2"),
        trunkline("audit", "state", "--after", "b/1", "--json"),
        trunkline("audit", "state", "--thread", "c", "--thread", "a", "--json"),
    )
    assert [line.split("\t")[1] for line in page.out.splitlines()][-2:] == ["a", "b/1"]
    assert "next: --after b/1" in page.err
    assert ([one["thread_id"] for one in rest.json["threads"]], rest.json["after"]) == (["c"], None)
    assert [one["thread_id"] for one in named.json["threads"]] == ["a", "c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--at 0", "from 1 on"),
        ("--at yesterday", "is no time"),
        ("--at 2026-11-20T12:00:00", "is no time"),
        ("--at -3", "count from 1"),
        ("--limit -1", "--limit"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "state", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


async def test_what_was_not_there_then_is_not_found(trunkline: Trunkline) -> None:
    ahead, nobody = await asyncio.gather(
        trunkline("audit", "state", "--at", "6"), trunkline("audit", "state", "--thread", "nobody")
    )
    assert (ahead.code, ahead.out, nobody.code, nobody.out) == (3, "", 3, "")
    assert "there is no event 6: the log ends at 5; see `trunkline " in ahead.err
    assert "nothing had happened in thread 'nobody' by event 5; see `trunkline " in nobody.err


async def test_an_event_of_a_later_version_is_named_and_stops_nothing(trunkline: Trunkline, bus_url: str) -> None:
    connection = await Connection.open(bus_url, name="test")
    await connection.nats.jetstream().publish("trunkline.log.model.new", b'{"type":"model.sung.v9"}')
    await connection.nats.jetstream().publish("trunkline.log.thread.new", b'{"type":"thread.sung.v9"}')
    await connection.close()
    done = await trunkline("audit", "state", "--json")
    assert (done.code, done.json["unknown"], len(done.json["models"])) == (0, [6, 7], 4)
    assert "events 6, 7" in done.err


async def test_without_a_log_there_is_no_past(alone: Trunkline, bus_url: str) -> None:
    done = await alone("audit", "state", "--nats", bus_url)
    assert (done.code, done.out) == (6, "")
    assert "no log yet" in done.err


PAGE = Path(__file__).parents[2] / "docs" / "time-travel.md"
COMMANDS = re.findall(r"^trunkline (.+?)(?: *[#>].*)?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_commands_of_the_page_about_time_travel_are_understood(command: str) -> None:
    args = build_parser().parse_args(command.split())
    if args.command == "events":
        events_asked(args, time.time())
    else:
        read_position(args.at, time.time())


def test_the_page_about_time_travel_has_commands_to_check() -> None:
    assert len(COMMANDS) >= 10
