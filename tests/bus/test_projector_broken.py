"""Read models that are broken: what `--force` replaces, what a projector says of them, and that it gets over it."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from eventsourcing.persistence import PersistenceError
from processes import passed, until
from readmodel_kit import BEGUN, ENDED, append, fill, folded, position_of, seen
from structlog.testing import capture_logs
from trunkline import projector as projector_module
from trunkline.projector import Projector, child
from trunkline.projector.rebuild import Rebuilt, rebuild
from trunkline.projector.store import SQLiteStore, Store
from trunkline.projector.trouble import Unreadable

pytest_plugins = ["gateway"]


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    return SQLiteStore(tmp_path / "data" / "projections")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(projector_module, "FIRST_PAUSE", 0.05)


async def reached(store: Store, sequence: int) -> None:
    """Return when the live view is there."""
    await until(lambda: position_of(store) >= sequence, within=20)


@asynccontextmanager
async def projecting(url: str, store: Store) -> AsyncIterator[Projector]:
    projector = Projector(url, store)
    projector.start()
    try:
        yield projector
    finally:
        await projector.stop()


async def rebuilding(store: Store, url: str, *, force: bool = False) -> Rebuilt:
    return await asyncio.to_thread(rebuild, store, url, force=force)


def tampered(store: SQLiteStore, statement: str) -> None:
    env = store.live()
    assert env is not None
    with sqlite3.connect(env["SQLITE_DBNAME"], uri=True) as connection:
        connection.execute(statement)
    connection.close()


def overwritten(store: SQLiteStore) -> None:
    Path(store.where).resolve().write_bytes(random.Random(5).randbytes(50_000))


def in_its_place(store: SQLiteStore) -> None:
    Path(store.where).unlink()
    Path(store.where).write_text("no database")


def without_a_table(store: SQLiteStore) -> None:
    tampered(store, "DROP TABLE latency")


def without_a_position(store: SQLiteStore) -> None:
    tampered(store, "DROP TABLE tracking")


def with_nonsense(store: SQLiteStore) -> None:
    tampered(store, "UPDATE tracking SET notification_id = -5")


def with_a_key_of_another_kind(store: SQLiteStore) -> None:
    tampered(store, "UPDATE latency SET below_us = 'x' || below_us")


BREAKING = [overwritten, in_its_place, without_a_table, without_a_position, with_nonsense]


@pytest.mark.parametrize("break_it", BREAKING)
async def test_broken_read_models_are_replaced_by_force_only(
    bus_url: str, store: SQLiteStore, break_it: Callable[[SQLiteStore], None]
) -> None:
    await fill(bus_url, 60)
    await rebuilding(store, bus_url)
    break_it(store)
    with pytest.raises(Unreadable, match="`trunkline projections rebuild --force` builds new ones"):
        await rebuilding(store, bus_url)
    done = await rebuilding(store, bus_url, force=True)
    assert (done.same, done.switched, done.kept) == (None, True, None)
    assert done.not_compared is not None
    assert "could not be read" in done.not_compared
    assert seen(store) == (60, await folded(bus_url))
    assert Path(store.where).is_symlink()
    assert (await rebuilding(store, bus_url)).same


async def test_a_key_of_another_kind_is_a_difference(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 60)
    await rebuilding(store, bus_url)
    with_a_key_of_another_kind(store)
    done = await rebuilding(store, bus_url)
    wrong = {table.table: (table.missing, table.extra) for table in done.tables if not table.same}
    assert list(wrong) == ["latency"]
    assert wrong["latency"][0] == wrong["latency"][1] > 0
    assert (await rebuilding(store, bus_url, force=True)).switched


async def test_force_does_not_replace_what_is_only_locked(
    bus_url: str, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.projector.store.LOCK_SECONDS", "1")
    await fill(bus_url, 10)
    await rebuilding(store, bus_url)
    before = store.live()
    assert before is not None
    holder = sqlite3.connect(before["SQLITE_DBNAME"], uri=True, isolation_level=None)
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises((PersistenceError, sqlite3.Error), match="locked"):
        await rebuilding(store, bus_url, force=True)
    holder.close()
    assert store.live() is not None
    assert store.live()["SQLITE_DBNAME"].split("?")[0] == before["SQLITE_DBNAME"].split("?")[0]  # type: ignore[index]


@pytest.mark.parametrize("break_it", [overwritten, without_a_table])
async def test_a_running_projector_says_once_that_a_view_is_broken_and_gets_over_it(
    bus_url: str,
    store: SQLiteStore,
    break_it: Callable[[SQLiteStore], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projector_module, "LONGEST_PAUSE", 0.1)
    await fill(bus_url, 60)
    with capture_logs() as told:
        async with projecting(bus_url, store) as projector:
            await reached(store, 60)
            assert await asyncio.to_thread(store.followed)
            break_it(store)
            await fill(bus_url, 20, seed=8)
            await until(lambda: "can't be read" in projector._told, within=20)
            for count in range(3):  # each retry fails
                await passed(0.3)
                await fill(bus_url, 1, seed=count)
            names = [entry["event"] for entry in told if entry["event"].startswith("projector.")]
            assert names.count("projector.waiting") == 1, told
            assert names[-1] == "projector.waiting"
            assert not (await rebuilding(store, bus_url, force=True)).same
            last = await fill(bus_url, 10, seed=9)
            await reached(store, last)
            assert projector.failed is not None
            assert not projector.failed.done()
            await until(lambda: told[-1]["event"] == "projector.following")
    assert seen(store) == (last, await folded(bus_url))
    assert not store.followed()


async def test_a_projector_says_what_makes_no_sense_among_the_attempts_under_way(
    bus_url: str, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "LONGEST_PAUSE", 0.1)
    await append(bus_url, BEGUN)
    await rebuilding(store, bus_url)
    tampered(store, "UPDATE open_attempts SET reserve_nanos = 'much'")
    async with projecting(bus_url, store) as projector:
        await until(lambda: "what attempt r-1 reserved is no number" in projector._told, within=20)
        assert "`trunkline projections rebuild --force` builds new ones" in projector._told
        await rebuilding(store, bus_url, force=True)
        await reached(store, await append(bus_url, ENDED))
    assert seen(store) == (5, await folded(bus_url))


# -- the one of `up` ---------------------------------------------------------------------------------------------------


async def test_a_projector_that_gave_up_is_started_again_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "FIRST_RETRY", 0.05)
    starts = tmp_path / "starts"
    script = tmp_path / "projector"
    script.write_text(f"#!/bin/sh\necho >> {starts}\n[ $(wc -l < {starts}) -lt 4 ] && exit 1\nexec sleep 60\n")
    script.chmod(0o700)
    kept = child.ProjectorChild("nats://127.0.0.1:1", tmp_path)
    kept._command = (str(script),)  # type: ignore[assignment]
    with capture_logs() as told:
        kept.start()
        await until(lambda: starts.exists() and starts.read_text().count("\n") == 4)
        await passed(0.2)
        await kept.stop()
    assert starts.read_text().count("\n") == 4
    assert [entry["event"] for entry in told] == ["projector.ended"]
    assert "started again" in told[0]["next"]
