"""`python -m trunkline.healthcheck`: what a container engine is told of a process."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from processes import Role, running
from trunkline.healthcheck import main, problem_of

pytest_plugins = ["gateway"]


async def look(ready: Path) -> str | None:
    return await asyncio.to_thread(problem_of, ready)


async def test_a_process_is_healthy_while_it_is_heard_on_the_bus(tmp_path: Path, bus_url: str) -> None:
    role = Role(bus_url, tmp_path, "keeper", "keeper")
    async with running(role):
        assert await look(role._ready) is None
        role.signal(signal.SIGSTOP)
        assert "has told nothing on trunkline.pulse for 3 s" in (await look(role._ready) or "healthy")
        role.signal(signal.SIGCONT)
        await role.kill()
        assert f"process {role.process.pid} is gone" in (await look(role._ready) or "healthy")


async def test_an_edge_is_healthy_when_it_could_serve_a_chat(tmp_path: Path, bus_url: str) -> None:
    edge = Role(bus_url, tmp_path, "gateway", "gateway", environ={"TRUNKLINE_HTTP_PORT": "0"})
    router = Role(bus_url, tmp_path, "router", "router")
    async with running(edge):
        assert "no router is there" in (await look(edge._ready) or "healthy")
        async with running(router):
            assert await look(edge._ready) is None


def test_a_projector_is_healthy_as_long_as_it_runs(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    told: dict[str, object] = {
        "nats": "nats://127.0.0.1:1",
        "http": None,
        "pid": os.getpid(),
        "pids": {},
        "roles": ["projector"],
    }
    ready.write_text(json.dumps(told))
    assert problem_of(ready) is None
    ready.write_text(json.dumps({**told, "roles": ["projector", "keeper"]}))
    assert "can't connect to NATS" in (problem_of(ready) or "healthy")


def test_what_does_not_serve_yet_is_told_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "ready"
    assert main([str(missing)]) == 1
    assert f"start it with --ready-file {missing}" in capsys.readouterr().err
    assert main([]) == 1
    assert "--ready-file" in capsys.readouterr().err
