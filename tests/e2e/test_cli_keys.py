"""`trunkline keys`, and the key that `trunkline up` makes, as a user has them."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Trunkline, ended
from trunkline.client import Gateway
from trunkline.host import Host

pytest_plugins = ["gateway", "console"]

KEY = re.compile(r"tl-[A-Za-z0-9_-]{43}")
HELLO = b'{"model":"echo","messages":[{"role":"user","content":"hello"}]}'


@contextmanager
def up(folder: Path, *flags: str) -> Iterator[tuple[dict[str, Any], str]]:
    """A running `trunkline up`: what its ready file says, and the banner's line about the key."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TRUNKLINE_"))}
    ports = ("--nats-port", "0", "--http-port", "0", "--ready-file", str(ready))
    process = subprocess.Popen(
        [sys.executable, "-m", "trunkline", "up", *ports, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        cwd=folder,
    )
    try:
        assert process.stdout is not None
        line = next(line for line in iter(process.stdout.readline, "") if line.startswith("  key "))
        until = time.monotonic() + 20
        while not ready.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        yield json.loads(ready.read_text()), line
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert not KEY.search(err)


def status(url: str, key: str = "") -> int:
    """That of a chat with this key."""
    fields = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{url}/v1/chat/completions", HELLO, fields)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_up_shows_its_key_at_the_first_start_only_and_http_asks_for_it(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    with up(tmp_path, *data) as (ready, line):
        found = KEY.search(line)
        assert found is not None, line
        key = found[0]
        assert [status(ready["http"]), status(ready["http"], "tl-" + "A" * 43), status(ready["http"], key)] == [
            401,
            401,
            200,
        ]
    with up(tmp_path, *data) as (ready, line):
        assert not KEY.search(line)
        assert "trunkline keys rotate development" in line
        assert status(ready["http"], key) == 200
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path


def test_each_ephemeral_start_shows_a_key_of_its_own(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with up(tmp_path, "--ephemeral") as (_, line):
            seen += KEY.findall(line)
    assert len(set(seen)) == 2


def test_where_the_bus_asks_too_up_makes_its_key_all_the_same(tmp_path: Path) -> None:
    with up(tmp_path, "--ephemeral", "--require-keys", "--workers", "1") as (ready, line):
        key = KEY.findall(line)[0]
        given = {"cwd": tmp_path, "TRUNKLINE_NATS": ready["nats"]}
        refused = asyncio.run(ended("chat", "hi", "--model", "echo", **given))
        assert (refused.code, "no API key" in refused.err) == (4, True)
        done = asyncio.run(ended("chat", "hi", "--model", "echo", TRUNKLINE_KEY=key, **given))
        assert (done.code, done.out.strip()) == (0, "hi")
        # Whoever may read what keys are hashed under needs none to issue one.
        issued = asyncio.run(ended("keys", "issue", "ops", "--scope", "read", **given))
        assert issued.code == 0, issued.err
        assert asyncio.run(ended("models", "list", TRUNKLINE_KEY=issued.out.strip(), **given)).code == 0
        assert asyncio.run(ended("keys", "revoke", "ops", TRUNKLINE_KEY=issued.out.strip(), **given)).code == 4


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--http-host", "0.0.0.0"), "no API key was issued yet"),
        (("--http-host", "0.0.0.0", "--require-keys"), "no API key was issued yet"),
        (("--http-host", "0.0.0.0", "--no-require-keys"), "leaves the bus open"),
    ],
    ids=" ".join,
)
def test_http_for_other_machines_without_keys_is_refused(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    done = asyncio.run(ended("up", "--ephemeral", "--nats-port", "0", "--http-port", "0", *flags, cwd=tmp_path))
    assert (done.code, said in done.err) == (4, True), done
    assert "Traceback" not in done.err


def test_http_for_other_machines_is_served_once_there_is_a_key(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    with up(tmp_path, *data) as (_, line):
        key = KEY.findall(line)[0]
    with up(tmp_path, *data, "--http-host", "0.0.0.0") as (ready, _):
        port = ready["http"].rpartition(":")[2]
        assert status(f"http://127.0.0.1:{port}", key) == 200
        assert status(f"http://127.0.0.1:{port}") == 401


async def test_a_key_is_issued_rotated_listed_and_revoked(trunkline: Trunkline, gw: Gateway, host: Host) -> None:
    given = ("--scope", "chat", "--scope", "read", "--model", "ech*", "--requests", "60", "--expires", "90d")
    done = await trunkline("keys", "issue", "search", "--name", "Search", *given, "--budget", "5", "--window", "day")
    first = done.out.strip()
    assert (done.code, bool(KEY.fullmatch(first)), first in done.err) == (0, True, False)
    assert "shown this once" in done.err
    assert (await gw.budgets.get(scope="key:search"))["limit_usd"] == "5"
    rotated = await trunkline("keys", "rotate", "search", "--overlap", "1h", "--json")
    assert KEY.fullmatch(rotated.json["key"])
    listed = await trunkline("keys", "list")
    assert listed.out.split("\t")[:5] == ["search", "rotating", "chat,read", "ech*", "60"]
    assert not KEY.search(listed.out + (await trunkline("keys", "get", "search")).out)
    for key in (first, rotated.json["key"]):
        assert getattr(host.runtime.door.admit(key, "chat"), "id", None) == "search"
    gone = await trunkline("keys", "revoke", "search", "--reason", "leaked")
    assert gone.out.startswith("search: revoked, in every process (event ")
    assert (await trunkline("keys", "revoke", "search")).out == "search: it was revoked already\n"
    assert (await trunkline("keys", "list", "--status", "active")).out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("issue", "x", "--scope", "all"), 2, "scopes"),
        (("issue", "X"), 2, "lower-case"),
        (("issue", "--window", "day"), 2, "give --budget too"),
        (("issue", "--expires", "soon"), 2, "write it like 30s"),
        (("rotate", "nobody"), 3, "trunkline keys list"),
        (("revoke", "nobody"), 3, "trunkline keys list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_makes_no_sense_is_refused_with_what_to_do(
    trunkline: Trunkline, gw: Gateway, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = await trunkline("keys", *arguments)
    assert (done.code, done.out, said in done.err) == (code, "", True), done
