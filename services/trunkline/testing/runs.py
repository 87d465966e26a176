"""Runs of workflows in memory: the real runner, the real decisions, a log that is a list, and no time that passes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field
from trunkline_actors import workflow as rules
from trunkline_actors.shell import Command, Shell
from trunkline_actors.workflow_blobs import MemoryBlobs, or_none
from trunkline_actors.workflow_checks import input_problems
from trunkline_actors.workflow_code import Caller, CodeBook, Middleware
from trunkline_actors.workflow_model import Wait
from trunkline_actors.workflow_runner import Runner
from trunkline_actors.workflow_source import RunSource
from trunkline_actors.workflow_timeline import Timeline
from trunkline_actors.workflow_walk import functions_of, leaves
from trunkline_events.codec import CODEC
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.log import Appended, LogUnavailable
from trunkline_events.memory import MemoryLog
from trunkline_events.refusal import Refused
from trunkline_events.workflow import WorkflowResumed, WorkflowStarted

from trunkline import errors
from trunkline.testing.callers import ScriptedCaller
from trunkline.testing.virtual_time import VirtualTime, first_of
from trunkline.workflow_engine import WorkflowFailed, WorkflowResult
from trunkline.workflows import Workflow


class Ran(Struct, frozen=True, kw_only=True):
    """A run as far as it has come: over, or left where the test wanted it, or with nothing to do until it is told.

    `status` is running, completed, failed or cancelled. `output`, `metrics` and `steps` are as in a `WorkflowResult`;
    `code`, `failed_step` and `message` say why it failed. `events` are all of its events, `waits_for` the signals of
    its steps that it was not sent.
    """

    id: str
    workflow: str
    status: str
    output: Any
    metrics: dict[str, Any]
    steps: list[dict[str, Any]]
    code: str | None
    failed_step: str | None
    message: str | None
    events: list[RecordedEvent]
    waits_for: list[str]
    world: "World"

    @property
    def kinds(self) -> list[str]:
        """The types of its events, as in `step-completed`."""
        return [event.type.removeprefix("workflow.").removesuffix(".v1") for event in self.events]

    def step(self, path: str) -> dict[str, Any]:
        """What came of one step. Raises KeyError."""
        return {step["step"]: step for step in self.steps}[path]

    def result(self) -> WorkflowResult:
        """As `Engine.run` gives it. Raises WorkflowFailed where the run is not completed."""
        if self.status != "completed":
            told = {
                name: getattr(self, name) for name in ("id", "workflow", "status", "failed_step", "code", "message")
            }
            raise WorkflowFailed({**told, "metrics": self.metrics, "steps": self.steps})
        given = {name: getattr(self, name) for name in ("id", "workflow", "output", "metrics", "steps")}
        return WorkflowResult(**given)

    async def resume(
        self,
        caller: Caller | None = None,
        middleware: Sequence[Middleware] = (),
        *,
        until: int | None = None,
        after_s: float = 0.0,
    ) -> "Ran":
        """Go on as another process does that finds the one before gone, after so many seconds.

        By default it asks whom that one asked.
        """
        self.world.time.now += after_s
        return await self.world.lead(caller or self.world.caller, middleware, until)

    async def signal(self, name: str, value: Any = None) -> None:
        """Send it a signal, for when it is gone on with. Raises TrunklineError."""
        await self.world.signal(name, value)

    async def cancel(self, reason: str | None = None) -> "Ran":
        """Cancel it. Raises TrunklineError."""
        await self.world.decide("cancelled", lambda run, now: rules.cancel(run, "test", reason, now))
        return await self.world.ran()

    def history(self) -> str:
        """All there is to it, to be kept in a file: lines of JSON, of its values and of its events in their order."""
        values = [{"name": name, "value": value} for name, value in self.world.blobs.values.items()]
        events = [
            {
                "id": event.id,
                "time": event.time,
                "actor": event.actor,
                "cause": event.cause,
                "type": event.type,
                "body": msgspec.Raw(CODEC.encode(event.body)),
            }
            for event in self.events
        ]
        lines = [{"run": self.id}, *values, *events]
        return "".join(f"{msgspec.json.encode(line).decode()}\n" for line in lines)


async def run_workflow(
    workflow: Workflow,
    input: Any = None,  # noqa: A002
    caller: Caller | None = None,
    middleware: Sequence[Middleware] = (),
    *,
    signals: Mapping[str, Any] | None = None,
    until: int | None = None,
    deadline_s: float | None = None,
    time: VirtualTime | None = None,
    id: str = "run",  # noqa: A002
) -> Ran:
    """Run a workflow to its end, or until nothing is to be done before a signal comes, and say what came of it.

    `signals` are sent before its first step. With `until` its process dies as that many of its events are in the log,
    in the middle of whatever it does; `Ran.resume` goes on. Retries, deadlines and slow answers take no time. For a
    signal a run waits until it is sent, or until `Ran.resume` says how much later it is.
    Raises InvalidRequest for an input that is not of its type; a run that failed is returned.
    """
    world = World(workflow, id, caller or ScriptedCaller(), time or VirtualTime())
    await world.begin(msgspec.to_builtins(input), deadline_s)
    for name, value in (signals or {}).items():
        await world.signal(name, value)
    return await world.lead(world.caller, middleware, until, first=True)


async def resume_history(
    history: str,
    workflow: Workflow,
    caller: Caller | None = None,
    middleware: Sequence[Middleware] = (),
    *,
    signals: Mapping[str, Any] | None = None,
    until: int | None = None,
) -> Ran:
    """Go on with a run that `Ran.history` gave, by the code of today: its steps are its own, its functions yours."""
    (first, *lines) = [msgspec.json.decode(line, type=_Line) for line in history.splitlines()]
    world = World(workflow, first.run, caller or ScriptedCaller(), VirtualTime())
    await world.restore(lines)
    for name, value in (signals or {}).items():
        await world.signal(name, value)
    return await world.lead(world.caller, middleware, until)


class _Line(Struct):
    run: str = ""
    name: str = ""
    value: Any = None
    id: str = ""
    time: float = 0.0
    actor: str = ""
    cause: str = ""
    type: str = ""
    body: msgspec.Raw = field(default_factory=msgspec.Raw)


class _Blobs(MemoryBlobs):
    """The values by their names."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, Any] = {}

    async def put(self, run: str, name: str, value: Any) -> None:
        await super().put(run, name, value)
        self.values[name] = value


class _MortalLog(MemoryLog):
    """Takes so many events of whoever leads, and nothing after: its process is dead."""

    def __init__(self, time: VirtualTime) -> None:
        super().__init__(clock=time)
        self.until: int | None = None
        self.died = asyncio.Event()

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        if self.died.is_set():
            raise LogUnavailable("the process is dead")
        appended = await super().append(event, expected)
        if self.until is not None and appended.sequence >= self.until:
            self.died.set()
        return appended


class World:
    """All that a run in memory stands on. `Ran` is how to use it."""

    def __init__(self, workflow: Workflow, run_id: str, caller: Caller, time: VirtualTime) -> None:
        self.workflow = workflow
        self.caller = caller
        self.time = time
        self.blobs = _Blobs()
        self._log = _MortalLog(time)
        self._shell = Shell(self._log, time)
        self._id = run_id
        self._processes = 0

    async def begin(self, given: Any, deadline_s: float | None) -> None:
        """Append that the run was begun, by the first process."""
        definition = self.workflow.definition
        if found := input_problems(definition, given, deadline_s):
            raise _as_error(Refused(code="invalid_request", message=str(found[0]), param=found[0].path))
        await self.blobs.put(self._id, "definition", msgspec.to_builtins(definition))
        await self.blobs.put(self._id, "input", given)
        seconds = deadline_s or definition.deadline_s
        fact = WorkflowStarted(
            workflow=definition.name,
            version="test",
            definition="definition",
            input="input",
            thread=f"wf-{self._id}",
            by=self._next_process(),
            functions=functions_of(definition),
            deadline=None if seconds is None else self.time() + seconds,
        )
        await self.decide("started", lambda run, _now: rules.start(run, fact))

    async def restore(self, lines: Iterable[_Line]) -> None:
        """Put back what was kept of a run."""
        for line in lines:
            if not line.type:
                await self.blobs.put(self._id, line.name, line.value)
                continue
            body = CODEC.decode(line.type, bytes(line.body))
            event = NewEvent(
                id=line.id,
                category="workflow",
                aggregate=self._id,
                body=body,
                time=line.time,
                actor=line.actor,
                cause=line.cause,
            )
            await self._log.append(event)
            self.time.now = max(self.time.now, line.time)
            self._processes += isinstance(body, WorkflowStarted | WorkflowResumed)

    async def signal(self, name: str, value: Any) -> None:
        """Tell the run something. Raises TrunklineError."""
        end = await self._log.end()
        await self.blobs.put(self._id, f"signal-{end}", value)
        await self.decide(f"signalled/{end}", lambda run, _now: rules.signal(run, name, f"signal-{end}", "test"))

    async def decide(self, what: str, decide: Any) -> None:
        """Carry a decision out. Raises TrunklineError where it is refused."""
        command: Command[rules.Run] = Command(
            category="workflow", aggregate=self._id, id=f"{self._id}/{what}", decide=decide, actor="test"
        )
        decided = await self._shell.execute(RunSource(self._log, self._id, self.time), command)
        if isinstance(decided, Refused):
            raise _as_error(decided)

    async def lead(
        self, caller: Caller, middleware: Sequence[Middleware], until: int | None, *, first: bool = False
    ) -> Ran:
        """Be the process that leads it: until it is over, has nothing to do, or dies."""
        self._log.until, self._log.died = until, asyncio.Event()
        source = RunSource(self._log, self._id, self.time)
        await source.read()
        before = source.run.by
        name = before if first else self._next_process()
        if source.run.status != "running" or (until is not None and source.sequence >= until):
            return await self.ran()
        if not first:
            why: Any = "lost" if before else "left"
            await self.decide(f"led/{name}/{source.sequence}", lambda run, _now: rules.take(run, name, before, why))
            await source.read()
        if isinstance(caller, ScriptedCaller):
            caller.time = self.time
        book = CodeBook(functions=self.workflow.functions, middleware=list(middleware))
        runner = Runner(
            source,
            shell=self._shell,
            blobs=self.blobs,
            book=book,
            caller=caller,
            name=name,
            clock=self.time,
            wait=self.time.wait,
        )
        self.time.idle.clear()
        self.time.horizon = source.run.deadline
        leading = asyncio.create_task(runner.lead())
        await first_of(self._log.died.wait(), self.time.idle.wait(), _end_of(leading))
        leading.cancel()
        self._log.until, self._log.died = None, asyncio.Event()
        (ended,) = await asyncio.gather(leading, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended
        return await self.ran()

    async def ran(self) -> Ran:
        """How far it has come."""
        timeline = Timeline(self._id)
        events = [event async for event in self._log.read()]
        for event in events:
            timeline.add(event)
        run, shown = timeline.run, timeline.shown(self.time())
        output = or_none(await self.blobs.get(self._id, run.output)) if run.output else None
        if run.output and self.workflow.returns is not None:
            output = msgspec.convert(output, self.workflow.returns)
        waiting = {step.signal for step in leaves(self.workflow.definition.steps) if isinstance(step, Wait)}
        return Ran(
            id=self._id,
            workflow=run.workflow,
            status=run.status,
            output=output,
            metrics=shown["metrics"],
            steps=shown["steps"],
            code=shown["code"],
            failed_step=shown["failed_step"],
            message=or_none(await self.blobs.get(self._id, run.detail)) if run.detail else None,
            events=events,
            waits_for=sorted(waiting - set(run.signals)) if run.status == "running" else [],
            world=self,
        )

    def _next_process(self) -> str:
        self._processes += 1
        return f"process-{self._processes}"


async def _end_of(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _as_error(refused: Refused) -> errors.TrunklineError:
    return errors.from_answer(str(refused.status), refused.message, refused.body("workflows", None))
