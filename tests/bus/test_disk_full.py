"""A full disk under the embedded server: clear refusals, nothing lost or stored twice, on it goes with new space."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog.testing
from embedded_kit import eventually, fill, runs, small_disk
from trunkline.embedded import EmbeddedServer, disk
from trunkline.embedded.config import Durability
from trunkline.health.bus import bus_checks
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import LogError, LogRefused
from trunkline_events.registry import ModelDisabled

MIB = 1024 * 1024
NO_ROOM = 10023
BOTH: list[Durability] = ["always", "process"]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LOOK_SECONDS", 0.02)


@asynccontextmanager
async def log_on(disk: Path, durability: Durability = "always") -> AsyncIterator[tuple[EmbeddedServer, JetStreamLog]]:
    async with EmbeddedServer(store=disk / "data", port=0, durability=durability) as server:
        connection = await Connection.open(server.url, name="test")
        log = await JetStreamLog.open(connection)
        try:
            yield server, log
        finally:
            await log.close()
            await connection.close()


def event(number: int, size: int = 1) -> NewEvent:
    body = ModelDisabled(id="m", reason="x" * size)
    return NewEvent(id=f"e{number}", category="model", aggregate=f"m{number}", body=body, time=1.0, actor="test")


async def refusal(log: JetStreamLog, number: int) -> LogRefused:
    """Append until the log says why not."""
    async with asyncio.timeout(10):
        while True:
            try:
                await log.append(event(number))
            except LogRefused as error:
                return error
            except LogError:
                continue
            number += 1_000


async def accepted(log: JetStreamLog, number: int) -> None:
    """Append one event, again and again under its id, until it is there."""
    async with asyncio.timeout(10):
        while True:
            try:
                await log.append(event(number))
                return
            except LogError:
                await asyncio.sleep(0.02)


async def stored(log: JetStreamLog) -> list[str]:
    return [found.id async for found in log.read()]


@pytest.mark.parametrize("durability", BOTH)
async def test_a_disk_that_others_fill_refuses_clearly_and_goes_on_when_there_is_space(
    tmp_path: Path, durability: Durability
) -> None:
    with small_disk(tmp_path / "disk", "size=32m") as disk:
        async with log_on(disk, durability) as (server, log):
            for number in range(20):
                await log.append(event(number))
            fill(disk / "others", leave=0)
            assert (await refusal(log, 1_000)).code == NO_ROOM
            assert len(await stored(log)) >= 20, "a full disk can be read"
            (disk / "others").unlink()
            await accepted(log, 99)
            ids = await stored(log)
            assert [one for one in ids if one in {f"e{number}" for number in (*range(20), 99)}] == [
                *(f"e{number}" for number in range(20)),
                "e99",
            ]
            assert len(ids) == len(set(ids))
            assert server.pid is not None


@pytest.mark.parametrize("durability", BOTH)
async def test_a_log_that_fills_its_disk_keeps_all_it_acknowledged(tmp_path: Path, durability: Durability) -> None:
    kept: list[str] = []
    with small_disk(tmp_path / "disk", "size=24m") as disk:
        async with log_on(disk, durability) as (_, log):

            async def write(numbers: "itertools.count[int]") -> LogError:
                while True:
                    number = next(numbers)
                    try:
                        await log.append(event(number, size=40_000))
                    except LogError as error:
                        return error
                    kept.append(f"e{number}")

            fill(disk / "others", leave=6 * MIB)
            numbers = itertools.count()
            errors = await asyncio.gather(*(write(numbers) for _ in range(4)))
            assert any(isinstance(error, LogRefused) and error.code == NO_ROOM for error in errors), errors
            assert len(kept) > 20
            (disk / "others").unlink()
            await accepted(log, 1_000_000)
            ids = await stored(log)
            assert len(ids) == len(set(ids))
            assert set(kept) <= set(ids)
        async with log_on(disk, durability) as (_, log):
            assert await stored(log) == ids, "what was there is there after another start"


async def test_a_write_that_failed_in_a_short_squeeze_is_mended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's log tells of it, where nobody saw the disk full."""
    with small_disk(tmp_path / "disk", "size=32m") as disk:
        async with log_on(disk) as (server, log):
            first = server.pid
            with server.log_file.open("a") as complaint:
                complaint.write("[1] [ERR] JetStream failed to store a msg: write x: no space left on device\n")
            await eventually(lambda: server.pid != first)
            await accepted(log, 1)


async def test_a_server_on_a_full_disk_stays_up_and_is_not_given_up(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=32m") as disk, structlog.testing.capture_logs() as lines:
        async with log_on(disk) as (server, log):
            await log.append(event(0))
            fill(disk / "others", leave=0)
            await refusal(log, 1)
            pid = server.pid
            assert pid is not None
            assert runs(pid)
            assert not server.failed.done()
            (disk / "others").unlink()
            await accepted(log, 2)
    told = [line["event"] for line in lines if line["event"] in {"nats.disk_full", "nats.disk_has_room", "nats.died"}]
    assert told == ["nats.disk_full", "nats.disk_has_room"]


async def test_the_doctor_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=32m") as disk:
        async with log_on(disk) as (server, log):
            await log.append(event(0))
            fill(disk / "others", leave=0)
            await refusal(log, 1)
            found = {check.name: check for check in await bus_checks(server.url)}
    assert found["disk"].state == "problem"
    assert "full" in found["disk"].found
    assert "free some space" in found["disk"].next


def test_how_much_must_be_free_depends_on_the_disk() -> None:
    assert disk.reserve(64 * 1024) == MIB
    assert disk.reserve(160 * MIB) == 10 * MIB
    assert disk.reserve(1 << 40) == 32 * MIB
