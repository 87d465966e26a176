"""The console script as a user has it: run in a process of its own, with a pipe or a terminal at its end."""

import asyncio
import json
import os
import pty
import sys
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
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *arguments, stdin=-1, stdout=-1, stderr=-1, cwd=cwd, env=environment(**more)
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


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
