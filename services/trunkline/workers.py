"""Worker processes of `trunkline up --workers N`: routers and providers, started again when they die."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from trunkline_events.tasks import end_task

from trunkline.children import die_with_owner
from trunkline.lifecycle import DRAIN_SECONDS

log = structlog.get_logger()

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
START_SECONDS = 15.0
"""How long a worker may take from its start until it serves."""
POLL_SECONDS = 0.02


class WorkerNotServing(Exception):
    """A worker ended, or took too long, before it served. What it said itself is on stderr, before this."""


class Workers:
    """N processes of `trunkline run router provider workflow`. `pids` names those that serve.

    They have our environment and folder, and so our settings; `config` is a file of them that only a flag named,
    `data` the folder in which they keep the registry, `flags` are more that they are started with.

    on_restart      called each time when a worker died and another one serves in its place
    """

    def __init__(
        self, url: str, count: int, config: str | None = None, data: Path | None = None, flags: Sequence[str] = ()
    ) -> None:
        self._command = (
            *(sys.executable, "-m", "trunkline", "run", "router", "provider", "workflow", "--nats", url),
            *(() if config is None else ("--config", config)),
            *(() if data is None else ("--data", str(data))),
            *flags,
        )
        self._names = [f"worker-{number}" for number in range(1, count + 1)]
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._serving: set[str] = set()
        # More at once than there are processors would only have each wait for the others, with its time running.
        self._slots = asyncio.Semaphore(os.cpu_count() or 1)
        self.on_restart: Callable[[], None] | None = None

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {
            name: process.pid
            for name, process in self._processes.items()
            if name in self._serving and process.returncode is None
        }

    async def start(self) -> None:
        """Return when all of them serve. Raises WorkerNotServing, with none of them left."""
        starting = [asyncio.create_task(self._launch(name)) for name in self._names]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                await end_task(task)
            await self.stop()
            raise
        self._tasks = [asyncio.create_task(self._keep(name)) for name in self._names]

    async def _launch(self, name: str) -> None:
        """Start a process and return when it serves. Raises WorkerNotServing, with the process ended."""
        # A folder for this start only: nothing in it can be from an earlier life, and nothing stays behind.
        async with self._slots:
            with tempfile.TemporaryDirectory(prefix="trunkline-") as folder:
                ready = Path(folder) / "ready.json"
                # A session of their own: the terminal's Ctrl-C is ours to pass on, once what they serve may end.
                self._processes[name] = process = await asyncio.create_subprocess_exec(
                    *self._command,
                    *("--ready-file", str(ready)),
                    start_new_session=True,
                    preexec_fn=die_with_owner(os.getpid()),
                )
                await _until_serving(name, process, ready)
        self._serving.add(name)

    async def _keep(self, name: str) -> None:
        pause = FIRST_PAUSE
        while True:
            code = await self._processes[name].wait()
            self._serving.discard(name)
            log.error("worker.died", worker=name, exit_code=code, pause=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await self._launch(name)
            except (WorkerNotServing, OSError) as error:  # no process, or no file, may be had for a while
                log.error("worker.restart_failed", worker=name, error=str(error))  # noqa: TRY400 - it says it all
                continue
            log.info("worker.restarted", worker=name, pid=self._processes[name].pid)
            self._announce_restart()

    def _announce_restart(self) -> None:
        try:
            if self.on_restart is not None:
                self.on_restart()
        except Exception:
            log.exception("worker.on_restart_failed")

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
                await _kill(process)


async def _until_serving(name: str, process: asyncio.subprocess.Process, ready: Path) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while not ready.exists():  # noqa: ASYNC240 - a file has no event; in memory a look takes 2 µs
                if process.returncode is not None:
                    raise WorkerNotServing(
                        f"{name} ended with exit code {process.returncode} before it served; what it said is above"
                    )
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        await _kill(process)
        raise WorkerNotServing(
            f"{name} didn't serve within {START_SECONDS:g} s; try fewer --workers, or see what it said above"
        ) from None


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
