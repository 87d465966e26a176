"""A run as one process knows it: read from the log, and kept up by what is appended here or heard of."""

import asyncio
import time
from collections.abc import Callable
from typing import cast

import structlog
from trunkline_events.envelope import Event, RecordedEvent, Unknown
from trunkline_events.log import Log, Scope
from trunkline_events.workflow import WorkflowFact

from trunkline_actors import workflow as rules
from trunkline_actors.workflow import Run

log = structlog.get_logger()


class RunSource:
    """A `Source` of one run: as it was read, and as it became by what was appended here or heard of."""

    def __init__(self, log_: Log, run_id: str, clock: Callable[[], float] = time.time) -> None:
        self._log = log_
        self._id = run_id
        self._clock = clock
        self._lock = asyncio.Lock()
        self.run = rules.NOTHING
        self.sequence = 0
        self.traceparent: str | None = None
        """The trace that the run was begun in."""

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._lock

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Run, int | None, bool]:
        if fresh or not self.sequence:
            await self.read()
            return self.run, self.sequence, False
        return self.run, self.sequence, True

    async def read(self) -> None:
        """Read what is new in the log."""
        async for event in self._log.read(self.sequence, scope=Scope(("workflow",), self._id)):
            self.heard(event)

    def heard(self, event: RecordedEvent) -> None:
        """An event of this run, from wherever: those that are known already change nothing."""
        if event.sequence <= self.sequence:
            return
        self.sequence = event.sequence
        if isinstance(event.body, Unknown):
            log.warning("workflow.event_skipped", sequence=event.sequence, type=event.type)
            return
        self.traceparent = self.traceparent or event.traceparent
        self.run = rules.evolve(self.run, cast("WorkflowFact", event.body), self._id, event.time)

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        if sequence > self.sequence:
            self.sequence = sequence
            self.run = rules.evolve(self.run, cast("WorkflowFact", event), self._id, self._clock())
