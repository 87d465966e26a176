"""A process of other people's making, which ends with all that it started."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from trunkline.children import die_with_owner

START_S = 120.0
"""How long it may take until it listens."""


class DidNotStart(Exception):
    """A gateway ended, or did not listen in time. The message ends with the last that it printed."""


class Foreign:
    """A process that is not ours, in a folder and a session of its own."""

    def __init__(self, process: asyncio.subprocess.Process, said: Path) -> None:
        self._process = process
        self._said = said
        self.pid = process.pid

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait for this. Raises DidNotStart."""
        try:
            async with asyncio.timeout(START_S):
                while self._process.returncode is None:
                    if ready():
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        lines = self._said.read_text(errors="replace").strip().splitlines()
        raise DidNotStart(f"exit code {self._process.returncode}: {' / '.join(lines[-3:])[-300:]}")

    async def listens(self, port: int) -> None:
        """Wait until somebody does on this port. Raises DidNotStart."""
        await self.until(lambda: not _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@asynccontextmanager
async def started(command: Sequence[str], folder: Path) -> AsyncIterator[Foreign]:
    said = folder / "said"
    with said.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # so that all it starts can be ended with it
            preexec_fn=die_with_owner(os.getpid()),
        )
    try:
        yield Foreign(process, said)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await process.wait()
