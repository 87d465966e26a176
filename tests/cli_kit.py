"""The console script as a user has it: run in a process of its own, with a pipe or a terminal at its end."""

import asyncio
import atexit
import contextlib
import functools
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

SCRIPT = Path(sys.executable).with_name("trunkline")


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object it printed."""
        assert self.out.count("\n") == 1, self
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON objects it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


Trunkline = Callable[..., Awaitable[Done]]


def environment(**more: str) -> dict[str, str]:
    """Ours, without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRUNKLINE_", "NO_COLOR"))}
    return kept | more


async def ended(*arguments: str, stdin: bytes = b"", cwd: Path, **more: str) -> Done:
    """Run a command to its end: in a process of its own, forked from one that has imported it (`forked_cli`)."""
    loop = asyncio.get_running_loop()
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = os.pipe(), os.pipe(), os.pipe()
    asked = {"argv": arguments, "cwd": str(cwd), "env": environment(**more)}
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(await asyncio.to_thread(_forking))
        data = json.dumps(asked).encode() + b"\n"
        sent = socket.send_fds(caller, [data], [their_in, their_out, their_err])
        caller.sendall(data[sent:])
        caller.setblocking(False)
        for file in (their_in, their_out, their_err):
            os.close(file)
        _, out, err = await asyncio.gather(_write(our_in, stdin), _read(our_out), _read(our_err))
        code = int(await loop.sock_recv(caller, 16))
    return Done(code, out.decode(), err.decode())


async def _read(file: int) -> bytes:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(file, "rb")
    )
    try:
        return await reader.read()
    finally:
        transport.close()


async def _write(file: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(file, "wb") as pipe:
        await asyncio.to_thread(pipe.write, data)


@functools.cache
def _forking() -> str:
    """Where the process listens that commands are forked from. It ends when we do, since its input is closed then."""
    folder = Path(tempfile.mkdtemp(prefix="cli-"))
    path = folder / "s"
    process = subprocess.Popen(
        (sys.executable, "-P", str(Path(__file__).with_name("forked_cli.py")), str(path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment(),
    )
    atexit.register(_end, process, folder)
    while not path.exists():
        assert process.poll() is None, "the commands' first process ended"
        time.sleep(0.005)
    return str(path)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.communicate()
    shutil.rmtree(folder)


async def started(*arguments: str, cwd: Path) -> asyncio.subprocess.Process:
    """A command that goes on until it is told to end."""
    return await asyncio.create_subprocess_exec(SCRIPT, *arguments, stdout=-1, stderr=-1, cwd=cwd, env=environment())


async def on_terminal(*arguments: str, cwd: Path, **more: str) -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment(**more)
    )
    os.close(theirs)
    await process.wait()
    os.set_blocking(ours, False)
    printed = os.read(ours, 1 << 20).decode()
    os.close(ours)
    return printed
