"""`trunkline up` as a user has it: the real console script, its banner, its ready file, its signals."""

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trunkline
from embedded_kit import eventually, listening, runs
from trunkline.banner import command
from trunkline.workers import WorkerNotServing, Workers

COMMAND = (sys.executable, "-m", "trunkline")
WORKERS = ("worker-1", "worker-2")


@contextmanager
def up(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running `trunkline up` and what its ready file says; killed at the end if it still runs."""
    ready = folder / "ready.json"
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TRUNKLINE_"))}
    arguments = ("up", "--nats-port", "0", "--http-port", "0", "--ready-file", str(ready), *flags)
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, cwd=folder
    )
    try:
        until = time.monotonic() + 20
        while not ready.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.01)
        yield process, json.loads(ready.read_text())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    """Ask it to stop; its exit code and what it said."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


async def test_a_newcomer_chats_with_what_up_registers_by_itself(tmp_path: Path) -> None:
    with up(tmp_path, "--data", str(tmp_path / "data")) as (process, ready):
        assert ready["pid"] == process.pid
        async with trunkline.connect(ready["nats"]) as gw:
            answer = await gw.chat.create("auto", "hello there")
            assert answer.text == "hello there"
            assert float(answer.cost) > 0
        code, out, _ = ended(process)
    assert code == 0
    for word in ("NATS", ready["nats"], "data", "always", "actors", "ready in", "scripted", "Try:", "trunkline chat"):
        assert word in out
    assert f"metrics  {ready['http']}/metrics" in out
    assert not (tmp_path / "ready.json").exists()


async def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    with up(tmp_path, *data) as (process, ready):
        async with trunkline.connect(ready["nats"]) as gw:
            first = await gw.chat.create("echo", "hello", thread="t", request_id="r")
        ended(process, signal.SIGINT)
    with up(tmp_path, *data) as (process, ready):
        async with trunkline.connect(ready["nats"]) as gw:
            assert (await gw.threads.get(thread_id="t"))["seq"] == first.receipt.event
            again = await gw.chat.create("echo", "hello", thread="t", request_id="r")
            assert again.receipt.replayed
            assert again.receipt.event == first.receipt.event
        ended(process)


async def test_a_killed_server_is_back_and_the_ready_file_names_it(tmp_path: Path) -> None:
    with up(tmp_path, "--data", str(tmp_path / "data")) as (process, ready):
        before = ready["pids"]["nats-server"]
        os.kill(before, signal.SIGKILL)
        began = time.monotonic()
        await eventually(lambda: json.loads((tmp_path / "ready.json").read_text())["pids"]["nats-server"] != before)
        assert time.monotonic() - began < 5
        async with trunkline.connect(ready["nats"]) as gw:
            assert (await gw.chat.create("echo", "still here")).text == "still here"
        assert ended(process)[0] == 0


async def test_nothing_outlives_a_killed_up(tmp_path: Path) -> None:
    with up(tmp_path, "--data", str(tmp_path / "data"), "--workers", "1") as (process, ready):
        pids = list(ready["pids"].values())
        assert len(pids) == 2
        process.kill()
        await eventually(lambda: not any(runs(pid) for pid in pids), within=15)


async def test_workers_share_the_load_and_are_started_again_when_they_die(tmp_path: Path) -> None:
    with up(tmp_path, "--ephemeral", "--workers", "2") as (process, ready):
        async with trunkline.connect(ready["nats"]) as gw:
            await asyncio.gather(*(gw.chat.create("echo", f"n{number}") for number in range(40)))
            before = {name: ready["pids"][name] for name in WORKERS}
            for pid in before.values():
                os.kill(pid, signal.SIGKILL)
            await eventually(lambda: all_new(tmp_path / "ready.json", before), within=20)
            answer = await gw.chat.create("echo", "back", route={"deadline_ms": 20_000})
            assert answer.text == "back"
        code, _, _ = ended(process)
    assert code == 0


async def test_workers_serve_when_the_ready_file_says_so(tmp_path: Path) -> None:
    with up(tmp_path, "--ephemeral", "--workers", "2") as (process, ready):
        assert set(ready["pids"]) == {"nats-server", *WORKERS}
        # Each has its signal handlers: what only starts would die of the signal instead of stopping in order.
        for name in WORKERS:
            os.kill(ready["pids"][name], signal.SIGTERM)
        await eventually(lambda: all_new(tmp_path / "ready.json", ready["pids"], *WORKERS), within=20)
        code, _, err = ended(process)
    assert code == 0
    deaths = [line for line in map(json.loads, err.splitlines()) if line["event"] == "worker.died"]
    assert sorted((line["worker"], line["exit_code"]) for line in deaths) == [(name, 0) for name in WORKERS]


def all_new(ready_file: Path, before: dict[str, int], *names: str) -> bool:
    """Whether the ready file names another process for each of these."""
    now = json.loads(ready_file.read_text())["pids"]
    return all(now.get(name) not in {None, before[name]} for name in names or before)


async def test_a_worker_that_dies_at_its_start_is_an_error() -> None:
    workers = Workers("nats://127.0.0.1:1", 1)
    with pytest.raises(WorkerNotServing, match="worker-1 ended with exit code 6 before it served"):
        await workers.start()
    assert workers.pids == {}
    await workers.stop()


def test_a_worker_that_takes_too_long_ends_up_with_1_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    program = "import sys; from trunkline import workers; workers.START_SECONDS = 0.05\n"
    program += "from trunkline.cli.main import main; sys.exit(main(sys.argv[1:]))"
    ports = ("--nats-port", "0", "--http-port", "0")
    flags = ("up", "--ephemeral", *ports, "--workers", "2", "--ready-file", "ready.json")
    environ = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    result = subprocess.run(
        [sys.executable, "-c", program, *flags], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ
    )
    assert result.returncode == 1
    assert "didn't serve within 0.05 s; try fewer --workers" in result.stderr
    assert "Traceback" not in result.stderr
    assert "ready in" not in result.stdout
    assert list(tmp_path.rglob("*")) == [tmp_path / "temporary"]


async def test_an_ephemeral_gateway_leaves_nothing_behind(tmp_path: Path) -> None:
    with up(tmp_path, "--ephemeral") as (process, ready):
        server = ready["pids"]["nats-server"]
        config = Path(f"/proc/{server}/cmdline").read_bytes().split(b"\0")
        folder = Path(next(part for part in config if part.endswith(b".conf")).decode()).parent
        assert folder.is_dir()
        code, out, _ = ended(process)
    assert code == 0
    assert "temporary folder" in out
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_taken_port_is_reported_with_the_flag_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        flags = ("up", "--ephemeral", "--http-port", "0", "--nats-port", port)
        result = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert result.returncode == 1
    assert port in result.stderr
    assert "--nats-port" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_http_port_is_reported_with_its_flag_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        flags = ("up", "--ephemeral", "--nats-port", "0", "--http-port", port)
        result = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert result.returncode == 1
    assert f"port {port} of 127.0.0.1 can't be had for HTTP" in result.stderr
    assert "--http-port" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_less_durable_promise_says_so(tmp_path: Path) -> None:
    with up(tmp_path, "--ephemeral", "--durability", "process") as (process, _):
        _, out, _ = ended(process)
    assert "NOT a power cut" in out


async def test_a_role_without_a_bus_says_what_to_do(tmp_path: Path) -> None:
    flags = ("run", "router", "--nats", "nats://127.0.0.1:9")
    result = await asyncio.to_thread(
        subprocess.run, [*COMMAND, *flags], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert result.returncode == 6
    assert "trunkline up" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    with up(tmp_path, "--ephemeral") as (process, ready):
        async with trunkline.connect(ready["nats"]) as gw, gw.chat.stream("slow", "x") as stream:
            await anext(stream)
            process.terminate()
            await asyncio.to_thread(_wait_for_stopping, process)
            process.terminate()
            await eventually(lambda: process.poll() is not None)
            assert process.returncode == 1
        await eventually(lambda: not listening(int(ready["nats"].rpartition(":")[2])))


def _wait_for_stopping(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "process.stopping" in line:
            return


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_running_stream_is_finished_before_the_process_ends(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path, "--ephemeral") as (process, ready):
        async with trunkline.connect(ready["nats"]) as gw:
            async with gw.chat.stream("slow", "x") as stream:
                await anext(stream)
                process.send_signal(number)
                text = "".join([chunk.text async for chunk in stream])
            assert text.endswith("w40")
            assert stream.receipt is not None
        await eventually(lambda: process.poll() is not None, within=20)
        assert process.returncode == 0


async def test_the_banner_names_a_command_that_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with up(tmp_path, "--ephemeral") as (process, _):
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        line = next(line for line in lines if 'chat "Hello!"' in line)
        chat = await asyncio.create_subprocess_shell(line, stdout=-1, stderr=-1, cwd=tmp_path)
        out, err = await chat.communicate()
        assert chat.returncode == 0, err
        assert out
        assert ended(process)[0] == 0


def test_the_command_is_named_as_the_current_folder_and_path_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "a venv" / "bin"
    scripts.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command() == "'a venv/bin/python' -m trunkline"
    (scripts / "trunkline").touch(mode=0o755)
    assert command() == "'a venv/bin/trunkline'"
    monkeypatch.chdir(scripts.parent)
    assert command() == "bin/trunkline"
    monkeypatch.chdir(scripts)
    assert command() == "./trunkline"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command() == shlex.quote(str(scripts / "trunkline"))
    monkeypatch.setenv("PATH", str(scripts))
    assert command() == "trunkline"
