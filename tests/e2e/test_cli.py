"""The command line as a user has it: what makes no sense, exit codes, and `trunkline chat`."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Trunkline, on_terminal, started
from trunkline.cli.failures import exit_code
from trunkline.cli.main import build_parser
from trunkline.client import Gateway
from trunkline.errors import from_answer
from trunkline.host import ROLES
from trunkline_events.refusal import CODES, Refused

pytest_plugins = ["gateway", "console"]


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["models"], "required: VERB"),
        (["chat"], "required: PROMPT"),
        (["chat", "x", "--mod", "echo"], "unrecognized arguments"),
        (["chat", ""], "the prompt is empty"),
        (["chat", b"\xff".decode(errors="surrogateescape")], "must be valid UTF-8"),
        (["chat", "x", "--image", "gone.png"], "image gone.png can't be read: No such file"),
        (["chat", "x", "--image", "."], "image . can't be read"),
        (["models", "register", "m"], "needs an ID and its --provider"),
        (["models", "update", "m", "--price-input", "1"], "needs both --price-input and --price-output"),
        (["models", "update", "m", "--capability", "speed=fast"], "'fast' is not a number"),
        (["providers", "update", "p", "--header", "x"], "--header takes NAME=VALUE"),
        (["threads", "configure", "t", "--window", "year"], "invalid choice: 'year'"),
        (["events", "tail", "--from", "1", "--since", "1h"], "not allowed with"),
        (["events", "tail", "--until", "1"], "unrecognized arguments"),
        (["events", "replay", "--category", "modle"], "there are model, provider, policy, thread, budget, circuit"),
        (["events", "replay", "--since", "2026-11-20"], "'2026-11-20' is no time"),
        (["events", "replay", "--until", "soon"], "'soon' is no time"),
        (["run", "provder"], f"'provder' is not a role; there are {', '.join(ROLES)}"),
        (["run", "router", "--provider", "p"], "name that role too"),
        (["up", "--durability", "sometimes"], "invalid choice: 'sometimes'"),
        (["up", "--workers", "many"], "workers = 'many' from the command line"),
        (["up", "--ephemeral", "--nats-port", "99999"], "nats_port = '99999' from the command line"),
        (["up", "--ephemeral", "--nats-port", "-1"], "nats_port = '-1' from the command line"),
        (["up", "--data", "x", "--ephemeral"], "not allowed with"),
        (["up", "--config", "gone.yaml"], "there is no file gone.yaml; give another one with --config"),
    ],
)
async def test_a_command_that_makes_no_sense_ends_with_2_and_says_where_to_look(
    arguments: list[str], told: str, alone: Trunkline
) -> None:
    done = await alone(*arguments)
    assert done.code == 2
    assert told in done.err
    assert "next: " in done.err or "`trunkline" in done.err or "--config" in done.err
    assert done.out == ""


async def test_help_names_every_role(alone: Trunkline) -> None:
    done = await alone("run", "--help")
    assert done.code == 0
    assert all(role in done.out for role in ROLES)


def test_every_verb_has_code_behind_it() -> None:
    lines = ["chat x", "models list", "providers list", "threads list", "events tail", "demo", "doctor", "bench", "up"]
    for line in lines:
        module, _, name = build_parser().parse_args(line.split()).run.partition(":")
        assert callable(getattr(__import__(f"trunkline.cli.{module}", fromlist=[name]), name))


@pytest.mark.parametrize("code", CODES)
def test_every_refusal_has_an_exit_code(code: str) -> None:
    body = Refused(code=code, message="no").body("chat", None)
    wanted = {400: 2, 401: 4, 403: 4, 404: 3, 500: 6, 502: 6, 503: 6, 504: 6}
    special = {"context_length_exceeded": 1, "content_filtered": 1, "budget_exceeded": 5, "rate_limited": 6}
    expected = special.get(code) or wanted.get(CODES[code].status, 1)
    assert exit_code(from_answer(str(CODES[code].status), "no", body)) == expected


async def test_without_a_bus_a_client_ends_with_6(alone: Trunkline) -> None:
    done = await alone("models", "list", "--json", "--nats", "nats://127.0.0.1:1")
    assert done.code == 6
    assert "nats://127.0.0.1:1" in done.err
    assert "start one with `trunkline up`" in done.err
    assert done.json["error"]["code"] == "unavailable"


async def test_a_bad_setting_in_the_environment_ends_with_2(alone: Trunkline) -> None:
    done = await alone("models", "list", TRUNKLINE_NATS_PORT="many")
    assert done.code == 2
    assert "nats_port = 'many' from the environment" in done.err


# -- chat --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[], ["--no-stream"]], ids=["stream", "no stream"])
async def test_chat_prints_the_answer_and_then_the_receipt_apart(how: list[str], trunkline: Trunkline) -> None:
    done = await trunkline("chat", "hello there", "--model", "echo", *how)
    assert done == (0, "hello there\n", done.err)
    assert done.err.startswith("echo at scripted · $0.00001 · 2 tokens in, 2 out · event ")
    assert "\x1b" not in done.err


async def test_chat_reads_the_prompt_from_stdin(trunkline: Trunkline) -> None:
    done = await trunkline("chat", "-", "--model", "echo", stdin="from a pipe: é\n".encode())
    assert done.out == "from a pipe: é\n"
    assert (await trunkline("chat", "-", stdin=b"\xff")).code == 2


async def test_chat_streams_json_a_chunk_a_line_and_a_receipt_at_the_end(trunkline: Trunkline) -> None:
    done = await trunkline("chat", "a b", "--model", "echo", "--thread", "t1", "--json")
    *chunks, last = done.lines
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert last["receipt"]["model"] == "echo"
    assert last["usage"]["output_tokens"] == 2
    assert done.err == ""


async def test_chat_prints_one_object_when_it_does_not_stream(trunkline: Trunkline) -> None:
    done = await trunkline("chat", "a b", "--model", "echo", "--json", "--no-stream")
    assert done.json["completion"]["choices"][0]["message"]["content"] == "a b"
    assert (done.json["receipt"]["cost"], done.json["usage"]["output_tokens"]) == ("0.00001", 2)


async def test_chat_routes_by_capability_and_cost(trunkline: Trunkline) -> None:
    done = await trunkline("chat", "x", "--capability", "poetry")
    assert done.code == 6
    assert "next: see `trunkline models list`" in done.err
    done = await trunkline("chat", "x", "--model", "echo", "--max-cost", "0.000000001")
    assert done.code == 6
    assert "max_cost_usd" in done.err


async def test_chat_sends_images(trunkline: Trunkline, gw: Gateway, tmp_path: Path) -> None:
    await gw.models.register(id="eyes", provider="scripted", upstream="echo", features=["vision"])
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "b.png").write_bytes(b"no image")
    assert (await trunkline("chat", "look", "--model", "eyes", "--image", "a.png")).out == "look\n"
    refused = await trunkline("chat", "look", "--image", "b.png")
    assert refused.code == 2
    assert "b.png is not an image" in refused.err


async def test_what_fails_has_its_exit_code_and_says_what_to_do_next(trunkline: Trunkline, gw: Gateway) -> None:
    await gw.threads.configure(thread_id="poor", budget={"limit_usd": "0"})
    for arguments, code, told in (
        (["--model", "gone"], 3, "`trunkline models list`"),
        (["--model", "echo", "--thread", "-"], 2, "next: "),
        (["--model", "echo", "--thread", "poor"], 5, "`trunkline threads configure`"),
        (["--model", "fails"], 6, "next: "),
    ):
        done = await trunkline("chat", "x", *arguments, "--json")
        assert done.code == code, done
        assert told in done.err
        assert done.lines[-1]["error"]["message"]


async def test_chat_colours_on_a_terminal_only_and_not_where_no_color_is_set(
    gw: Gateway, bus_url: str, tmp_path: Path
) -> None:
    await gw.models.register(id="thinks", provider="scripted", upstream="think:hm \x1b[31m")
    arguments = ("chat", "x", "--model", "thinks")
    coloured = await on_terminal(*arguments, cwd=tmp_path, TRUNKLINE_NATS=bus_url)
    assert "\x1b[2m" in coloured
    assert "hm" in coloured
    assert "\x1b[31m" not in coloured, "a model must not drive the terminal"
    plain = await on_terminal(*arguments, cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    assert "\x1b" not in plain
    assert "thinks at scripted" in plain


async def test_ctrl_c_aborts_a_chat_quietly(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    process = await started("chat", "x", "--model", "slow", "--thread", "cut", "--nats", bus_url, cwd=tmp_path)
    assert process.stdout is not None
    assert await process.stdout.readexactly(2) == b"w1"
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert await happens(gw.events("thread", id="cut", since=0), "thread.aborted.v1")


async def happens(events: AsyncIterator[Any], kind: str) -> bool:
    async with asyncio.timeout(10):
        async for event in events:
            if event.type == kind:
                return True
    return False
