"""`trunkline models pull`, `delete` and `list --local`, as a user has them, and pulls whose process is killed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline as trunkline_
from cli_kit import Trunkline, on_terminal, started
from ollama_kit import SIZE, FakeOllama
from processes import Role, running, until
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline_events.log import Scope

pytest_plugins = ["gateway", "console"]

FROM = ("--provider", "ollama-1")


@pytest.fixture
async def ollama(gw: Gateway) -> AsyncIterator[FakeOllama]:
    async with FakeOllama("mistral", paced=False).serving() as serving:
        await gw.providers.register(id="ollama-1", kind="ollama", base_url=serving.url, local=True)
        yield serving


async def test_a_model_is_pulled_listed_and_deleted(trunkline: Trunkline, ollama: FakeOllama) -> None:
    done = await trunkline("models", "pull", "llama3.2", *FROM, "--as", "small")
    assert done.code == 0, done
    assert done.out.startswith("small pulled, 4.0 GB, registered (event ")
    assert "success" in done.err.splitlines()
    listed = await trunkline("models", "list", "--local", *FROM)
    rows = [line.split("\t") for line in listed.out.splitlines()]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("llama3.2:latest", "4.0 GB", "small"),
        ("mistral:latest", "4.0 GB", "-"),
    ]
    assert len((await trunkline("models", "list", "--local", *FROM, "--json")).json["models"]) == 2
    deleted = await trunkline("models", "delete", "llama3.2", *FROM)
    assert deleted.out.startswith("llama3.2 deleted from ollama-1, and removed small (event ")
    assert (await trunkline("models", "get", "small")).code == 3


async def test_json_is_an_object_a_line(trunkline: Trunkline, ollama: FakeOllama) -> None:
    done = await trunkline("models", "pull", "llama3.2", *FROM, "--json")
    *steps, last = done.lines
    assert steps[-1]["completed_bytes"] == steps[-1]["total_bytes"] == SIZE
    assert (last["pulled"]["id"], last["pulled"]["registered"]) == ("llama3.2", True)


async def test_a_terminal_gets_a_bar(ollama: FakeOllama, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("models", "pull", "llama3.2", *FROM, cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    assert "100%  4.0 GB of 4.0 GB" in shown
    assert "█" * 24 in shown
    assert "llama3.2 pulled, 4.0 GB, registered" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("pull", "nowhere", *FROM), 3, "does not exist"),
        (("pull", "m", "--provider", "scripted"), 2, "kinds that do: ollama"),
        (("pull", "m", "--provider", "nobody"), 6, "no process serves 'nobody'"),
        (("pull", "m", *FROM, "--abort"), 3, "pulls no model"),
        (("delete", "m", *FROM), 3, "has no model"),
        (("list", "--local"), 2, "--provider"),
        (("pull", "m"), 2, "--provider"),
    ],
)
async def test_what_can_not_be_done_is_said(
    trunkline: Trunkline, ollama: FakeOllama, arguments: tuple[str, ...], code: int, text: str
) -> None:
    done = await trunkline("models", *arguments)
    assert (done.code, text in done.err) == (code, True), done


async def test_ctrl_c_leaves_the_pull_running_and_says_so(
    trunkline: Trunkline, ollama: FakeOllama, bus_url: str, tmp_path: Path
) -> None:
    ollama.paced = True
    command = await started("models", "pull", "llama3.2", *FROM, "--nats", bus_url, cwd=tmp_path)
    await until(lambda: bool(ollama.pulls))
    command.send_signal(signal.SIGINT)
    _, err = await command.communicate()
    assert command.returncode == 130
    assert b"the pull goes on" in err
    assert b"--abort" in err
    assert (await trunkline("models", "list", "--local", *FROM)).err == "llama3.2 is being pulled as llama3.2\n"
    assert (await trunkline("models", "pull", "llama3.2", *FROM, "--abort")).out.startswith("the pull of llama3.2")
    assert (await trunkline("models", "list", "--local", *FROM)).err == ""


async def test_a_pull_goes_on_when_its_process_is_killed_and_started_again(tmp_path: Path) -> None:
    async with (
        FakeOllama().serving() as ollama,
        EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server,
    ):
        core = Role(server.url, tmp_path, "core", "registry", "router", "keeper")
        provider = Role(server.url, tmp_path, "provider", "provider")
        async with running(core, provider), trunkline_.connect(server.url) as gw:
            await gw.providers.register(id="ollama-1", kind="ollama", base_url=ollama.url, local=True)
            models = gw.local_models("ollama-1")
            listening = models.pull("llama3.2")
            async with listening:
                await anext(listening)
                ollama.step(SIZE // 2)
                await until(lambda: ollama.completed.get("llama3.2:latest") == SIZE // 2)
                await provider.again()
                await until(lambda: len(ollama.pulls) == 2)
                ollama.step()
                async with asyncio.timeout(20):
                    told = [step async for step in listening]
            assert told[-1].status == "success"
            assert (await models.list())["pulls"] == []
            assert (await gw.models.get(id="llama3.2"))["model"]["status"] == "enabled"
            log = await gw.log()
            events = [event async for event in log.read(scope=Scope(("model",), "llama3.2"))]
            starts = [getattr(event.body, "attempt", None) for event in events if "started" in event.type]
            # Who listened asks again after five seconds of silence: too late for the pull, it finds the model there.
            assert starts[:2] == [1, 2]
            assert events[-1].type == "model.pulled.v1"


async def test_a_pull_whose_process_is_gone_for_good_can_be_aborted_by_another(tmp_path: Path) -> None:
    async with (
        FakeOllama().serving() as ollama,
        EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server,
    ):
        core = Role(server.url, tmp_path, "core", "registry", "keeper")
        provider = Role(server.url, tmp_path, "provider", "provider")
        async with running(core, provider), trunkline_.connect(server.url) as gw:
            await gw.providers.register(id="ollama-1", kind="ollama", base_url=ollama.url, local=True)
            models = gw.local_models("ollama-1")
            async with models.pull("llama3.2") as pull:
                await anext(pull)
            await provider.kill()
            await provider.start()
            await models.abort_pull("llama3.2")
            assert (await models.list())["pulls"] == []
            events = [event async for event in (await gw.log()).read(scope=Scope(("model",), "llama3.2"))]
            assert events[-1].type == "model.pull-failed.v1"
