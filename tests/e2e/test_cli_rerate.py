"""`trunkline audit rerate`, as a user and a pipe have it; and that prices of the settings reach those who route."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_kit import SCRIPT, Trunkline, ended, environment, on_terminal
from given import new
from trunkline.cli.main import main
from trunkline.cli.parser import build_parser
from trunkline.client import Gateway
from trunkline.client import connect as connect_to
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.thread import Orphaned, UsageRecorded
from trunkline_events.usage import Usage

pytest_plugins = ["gateway", "console"]

NAMED: dict[str, Any] = {"request_id": "r", "attempt_id": "r-1", "attempt": 1, "model": "echo", "provider": "p"}
ESTIMATED = UsageRecorded(
    **NAMED,
    usage=Usage(input_tokens=1_000_000, cached_input_tokens=500_000, output_tokens=1_000_000),
    cost_nanos=3_000_000_000,
    price_version="model@2",
    latency_ms=1.0,
    ttft_ms=None,
    finish="stop",
    estimated=True,
    key="k",
)
ORPHANED = Orphaned(**NAMED, cost_nanos=250_000_000, last_seen=0.0)


async def endings(gw: Gateway) -> list[UsageRecorded]:
    log = await gw.log()
    return [event.body async for event in log.read() if isinstance(event.body, UsageRecorded)]


async def test_both_figures_are_told_in_all_and_by_thread_key_and_day(
    trunkline: Trunkline, gw: Gateway, log: JetStreamLog
) -> None:
    for thread in ("t1", "t2", "t1"):
        await gw.chat.create("echo", "hello", thread=thread)
    await gw.chat.create("tokens", "hello", thread="t1")
    await log.append(new(ESTIMATED, "t3"))
    await log.append(new(ORPHANED, "t3"))
    before = await log.end()

    told = (await trunkline("audit", "rerate", "--model", "echo", "--price", "2,8,0.5", "--json")).json
    assert list(told) == [
        "model",
        "price",
        "from",
        "to",
        "total",
        "by_thread",
        "by_key",
        "by_day",
        "orphans",
        "unknown",
    ]
    assert (told["model"], told["price"], told["from"], told["to"]) == ("echo", "2/8/0.5", 1, before)

    booked = [body.cost_nanos for body in await endings(gw) if body.model == "echo"]
    total = told["total"]
    assert (total["events"], total["estimated"]["events"]) == (4, 1)
    assert float(total["booked_usd"]) == pytest.approx(sum(booked) / 1e9)
    assert (total["estimated"]["booked_usd"], total["estimated"]["rerated_usd"]) == ("3", "9.25")
    exact = 2 * (sum(booked) - ESTIMATED.cost_nanos) / 1e9
    assert float(total["rerated_usd"]) - 9.25 == pytest.approx(exact), "twice the price, no cached tokens"
    assert [(one["thread"], one["events"]) for one in told["by_thread"]] == [("t1", 2), ("t2", 1), ("t3", 1)]
    assert [(one["key"], one["events"]) for one in told["by_key"]] == [("", 3), ("k", 1)]
    assert told["orphans"] == {"events": 1, "booked_usd": "0.25"}
    assert sum(one["events"] for one in told["by_day"]) == 4
    assert await log.end() == before, "nothing was written"


async def test_a_part_of_the_log_and_of_the_report_can_be_asked_for(trunkline: Trunkline, gw: Gateway) -> None:
    for _ in range(3):
        await gw.chat.create("echo", "hello")
    log = await gw.log()
    _, second, _ = [event.sequence async for event in log.read() if isinstance(event.body, UsageRecorded)]
    rerate = ("audit", "rerate", "--model", "echo", "--price", "2,8")
    early, late, none = await asyncio.gather(
        trunkline(*rerate, "--until", str(second), "--by", "key", "--json"),
        trunkline(*rerate, "--since", "1h", "--by", "day", "--by", "thread", "--json"),
        trunkline(*rerate, "--until", "1h", "--json"),
    )
    assert (early.json["total"]["events"], "by_key" in early.json, "by_day" in early.json) == (2, True, False)
    assert (late.json["total"]["events"], [name for name in late.json if "by_" in name]) == (3, ["by_day", "by_thread"])
    assert (none.code, none.json["total"]["events"], none.json["by_day"]) == (0, 0, [])


async def test_each_line_in_a_pipe_says_what_it_is_by(trunkline: Trunkline, gw: Gateway, log: JetStreamLog) -> None:
    await log.append(new(ESTIMATED, "t3"))
    await log.append(new(ORPHANED, "t3"))
    done = await trunkline("audit", "rerate", "--model", "echo", "--price", "2,8", "--by", "thread", "--by", "key")
    figures = ["1", "3", "10", "7", "1000000", "500000", "1000000", "1"]
    assert [line.split("\t") for line in done.out.splitlines()] == [
        ["total", "-", *figures],
        ["thread", "t3", *figures],
        ["key", "k", *figures],
    ]
    assert "model echo at $2/8 a million tokens, events 1 to 7" in done.err
    assert "estimated: 1 ended without final usage; of the sums, $3 booked and $10 re-rated are bounds" in done.err
    assert "not re-rated: 1 orphaned, booked at their reservation, $0.25 in all" in done.err


async def test_a_terminal_gets_tables_and_a_bar(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    await gw.chat.create("echo", "hello", thread="t1")
    rerate = ("audit", "rerate", "--model", "echo", "--price", "2,8")
    printed = await on_terminal(*rerate, cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    said, *sections = [part.splitlines() for part in printed.replace("\r\n", "\n").split("\n\n")]
    assert ("100%" in "".join(said), said[-1].startswith("model echo at $2/8")) == (True, True)
    assert [section[0] for section in sections] == ["total", "by thread", "by key", "by day"]
    assert sections[0][1].split()[:4] == ["events", "booked_usd", "rerated_usd", "difference_usd"]
    assert sections[1][2].split()[:2] == ["t1", "1"]


async def test_a_model_that_never_was_is_not_found(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.chat.create("echo", "hello")
    await gw.models.remove(id="echo")
    nobody, unused, gone = await asyncio.gather(
        *(trunkline("audit", "rerate", "--model", m, "--price", "1,1") for m in ("nobody", "slow", "echo"))
    )
    assert (nobody.code, nobody.out) == (3, "")
    assert "no model 'nobody' was ever registered; see `trunkline models list`" in nobody.err
    assert (unused.code, unused.out.split("\t")[:3]) == (0, ["total", "-", "0"])
    assert (gone.code, gone.out.split("\t")[:3]) == (0, ["total", "-", "1"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--price 2", "--price: '2' is no price; write INPUT,OUTPUT"),
        ("--price x,1", "--price: input: 'x' is not an amount in US dollars"),
        ("--price 1,-1", "output: '-1' is not an amount"),
        ("--price 1,1 --since yesterday", "is no time"),
        ("--price 1,1 --until -3", "count from 1"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "rerate", "--model", "echo", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


# -- prices of the settings, where they are wanted ---------------------------------------------------------------------


@asynccontextmanager
async def serving(folder: Path, *flags: str) -> AsyncIterator[str]:
    """A running `trunkline up`: where its bus is."""
    ready = folder / "ready.json"
    arguments = ("up", "--ephemeral", "--nats-port", "0", "--http-port", "0", "--ready-file", str(ready), *flags)
    with (folder / "up.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            SCRIPT, *arguments, stdout=output, stderr=output, cwd=folder, env=environment()
        )
    try:
        async with asyncio.timeout(30):
            while not ready.exists():
                assert process.returncode is None, (folder / "up.log").read_text()
                await asyncio.sleep(0.01)
        yield json.loads(ready.read_text())["nats"]
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_prices_of_the_file_reach_those_who_route(workers: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text('prices: {scripted/tokens:3: {input: "5", output: "7"}}\nprice_ceiling: 11/13\n')
    async with serving(tmp_path, "--workers", workers, "--config", str(config)) as url, connect_to(url) as gw:
        await gw.providers.register(id="far", kind="scripted", local=False)
        await gw.models.register(id="priced", provider="far", upstream="tokens:3")
        await gw.models.register(id="unpriced", provider="far", upstream="tokens:4")
        for model in ("priced", "unpriced"):
            await gw.chat.create(model, "hello")
        versions = [body.price_version for body in await endings(gw)]
    assert versions == ["override@5/7", "ceiling@11/13"]


async def test_a_bad_price_stops_the_start_and_says_what_to_mend(tmp_path: Path) -> None:
    done = await ended("up", "--ephemeral", cwd=tmp_path, TRUNKLINE_PRICE_CEILING="0/0")
    assert (done.code, done.out) == (2, "")
    assert "price_ceiling from the environment: a ceiling of 0 would let calls" in done.err


PAGE = Path(__file__).parents[2] / "docs" / "prices.md"
COMMANDS = re.findall(r"^trunkline (.+?)(?: *[#>].*)?$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_about_prices_are_understood(command: str) -> None:
    build_parser().parse_args(command.split())


def test_the_page_about_prices_has_commands_to_check() -> None:
    assert len(COMMANDS) >= 4
