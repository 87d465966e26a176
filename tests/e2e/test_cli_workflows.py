"""`trunkline workflows` and `--import`, as a user has them."""

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest
from cli_kit import Trunkline, ended, on_terminal, started
from processes import until
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline.workflow_imports import book_of

pytest_plugins = ["gateway", "console"]

FLOWS = '''
"""flows.py"""

from trunkline.workflows import (
    ConditionalStep, LLMStep, MapStep, Middleware, Retry, StepError, TransformStep, WaitStep, Workflow,
)

print("imported")


def shout(draft):
    print("in a step")
    return draft.upper()


def broken():
    raise StepError("busy", "come back later")


class Around(Middleware):
    async def on_step(self, step, proceed):
        return await proceed()


MIDDLEWARE = [Around()]
tweet = Workflow("tweet", [
    LLMStep("draft", "about {topic}", model="echo"),
    MapStep("each", "tags", [LLMStep("say", "#{item}", model="echo")]),
    TransformStep("loud", shout),
])
asks = Workflow("asks", [WaitStep("approval", "approved"), TransformStep("loud", shout, {"draft": "approval"})])
fails = Workflow("failing", [TransformStep("step", broken, retry=Retry(attempts=2, first_s=0.01))])
dear = Workflow("dear", [LLMStep("s", "word " * 50, model="echo")], budget_usd="0.0000001")
late = Workflow("late", [WaitStep("w", "never")], deadline_s=0.1)
typed = Workflow("typed", [LLMStep("s", "{topic}", model="echo")], input={
    "type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"],
})
'''
GIVEN = '{"topic": "foxes", "tags": ["a", "b"]}'
LOG_LINE = re.compile(r'^\{"', re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS)
    return tmp_path


async def test_a_run_shows_its_steps_on_stderr_and_its_output_alone_on_stdout(
    folder: Path, trunkline: Trunkline
) -> None:
    done = await trunkline("workflows", "run", "flows.py:tweet", "--input", GIVEN, "--id", "r")
    assert (done.code, done.out) == (0, "ABOUT FOXES\n"), done
    said = done.err.splitlines()
    assert said[:3] == ["imported", "run r of 'tweet'", "draft started"]
    assert "each/1/say started" in said
    assert "in a step" in said
    assert any(re.fullmatch(r"draft completed: \d+ ms, 2 tokens in, 2 out, \$0\.00001", line) for line in said)
    assert re.fullmatch(r"run r · .+ · \$0\.00002 · 3 chats · 0 retries", said[-1])
    assert not LOG_LINE.search(done.err)
    shown = await trunkline("workflows", "show", "r")
    rows = [line.split("\t") for line in shown.out.splitlines() if "\t" in line]
    assert [(row[0], row[2], row[5]) for row in rows] == [
        ("draft", "completed", "2 in, 2 out"),
        ("each/0/say", "completed", "1 in, 1 out"),
        ("each/1/say", "completed", "1 in, 1 out"),
        ("loud", "completed", "-"),
    ]
    assert shown.out.endswith("\n\nABOUT FOXES\n")
    told = (await trunkline("workflows", "show", "r", "--json")).json
    assert {step["by"] for step in told["steps"]} == {led["by"] for led in told["led"]}
    listed = await trunkline("workflows", "list", "--workflow", "tweet", "--status", "completed")
    assert listed.out.split("\t")[:3] == ["r", "tweet", "completed"]


async def test_a_terminal_gets_a_list_that_fills_in(folder: Path, gw: Gateway, bus_url: str) -> None:
    arguments = ("workflows", "run", "flows:tweet", "--input", GIVEN)
    shown = await on_terminal(*arguments, cwd=folder, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    assert re.search(r"✓ draft +\d+ ms  2 tokens in, 2 out  \$0\.00001\r\n", shown)
    assert "✓ each/1/say" in shown
    assert "in a step" in shown
    assert shown.endswith("retries\r\nABOUT FOXES\r\n")


async def test_input_comes_from_a_file_from_stdin_or_is_told_to_be_missing(folder: Path, trunkline: Trunkline) -> None:
    (folder / "topic.json").write_text('{"topic": "owls"}')
    run = ("workflows", "run", "flows.py:typed")
    assert (await trunkline(*run, "--input", "@topic.json")).out == "owls\n"
    piped = await trunkline(*run, "--input", "-", "--json", stdin=b'{"topic": "voles"}')
    assert (piped.json["output"], piped.json["status"]) == ("voles", "completed")
    missing = await trunkline(*run)
    assert (missing.code, "input: 'topic' is a required property" in missing.err) == (2, True), missing


@pytest.mark.parametrize(
    ("workflow", "code", "said"),
    [
        ("failing", 1, "at 'step' (busy): come back later; `trunkline workflows show"),
        ("dear", 5, "budget_exceeded"),
        ("late", 6, "(timeout): its time was over; `trunkline workflows show"),
    ],
)
async def test_a_run_that_fails_says_why_and_its_exit_code_is_that_of_its_error(
    folder: Path, trunkline: Trunkline, workflow: str, code: int, said: str
) -> None:
    done = await trunkline("workflows", "run", f"flows.py:{workflow}", "--id", "r", "--json")
    assert (done.code, said in done.err) == (code, True), done
    assert done.json["error"]["metadata"]["run"] == "r"
    if workflow == "failing":
        assert "step failed (busy), again in 10 ms" in done.err
        assert "failed at step (busy): come back later" in (await trunkline("workflows", "show", "r")).out


async def test_a_detached_run_is_led_by_a_process_that_imported_its_code(
    folder: Path, trunkline: Trunkline, gw: Gateway, bus_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detached = ("workflows", "run", "flows.py:asks", "--detach")
    alone = await trunkline(*detached, "--id", "alone")
    assert (alone.code, alone.out) == (0, "alone\n"), alone
    assert "nobody on this bus knows flows:shout, so the run waits" in alone.err
    assert "alone waits for a process that knows flows:shout" in (await trunkline("workflows", "list")).err
    monkeypatch.chdir(folder)
    worker = await Host.start(bus_url, ("workflow",), code=book_of(["flows"]))
    try:
        led = await trunkline(*detached, "--id", "led", "--json")
        assert (led.json["id"], led.json["waits_for"]) == ("led", [])
        for run in ("alone", "led"):
            sent = await trunkline("workflows", "signal", run, "approved", "--value", '"go"')
            assert sent.out.startswith(f"{run}: signal approved sent (event ")
        async with asyncio.timeout(10):
            while {one["status"] for one in (await gw.workflows.list())["runs"]} != {"completed"}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await gw.workflows.get(id="alone"))["output"] == "GO"
    finally:
        await worker.stop()


async def test_ctrl_c_leaves_the_run_to_be_gone_on_with_and_says_how(
    folder: Path, trunkline: Trunkline, gw: Gateway, bus_url: str
) -> None:
    run = ("workflows", "run", "flows.py:asks", "--id", "r")
    command = await started(*run, "--nats", bus_url, cwd=folder)
    assert command.stderr is not None
    said = b""
    while b"waits for: trunkline workflows signal r approved" not in said:
        said += await command.stderr.readline()
    command.send_signal(signal.SIGINT)
    _, err = await command.communicate()
    assert (command.returncode, b"--id r" in err, b"trunkline workflows cancel r" in err) == (130, True, True), err
    assert (await gw.workflows.get(id="r"))["by"] is None
    await gw.workflows.signal(id="r", name="approved", value="on")
    again = await trunkline(*run)
    assert (again.code, again.out) == (0, "ON\n"), again


async def test_a_run_is_cancelled_once_and_told_the_same_once(folder: Path, trunkline: Trunkline, gw: Gateway) -> None:
    await gw.workflows.start(definition={"name": "w", "steps": [{"kind": "wait", "name": "s", "signal": "x"}]}, id="r")
    gone = await trunkline("workflows", "cancel", "r", "--reason", "enough")
    assert gone.out.startswith("r: cancelled (event ")
    assert (await trunkline("workflows", "cancel", "r")).out == "r: it was cancelled already\n"
    assert "cancelled" in (await trunkline("workflows", "show", "r")).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("signal", "r", "x", "--value", "yes"), "--value is no JSON"),
        (("run", "flows.py"), "say which, like flows.py:NAME"),
        (("run", "flows.py:none"), "it has asks, dear, failing, late, tweet, typed"),
        (("run", "flows.py:late", "--input", "{x}"), "--input is no JSON"),
        (("run", "flows.py:late", "--input", "@none"), "none can't be read"),
        (("run", "flows.py:late", "--deadline", "soon"), "write it like 30s"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_makes_no_sense_is_refused_with_what_to_do(
    folder: Path, alone: Trunkline, arguments: tuple[str, ...], said: str
) -> None:
    done = await alone("workflows", *arguments)
    assert (done.code, done.out, said in done.err) == (2, "", True), done


async def test_what_the_gateway_refuses_has_its_exit_code(folder: Path, trunkline: Trunkline) -> None:
    for arguments, code, said in (
        (("show", "nobody"), 3, "there is no run 'nobody'"),
        (("cancel", "nobody"), 3, "trunkline workflows list"),
        (("run", "flows.py:late", "--deadline", "0s"), 2, "deadline_s: must be more than 0 seconds"),
    ):
        done = await trunkline("workflows", *arguments)
        assert (done.code, done.out, said in done.err) == (code, "", True), done


async def test_a_module_that_can_not_be_used_is_refused_before_anything_starts(
    tmp_path: Path, alone: Trunkline
) -> None:
    (tmp_path / "ends.py").write_text("import sys\nprint('bye')\nsys.exit(0)\n")
    done = await alone("run", "workflow", "--import", "ends", "--nats", "nats://127.0.0.1:9")
    assert (done.code, done.out) == (2, ""), done
    assert "bye\ntrunkline: ends ends the process (line 3 of ends.py) when it is imported; keep what runs" in done.err


async def test_import_is_for_the_role_workflow_and_may_be_a_setting(tmp_path: Path, alone: Trunkline) -> None:
    done = await alone("run", "router", "--import", "x")
    assert (done.code, "name that role too" in done.err) == (2, True), done
    done = await alone("up", "--ephemeral", TRUNKLINE_IMPORTS="first, second")
    assert (done.code, "there is no module 'first'" in done.err) == (2, True), done


async def test_up_with_workers_has_the_code_in_them(folder: Path) -> None:
    ready = folder / "ready.json"
    ports = ("--nats-port", "0", "--http-port", "0", "--ready-file", str(ready))
    command = await started("up", "--ephemeral", "--workers", "1", "--import", "flows.py", *ports, cwd=folder)
    try:
        await until(ready.exists)
        url = json.loads(ready.read_text())["nats"]
        detached = ("workflows", "run", "flows:asks", "--detach", "--json")
        done = await ended(*detached, cwd=folder, TRUNKLINE_NATS=url)
        assert done.json["waits_for"] == [], done
    finally:
        command.terminate()
        await command.communicate()
