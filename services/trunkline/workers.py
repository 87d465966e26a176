"""Worker processes of `trunkline up --workers N`: routers and providers, started again when they die."""

import asyncio
import contextlib
import os
import signal
import sys

import structlog
from trunkline_events.tasks import end_task

from trunkline.children import die_with_owner
from trunkline.lifecycle import DRAIN_SECONDS

log = structlog.get_logger()

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


class Workers:
    """N processes of `trunkline run router provider`. `pids` names the living ones."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {name: process.pid for name, process in self._processes.items() if process.returncode is None}

    async def start(self) -> None:
        """Start them all."""
        for number in range(1, self._count + 1):
            name = f"worker-{number}"
            await self._spawn(name)
            self._tasks.append(asyncio.create_task(self._keep(name)))

    async def _spawn(self, name: str) -> None:
        command = (sys.executable, "-m", "trunkline", "run", "router", "provider", "--nats", self._url)
        # A session of their own: the terminal's Ctrl-C is ours to pass on, once what they serve is ready to end.
        self._processes[name] = await asyncio.create_subprocess_exec(
            *command, start_new_session=True, preexec_fn=die_with_owner(os.getpid())
        )

    async def _keep(self, name: str) -> None:
        pause = FIRST_PAUSE
        while True:
            code = await self._processes[name].wait()
            log.error("worker.died", worker=name, exit_code=code, pause=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            await self._spawn(name)

    async def stop(self) -> None:
        """Let them finish what they have, then end them."""
        for task in self._tasks:
            await end_task(task)
        living = [process for process in self._processes.values() if process.returncode is None]
        for process in living:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in living:
            try:
                async with asyncio.timeout(DRAIN_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
