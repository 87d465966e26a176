"""Requests that wait a while before candidates are tried again; an abort and the end of the process wake them."""

import asyncio
import contextlib

from trunkline_events.refusal import Refused

from trunkline_actors.inflight import Run
from trunkline_actors.micro import STOPPING

ABORTED = Refused(code="aborted", message="the request was aborted")


class Resting:
    """The waits of one router."""

    def __init__(self) -> None:
        self._resting: set[asyncio.Event] = set()
        self._over = False

    async def rest(self, run: Run, seconds: float) -> Refused | None:
        """Wait so long; what the caller is told where an abort or the end of this process came first."""
        woken = asyncio.Event()
        run.on_abort = woken.set
        self._resting.add(woken)
        try:
            if not self._over and not run.aborted:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken.wait()
        finally:
            self._resting.discard(woken)
            run.on_abort = None
        if run.aborted:
            return ABORTED
        return STOPPING if self._over else None

    def stop(self) -> None:
        """Nobody waits here any more: those who do go on at once, and are told that this process stops."""
        self._over = True
        for woken in self._resting:
            woken.set()
