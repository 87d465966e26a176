"""`trunkline models register --from-catalogue`, `models catalogue` and `completion`, as a user has them."""

import asyncio
import shutil
from pathlib import Path

import pytest
from cli_kit import SCRIPT, Trunkline, ended, environment, on_terminal
from trunkline.client import Gateway
from trunkline_actors.known_models import shipped

pytest_plugins = ["gateway", "console"]

OWN = '[[models]]\nname = "house-model"\nkind = "scripted"\nfamily = "f"\nupstream = "echo"\n'


async def test_a_known_model_is_registered_by_its_name_alone(trunkline: Trunkline) -> None:
    assert (await trunkline("providers", "register", "oa", "--kind", "openai", "--secret", "env:NO_KEY")).code == 0
    done = await trunkline("models", "register", "--from-catalogue", "gpt-4.1")
    assert done.out.startswith("gpt-4.1 registered (event ")
    assert "warning: its provider " in done.err
    assert "gpt-4.1 on 2027-01-14" in done.err
    done = await trunkline(
        *("models", "register", "big", "--from-catalogue", "gpt-6-astra", "--max-output", "9", "--feature", "tools"),
        *("--capability", "wit=0.5", "--price-input", "1", "--price-output", "2", "--json"),
    )
    model = done.json["model"]
    assert (model["id"], model["upstream"], model["provider"]) == ("big", "gpt-6-astra", "oa")
    assert (model["context_window"], model["max_output"], model["features"]) == (1_050_000, 9, ["tools"])
    assert (model["capabilities"], model["price"]["input"]) == ({"wit": 0.5}, "1")


async def test_what_can_not_be_registered_says_what_can(trunkline: Trunkline) -> None:
    unknown = await trunkline("models", "register", "--from-catalogue", "gpt-41")
    assert unknown.code == 3
    assert "near are gpt-4.1" in unknown.err
    assert "`trunkline models catalogue` lists all" in unknown.err
    other = await trunkline("models", "register", "--from-catalogue", "gpt-4.1", "--provider", "scripted")
    assert (other.code, "is of kind 'scripted'" in other.err) == (2, True)
    nobody = await trunkline("models", "register", "--from-catalogue", "gpt-4.1")
    assert (nobody.code, "`trunkline providers register openai --kind openai`" in nobody.err) == (2, True)
    for arguments in ([], ["m"], ["--provider", "scripted"]):
        neither = await trunkline("models", "register", *arguments)
        assert (neither.code, "--from-catalogue NAME" in neither.err) == (2, True)


async def test_the_catalogue_is_listed_and_filtered(trunkline: Trunkline) -> None:
    listed = await trunkline("models", "catalogue", "--kind", "openai", "--feature", "embeddings")
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == [
        "text-embedding-3-large",
        "text-embedding-3-small",
        "text-embedding-ada-002",
    ]
    chosen = await trunkline(
        *("models", "catalogue", "--capability", "reasoning=0.9", "--context-window", "1000000", "--json")
    )
    assert all(one["capabilities"]["reasoning"] >= 0.9 for one in chosen.json["models"])
    assert any(one["name"] == "gpt-6-astra" for one in chosen.json["models"])
    page = await trunkline("models", "catalogue", "--family", "llama4", "--limit", "1")
    assert (page.out.split("\t")[0], "--after llama4:maverick" in page.err) == ("llama4:maverick", True)
    rest = await trunkline("models", "catalogue", "--family", "llama4", "--after", "llama4:maverick")
    assert rest.out.split("\t")[:3] == ["llama4:scout", "ollama", "10485760"]


async def test_the_catalogue_is_a_table_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal(
        *("models", "catalogue", "--family", "gpt-4.1"), cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1"
    )
    head, first, *_ = shown.splitlines()
    assert head.split()[:3] == ["name", "kind", "context_window"]
    assert first.split()[:3] == ["gpt-4.1", "openai", "1047576"]
    assert first.split()[-2:] == ["2/8", "2027-01-14"]


async def completed(line: str, cwd: Path) -> list[str]:
    done = await ended("completion", "words", line, cwd=cwd)
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


async def test_names_of_the_catalogue_are_completed_without_a_gateway(tmp_path: Path) -> None:
    line = "trunkline models register --from-catalogue "
    assert await completed(line + "gpt-4.1", tmp_path) == ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert len(await completed(line, tmp_path)) == len(shipped().entries)
    (tmp_path / "ours.toml").write_text(OWN)
    (tmp_path / "trunkline.yaml").write_text("catalogue: ours.toml\n")
    assert await completed(line + "house", tmp_path) == ["house-model"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trunkline mod", ["models"]),
        ("trunkline models re", ["register", "remove", "retire"]),
        ("trunkline models register m --from", ["--from-catalogue"]),
        ("trunkline up --durability ", ["always", "process"]),
        ("trunkline models get gp", []),
        ("trunkline completion ", []),
        ("trunkline nothing --", ["--help", "--version"]),
    ],
)
async def test_verbs_flags_and_their_values_are_completed(line: str, words: list[str], tmp_path: Path) -> None:
    assert await completed(line, tmp_path) == words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    script = await ended("completion", shell, cwd=tmp_path)
    assert (script.code, "trunkline completion words" in script.out) == (0, True)
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    process = await asyncio.create_subprocess_exec(shell, "-n", "-c", script.out, stderr=-1)
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trunkline models register --from-catalogue gpt-4.1-", ["gpt-4.1-mini", "gpt-4.1-nano"]),
        # Bash has `llama4:` already, since a colon ends a word there.
        ("trunkline models register --from-catalogue llama4:", ["maverick", "scout"]),
        ("trunkline models ret", ["retire"]),
    ],
)
async def test_bash_completes_what_was_typed(line: str, words: list[str], tmp_path: Path) -> None:
    script = (await ended("completion", "bash", cwd=tmp_path)).out
    typed = f"COMP_LINE='{line}' COMP_POINT={len(line)}\n_trunkline\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    process = await asyncio.create_subprocess_exec(
        *("bash", "--norc", "-c", f"{script}\n{typed}"),
        stdout=-1,
        cwd=tmp_path,
        env=environment(PATH=f"{SCRIPT.parent}:/usr/bin:/bin"),
    )
    out, _ = await process.communicate()
    assert out.decode().split() == words


async def test_an_own_catalogue_that_is_none_keeps_a_gateway_from_starting(tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text("models = 3\n")
    done = await ended(
        "up", "--ephemeral", "--nats-port", "0", "--http-port", "0", cwd=tmp_path, TRUNKLINE_CATALOGUE="ours.toml"
    )
    assert done.code == 2
    assert "ours.toml can't be used" in done.err
