"""The power fails: what was acknowledged with `always` is on disk, and `process` loses what the disk had not yet seen.

`kill -9` shows none of this: the kernel keeps what a dead process wrote. LazyFS (github.com/dsrhaslab/lazyfs) keeps to
itself what isn't synced, and can be told to forget it; LAZYFS names its program, built and allowed to mount. It forgets
data, not names: whether a new file's entry in its folder is synced is not shown. Where only strace is at hand, it shows
the order at least: first the sync, then the acknowledgement.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from append_history import Fate, Fault, History, Stored, check
from embedded_kit import eventually
from logs import Writers, an_event, open_log
from trunkline.embedded import EmbeddedServer
from trunkline.embedded.config import Durability
from trunkline_events.connection import Connection

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

CONFIG = """
[faults]
fifo_path="{folder}/faults"
[cache]
apply_eviction=false
[cache.simple]
custom_size="0.25GB"
blocks_per_page=1
[filesystem]
log_all_operations=false
logfile="{folder}/lazyfs.log"
"""

POWER_FAILURES = 10


class LazyDisk:
    """A mounted LazyFS. What is written below `mount` is kept in memory until it is synced."""

    def __init__(self, folder: Path) -> None:
        self.mount, self._log, self._faults = folder / "mount", folder / "lazyfs.log", folder / "faults"

    async def forget(self) -> None:
        """Drop everything that isn't synced, and return when that is done."""
        before = self._forgotten()
        self._faults.write_text("lazyfs::clear-cache\n")
        await eventually(lambda: self._forgotten() > before, within=30)

    def _forgotten(self) -> int:
        return self._log.read_text().count("cache is cleared")


@contextlib.contextmanager
def lazy_disk(folder: Path) -> Iterator[LazyDisk]:
    program = os.environ.get("LAZYFS")
    if not program:
        pytest.skip("LAZYFS doesn't name a LazyFS program")
    disk, root = LazyDisk(folder), folder / "root"
    disk.mount.mkdir(parents=True)
    root.mkdir()
    (folder / "lazyfs.toml").write_text(CONFIG.format(folder=folder))
    # Named from its folder: LazyFS takes a path with "-o" in it for an option.
    command = [program, str(disk.mount), "--config-path", "lazyfs.toml"]
    options = ["-o", "allow_other", "-o", "modules=subdir", "-o", f"subdir={root}", "-f"]
    with (
        (folder / "output").open("wb") as output,
        subprocess.Popen([*command, *options], cwd=folder, stdout=output, stderr=output) as process,
    ):
        try:
            while not disk.mount.is_mount():
                if process.poll() is not None:
                    pytest.skip(f"LazyFS can't mount here: {(folder / 'output').read_text()[-300:]}")
            yield disk
        finally:
            subprocess.run(["umount", "-l", str(disk.mount)], check=False, capture_output=True)
            process.kill()


async def lose_power(server: EmbeddedServer, disk: LazyDisk) -> None:
    """The server stops where it is, what it had not synced is gone, and it starts again on what is left."""
    back = asyncio.Event()
    server.on_restart = back.set
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    await disk.forget()
    os.kill(server.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        await back.wait()


def on(disk: LazyDisk, folder: Path, durability: Durability) -> EmbeddedServer:
    """An embedded server as it ships; its streams, and nothing else of it, are on that disk."""
    folder.mkdir()
    (disk.mount / "jetstream").mkdir()
    (folder / "jetstream").symlink_to(disk.mount / "jetstream")
    return EmbeddedServer(store=folder, port=0, durability=durability)


@pytest.mark.parametrize("group_commit", [(True, True), (False, False)], ids=["grouped", "single"])
async def test_what_was_acknowledged_with_always_survives_a_power_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_commit: tuple[bool, bool]
) -> None:
    monkeypatch.setattr("trunkline.embedded.QUICK_SECONDS", 0.0)
    with lazy_disk(tmp_path / "disk") as disk:
        async with on(disk, tmp_path / "nats", "always") as server, Writers(server.url, group_commit=group_commit) as w:
            for _ in range(POWER_FAILURES):
                await w.go_on()
                await w.store(50)
                await lose_power(server, disk)
            await w.go_on()
            await w.prove()


async def test_what_was_acknowledged_with_process_is_lost_with_the_power(tmp_path: Path) -> None:
    """The control: were nothing lost here, the test above would show nothing."""
    with lazy_disk(tmp_path / "disk") as disk:
        async with on(disk, tmp_path / "nats", "process") as server:
            connection = await Connection.open(server.url, name="test")
            log = await open_log(connection)
            history = History()
            for number in range(500):
                one = history.begin(f"e{number}", "a")
                history.acknowledge(one, (await log.append(an_event(f"e{number}"))).sequence)
            await lose_power(server, disk)
            again = await open_log(connection)  # even the stream may be gone
            stored = [Stored(event.sequence, event.id, event.aggregate) async for event in again.read()]
            findings = check(history, stored)
            assert Fault.LOST in findings.faults
            assert findings.count(Fate.LOST) == 500 - len(stored)
            await again.close()
            await log.close()
            await connection.close()


# -- where there is no LazyFS: the order of what the server asks of the kernel

ACKNOWLEDGES = re.compile(r'\\"stream\\":\\"TRUNKLINE\\",\s*\\"seq\\":(\d+)')
SYNCS = re.compile(r"(fsync|fdatasync)\(\d+<[^>]*\.blk>")


def synced_before(trace: str) -> list[bool]:
    """For each acknowledgement that the server wrote, whether it synced the stream's file since the one before."""
    found, synced = [], False
    for line in trace.splitlines():
        synced = synced or SYNCS.search(line) is not None
        if ACKNOWLEDGES.search(line):
            found.append(synced)
            synced = False
    return found


@contextlib.asynccontextmanager
async def traced(pid: int | None, output: Path) -> AsyncIterator[None]:
    if shutil.which("strace") is None:
        pytest.skip("strace isn't installed")
    calls = "trace=fsync,fdatasync,write,writev"
    said = output.with_suffix(".said")
    with (
        said.open("wb") as errors,
        subprocess.Popen(
            ["strace", "-f", "-y", "-s", "4096", "-e", calls, "-o", str(output), "-p", str(pid)], stderr=errors
        ) as tracer,
    ):
        try:
            await eventually(lambda: "attached" in said.read_text() or tracer.poll() is not None)
            if tracer.poll() is not None:
                pytest.skip(f"tracing isn't permitted here: {said.read_text()}")
            yield
        finally:
            tracer.terminate()


@pytest.mark.parametrize(("durability", "each"), [("always", True), ("process", False)])
async def test_an_acknowledgement_follows_a_sync_with_always_and_with_process_does_not(
    tmp_path: Path, durability: Durability, each: bool
) -> None:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability=durability) as server:
        connection = await Connection.open(server.url, name="test")
        log = await open_log(connection)
        await log.append(an_event("first"))
        async with traced(server.pid, tmp_path / "trace"):
            for number in range(50):
                await log.append(an_event(f"e{number}"))
        await log.close()
        await connection.close()
    assert synced_before((tmp_path / "trace").read_text()) == [each] * 50
