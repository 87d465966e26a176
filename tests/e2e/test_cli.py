"""The command line as a user has it: the console script in a process of its own, against a gateway in this one."""

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from trunkline.cli.main import build_parser
from trunkline.client import Gateway
from trunkline.host import ROLES
from trunkline_events.connection import Connection

pytest_plugins = ["gateway"]

SCRIPT = Path(sys.executable).with_name("trunkline")
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object it printed."""
        assert self.out.count("\n") == 1, self
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON objects it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


Trunkline = Callable[..., Awaitable[Done]]


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUNKLINE_", "NO_COLOR"))}
    return kept | more


async def ended(*arguments: str, stdin: bytes = b"", cwd: Path, **more: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stdin=-1, stdout=-1, stderr=-1, cwd=cwd, env=environment(**more)
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture
def alone(tmp_path: Path) -> Trunkline:
    """Runs `trunkline` where there is no gateway, unless it is told of one."""

    async def run(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
        return await ended(*arguments, stdin=stdin, cwd=tmp_path, **more)

    return run


@pytest.fixture
def trunkline(gw: Gateway, bus_url: str, alone: Trunkline) -> Trunkline:
    """Runs `trunkline` as a client of a running gateway."""

    async def run(*arguments: str, stdin: bytes = b"", **more: str) -> Done:
        return await alone(*arguments, stdin=stdin, TRUNKLINE_NATS=bus_url, **more)

    return run


async def on_terminal(*arguments: str, cwd: Path, **more: str) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment(**more)
    )
    os.close(theirs)
    await process.wait()
    os.set_blocking(ours, False)
    printed = os.read(ours, 1 << 20).decode()
    os.close(ours)
    return printed


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
        (["models", "register", "m"], "required: --provider"),
        (["models", "update", "m", "--price-input", "1"], "needs both --price-input and --price-output"),
        (["models", "update", "m", "--capability", "speed=fast"], "'fast' is not a number"),
        (["providers", "update", "p", "--header", "x"], "--header takes NAME=VALUE"),
        (["threads", "configure", "t", "--window", "year"], "invalid choice: 'year'"),
        (["events", "tail", "--from", "1", "--since", "1h"], "not allowed with"),
        (["events", "tail", "--until", "1"], "unrecognized arguments"),
        (["events", "replay", "--category", "modle"], "there are model, provider, thread, circuit"),
        (["events", "replay", "--since", "2026-11-20"], "'2026-11-20' is no time"),
        (["events", "replay", "--until", "soon"], "'soon' is no time"),
        (["run", "provder"], f"'provder' is not a role; there are {', '.join(ROLES)}"),
        (["run", "router", "--provider", "p"], "name that role too"),
        (["up", "--durability", "sometimes"], "invalid choice: 'sometimes'"),
        (["up", "--workers", "many"], "workers = 'many' from the command line"),
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


async def test_without_a_bus_a_client_ends_with_6(alone: Trunkline) -> None:
    done = await alone("models", "list", "--json", "--nats", "nats://127.0.0.1:1")
    assert done.code == 6
    assert "no NATS server answers at nats://127.0.0.1:1; start one with `trunkline up`" in done.err
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
    (tmp_path / "a.png").write_bytes(PNG)
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
    process = await asyncio.create_subprocess_exec(
        *(SCRIPT, "chat", "x", "--model", "slow", "--thread", "cut", "--nats", bus_url),
        stdout=-1,
        stderr=-1,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.stdout is not None
    assert await process.stdout.readexactly(2) == b"w1"
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert await first(gw.events("thread", id="cut", since=0), "thread.aborted.v1")


async def first(events: AsyncIterator[Any], kind: str) -> Any:
    async with asyncio.timeout(10):
        async for event in events:
            if event.type == kind:
                return event


# -- the registry and threads ------------------------------------------------------------------------------------------


async def test_a_model_lives_from_register_to_remove(trunkline: Trunkline) -> None:
    arguments = "--provider scripted --upstream echo --price-input 1 --price-output 2 --price-cached-input 0.5"
    more = "--context-window 1000 --max-output 100 --capability speed=0.5 --capability wit --feature tools --tag a"
    done = await trunkline(
        "models", "register", "m", *arguments.split(), *more.split(), "--reason", "why not", "--json"
    )
    assert done.code == 0
    assert done.json["model"] == {
        "id": "m",
        "provider": "scripted",
        "upstream": "echo",
        "version": "1",
        "capabilities": {"speed": 0.5, "wit": 1.0},
        "features": ["tools"],
        "context_window": 1000,
        "max_output": 100,
        "price": {"input": "1", "output": "2", "cached_input": "0.5"},
        "tags": ["a"],
        "status": "enabled",
    }
    assert (await trunkline("models", "register", "m", "--provider", "scripted")).code == 1
    assert (await trunkline("models", "update", "m", "--tag", "b")).out.startswith("m updated (event ")
    assert (await trunkline("models", "disable", "m")).out.startswith("m disabled (event ")
    assert (await trunkline("models", "disable", "m")).out == "m was disabled already\n"
    assert (await trunkline("models", "enable", "m")).code == 0
    assert (await trunkline("models", "retire", "m")).code == 0
    shown = await trunkline("models", "get", "m")
    assert "status          retired\n" in shown.out
    assert "tags            b\n" in shown.out
    assert (await trunkline("models", "remove", "m")).code == 0
    gone = await trunkline("models", "get", "m", "--json")
    assert (gone.code, gone.json["error"]["code"]) == (3, "model_not_found")


async def test_models_are_listed_by_page_and_filter(trunkline: Trunkline) -> None:
    page = await trunkline("models", "list", "--limit", "2")
    assert [line.split("\t")[0] for line in page.out.splitlines()] == ["echo", "fails"]
    assert "--after fails" in page.err
    rest = await trunkline("models", "list", "--after", "fails", "--status", "enabled", "--json")
    assert [model["id"] for model in rest.json["models"]] == ["slow", "tokens"]
    assert (await trunkline("models", "list", "--limit", "0")).code == 2


async def test_models_are_a_table_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("models", "list", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    head, first_row, *_ = shown.splitlines()
    assert head.split() == ["id", "provider", "upstream", "status", "capabilities", "price", "tags"]
    assert first_row.split() == ["echo", "scripted", "echo", "enabled", "-", "1.00/4.00", "-"]


async def test_a_provider_lives_from_register_to_remove(trunkline: Trunkline) -> None:
    arguments = "--kind openai-compatible --base-url http://127.0.0.1:1/v1 --secret env:NO_KEY --local"
    more = "--max-concurrency 2 --timeout 5 --header X-Team=red"
    done = await trunkline("providers", "register", "p", *arguments.split(), *more.split(), "--json")
    assert done.json["provider"] == {
        "id": "p",
        "kind": "openai-compatible",
        "base_url": "http://127.0.0.1:1/v1",
        "secret": "env:NO_KEY",
        "local": True,
        "max_concurrency": 2,
        "timeout_s": 5.0,
        "headers": {"X-Team": "red"},
    }
    assert (await trunkline("providers", "update", "p", "--no-local", "--json")).json["provider"]["local"] is False
    assert (await trunkline("providers", "check", "p")).code == 1
    assert (await trunkline("providers", "check", "scripted", "--json")).json["reachable"] is True
    listed = await trunkline("providers", "list")
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == ["p", "scripted"]
    assert "kind             openai-compatible\n" in (await trunkline("providers", "get", "p")).out
    assert (await trunkline("providers", "remove", "p")).code == 0
    assert (await trunkline("providers", "check", "p")).code == 3
    assert (await trunkline("providers", "remove", "scripted")).code == 1


async def test_a_threads_budget_is_set_and_its_books_shown(trunkline: Trunkline) -> None:
    done = await trunkline("threads", "configure", "t1", "--limit", "0.5", "--window", "day", "--reason", "pilot")
    assert done.out.startswith("t1 configured: $0.5 a day (event ")
    assert (await trunkline("chat", "hello", "--model", "echo", "--thread", "t1")).code == 0
    books = (await trunkline("threads", "get", "t1", "--json")).json
    assert (books["limit_usd"], books["window"], books["settled_usd"]) == ("0.5", "day", "0.000005")
    assert "settled_usd   0.000005\n" in (await trunkline("threads", "get", "t1")).out
    assert (await trunkline("threads", "list")).out == "t1\t0.5\tday\t0.000005\t0\t-\n"
    assert (await trunkline("threads", "configure", "t1")).out.startswith("t1 configured: no limit (event ")
    assert (await trunkline("threads", "get", "t2")).code == 3
    assert (await trunkline("threads", "configure", "t1", "--limit", "much")).code == 2


# -- events ------------------------------------------------------------------------------------------------------------


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
    process = await asyncio.create_subprocess_exec(
        *(SCRIPT, "events", "tail", "--from", "2", "--category", "model", "--nats", bus_url),
        stdout=-1,
        stderr=-1,
        cwd=tmp_path,
        env=environment(),
    )
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
    process = await asyncio.create_subprocess_exec(
        *(SCRIPT, "events", "tail", "--from", "1", "--nats", bus_url),
        stdout=-1,
        stderr=-1,
        cwd=tmp_path,
        env=environment(),
    )
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


# -- demo and doctor ---------------------------------------------------------------------------------------------------


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
