"""`trunkline secrets`, as a user has it: from stdin, a file and a terminal, and never as an argument."""

import asyncio
import os
import pty
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli_kit import SCRIPT, Trunkline, environment
from trunkline.client import Gateway
from upstream import Upstream
from vault_kit import FIRST, PASSPHRASE, SECOND, far, keys_seen, said, well

pytest_plugins = ["gateway", "console"]


@pytest.fixture
async def upstream(gw: Gateway) -> AsyncIterator[Upstream]:
    async with well().serving() as running:
        await far(gw, running)
        yield running


def private(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


async def typed(url: str, cwd: Path, *arguments: str, answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run it on a terminal, answer each prompt; its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        SCRIPT,
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=environment(TRUNKLINE_NATS=url),
        start_new_session=True,
    )
    os.close(theirs)
    shown = ""
    waiting = list(answers)

    def read() -> str:
        try:
            return os.read(ours, 4096).decode()
        except OSError:  # the other end is closed
            return ""

    async with asyncio.timeout(30):
        while piece := await asyncio.to_thread(read):
            shown += piece
            if waiting and shown.rpartition("\n")[2].endswith(waiting[0][0]):
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
    os.close(ours)
    assert not waiting, shown
    return await process.wait(), shown


async def test_a_secret_is_set_rotated_listed_and_deleted(
    trunkline: Trunkline, gw: Gateway, upstream: Upstream, tmp_path: Path
) -> None:
    made = await trunkline("secrets", "unlock", stdin=PASSPHRASE.encode() + b"\n")
    assert (made.code, made.out.startswith("made and unlocked in ")) == (0, True)
    assert "loses what is in it" in made.err
    done = await trunkline("secrets", "set", "main", stdin=FIRST.encode() + b"\n")
    assert done.out.startswith("main stored for far: fingerprint ")
    assert f"for provider 'far' at {upstream.url}, and of use nowhere else" in done.err
    await said(gw)
    done = await trunkline("secrets", "rotate", "main", "--file", private(tmp_path / "new", SECOND), "--json")
    assert done.json["changed"]
    await said(gw)
    assert keys_seen(upstream) == [FIRST, SECOND]
    again = await trunkline("secrets", "rotate", "main", stdin=SECOND.encode())
    assert again.out == "main: it is so already, nothing was changed\n"
    listed = await trunkline("secrets", "list")
    assert listed.out.split("\t")[:4] == ["main", "usable", "far", upstream.url]
    kept = await trunkline("secrets", "delete", "main")
    assert (kept.code, "far" in kept.err) == (1, True)
    gone = await trunkline("secrets", "delete", "main", "--force", "--reason", "over")
    assert gone.out.startswith("main deleted (event ")
    assert (await trunkline("secrets", "rotate", "main", stdin=b"sk-x")).code == 3
    for run in (made, done, again, listed, kept, gone):
        for canary in (FIRST, SECOND, PASSPHRASE):
            assert canary not in run.out + run.err


async def test_what_is_typed_on_a_terminal_is_not_shown(
    gw: Gateway, bus_url: str, upstream: Upstream, tmp_path: Path
) -> None:
    asked = [("passphrase: ", PASSPHRASE), ("the same again: ", PASSPHRASE)]
    code, shown = await typed(bus_url, tmp_path, "secrets", "unlock", answers=asked)
    assert (code, "made and unlocked" in shown, PASSPHRASE in shown) == (0, True, False)
    code, shown = await typed(bus_url, tmp_path, "secrets", "set", "main", answers=[("value of main: ", FIRST)])
    assert (code, FIRST in shown) == (0, False)
    new = "another good passphrase"
    asked = [("old passphrase: ", PASSPHRASE), ("new passphrase: ", new), ("new passphrase again: ", new)]
    code, shown = await typed(bus_url, tmp_path, "secrets", "rotate", "--passphrase", answers=asked)
    assert (code, "sealed anew" in shown, new in shown) == (0, True, False)
    await said(gw)
    assert keys_seen(upstream) == [FIRST]


async def test_locked_it_says_what_to_do_and_the_doctor_does_too(
    trunkline: Trunkline, gw: Gateway, upstream: Upstream
) -> None:
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    ok = await trunkline("doctor", "--json")
    assert [one["state"] for one in ok.json["checks"] if one["name"] == "secrets"] == ["ok"]
    assert (await trunkline("secrets", "lock")).code == 0
    done = await trunkline("secrets", "set", "main", stdin=SECOND.encode())
    assert (done.code, "trunkline secrets unlock" in done.err) == (6, True)
    assert (await trunkline("providers", "check", "far")).code == 6
    told = await trunkline("doctor", "--json")
    [check] = [one for one in told.json["checks"] if one["name"] == "secrets"]
    assert (check["state"], check["next"]) == ("problem", "`trunkline secrets unlock`")
    assert (await trunkline("secrets", "unlock", stdin=b"incorrect horse battery")).code == 4
    assert (await trunkline("secrets", "unlock", stdin=PASSPHRASE.encode())).code == 0


async def test_a_key_file_opens_a_vault_and_none_may_read_it_but_its_owner(
    trunkline: Trunkline, gw: Gateway, upstream: Upstream, tmp_path: Path
) -> None:
    key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
    opened = private(tmp_path / "key", key)
    refused = await trunkline("secrets", "unlock", "--key-file", private(tmp_path / "open", key, 0o644))
    assert (refused.code, "chmod 600" in refused.err) == (2, True)
    assert (await trunkline("secrets", "unlock", "--key-file", opened)).code == 0
    assert (await trunkline("secrets", "set", "main", stdin=FIRST.encode())).code == 0
    assert (await trunkline("secrets", "unlock", stdin=PASSPHRASE.encode())).code == 2
    moved = await trunkline(
        *("secrets", "rotate", "--passphrase", "--old-key-file", opened, "--kdf", "pbkdf2-sha256"),
        stdin=PASSPHRASE.encode() + b"\n",
    )
    assert moved.code == 0, moved.err
    assert "unlock files" in moved.err
    await gw.secrets.lock()
    assert (await trunkline("secrets", "unlock", stdin=PASSPHRASE.encode())).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "main", "sk-canary-1"),
        ("set", "main", "--value", "sk-canary-1"),
        ("set", "main", "--value=sk-canary-1"),
        ("set", "main", "--key", "sk-canary-1"),
        ("rotate", "main", "sk-canary-1"),
        ("rotate", "--passphrase", "sk-canary-1"),
        ("unlock", "--passphrase", "sk-canary-1"),
        ("unlock", "sk-canary-1"),
    ],
    ids=" ".join,
)
async def test_a_secret_as_an_argument_is_refused_and_not_repeated(
    alone: Trunkline, arguments: tuple[str, ...]
) -> None:
    done = await alone("secrets", *arguments)
    assert (done.code, done.out) == (2, "")
    assert "canary" not in done.err
    assert "secret" in done.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "said_so"),
    [
        (("set", "main"), b"two\nlines", "one line of printable ASCII"),
        (("set", "main"), b"", "must not be empty"),
        (("set", "main"), b"\xff\xfe", "no text"),
        (("set", "main", "--provider", "nobody"), b"sk-x", "register it first"),
        (("set", "sk-canary-123456", "--provider", "far"), b"sk-x", "looks like a key itself"),
        (("rotate",), b"sk-x", "name a secret"),
        (("unlock",), b"short", "at least 12 characters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_makes_no_sense_is_refused_with_the_reason(
    trunkline: Trunkline, upstream: Upstream, arguments: tuple[str, ...], stdin: bytes, said_so: str
) -> None:
    done = await trunkline("secrets", *arguments, stdin=stdin)
    assert done.code in (2, 3), done
    assert said_so in done.err


async def test_a_provider_takes_the_name_of_a_secret_and_never_a_key(trunkline: Trunkline, gw: Gateway) -> None:
    register = ("providers", "register", "far", "--kind", "openai", "--secret")
    for bad in ("sk-canary-0123456789", "env:sk-canary", "file:x", "gsk_canary0123456789abcd"):
        done = await trunkline(*register, bad)
        assert (done.code, "never the key itself" in done.err) == (2, True), done
    assert (await trunkline(*register, "openai-main")).code == 0
    checked = await trunkline("providers", "check", "far", "--json")
    assert "trunkline secrets set openai-main --provider far" in checked.json["problem"]
