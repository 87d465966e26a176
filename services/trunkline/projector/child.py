"""The projector of `trunkline up`: a process of its own, begun once the gateway serves, last in line for the CPU."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from trunkline_events.tasks import end_task

from trunkline.children import die_with_owner

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STOP_SECONDS = 10.0
NICE = 10
GAVE_UP = (1, 2)
"""Exit codes of a projector that has said on stderr what somebody must mend first; it is tried again now and then."""
FIRST_RETRY, LONGEST_RETRY = 5.0, 60.0


_NEXT = "mend what it said above; it is started again now and then, within a minute, and the gateway goes on"


class ProjectorChild:
    """Runs `trunkline run projector`, again whenever it dies. Nothing waits for it, and nobody fails with it."""

    def __init__(self, url: str, data: Path) -> None:
        self._command = (
            *(sys.executable, "-m", "trunkline", "run", "projector"),
            *("--nats", url, "--data", str(data)),
        )
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        pause, retry, told = FIRST_PAUSE, FIRST_RETRY, False
        while True:
            began = time.monotonic()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, start_new_session=True, preexec_fn=_modest(os.getpid())
                )
                code = await self._process.wait()
            except OSError as error:  # no process may be had for a while
                log.warning("projector.not_started", error=str(error), pause=pause)
            else:
                if time.monotonic() - began > LONGEST_RETRY:  # it had been at work
                    pause, retry, told = FIRST_PAUSE, FIRST_RETRY, False
                if code in GAVE_UP:
                    if not told:
                        log.error("projector.ended", exit_code=code, next=_NEXT)
                    told = True
                    await asyncio.sleep(retry)
                    retry = min(2 * retry, LONGEST_RETRY)
                    continue
                log.warning("projector.died", exit_code=code, pause=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def stop(self) -> None:
        """End it after the transaction under way."""
        await end_task(self._task)
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _modest(owner: int) -> Callable[[], None]:
    """A `preexec_fn`: ends with its owner, and takes the CPU only where nobody who serves wants it."""
    die = die_with_owner(owner)

    def arm() -> None:
        os.nice(NICE)
        if die is not None:
            die()

    return arm
