"""The runs that one process leads, and those it takes over because nobody leads them any more.

That a process is gone is told by its pulse, which comes each second. Who is wrong about that does no harm: the log
takes no event from whoever led a run before, and what a step asks twice is answered once.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from typing import Any

import structlog
from nats.aio.client import Msg
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import LogError
from trunkline_events.refusal import Refused
from trunkline_events.subjects import PULSE
from trunkline_events.tasks import end_task
from trunkline_events.workflow import WorkflowEnded, WorkflowResumed, WorkflowStarted
from trunkline_projections.folds import WORKFLOWS
from trunkline_projections.runner import View
from trunkline_projections.workflows import OpenRun, Runs

from trunkline_actors import workflow as rules
from trunkline_actors.dispatch import read_pulse
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command
from trunkline_actors.workflow import Run
from trunkline_actors.workflow_blobs import Blobs
from trunkline_actors.workflow_code import Caller, CodeBook
from trunkline_actors.workflow_model import Definition
from trunkline_actors.workflow_runner import Runner
from trunkline_actors.workflow_source import RunSource

log = structlog.get_logger()

LOST_S = 2.0
"""Seconds without a pulse after which a process's runs are somebody else's."""
LOOK_S = 0.25
STOOD_S = 1.0
"""Seconds between two looks after which this process knows nothing of the pulses of others."""
AT_ONCE = 64
"""Runs that are taken over at the same time."""


class Leading:
    """Leads runs, and looks for those that nobody leads."""

    def __init__(self, runtime: Runtime, book: CodeBook, blobs: Blobs, caller: Caller) -> None:
        self._runtime = runtime
        self.book = book
        self._blobs = blobs
        self._caller = caller
        self._led: dict[str, tuple[RunSource, Runner, asyncio.Task[None]]] = {}
        self._view: View[Runs] = View(runtime.log, WORKFLOWS, runtime.snapshots)
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._seen: dict[str, float] = {}
        self._began = 0.0
        self._subscription: Any = None
        self._free = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._taking = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """Know what is under way, and take what nobody leads."""
        self._began = asyncio.get_running_loop().time()
        self._view.on_change.append(self._heard)
        await self._view.start()
        self._subscription = await self._runtime.bus.nats.subscribe(PULSE, cb=self._pulsed)
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Leave all runs to others, as far as they have come."""
        await end_task(self._looking)
        tasks = [task for _, _, task in self._led.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._let_go(run_id) for run_id in list(self._led)))
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self._view.stop()

    @property
    def runs(self) -> Runs:
        """All that is under way, whoever leads it."""
        return self._view.state

    @contextlib.contextmanager
    def ending(self, run_id: str) -> Iterator[asyncio.Future[None]]:
        """Resolved when this run is heard to have ended, from when this is entered."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, []).append(ended)
        try:
            yield ended
        finally:
            waiting = self._waiting[run_id]
            waiting.remove(ended)
            if not waiting:
                del self._waiting[run_id]

    def lead(self, run_id: str, source: RunSource, known: tuple[Definition, Any] | None = None) -> None:
        """Lead this run, which the log says we do. `known` is its definition and its input, where they are at hand."""
        if run_id in self._led:
            return
        runtime = self._runtime
        runner = Runner(
            source,
            shell=runtime.shell,
            blobs=self._blobs,
            book=self.book,
            caller=self._caller,
            name=runtime.name,
            clock=lambda: runtime.clock(),
            known=known,
            tracing=runtime.tracing,
        )
        task = asyncio.create_task(runner.lead(), name=f"run {run_id}")
        self._led[run_id] = (source, runner, task)
        task.add_done_callback(lambda task: self._ended(run_id, task))

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return  # we are stopping, and let it go
        self._led.pop(run_id, None)
        if (error := task.exception()) is not None:
            log.error("workflow.run_crashed", run=run_id, error=repr(error), exc_info=error)

    def _heard(self, event: RecordedEvent) -> None:
        led = self._led.get(event.aggregate)
        if isinstance(event.body, WorkflowStarted | WorkflowResumed) and not event.body.by:
            self._free.set()
        if led is not None:
            led[0].heard(event)
            led[1].wake()
        if isinstance(event.body, WorkflowEnded):
            for ended in self._waiting.get(event.aggregate, ()):
                if not ended.done():
                    ended.set_result(None)

    async def _pulsed(self, message: Msg) -> None:
        pulse = read_pulse(message.data)
        if pulse is not None:
            self._seen[pulse.process] = asyncio.get_running_loop().time()

    # -- taking over -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        looked = self._began
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._free.wait()
            self._free.clear()
            now = asyncio.get_running_loop().time()
            if now - looked > STOOD_S:  # we were stopped, and have not heard the pulses that came meanwhile
                self._began = now
            looked = now
            free = [run_id for run_id, run in self.runs.items() if self._is_free(run_id, run, now)]
            random.shuffle(free)  # so that several who look at the same time begin with others
            await asyncio.gather(*(self._take(run_id, self.runs.get(run_id)) for run_id in free[:AT_ONCE]))

    def _is_free(self, run_id: str, run: OpenRun, now: float) -> bool:
        if run_id in self._led or self.book.lacks(run.functions):
            return False
        if run.by in ("", self._runtime.name):  # ours: nobody heard that the log has its beginning
            return True
        since = max(self._seen.get(run.by, 0.0), self._began, self._runtime.connection.last_break)
        return now - since > LOST_S and self._runtime.bus.nats.is_connected

    async def _take(self, run_id: str, run: OpenRun | None) -> None:
        if run is None:
            return
        source = RunSource(self._runtime.log, run_id, self._runtime.clock)
        why = "lost" if run.by else "left"
        with contextlib.suppress(LogError):
            async with self._taking:
                await source.read()
                taken = await self._decide(source, run_id, run.by, self._runtime.name, why)
            if taken and source.run.by == self._runtime.name and source.run.status == "running":
                log.info("workflow.taken", run=run_id, before=run.by, reason=why)
                self.lead(run_id, source)

    async def _let_go(self, run_id: str) -> None:
        led = self._led.pop(run_id, None)
        if led is not None and led[0].run.status == "running":
            with contextlib.suppress(LogError):
                await self._decide(led[0], run_id, self._runtime.name, "", "left")

    async def _decide(self, source: RunSource, run_id: str, before: str, by: str, why: Any) -> bool:
        name = self._runtime.name
        command: Command[Run] = Command(
            category="workflow",
            aggregate=run_id,
            id=f"{run_id}/led/{name}/{source.sequence}",
            decide=lambda run, _now: rules.take(run, by, before, why),
            actor=name,
            cause=run_id,
        )
        return not isinstance(await self._runtime.shell.execute(source, command), Refused)
