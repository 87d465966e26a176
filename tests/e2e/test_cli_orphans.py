"""`trunkline threads orphans`, as a user and a pipe have it, on a log that holds a few."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Trunkline, on_terminal
from given import a_decision, new
from trunkline.cli.main import main
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.thread import AttemptFailed, Orphaned
from trunkline_events.times import format_time

pytest_plugins = ["gateway", "console"]


async def lose(log: JetStreamLog, thread: str, request: str, key: str = "") -> None:
    """An attempt that was decided, and settled at its reservation of a quarter of a cent."""
    attempt = f"{request}-1"
    names: dict[str, Any] = {"request_id": request, "attempt_id": attempt, "attempt": 1, "model": "m", "provider": "p"}
    fact = Orphaned(**names, key=key, cost_nanos=2_500_000, last_seen=time.time() - 5)
    await log.append(new(a_decision(attempt), thread, id=f"{attempt}/decided", time=time.time()))
    await log.append(new(fact, thread, id=f"{attempt}/ended", time=time.time()))


async def test_each_is_a_line_with_what_it_cost_and_where_it_stands_in_the_log(
    alone: Trunkline, bus_url: str, log: JetStreamLog
) -> None:
    before = time.time()
    await lose(log, "t1", "r1", key="k1")
    failed = AttemptFailed(request_id="x", attempt_id="x-1", attempt=1, model="m", provider="p", failure="timeout")
    await log.append(new(failed, "t1"))
    await lose(log, "-", "r2")
    done = await alone("threads", "orphans", "--json", "--nats", bus_url)
    one, other = done.lines
    assert before <= datetime.fromisoformat(one.pop("time")).timestamp() <= time.time()
    assert one == {
        "seq": 2,
        "thread_id": "t1",
        "request_id": "r1",
        "attempt_id": "r1-1",
        "model": "m",
        "provider": "p",
        "cost_usd": "0.0025",
        "key": "k1",
    }
    assert (other["seq"], other["thread_id"], other["key"]) == (5, "-", None)
    assert (done.code, done.err) == (0, "")


async def test_a_time_and_a_thread_narrow_the_list(alone: Trunkline, bus_url: str, log: JetStreamLog) -> None:
    await lose(log, "t1", "r1")
    await lose(log, "-", "r2")
    between = format_time(time.time())
    await lose(log, "t1", "r3")

    async def found(*flags: str) -> list[str]:
        done = await alone("threads", "orphans", "--json", *flags, "--nats", bus_url)
        return [orphan["request_id"] for orphan in done.lines]

    assert await found("--since", "1h") == ["r1", "r2", "r3"]
    assert await found("--since", between) == ["r3"]
    assert await found("--thread", "t1") == ["r1", "r3"]
    assert await found("--thread", "-") == ["r2"]


async def test_a_terminal_gets_a_table_and_a_pipe_lines_of_fields(
    alone: Trunkline, bus_url: str, log: JetStreamLog, tmp_path: Path
) -> None:
    await lose(log, "t1", "r1")
    piped = await alone("threads", "orphans", "--nats", bus_url)
    assert piped.out.split("\t")[1:] == ["t1", "r1", "r1-1", "m", "p", "0.0025", "-", "2\n"]
    seen = await on_terminal("threads", "orphans", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    heading, row = seen.splitlines()
    assert heading.split()[:3] == ["time", "thread_id", "request_id"]
    assert row.split() == piped.out.split()


async def test_where_nothing_was_lost_nothing_is_printed(alone: Trunkline, bus_url: str, log: JetStreamLog) -> None:
    assert await log.end() == 0
    done = await alone("threads", "orphans", "--thread", "t1", "--nats", bus_url)
    assert (done.code, done.out) == (0, "")
    assert "no attempt of thread t1 was orphaned since 2" in done.err


@pytest.mark.parametrize(("flags", "said"), [("--since=soon", "is no time"), ("--thread=", "must not be empty")])
def test_what_makes_no_sense_is_a_usage_error(flags: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["threads", "orphans", flags]) == 2
    assert said in capsys.readouterr().err
