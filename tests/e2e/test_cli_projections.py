"""`trunkline projections` and `trunkline run projector`, as a user and a script have them."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, ended
from processes import Role, running, until
from readmodel_kit import fill

pytest_plugins = ["gateway"]

Projections = Callable[..., Awaitable[Done]]


@pytest.fixture
def projections(bus_url: str, tmp_path: Path) -> Projections:
    """Run `trunkline projections VERB …` on this bus and data folder."""

    async def run(verb: str, *more: str) -> Done:
        where = ("--nats", bus_url, "--data", str(tmp_path / "data"))
        return await ended("projections", verb, *where, *more, cwd=tmp_path)

    return run


@pytest.fixture
def projector(bus_url: str, tmp_path: Path) -> Role:
    """A process of `trunkline run projector`, not started."""
    return Role(bus_url, tmp_path, "projector", "projector", environ={"TRUNKLINE_DATA": str(tmp_path / "data")})


async def test_read_models_are_listed_measured_and_rebuilt_while_a_projector_runs(
    projections: Projections, projector: Role, bus_url: str, tmp_path: Path
) -> None:
    await fill(bus_url, 300)
    link = tmp_path / "data" / "projections" / "readmodels.sqlite"
    async with running(projector):
        await until(lambda: link.exists() and asked(link, "SELECT MAX(last_sequence) FROM thread_totals") == 300)
        found = (await projections("list", "--json")).json
        assert (found["position"], found["events_behind"], found["state"]) == (300, 0, "live")
        assert {"table": "route_decisions", "rows": 150} in found["tables"]
        rebuilt = await projections("rebuild", "--json")
        assert rebuilt.code == 0
        assert (rebuilt.json["same"], rebuilt.json["switched"], rebuilt.json["position"]) == (True, True, 300)
        assert all(table["same"] for table in rebuilt.json["tables"])
        await fill(bus_url, 100)
        await until(lambda: asked(link, "SELECT MAX(last_sequence) FROM thread_totals") == 400)
    await fill(bus_url, 50)
    lag = (await projections("lag", "--json")).json
    assert (lag["position"], lag["end"], lag["events_behind"]) == (400, 450, 50)
    assert lag["seconds_behind"] >= 0
    assert lag["projector"] is False
    assert "no projector is at work" in lag["state"]
    told = await projections("list")
    assert "usage_by_model\t5\t400\t50" in told.out
    assert "no projector is at work" in told.err


def asked(file: Path, query: str) -> int | None:
    connection = sqlite3.connect(file)
    try:
        found: int | None = connection.execute(query).fetchone()[0]
        return found
    finally:
        connection.close()


async def test_a_difference_is_exit_code_7_and_force_replaces(
    projections: Projections, bus_url: str, tmp_path: Path
) -> None:
    await fill(bus_url, 100)
    first = await projections("rebuild")
    assert first.code == 0, first
    assert "not compared: there were none before" in first.out
    link = tmp_path / "data" / "projections" / "readmodels.sqlite"
    with sqlite3.connect(link) as connection:
        connection.execute("UPDATE thread_totals SET cost_nanos = 1")
    connection.close()
    wrong = await projections("rebuild")
    assert wrong.code == 7, wrong
    assert "they differ" in wrong.out
    assert "readmodels-next.sqlite" in wrong.err
    assert "--force" in wrong.err
    assert asked(link, "SELECT MAX(cost_nanos) FROM thread_totals") == 1
    assert (await projections("rebuild", "--force")).code == 0
    assert asked(link, "SELECT MAX(cost_nanos) FROM thread_totals") != 1


async def test_what_is_not_there_is_told_with_what_to_do(
    projections: Projections, bus_url: str, tmp_path: Path
) -> None:
    none = await projections("list", "--json")
    assert none.code == 3
    assert none.json["error"]["code"] == "not_found"
    assert "trunkline run projector" in none.err
    no_log = await projections("rebuild")
    assert no_log.code == 6
    assert "no log yet" in no_log.err
    nobody = await ended("projections", "rebuild", "--nats", "nats://127.0.0.1:1", cwd=tmp_path)
    assert nobody.code == 6
    folder = tmp_path / "data" / "projections"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "readmodels.sqlite").write_text("no database at all, and long enough to be none " * 50)
    broken = await projections("list")
    assert broken.code == 1
    assert "trunkline projections rebuild --force" in broken.err
    await fill(bus_url, 20)
    kept = await projections("rebuild")
    assert kept.code == 1
    assert "trunkline projections rebuild --force" in kept.err
    replaced = await projections("rebuild", "--force")
    assert replaced.code == 0, replaced
    assert "could not be read (file is not a database), and were replaced" in replaced.out
    assert (await projections("list")).code == 0


@pytest.mark.parametrize(
    ("statement", "code", "name", "told"),
    [
        ("UPDATE view_info SET value = 'another' WHERE name = 'log'", 7, "mismatch", "of another log"),
        ("UPDATE tracking SET notification_id = 99", 1, "failed", "stands at event 99, and its log ends at 20"),
        ("UPDATE view_info SET value = '99' WHERE name = 'version'", 1, "failed", "upgrade it"),
        ("DROP TABLE latency", 1, "failed", "no such table: latency; `trunkline projections rebuild --force`"),
    ],
)
async def test_list_and_lag_do_not_look_well_where_they_are_not(
    projections: Projections, bus_url: str, tmp_path: Path, statement: str, code: int, name: str, told: str
) -> None:
    await fill(bus_url, 20)
    assert (await projections("rebuild")).code == 0
    connection = sqlite3.connect(tmp_path / "data" / "projections" / "readmodels.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    for verb in ("list", "lag"):
        found = await projections(verb)
        assert found.code == code, found
        assert told in found.err
        assert "events behind  0" not in found.out
        found = await projections(verb, "--json")
        assert found.code == code, found
        assert found.json["error"]["code"] == name
        assert found.json.get("events_behind") is None


async def test_a_file_for_a_data_folder_is_told(bus_url: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for verb in ("list", "lag", "rebuild"):
        done = await ended("projections", verb, "--nats", bus_url, "--data", str(file), cwd=tmp_path)
        assert done.code == 1, done
        assert f"{file} is not a folder; name the gateway's data folder with --data" in done.err
        assert "free space" not in done.err
    (tmp_path / "projections").write_text("")
    done = await ended("projections", "rebuild", "--nats", bus_url, "--data", str(tmp_path), cwd=tmp_path)
    assert done.code == 1, done
    assert "that you may write to" in done.err


async def test_a_database_that_does_not_answer_is_unavailable(bus_url: str, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    environ: dict[str, Any] = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": "none",
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": "1",
        "POSTGRES_USER": "nobody",
        "POSTGRES_PASSWORD": "x",
        "POSTGRES_CONNECT_TIMEOUT": "1",
    }
    for verb in ("list", "rebuild"):
        done = await ended("projections", verb, "--nats", bus_url, "--json", cwd=tmp_path, **environ)
        assert done.code == 6, done
        assert done.json["error"]["code"] == "unavailable"
        assert "see that the database is up" in done.err


def there(file: Path) -> bool:
    return bool(asked(file, "SELECT notification_id FROM tracking WHERE application_name = 'trunkline'"))


def test_up_keeps_read_models_in_a_process_beside(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TRUNKLINE_"))}
    ready, link = tmp_path / "ready.json", tmp_path / "data" / "projections" / "readmodels.sqlite"
    flags = ("--nats-port", "0", "--http-port", "0", "--data", str(tmp_path / "data"), "--ready-file", str(ready))
    command = [sys.executable, "-m", "trunkline", "up", *flags]
    up = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 20
        while not (ready.exists() and link.exists()) and time.monotonic() < deadline:
            assert up.poll() is None
            time.sleep(0.01)
        while not there(link) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert there(link), "the provider and the models that `up` registers are in the log"
    finally:
        up.terminate()
        _, told = up.communicate(timeout=30)
    assert up.returncode == 0, told
