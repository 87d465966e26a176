"""The embedded nats-server against the real binary: real processes, real signals, real folders."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
from embedded_kit import config, eventually, listening, owner_process, runs, script
from trunkline.embedded import EmbeddedServer
from trunkline.embedded.config import REPORT, REPORTER, quote
from trunkline.embedded.errors import (
    GaveUpError,
    ServerExitedError,
)
from trunkline.health.report import read_report
from trunkline_events.connection import Connection


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "data", port=0) as running:
        yield running


# The configuration


def test_the_config_says_every_promise_outright() -> None:
    text = config(Path("/data"), durability="always")
    for line in (
        'host: "127.0.0.1"',
        "port: 4222",
        "max_payload: 8388608",
        '  store_dir: "/data/jetstream"',
        '  sync_interval: "always"',
        'pid_file: "/data/nats-server.pid"',
        'log_file: "/data/nats-server.log"',
    ):
        assert line in text.splitlines()


def test_process_durability_is_written_too_not_left_to_a_default() -> None:
    assert '  sync_interval: "2m"' in config(Path("/data"), durability="process").splitlines()


def test_monitoring_is_off_unless_asked_for_and_then_on_loopback() -> None:
    assert "http" not in config(Path("/data"))
    assert 'http: "127.0.0.1:8222"' in config(Path("/data"), monitor_port=8222).splitlines()


def test_quotes_backslashes_and_control_characters_stay_inside_the_string() -> None:
    assert quote('a"b\\c\nd\x01é') == '"a\\"b\\\\c\\nd\\x01é"'


async def test_a_folder_of_any_name_is_where_the_data_goes(tmp_path: Path) -> None:
    store = tmp_path / 'my "data" \\x41 $HOME {ü} \'#\t;'
    async with EmbeddedServer(store=store, port=0):
        assert (store / "jetstream").is_dir()
        assert (store / "nats-server.pid").is_file()


# Starting


async def test_start_returns_soon_with_jetstream_ready(tmp_path: Path) -> None:
    began = time.monotonic()
    async with EmbeddedServer(store=tmp_path, port=0) as server:
        assert time.monotonic() - began < 2.0
        assert server.url == f"nats://127.0.0.1:{server.port}"
        client = await nats.connect(server.url)
        assert (await client.jetstream().account_info()).streams == 0
        assert client.max_payload == 8 * 1024 * 1024
        await client.close()


async def test_the_only_user_may_ask_for_the_servers_report_and_do_nothing_else(embedded: EmbeddedServer) -> None:
    reporter = await Connection.open(f"nats://{REPORTER}:{REPORTER}@127.0.0.1:{embedded.port}", name="test")
    try:
        told = read_report(json.loads((await reporter.nats.request(REPORT, timeout=2)).data))
        assert told is not None
        assert told.sync_always
        assert told.store.startswith(str(embedded.store))
        for subject in ("$JS.API.INFO", "$SYS.REQ.SERVER.PING.CONNZ", "trunkline.chat"):
            with pytest.raises((TimeoutError, nats.errors.Error)):
                await reporter.nats.request(subject, timeout=0.1)
    finally:
        await reporter.close()


async def test_port_0_picks_a_free_port_for_each_server(tmp_path: Path) -> None:
    async with EmbeddedServer(store=tmp_path / "a", port=0) as a, EmbeddedServer(store=tmp_path / "b", port=0) as b:
        assert a.port != b.port
        assert listening(a.port)
        assert listening(b.port)


async def test_the_server_gets_a_memory_limit_and_none_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    async with EmbeddedServer(store=tmp_path, port=0, memory_limit="512MiB") as server:
        assert Path(f"/proc/{server.pid}/environ").read_bytes() == (
            b"GOMEMLIMIT=512MiB\0TRUNKLINE_MAX_FILE_STORE=1PB\0"
        )


async def test_starting_twice_is_a_mistake_said_aloud(embedded: EmbeddedServer) -> None:
    with pytest.raises(RuntimeError, match="started already"):
        await embedded.start()


async def test_a_cancelled_start_leaves_neither_process_nor_lock(tmp_path: Path) -> None:
    sleeper = script(tmp_path / "sleeper", "#!/bin/sh\nexec sleep 60\n")
    server = EmbeddedServer(store=tmp_path / "data", port=0, binary=sleeper)
    starting = asyncio.create_task(server.start())
    await eventually(lambda: server.pid is not None)
    pid = server.pid
    starting.cancel()
    await asyncio.wait([starting])
    assert pid is not None
    assert not runs(pid)
    async with EmbeddedServer(store=tmp_path / "data", port=0):
        pass


async def test_a_killed_server_is_back_on_its_port_within_a_second_with_its_data(tmp_path: Path) -> None:
    restarted = asyncio.Event()
    async with EmbeddedServer(store=tmp_path, port=0, on_restart=restarted.set) as server:
        port, first = server.port, server.pid
        assert first is not None
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="T", subjects=["t.>"])
        await client.jetstream().publish("t.a", b"kept")
        await client.close()
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(1.0):
            await restarted.wait()
        assert server.port == port
        assert server.pid != first
        client = await nats.connect(server.url)
        assert (await client.jetstream().get_last_msg("T", "t.a")).data == b"kept"
        await client.close()


async def test_on_restart_may_be_async_and_its_failure_stops_nothing(tmp_path: Path) -> None:
    calls: asyncio.Queue[int | None] = asyncio.Queue()

    async def fail() -> None:
        calls.put_nowait(server.pid)
        raise OSError("the ready file can't be written")

    server = EmbeddedServer(store=tmp_path, port=0, on_restart=fail)
    async with server, asyncio.timeout(5):
        for _ in range(2):
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            assert await calls.get() == server.pid


async def test_a_server_that_keeps_dying_is_given_up_with_its_last_error(tmp_path: Path) -> None:
    async with EmbeddedServer(store=tmp_path, port=0) as server:
        assert server.pid is not None
        (tmp_path / "nats-server.conf").write_text("max_payload: nonsense")
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            error = await asyncio.shield(server.failed)
        assert isinstance(error, GaveUpError)
        assert error.deaths == 5
        assert isinstance(error.last, ServerExitedError)
        assert "nats-server.conf:1" in str(error)
        assert not listening(server.port)


async def test_a_server_killed_again_and_again_is_given_up(tmp_path: Path) -> None:
    async with EmbeddedServer(store=tmp_path, port=0) as server:
        killed: set[int] = set()
        async with asyncio.timeout(20):
            while not server.failed.done():
                if server.pid is not None and server.pid not in killed and runs(server.pid):
                    killed.add(server.pid)
                    os.kill(server.pid, signal.SIGKILL)
                await asyncio.sleep(0.005)
        assert len(killed) == 5


# Stopping


async def test_stop_leaves_no_process_and_is_idempotent(tmp_path: Path) -> None:
    server = EmbeddedServer(store=tmp_path, port=0)
    await server.start()
    pid, port, failed = server.pid, server.port, server.failed
    await server.stop()
    await server.stop()
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert not listening(port)
    assert failed.cancelled()


async def test_a_stop_right_after_a_death_does_not_start_it_again(tmp_path: Path) -> None:
    server = EmbeddedServer(store=tmp_path, port=0)
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await asyncio.sleep(random.uniform(0, 0.03))  # wherever the restart has got to
    await server.stop()
    assert not listening(server.port)
    assert server.pid is None


async def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.embedded.STOP_GRACE", 0.05)
    server = EmbeddedServer(store=tmp_path, port=0)
    await server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await server.stop()
    assert not runs(pid)


async def test_a_stopped_server_starts_again_with_its_folder(tmp_path: Path) -> None:
    server = EmbeddedServer(store=tmp_path, port=0)
    for _ in range(2):
        await server.start()
        assert listening(server.port)
        await server.stop()


async def test_the_server_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, port, pid):
        assert listening(port)
        owner.kill()
        await eventually(lambda: not listening(port) and not runs(pid))


async def test_the_terminals_ctrl_c_does_not_reach_the_server(embedded: EmbeddedServer) -> None:
    """The kernel sends it to the terminal's foreground process group; a session of its own has no terminal."""
    assert embedded.pid is not None
    assert os.getsid(embedded.pid) == embedded.pid
    assert os.getpgid(embedded.pid) != os.getpgid(0)
