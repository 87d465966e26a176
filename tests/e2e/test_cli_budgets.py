"""`trunkline budgets` and the budgets of `trunkline threads`, as a user has them."""

import asyncio
import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import trunkline as library
from cli_kit import Trunkline, on_terminal
from trunkline.cli.parser import build_parser
from trunkline.client import Gateway
from trunkline_actors.claims import key_id

pytest_plugins = ["gateway", "console"]

KEY = "tl-a-key"
SCOPE = f"key:{key_id(KEY)}"


async def test_a_budget_is_set_used_and_shown(trunkline: Trunkline) -> None:
    flags = "--limit 5 --window month --time-zone Europe/Berlin --warn-at 0.8"
    done = await trunkline("budgets", "set", "team:research", *flags.split(), "--reason", "pilot")
    assert done.out.startswith("team:research set: $5 a month in Europe/Berlin, warning at 0.8 of it (event ")
    done = await trunkline("budgets", "set", SCOPE, "--limit", "0.5", "--team", "research")
    assert done.out.startswith(f"{SCOPE} set: $0.5, of team research (event ")
    assert (await trunkline("chat", "hello", "--model", "echo", TRUNKLINE_KEY=KEY)).code == 0
    async with asyncio.timeout(10):
        while (books := (await trunkline("budgets", "get", "team:research", "--json")).json)["settled_usd"] == "0":
            pass
    assert books["settled_usd"] == "0.000005"
    assert (books["limit_usd"], books["window"], books["time_zone"], books["warn_at"]) == (
        "5",
        "month",
        "Europe/Berlin",
        0.8,
    )
    reset = datetime.fromisoformat(books["resets_at"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert (reset.day, reset.hour, reset.minute) == (1, 0, 0)
    shown = (await trunkline("budgets", "get", SCOPE)).out
    assert "scope         key:" in shown
    assert "settled_usd   0.000005\n" in shown
    assert "team          research\n" in shown
    assert "resets_at     -\n" in shown


async def test_a_budget_is_set_as_a_whole(trunkline: Trunkline) -> None:
    await trunkline("budgets", "set", SCOPE, "--limit", "0.5", "--window", "day", "--warn-at", "1", "--team", "a")
    done = await trunkline("budgets", "set", SCOPE, "--json")
    assert [done.json[name] for name in ("limit_usd", "window", "warn_at", "team")] == [None, "none", None, None]


async def test_budgets_are_listed_by_page(trunkline: Trunkline, gw: Gateway) -> None:
    for scope in ("team:b", "gateway", "team:a"):
        await gw.budgets.set(scope=scope, budget={"limit_usd": "1"})
    page = await trunkline("budgets", "list", "--limit", "2")
    assert page.out == "gateway\t1\tnone\t0\t0\t-\nteam:a\t1\tnone\t0\t0\t-\n"
    assert "next: --after team:a" in page.err
    rest = await trunkline("budgets", "list", "--after", "team:a", "--json")
    assert ([one["scope"] for one in rest.json["budgets"]], rest.json["after"]) == (["team:b"], None)


async def test_budgets_are_a_table_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "1"})
    shown = await on_terminal("budgets", "list", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    head, row = shown.splitlines()
    assert head.split() == ["scope", "limit_usd", "window", "settled_usd", "reserved_usd", "team"]
    assert row.split() == ["gateway", "1", "none", "0", "0", "-"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("get gateway", 3, "no budget is set for 'gateway'; `trunkline budgets list`"),
        ("set research", 2, "write `gateway`, `team:<name>` or `key:<id of a key>`"),
        ("set gateway --team a", 2, "only a key belongs to a team"),
        ("set gateway --limit much", 2, "budget.limit_usd"),
        ("set gateway --limit 1 --time-zone Mars", 2, "'Mars' is no time zone"),
        ("set gateway --window week", 2, "invalid choice: 'week'"),
        ("set gateway --warn-at 80", 2, "'80' is no share of the limit"),
        ("set gateway --warn-at nan", 2, "'nan' is no share of the limit"),
        ("set", 2, "required: SCOPE"),
        ("list --limit 0", 2, "limit"),
    ],
)
async def test_what_makes_no_sense_or_is_not_there_says_so(
    trunkline: Trunkline, arguments: str, code: int, said: str
) -> None:
    done = await trunkline("budgets", *arguments.split())
    assert (done.code, done.out) == (code, "")
    assert said in done.err


@pytest.mark.parametrize("scope", ["gateway", SCOPE])
async def test_a_chat_that_its_budget_can_not_pay_ends_with_its_own_code(
    trunkline: Trunkline, gw: Gateway, scope: str
) -> None:
    await gw.budgets.set(scope=scope, budget={"limit_usd": "0.000001", "window": "day"})
    done = await trunkline("chat", "hello", "--model", "echo", "--json", TRUNKLINE_KEY=KEY)
    assert done.code == 5
    error = done.json["error"]
    assert (error["code"], error["retryable"]) == ("budget_exceeded", False)
    told = error["metadata"]
    assert (told["budget"], told["limit_usd"], told["settled_usd"], told["window"]) == (scope, "0.000001", "0", "day")
    assert f"of the budget '{scope}' of $0.000001 $0 is spent" in done.err
    assert f"it starts again at {told['resets_at']}" in done.err


async def test_a_thread_has_a_time_zone_and_a_warning_too(trunkline: Trunkline) -> None:
    flags = "--limit 0.5 --window day --time-zone Asia/Tokyo --warn-at 0.9"
    done = await trunkline("threads", "configure", "t1", *flags.split())
    assert done.out.startswith("t1 configured: $0.5 a day in Asia/Tokyo, warning at 0.9 of it (event ")
    books = (await trunkline("threads", "get", "t1", "--json")).json
    assert (books["time_zone"], books["warn_at"], books["open"]) == ("Asia/Tokyo", 0.9, [])
    assert datetime.fromisoformat(books["resets_at"]).astimezone(ZoneInfo("Asia/Tokyo")).hour == 0
    [listed] = (await trunkline("threads", "list", "--json")).json["threads"]
    assert {**listed, "ok": True, "model": None, "parameters": {}, "preferences": {}} == books
    shown = (await trunkline("threads", "get", "t1")).out
    assert f"resets_at     {books['resets_at']}\n" in shown


async def test_the_id_of_a_key_is_told_and_never_the_key(alone: Trunkline) -> None:
    told, piped, instead, as_json, missing, broken = await asyncio.gather(
        alone("budgets", "key-id", TRUNKLINE_KEY=KEY),
        alone("budgets", "key-id", stdin=f"{KEY}\n".encode()),
        alone("budgets", "key-id", "--stdin", stdin=KEY.encode(), TRUNKLINE_KEY="tl-another"),
        alone("budgets", "key-id", "--json", TRUNKLINE_KEY=KEY),
        alone("budgets", "key-id"),
        alone("budgets", "key-id", stdin=b"tl-\xff\n"),
    )
    assert told.out == piped.out == instead.out == f"{key_id(KEY)}\n"
    assert as_json.json == {"key_id": key_id(KEY), "scope": SCOPE}
    assert (missing.code, missing.out) == (2, "")
    assert "set TRUNKLINE_KEY, or give the key on stdin" in missing.err
    assert (broken.code, broken.out) == (2, "")
    assert not [done for done in (told, piped, instead, as_json) if KEY in done.out + done.err]


async def test_a_key_is_never_a_flag(alone: Trunkline) -> None:
    done = await alone("budgets", "key-id", "--key", KEY)
    assert done.code == 2, "a key has no place in a flag, which other users of the machine can see"


async def test_code_without_asyncio_asks_the_same(gw: Gateway, bus_url: str) -> None:
    def ask() -> list[str]:
        with library.connect_sync(bus_url) as gateway:
            gateway.budgets.set(scope="gateway", budget={"limit_usd": "1"})
            assert gateway.budgets.get(scope="gateway")["limit_usd"] == "1"
            return [one["scope"] for one in gateway.budgets.list()["budgets"]]

    assert await asyncio.to_thread(ask) == ["gateway"]


PAGE = Path(__file__).parents[2] / "docs" / "budgets.md"
COMMANDS = re.findall(r"^trunkline (.+?)(?: *[#>].*)?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_about_budgets_are_understood(command: str) -> None:
    build_parser().parse_args(command.split())


def test_the_page_about_budgets_has_commands_to_check() -> None:
    assert len(COMMANDS) >= 6
