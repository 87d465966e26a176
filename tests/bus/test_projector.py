"""The projector on a real log: exactly once through kill -9, one writer of several, and rebuilds beside it."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from eventsourcing.persistence import OperationalError
from processes import Role, passed, running, until
from readmodel_kit import BEGUN, ENDED, append, fill, folded, position_of, seen
from trunkline import projector as projector_module
from trunkline.embedded import EmbeddedServer
from trunkline.projector import AheadOfLog, NewerView, OtherLog, Projector
from trunkline.projector.rebuild import Rebuilt, rebuild
from trunkline.projector.store import RebuildRunning, SQLiteStore, Store
from trunkline.projector.trouble import explain
from trunkline_events import headers
from trunkline_events.connection import Connection
from trunkline_events.upstream import LogUpstream, ReadOnly, upstream_env
from trunkline_projections import readmodels
from trunkline_projections.sql_tables import Value

pytest_plugins = ["gateway"]

Rows = dict[str, list[dict[str, Value]]]


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    return SQLiteStore(tmp_path / "data" / "projections")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(projector_module, "STANDBY_SECONDS", 0.1)
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


# -- the upstream ------------------------------------------------------------------------------------------------------


async def test_the_log_is_an_application_that_only_reads(bus_url: str) -> None:
    await fill(bus_url, 6)

    def read() -> None:
        with LogUpstream(upstream_env(bus_url)) as app:
            assert app.recorder.max_notification_id() == 6
            found = app.recorder.select_notifications(2, 3)
            assert [one.id for one in found] == [2, 3, 4]
            assert found[0].topic.startswith("thread.")
            assert b"request_id" in found[0].state
            of_one = app.recorder.select_events(found[0].originator_id, gt=1, lte=2)
            assert [one.originator_version for one in of_one] == [2]
            with pytest.raises(ReadOnly, match="appended by actors"):
                app.recorder.insert_events([])
            decided = [one.id for one in app.recorder.select_notifications(1, 9, topics=["thread.route-decided.v1"])]
            assert decided == [1, 3, 5]

    await asyncio.to_thread(read)


async def test_what_nobody_knows_is_skipped_and_the_position_moves_on(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 4)
    connection = await Connection.open(bus_url, name="test")
    js = connection.nats.jetstream()
    await js.publish("trunkline.log.thread.t", b"{}", headers={headers.TYPE: "thread.invented.v1"})
    await js.publish("trunkline.log.model.m", b"not json", headers={headers.TYPE: "model.enabled.v1"})
    await connection.close()
    async with projecting(bus_url, store):
        await reached(store, 6)
    assert seen(store) == (6, await folded(bus_url))


# -- exactly once ------------------------------------------------------------------------------------------------------


async def test_a_killed_projector_leaves_nothing_out_and_counts_nothing_twice(
    bus_url: str, store: SQLiteStore, tmp_path: Path
) -> None:
    draw = random.Random(11)
    role = Role(bus_url, tmp_path, "projector", "projector", environ={"TRUNKLINE_DATA": str(tmp_path / "data")})
    async with running(role):
        for _ in range(3):
            filling = asyncio.create_task(fill(bus_url, 600, seed=draw.randrange(10**6)))
            await until(lambda: store.live() is not None)
            position = seen(store)[0]
            await until(lambda since=position: position_of(store) > since)  # type: ignore[misc]
            await passed(draw.random() / 20)  # anywhere within a transaction, or between two
            await role.again()
            await filling
        await reached(store, 1800)
    assert seen(store) == (1800, await folded(bus_url))


async def test_of_two_projectors_one_writes_and_the_other_takes_over(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 500)
    async with projecting(bus_url, store) as first, projecting(bus_url, store) as second:
        await reached(store, 500)
        await fill(bus_url, 500, seed=8)
        await reached(store, 1000)
        assert first.failed is not None
        assert second.failed is not None
        assert not first.failed.done()
        assert not second.failed.done()
        await first.stop()
        await fill(bus_url, 100, seed=9)
        await reached(store, 1100)
    assert seen(store) == (1100, await folded(bus_url))


# -- what may be away --------------------------------------------------------------------------------------------------


async def test_a_projector_waits_for_the_bus_and_for_the_log(tmp_path: Path, store: SQLiteStore) -> None:
    async with EmbeddedServer(store=tmp_path / "first", port=0, durability="process") as server:
        url, port = server.url, int(server.url.rpartition(":")[2])
    async with projecting(url, store):
        assert store.live() is None
        async with EmbeddedServer(store=tmp_path / "nats", port=port, durability="process"):
            await fill(url, 50)
            await reached(store, 50)
        async with EmbeddedServer(store=tmp_path / "nats", port=port, durability="process"):
            await fill(url, 50, seed=8)
            await reached(store, 100)
            assert seen(store) == (100, await folded(url))


async def test_a_projector_waits_for_a_locked_database(
    bus_url: str, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.projector.store.LOCK_SECONDS", "1")
    await fill(bus_url, 50)
    async with projecting(bus_url, store) as projector:
        await reached(store, 50)
        env = store.live()
        assert env is not None
        holder = sqlite3.connect(env["SQLITE_DBNAME"], uri=True, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        await fill(bus_url, 50, seed=8)
        await until(lambda: "database is locked" in projector._told)
        assert "end the program that holds it locked" in projector._told
        assert position_of(store) == 50
        holder.execute("ROLLBACK")
        holder.close()
        await reached(store, 100)
    assert seen(store) == (100, await folded(bus_url))


def test_a_full_disk_is_told_with_what_to_do() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (x)")
    database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as full:
        database.execute("INSERT INTO t VALUES (randomblob(100000))")
    database.close()
    told = explain(OperationalError(full.value), "readmodels.sqlite")
    assert told == "readmodels.sqlite: database or disk is full; free space on that disk"


# -- rebuilds ----------------------------------------------------------------------------------------------------------


async def test_a_rebuilt_view_is_the_live_one_while_a_projector_goes_on(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 1000)
    async with projecting(bus_url, store):
        await reached(store, 500)
        before = store.live()
        filling = asyncio.create_task(fill(bus_url, 1000, seed=8))
        done = await rebuilding(store, bus_url)
        assert (done.same, done.switched, done.kept) == (True, True, None)
        assert {table.table for table in done.tables} == {table.name for table in readmodels.TABLES}
        assert all(table.same and table.digest_live == table.digest_rebuilt for table in done.tables)
        assert store.live() != before
        await filling
        await reached(store, 2000)
    assert seen(store) == (2000, await folded(bus_url))
    assert len(list((Path(store.where).parent).glob("readmodels-*.sqlite"))) == 1


async def test_what_is_under_way_as_a_projector_ends_is_known_to_the_next(bus_url: str, store: SQLiteStore) -> None:
    async with projecting(bus_url, store):
        await reached(store, await append(bus_url, BEGUN))
    assert {row["attempt_id"] for row in seen(store)[1]["open_attempts"]} == {"r-1", "r-2"}
    async with projecting(bus_url, store):
        await reached(store, await append(bus_url, ENDED))
    assert seen(store) == (5, await folded(bus_url))
    assert [row["attempt_id"] for row in seen(store)[1]["open_attempts"]] == ["r-2"]
    assert (await rebuilding(store, bus_url)).same


async def test_a_view_that_differs_stays_unless_it_is_forced_out(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 200)
    await rebuilding(store, bus_url)
    tampered(store, "UPDATE usage_by_model SET cost_nanos = cost_nanos + 1 WHERE model = 'tiny'")
    tampered(store, "DELETE FROM route_decisions WHERE sequence = 1")
    done = await rebuilding(store, bus_url)
    assert (done.same, done.switched, done.kept) == (
        False,
        False,
        str(Path(store.where).parent / "readmodels-next.sqlite"),
    )
    wrong = {table.table: (table.missing, table.extra, table.different) for table in done.tables if not table.same}
    assert wrong == {"usage_by_model": (0, 0, 1), "route_decisions": (0, 1, 0)}
    assert seen(store)[1] != await folded(bus_url)
    done = await rebuilding(store, bus_url, force=True)
    assert (done.same, done.switched) == (False, True)
    assert seen(store) == (200, await folded(bus_url))


async def test_one_rebuild_at_a_time(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 10)
    with store.rebuilding(), pytest.raises(RebuildRunning, match="wait for it to end"):
        await rebuilding(store, bus_url)


async def test_another_shape_is_built_beside_and_read_meanwhile(
    bus_url: str, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(bus_url, 100)
    await rebuilding(store, bus_url)
    before = store.live()
    tampered(store, "UPDATE view_info SET value = 'of yesterday' WHERE name = 'schema'")
    tampered(store, "UPDATE usage_by_model SET attempts = 0")
    async with projecting(bus_url, store):
        await until(lambda: store.live() != before)
        await fill(bus_url, 10, seed=8)
        await reached(store, 110)
    assert seen(store) == (110, await folded(bus_url))


async def given_up(url: str, store: Store) -> Exception:
    async with projecting(url, store) as projector, asyncio.timeout(10):
        assert projector.failed is not None
        return await projector.failed


async def test_read_models_of_a_newer_version_are_left_alone(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 10)
    await rebuilding(store, bus_url)
    tampered(store, "UPDATE view_info SET value = '99' WHERE name = 'version'")
    error = await given_up(bus_url, store)
    assert isinstance(error, NewerView)
    assert "upgrade it" in str(error)


async def test_read_models_of_another_log_are_left_alone(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 10)
    await rebuilding(store, bus_url)
    tampered(store, "UPDATE view_info SET value = 'another' WHERE name = 'log'")
    error = await given_up(bus_url, store)
    assert isinstance(error, OtherLog)
    assert "--force" in str(error)
    done = await rebuilding(store, bus_url)
    assert (done.same, done.switched) == (None, False)
    assert (await rebuilding(store, bus_url, force=True)).switched


async def test_read_models_beyond_the_end_of_their_log_are_left_alone(bus_url: str, store: SQLiteStore) -> None:
    await fill(bus_url, 10)
    await rebuilding(store, bus_url)
    tampered(store, "UPDATE tracking SET notification_id = 15")
    error = await given_up(bus_url, store)
    assert isinstance(error, AheadOfLog)
    assert "stands at event 15, and its log ends at 10" in str(error)
    assert (await rebuilding(store, bus_url, force=True)).switched
    assert seen(store) == (10, await folded(bus_url))
