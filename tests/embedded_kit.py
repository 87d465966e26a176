"""What tests of the embedded server share: other owners, small disks, scripts that pose as servers."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trunkline.embedded import EmbeddedServer
from trunkline.embedded.config import render_config
from trunkline.embedded.errors import (
    EmbeddedServerError,
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


def fill(file: Path, *, leave: int) -> None:
    """Take all of the file's disk but so many bytes."""
    disk = os.statvfs(file.parent)
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as sink:
        for _ in range((disk.f_bavail * disk.f_frsize - leave) // 4096 + (leave == 0)):
            sink.write(bytes(4096))


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
