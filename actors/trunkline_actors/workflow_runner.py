"""Leads one run: does what can be done, records what came of it, and goes on until it is over.

What it knows is only what the log says, so that another process can go on at any time. A step's output is kept beside
the event that names it, and done again where it is lost; a chat has an id that follows from its step, so that done
twice it is paid for once.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog
from trunkline_events.log import LogRefused, LogUnavailable
from trunkline_events.refusal import Refused

from trunkline_actors import workflow as rules
from trunkline_actors.shell import Command, Decided, Shell
from trunkline_actors.spans import Context
from trunkline_actors.tracing import Tracing
from trunkline_actors.workflow import Attempt, Run, Trouble
from trunkline_actors.workflow_blobs import Blobs, TooLarge, name_of
from trunkline_actors.workflow_code import Caller, CodeBook, StepError
from trunkline_actors.workflow_model import Code, Definition, Llm, Wait
from trunkline_actors.workflow_source import RunSource
from trunkline_actors.workflow_spans import of_run, of_step, run_span, step_span
from trunkline_actors.workflow_steps import Attempting, perform
from trunkline_actors.workflow_values import Values
from trunkline_actors.workflow_waiting import Waiter, until
from trunkline_actors.workflow_walk import Ready

log = structlog.get_logger()

AWAY_S = 0.5
"""Seconds until what the log could not take is tried again."""
MOST_AWAY_S = 30.0
"""Seconds, at most, until a run that nobody knows how to go on with is tried again."""


class Left(Exception):
    """We lead this run no more: it has ended, or another process leads it."""


class Runner:
    """Leads a run, whose source it shares with whoever hears events."""

    def __init__(
        self,
        source: RunSource,
        *,
        shell: Shell,
        blobs: Blobs,
        book: CodeBook,
        caller: Caller,
        name: str,
        clock: Callable[[], float] = time.time,
        known: tuple[Definition, Any] | None = None,
        tracing: Tracing | None = None,
        wait: Waiter = until,
    ) -> None:
        self._source = source
        self._shell = shell
        self._blobs = blobs
        self._book = book
        self._caller = caller
        self._name = name
        self._clock = clock
        self._wait = wait
        self._values = Values(blobs, known)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, Attempting] = {}
        self._changed = asyncio.Event()
        self._tracing = tracing

    @property
    def run(self) -> Run:
        """The run as it is known here."""
        return self._source.run

    @property
    def _context(self) -> Context:
        return of_run(self.run.id, self.run.began, self._source.traceparent)

    def _traced(self) -> bool:
        return self._tracing is not None and self._tracing.wants(self._context.trace, self._source.traceparent)

    def wake(self) -> None:
        """Something was heard of the run."""
        self._changed.set()

    async def lead(self) -> None:
        """Go on until the run is over, or somebody else leads it; cancelled, it leaves everything as it is."""
        pause = AWAY_S
        try:
            while not await self._over():
                try:
                    await self._go_on()
                    pause = AWAY_S
                except (LogUnavailable, LogRefused) as error:
                    log.warning("workflow.log_away", run=self.run.id, error=type(error).__name__)
                    await asyncio.sleep(AWAY_S)
                except Left:
                    raise
                except (
                    Exception
                ):  # were we to give up, we would go on to lead it by name, and nobody else would take it
                    log.exception("workflow.stuck", run=self.run.id, again_s=pause)
                    await self._wait(self._changed, pause, 0)
                    pause = min(2 * pause, MOST_AWAY_S)
        except Left:
            pass
        finally:
            await self._stop_all(abort=self.run.status != "running")
            if self.run.status != "running" and self._traced() and self._tracing is not None:
                self._tracing.record(run_span(self._context, self.run, time.time()))

    async def _over(self) -> bool:
        return self.run.status != "running" or self.run.by != self._name

    async def _go_on(self) -> None:
        self._changed.clear()
        known = self.run
        walked = await self._values.where(known)
        if walked is None:
            await self._end("", "lost", "")
            return
        if self.run is not known:
            return  # more has happened meanwhile: a step that is over would be done again
        now = self._clock()
        if walked.failed is not None:
            done = self.run.done[walked.failed]
            await self._end(walked.failed, done.code, done.detail)
        elif walked.broken:
            detail = name_of("detail")
            await self._blobs.put(self.run.id, detail, walked.broken)
            await self._end("", "invalid_output", detail)
        elif walked.finished:
            await self._finish(walked.output)
        elif self.run.deadline is not None and now >= self.run.deadline:
            await self._end("", "timeout", "")
        else:
            await self._tend(walked.ready, now)

    async def _tend(self, ready: list[Ready], now: float) -> None:
        """Have all that is ready done, what is not wanted any more cut, and wait until something has changed."""
        wanted = {one.path: one for one in ready}
        unwanted = [path for path in self._tasks if path not in wanted]
        for path in unwanted:
            await self._cut(path)
        if unwanted:
            return  # more may have happened meanwhile
        soonest = self.run.deadline
        for path, one in wanted.items():
            if path in self._tasks:
                continue
            at = self.run.retry_at.get(path, 0.0)
            if at > now:
                soonest = at if soonest is None else min(soonest, at)
                continue
            task = self._tasks[path] = asyncio.create_task(self._do(one))
            task.add_done_callback(partial(self._done, path))
        await self._wait(self._changed, None if soonest is None else max(0.0, soonest - now), len(self._tasks))

    def _done(self, path: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(path) is task:
            del self._tasks[path]
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Left):
            log.error("workflow.step_crashed", run=self.run.id, step=path, error=repr(error), exc_info=error)

    # -- one step --------------------------------------------------------------------------------------------------

    async def _do(self, ready: Ready) -> None:
        """One attempt at a step, and what came of it in the log. Tried until the log has it."""
        started = time.monotonic()
        attempt = self.run.failures.get(ready.path, 0) + 1
        attempting = Attempting(
            run=self.run.id,
            workflow=self.run.workflow,
            thread=self.run.thread,
            key=self.run.key,
            attempt=attempt,
            request=f"wf-{name_of(self.run.id, ready.path)}-{attempt}",
        )
        span = of_step(self._context, ready.path, attempt, time.time())
        traced = self._traced()
        if traced or self._source.traceparent:
            attempting.traceparent = span.traceparent if traced else self._source.traceparent
        self._asking[ready.path] = attempting
        beginning = asyncio.create_task(self._record(f"{ready.path}/{attempt}/started", self._begins(ready)))
        output, trouble = None, None
        try:
            output = await self._output(ready, attempting)
        except StepError as error:
            trouble = await self._trouble(ready, attempt, error)
        finally:
            self._asking.pop(ready.path, None)
            with contextlib.suppress(LogUnavailable, LogRefused, asyncio.CancelledError):
                await beginning
        over = Attempt(
            step=ready.path,
            attempt=attempt,
            duration_ms=round((time.monotonic() - started) * 1000, 3),
            spent=attempting.spent,
        )
        await self._ended(ready, over, output, trouble)
        if traced and self._tracing is not None:
            kind, code = str(ready.step.__struct_config__.tag), trouble.code if trouble else ""
            self._tracing.record(step_span(span, self.run, kind, over, code, time.time()))

    def _begins(self, ready: Ready) -> Callable[[Run, float], Any]:
        kind = ready.step.__struct_config__.tag
        return lambda run, _now: rules.begin(run, self._name, ready.path, str(kind))

    async def _output(self, ready: Ready, attempting: Attempting) -> Any:
        if ready.broken:
            raise StepError("invalid_input", ready.broken, retryable=False)
        if ready.skipped:
            return None
        if isinstance(ready.step, Wait):
            return ready.variables["signal"]
        return await perform(ready, attempting, self._book, self._caller)

    async def _trouble(self, ready: Ready, attempt: int, error: StepError) -> Trouble:
        log.info("workflow.step_failed", run=self.run.id, step=ready.path, code=error.code, attempt=attempt)
        retry = ready.step.retry if isinstance(ready.step, Llm | Code) else None
        pause = retry.pause(attempt) if retry is not None and error.retryable else None
        detail = name_of(ready.path, attempt, "detail")
        try:
            await self._persist(detail, str(error)[:4000].encode(errors="replace").decode())
        except TooLarge:
            detail = ""
        return Trouble(code=error.code, detail=detail, pause=pause, fatal=ready.step.critical)

    async def _ended(self, ready: Ready, over: Attempt, output: Any, trouble: Trouble | None) -> None:
        if trouble is None and self._blobs.too_large(output):
            trouble = Trouble(code="output_too_large", fatal=ready.step.critical)
        if trouble is None:
            await self._completed(ready, over, output)
            return
        failed = trouble
        if ready.path in self.run.done:  # it was done, its output was lost, and now it can't be done again
            await self._end(ready.path, failed.code, failed.detail)
        await self._recorded(
            f"{ready.path}/{over.attempt}/failed", lambda run, now: rules.fail(run, self._name, over, failed, now)
        )

    async def _completed(self, ready: Ready, over: Attempt, output: Any) -> None:
        """Keep the output and say so, both at once; where it had been said before, and was lost, under its old name."""
        before = self.run.done.get(ready.path)
        name = before.output if before is not None else "" if ready.skipped else name_of(ready.path, over.attempt)
        saying = self._recorded(
            f"{ready.path}/completed",
            lambda run, _now: rules.complete(run, self._name, over, name, skipped=ready.skipped),
        )
        if ready.skipped:
            await saying
        else:
            await asyncio.gather(self._persist(name, output), saying)
        self._values.keep(ready.path, output)

    async def _persist(self, name: str, value: Any) -> None:
        await self._insist(lambda: self._blobs.put(self.run.id, name, value))

    async def _insist(self, keep: Callable[[], Awaitable[object]]) -> None:
        """Until it is kept, however long the log is away."""
        while True:
            try:
                await keep()
                return
            except (LogUnavailable, LogRefused) as error:
                log.warning("workflow.log_away", run=self.run.id, error=type(error).__name__)
                await asyncio.sleep(AWAY_S)

    # -- the log ---------------------------------------------------------------------------------------------------

    async def _record(self, what: str, decide: Callable[[Run, float], Any]) -> Decided | None:
        """Append what is decided. Raises Left where we lead no more; LogUnavailable, LogRefused."""
        command: Command[Run] = Command(
            category="workflow",
            aggregate=self.run.id,
            id=f"{self.run.id}/{what}",
            decide=decide,
            actor=self._name,
            cause=self.run.id,
        )
        decided = await self._shell.execute(self._source, command)
        if isinstance(decided, Refused):
            raise Left
        return decided

    async def _recorded(self, what: str, decide: Callable[[Run, float], Any]) -> None:
        await self._insist(lambda: self._record(what, decide))

    async def _finish(self, output: Any) -> None:
        name = name_of("output")
        try:
            await self._blobs.put(self.run.id, name, output)
        except TooLarge:
            await self._end("", "output_too_large", "")
            return
        await self._record("completed", lambda run, now: rules.finish(run, self._name, name, now))

    async def _end(self, step: str, code: str, detail: str) -> None:
        await self._record("failed", lambda run, now: rules.give_up(run, self._name, step, code, detail, now))

    # -- cutting ---------------------------------------------------------------------------------------------------

    async def _cut(self, path: str) -> None:
        task, attempting = self._tasks.pop(path, None), self._asking.get(path)
        if task is None:
            return  # it has ended while another one was cut
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if attempting is not None and attempting.asking is not None:
            await self._caller.abort(attempting.asking)

    async def _stop_all(self, *, abort: bool) -> None:
        """Cut all that runs; where the run is over, its chats too. Those of one that another process leads go on."""
        asking = [one.asking for one in self._asking.values() if one.asking is not None]
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if abort:
            for request_id in asking:
                await self._caller.abort(request_id)
