"""Starts actors and starts them again when they fall, waiting longer each time they fall soon."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

import structlog

from trunkline_actors.micro import ServiceActor

log = structlog.get_logger()

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
STEADY_SECONDS = 30.0
"""An actor that lived this long starts again without delay."""


class Supervised:
    """One actor and its successors. `actor` is the one that lives now."""

    def __init__(self, make: Callable[[], ServiceActor]) -> None:
        self._make = make
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self.actor: ServiceActor | None = None
        self.restarts = 0

    async def start(self) -> None:
        """Start the first one and return when it listens. What keeps the first from starting is raised."""
        await self._launch()
        self._task = asyncio.create_task(self._watch())

    async def _launch(self) -> None:
        self.actor = self._make()
        self.actor.launch()
        await self.actor.started

    async def _watch(self) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            actor = cast("ServiceActor", self.actor)
            began = loop.time()
            await asyncio.wait([actor.ended])
            if self._stopping or actor.ended.cancelled() or actor.ended.exception() is None:
                return
            self.restarts += 1
            if loop.time() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE
            log.error("actor.restarting", actor=type(actor).__name__, error=repr(actor.ended.exception()), pause=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            with contextlib.suppress(Exception):  # its end is what the next turn of the loop sees
                await self._launch()

    async def stop(self, timeout: float) -> bool:
        """Let it finish what it has; False where that took longer than `timeout` seconds and was cut."""
        self._stopping = True
        actor = self.actor
        if actor is None or actor.ended.done():
            return True
        await actor.quiesce()
        finished = await actor.idle(timeout)  # it still hears aborts meanwhile
        actor.stop()
        if not finished:
            log.warning("actor.cut", actor=type(actor).__name__, in_flight=actor.in_flight)
            actor.cut()
        await asyncio.wait([actor.ended, *([self._task] if self._task else [])], timeout=5.0)
        return finished
