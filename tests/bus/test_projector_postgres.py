"""The read models in PostgreSQL: the same tables, exactly once, and a rebuild that switches schemas under a projector.

The server is a private one, of the binaries that this machine has; without any, these tests are skipped.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Role, passed, running, until
from readmodel_kit import BEGUN, ENDED, append, fill, folded, position_of, seen
from trunkline import projector as projector_module
from trunkline import settings
from trunkline.projector import Projector
from trunkline.projector.rebuild import rebuild
from trunkline.projector.store import NoDriver, PostgresStore
from trunkline.projector.trouble import Unreadable
from trunkline.settings import BadSettings

pytest_plugins = ["gateway"]

NEEDED = ("initdb", "postgres", "pg_isready")
FOLDERS = [
    *Path("/usr/lib/postgresql").glob("*/bin"),
    *[Path(which).parent for which in [shutil.which("initdb")] if which],
]
BINARIES = sorted(folder for folder in FOLDERS if all((folder / name).exists() for name in NEEDED))
needs_postgres = pytest.mark.skipif(not BINARIES, reason="no PostgreSQL server is installed here (initdb, pg_ctl)")


def as_somebody(folder: Path) -> list[str | Path]:
    """PostgreSQL refuses to run as root: what goes before its commands where we are."""
    if os.geteuid() != 0:
        return []
    for name in ("postgres", "nobody"):
        with_name = [entry for entry in pwd.getpwall() if entry.pw_name == name]
        if with_name and shutil.which("setpriv"):
            shutil.chown(folder, name)
            uid, gid = with_name[0].pw_uid, with_name[0].pw_gid
            return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    pytest.skip("PostgreSQL does not run as root, and there is nobody else to run it as")


@pytest.fixture(scope="module")
def postgres() -> Iterator[dict[str, str]]:
    """The environment that chooses a server of our own, reached through a socket in its folder."""
    with tempfile.TemporaryDirectory(prefix="tl-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        before = as_somebody(folder)
        data, binaries = folder / "data", BINARIES[-1]
        make: list[str | Path] = [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "trunkline",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run([*before, *make], check=True, capture_output=True, cwd="/")
        flags: list[str | Path] = [
            "-c",
            "listen_addresses=",
            "-c",
            f"unix_socket_directories={folder}",
            "-c",
            "fsync=off",
        ]
        log = (folder / "log").open("wb")
        server = subprocess.Popen([*before, binaries / "postgres", "-D", data, *flags], stdout=log, stderr=log, cwd="/")
        try:
            deadline = time.monotonic() + 20
            asked: list[str | Path] = [binaries / "pg_isready", "-q", "-h", folder]
            while subprocess.run(asked, timeout=10, check=False).returncode and time.monotonic() < deadline:
                assert server.poll() is None, (folder / "log").read_text()
            assert server.poll() is None, (folder / "log").read_text()
            yield {
                "PERSISTENCE_MODULE": settings.POSTGRES,
                "POSTGRES_DBNAME": "postgres",
                "POSTGRES_HOST": str(folder),
                "POSTGRES_USER": "trunkline",
                "POSTGRES_PASSWORD": "",
            }
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(20)
            log.close()


@pytest.fixture
def environ(postgres: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A schema of its own for each test."""
    name = "t" + "".join(letter for letter in tmp_path.name.lower() if letter.isalnum())[-30:]
    return settings.persistence({**postgres, "POSTGRES_SCHEMA": name})


@pytest.fixture
def store(environ: dict[str, str]) -> PostgresStore:
    return PostgresStore(environ)


async def reached(store: PostgresStore, sequence: int) -> None:
    await until(lambda: position_of(store) >= sequence, within=20)


@needs_postgres
async def test_a_rebuild_switches_schemas_under_a_projector(
    bus_url: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector_module, "LOOK_SECONDS", 0.05)
    await fill(bus_url, 600)
    projector = Projector(bus_url, store)
    failed = projector.start()
    await reached(store, 600)
    filling = asyncio.create_task(fill(bus_url, 600, seed=8))
    done = await asyncio.to_thread(rebuild, store, bus_url, force=False)
    assert (done.same, done.switched) == (True, True)
    await filling
    await reached(store, 1200)
    assert not failed.done()
    await projector.stop()
    assert await asyncio.to_thread(seen, store) == (1200, await folded(bus_url))


@needs_postgres
async def test_what_is_under_way_as_a_projector_ends_is_known_to_the_next(bus_url: str, store: PostgresStore) -> None:
    for lines in (BEGUN, ENDED):
        last = await append(bus_url, lines)
        projector = Projector(bus_url, store)
        projector.start()
        await reached(store, last)
        await projector.stop()
    assert await asyncio.to_thread(seen, store) == (5, await folded(bus_url))
    assert (await asyncio.to_thread(rebuild, store, bus_url, force=False)).same


@needs_postgres
async def test_a_killed_projector_leaves_nothing_out_and_counts_nothing_twice(
    bus_url: str, store: PostgresStore, environ: dict[str, str], tmp_path: Path
) -> None:
    role = Role(bus_url, tmp_path, "projector", "projector", environ=environ)
    async with running(role):
        for number in range(2):
            before = position_of(store)
            filling = asyncio.create_task(fill(bus_url, 600, seed=number))
            await until(lambda since=before: position_of(store) > since)  # type: ignore[misc]
            await passed(0.02 * number)
            await role.again()
            await filling
        await reached(store, 1200)
    assert await asyncio.to_thread(seen, store) == (1200, await folded(bus_url))


@needs_postgres
async def test_what_differs_is_counted_and_stays(bus_url: str, store: PostgresStore) -> None:
    await fill(bus_url, 100)
    assert (await asyncio.to_thread(rebuild, store, bus_url, force=False)).same is None

    def tamper() -> None:
        env = store.live()
        assert env is not None
        view = store.open(env)
        with view.writing() as cursor:
            view.run(cursor, f"DELETE FROM {view.prefix}latency")
            view.run(cursor, f"UPDATE {view.prefix}usage_by_provider SET attempts = 0 WHERE provider = 'lab'")
        view.close()

    await asyncio.to_thread(tamper)
    done = await asyncio.to_thread(rebuild, store, bus_url, force=False)
    assert (done.same, done.switched) == (False, False)
    assert {table.table for table in done.tables if not table.same} == {"latency", "usage_by_provider"}
    assert (await asyncio.to_thread(rebuild, store, bus_url, force=True)).switched
    assert await asyncio.to_thread(seen, store) == (100, await folded(bus_url))


@needs_postgres
@pytest.mark.parametrize("table", ["latency", "readmodels_tracking"])
async def test_a_broken_schema_is_replaced_by_force_only(bus_url: str, store: PostgresStore, table: str) -> None:
    await fill(bus_url, 60)
    await asyncio.to_thread(rebuild, store, bus_url, force=False)

    def tamper() -> None:
        env = store.live()
        assert env is not None
        view = store.open(env)
        with view.writing() as cursor:
            view.run(cursor, f"DROP TABLE {view.prefix}{table}")
        view.close()

    await asyncio.to_thread(tamper)
    with pytest.raises(Unreadable, match="--force"):
        await asyncio.to_thread(rebuild, store, bus_url, force=False)
    done = await asyncio.to_thread(rebuild, store, bus_url, force=True)
    assert (done.same, done.switched) == (None, True)
    assert await asyncio.to_thread(seen, store) == (60, await folded(bus_url))


@needs_postgres
async def test_whether_a_projector_follows_is_known(bus_url: str, store: PostgresStore) -> None:
    await fill(bus_url, 60)
    projector = Projector(bus_url, store)
    projector.start()
    await reached(store, 60)
    assert await asyncio.to_thread(store.followed)
    await projector.stop()
    assert not await asyncio.to_thread(store.followed)


def test_postgres_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "trunkline_projections.sql_postgres", None)
    monkeypatch.delattr("trunkline_projections.sql_postgres", raising=False)
    with pytest.raises(NoDriver, match=r"pip install 'trunkline\[postgres\]'"):
        PostgresStore({"POSTGRES_SCHEMA": "trunkline"})


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"PERSISTENCE_MODULE": "eventsourcing.popo"}, "eventsourcing.sqlite or eventsourcing.postgres"),
        ({"PERSISTENCE_MODULE": settings.POSTGRES, "POSTGRES_HOST": "h"}, "needs POSTGRES_DBNAME, POSTGRES_USER"),
        (
            dict.fromkeys(["POSTGRES_DBNAME", "POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD"], "x")
            | {"PERSISTENCE_MODULE": settings.POSTGRES, "POSTGRES_SCHEMA": "public"},
            "a schema of their own",
        ),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(BadSettings, match=told):
        settings.persistence(environ)
