"""Processes of ours to be killed: `trunkline run ROLE…` on a bus, watched and started again by the test."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

START_WITHIN = 30.0


class Role:
    """One `trunkline run`. Its log lines, at debug level, are in `log`, those of all its lives."""

    def __init__(
        self, url: str, folder: Path, name: str, *roles: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._ready = folder / f"{name}.ready"
        self._command = [
            *(sys.executable, "-m", "trunkline", "run", *roles),
            *("--nats", url, "--ready-file", str(self._ready)),
        ]
        self._environ = {**os.environ, "TRUNKLINE_LOG_LEVEL": "debug", **(environ or {})}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The one that lives, or lived last."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it and return when it serves."""
        self._ready.unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=self._environ
            )
        async with asyncio.timeout(START_WITHIN):
            while not self._ready.exists():
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self, within: float = 15.0) -> int:
        """Its exit code, when it has one."""
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        await self.process.wait()

    async def ended_gently(self) -> int:
        """SIGTERM, and its exit code when it has let everything end."""
        self.process.terminate()
        return await self.ended()

    async def again(self) -> None:
        """`kill -9`, and start it again."""
        await self.kill()
        await self.start()


@asynccontextmanager
async def running(*roles: Role) -> AsyncIterator[None]:
    """All of these, started at once; killed at the end, which is what they must survive."""
    try:
        await asyncio.gather(*(role.start() for role in roles))
        yield
    finally:
        for role in roles:
            if role._process is not None and role._process.returncode is None:
                await role.kill()


async def until(condition: Callable[[], bool], within: float = 15.0) -> None:
    """Return when it is so, looking every few milliseconds: for what tells nobody when it happens."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def passed(seconds: float) -> None:
    """Let real time pass, where that is what the test is about."""
    end = asyncio.get_running_loop().time() + seconds
    await until(lambda: asyncio.get_running_loop().time() >= end, seconds + 5)
