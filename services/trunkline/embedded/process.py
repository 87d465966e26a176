"""One nats-server process and the lock on its folder: what the operating system must guarantee for us.

A started server never gets the terminal's Ctrl-C, and it ends when its owner does, however the owner ends.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from trunkline.children import die_with_owner
from trunkline.embedded.config import PID_FILE
from trunkline.embedded.errors import BinaryMissingError, StoreInUseError, store_error

POLL_SECONDS: Final = 0.003
OWNER_SECONDS: Final = 0.25  # a killed owner keeps its lock until the kernel is done with it
ORPHAN_SECONDS: Final = 5.0  # a server whose owner was killed has this long to finish its shutdown
LOG_TAIL_BYTES: Final = 64 * 1024


class StoreLock:
    """Two flocks in the data folder. The system drops them with their holders, so neither is ever stale.

    lock                held by the owner, and holds its pid: a second owner is refused
    nats-server.lock    inherited by the server: a new owner waits until an orphaned server has really ended
    """

    def __init__(self, owner_fd: int, server_fd: int) -> None:
        self.owner_fd, self.server_fd = owner_fd, server_fd

    @classmethod
    async def acquire(cls, store: Path, *, orphan_seconds: float = ORPHAN_SECONDS) -> Self:
        """Raises StoreInUseError: soon if an owner lives, after `orphan_seconds` if only its server does."""
        with contextlib.ExitStack() as undo:
            try:
                owner_fd, server_fd = _open_locks(store, undo)
                if not await _lock_within(owner_fd, OWNER_SECONDS):
                    raise StoreInUseError(store, _pid_in(store / "lock"))
                os.ftruncate(owner_fd, 0)
                os.pwrite(owner_fd, str(os.getpid()).encode(), 0)
            except OSError as error:
                raise store_error(error, store) from error
            if not await _lock_within(server_fd, orphan_seconds):
                raise StoreInUseError(store, _pid_in(store / PID_FILE))
            undo.pop_all()
        return cls(owner_fd, server_fd)

    def release(self) -> None:
        os.close(self.server_fd)
        os.close(self.owner_fd)


def _open_locks(store: Path, undo: contextlib.ExitStack) -> tuple[int, int]:
    store.mkdir(parents=True, exist_ok=True)
    fds = []
    for name in ("lock", "nats-server.lock"):
        fds.append(os.open(store / name, os.O_RDWR | os.O_CREAT, 0o644))
        undo.callback(os.close, fds[-1])
    return fds[0], fds[1]


async def _lock_within(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        await asyncio.sleep(POLL_SECONDS)


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def spawn(command: Sequence[str], *, env: Mapping[str, str], output: Path, lock: StoreLock) -> subprocess.Popen[bytes]:
    """Starts the process in a session of its own. What it prints is appended to `output`.

    Call it in a thread that lives as long as the owner (the main one): Linux ties the death signal to the thread.
    """
    with output.open("ab") as sink, warnings.catch_warnings():
        # Python 3.12 warns of preexec_fn beside threads. Ours takes no lock: it makes two system calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return subprocess.Popen(  # noqa: S603 our own binary and config file
                command,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                pass_fds=(lock.server_fd,),
                preexec_fn=die_with_owner(os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise BinaryMissingError(f"at {command[0]} can't be executed ({error})") from error


async def exited(process: subprocess.Popen[bytes]) -> int:
    """Waits for the process's end and reaps it. Returns its exit code, negative for a signal."""
    while process.poll() is None:
        await _end_signalled(process.pid)
    return int(process.returncode)


async def _end_signalled(pid: int) -> None:
    """Returns at the end of the process; a little before it where the system has no pidfd."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # no Linux, an old one, or a container that forbids the call
        await asyncio.sleep(0.02)
        return
    try:
        loop.add_reader(fd, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def end(process: subprocess.Popen[bytes], *, grace: float) -> bool:
    """SIGTERM, then SIGKILL after `grace` seconds or when cancelled. Returns whether SIGTERM was enough."""
    try:
        process.terminate()
        async with asyncio.timeout(grace):
            await exited(process)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def serves(host: str, port: int, server_name: str) -> bool:
    """Whether the server of that name greets us with JetStream enabled (it recovers its streams before it listens)."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(0.25):
            line = await reader.readline()
        info = json.loads(line.removeprefix(b"INFO "))
        return info.get("server_name") == server_name and bool(info.get("jetstream"))
    except (OSError, ValueError, AttributeError):
        return False
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def read_log(path: Path, start: int) -> str:
    """What the file holds from `start` on, its end at least."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = start if start <= size else 0  # else the server has rotated its log
            file.seek(max(start, size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
