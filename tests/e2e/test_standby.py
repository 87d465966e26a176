"""Processes that start while JetStream is off: they tell what they knew, and serve in full once it is on."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trunkline
from bare_nats import Nats
from cli_kit import SCRIPT, Trunkline
from processes import Role, running, until
from trunkline.cache import RegistryCache
from trunkline.client import Gateway
from trunkline.errors import Unavailable
from trunkline.host import ACTORS

pytest_plugins = ["console"]


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    server = Nats(tmp_path)
    yield server
    server.stop()


def process(nats: Nats, folder: Path, name: str = "all") -> Role:
    """All actors in one process, with a data folder."""
    return Role(nats.url, folder, name, *ACTORS, environ={"TRUNKLINE_DATA": str(folder / "data")})


def kept(folder: Path) -> RegistryCache:
    return RegistryCache(folder / "data")


@asynccontextmanager
async def served(nats: Nats, folder: Path) -> AsyncIterator[Gateway]:
    """A gateway that has served something, and still does."""
    await nats.start(jetstream=True)
    async with running(process(nats, folder)), trunkline.connect(nats.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        await gateway.models.register(id="echo", provider="scripted", upstream="echo")
        assert (await gateway.chat.create("echo", "hello")).text == "hello"
        yield gateway


async def known(nats: Nats, folder: Path) -> int:
    """Have a gateway know a model, and die; the position at which its cache knows it."""
    async with served(nats, folder):
        await until(lambda: knows_echo(folder))
    cached = kept(folder).read()
    assert cached is not None
    return cached.snapshot.position


def knows_echo(folder: Path) -> bool:
    cached = kept(folder).read()
    return cached is not None and "echo" in cached.state.registry.models


async def modes(gateway: Gateway) -> list[tuple[str, str]]:
    log = await gateway.log()
    found = [event async for event in log.read() if event.category == "gateway"]
    return [(event.type, event.body.mode) for event in found]  # type: ignore[attr-defined]


async def eventually_chats(gateway: Gateway) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                assert (await gateway.chat.create("echo", "back")).text == "back"
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def test_it_tells_what_it_knew_refuses_chats_and_serves_in_full_without_a_restart(
    nats: Nats, tmp_path: Path, alone: Trunkline
) -> None:
    position = await known(nats, tmp_path)
    await nats.start(jetstream=False)
    role = process(nats, tmp_path)
    async with running(role), trunkline.connect(nats.url) as gateway:
        told = await gateway.models.get(id="echo")
        assert (told["model"]["id"], told["stale"], told["seq"]) == ("echo", True, position)
        assert [one["id"] for one in (await gateway.models.list())["models"]] == ["echo"]
        assert (await gateway.providers.get(id="scripted"))["stale"]
        with pytest.raises(Unavailable, match=f"position {position}, .* s old; chats are refused") as refused:
            await gateway.chat.create("echo", "hello")
        assert refused.value.metadata["position"] == position
        with pytest.raises(Unavailable, match="position"):
            async with gateway.chat.stream("echo", "hello") as answer:
                assert not [chunk async for chunk in answer]
        with pytest.raises(Unavailable):
            await gateway.models.register(id="more", provider="scripted", upstream="echo")
        done = await alone("doctor", "--json", "--nats", nats.url)
        checks = {check["name"]: check for check in done.json["checks"]}
        assert checks["registry-cached"]["state"] == "problem"
        assert "without a restart" in checks["registry-cached"]["next"]

        pid = role.process.pid
        await nats.start(jetstream=True)
        await eventually_chats(gateway)
        again = await gateway.models.get(id="echo")
        assert "stale" not in again
        assert role.process.pid == pid
        assert role.process.returncode is None
        async with asyncio.timeout(20):
            while len(await modes(gateway)) < 2:  # noqa: ASYNC110 - the other process appends them
                await asyncio.sleep(0.05)
        ended = [("gateway.degraded.v1", "registry-cached"), ("gateway.recovered.v1", "registry-cached")]
        assert await modes(gateway) == ended
        checks = {
            check["name"]: check for check in (await alone("doctor", "--json", "--nats", nats.url)).json["checks"]
        }
        assert checks["modes"]["state"] == "ok"


async def test_with_nothing_known_it_does_not_start_and_says_what_to_do(nats: Nats, tmp_path: Path) -> None:
    await nats.start(jetstream=False)
    assert await exit_of(nats, tmp_path) == (6, "JetStream does not answer")


async def exit_of(nats: Nats, folder: Path, **environ: str) -> tuple[int, str]:
    """How a process ends that can't start, and whether it says that JetStream does not answer."""
    command = [str(SCRIPT), "run", "registry", "--nats", nats.url]
    environment = {**os.environ, "TRUNKLINE_DATA": str(folder / "data"), **environ}
    started = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1, env=environment)
    _, err = await asyncio.wait_for(started.communicate(), 30)
    said = "JetStream does not answer"
    return started.returncode or 0, said if said in err.decode() else err.decode()


def damaged(folder: Path, kind: str) -> Any:
    path = kept(folder).path
    data = path.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "of another version":
            path.write_bytes(data.replace(data[3:19], b"0123456789abcdef", 1))
        case "a folder":
            path.unlink()
            path.mkdir()


@pytest.mark.parametrize("kind", ["truncated", "empty", "of another version", "a folder"])
async def test_what_can_not_be_read_is_as_good_as_nothing(nats: Nats, tmp_path: Path, kind: str) -> None:
    await known(nats, tmp_path)
    assert knows_echo(tmp_path)
    damaged(tmp_path, kind)
    await nats.start(jetstream=False)
    assert await exit_of(nats, tmp_path) == (6, "JetStream does not answer")


async def test_a_folder_that_can_not_be_written_costs_nothing_but_the_cache(nats: Nats, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    async with served(nats, tmp_path) as gateway:
        await until(lambda: "cache.not_written" in (tmp_path / "all.log").read_text())
        assert (await gateway.chat.create("echo", "still")).text == "still"
    assert (tmp_path / "data").read_text() == "no folder"


async def test_the_cache_of_another_log_is_thrown_away_when_the_log_is_there(nats: Nats, tmp_path: Path) -> None:
    await known(nats, tmp_path)
    await nats.start(jetstream=False)
    role = process(nats, tmp_path)
    async with running(role), trunkline.connect(nats.url) as gateway:
        assert (await gateway.models.get(id="echo"))["stale"]
        await nats.start(jetstream=True, store="another")
        await until(lambda: "cache.of_another_log" in role.log.read_text())
        async with asyncio.timeout(20):
            while (await gateway.models.list()).get("stale"):  # noqa: ASYNC110 - the other process ends it
                await asyncio.sleep(0.05)
        assert (await gateway.models.list())["models"] == []
    assert not knows_echo(tmp_path)


async def test_an_override_of_the_environment_is_seen_by_the_doctor_and_in_the_log(
    nats: Nats, tmp_path: Path, alone: Trunkline
) -> None:
    await nats.start(jetstream=True)
    role = Role(nats.url, tmp_path, "all", *ACTORS, environ={"TRUNKLINE_ROUTING_OVERRIDE": "echo"})
    async with running(role), trunkline.connect(nats.url) as gateway:
        await gateway.providers.register(id="scripted", kind="scripted", local=True)
        done = await alone("doctor", "--json", "--nats", nats.url)
        checks = {check["name"]: check for check in json.loads(done.out)["checks"]}
        assert checks["routing-override"]["state"] == "problem"
        assert "TRUNKLINE_ROUTING_OVERRIDE" in checks["routing-override"]["next"]
        assert (await modes(gateway)) == [("gateway.degraded.v1", "routing-override")]
        assert await role.ended_gently() == 0
        assert (await modes(gateway))[1:] == [("gateway.recovered.v1", "routing-override")]
