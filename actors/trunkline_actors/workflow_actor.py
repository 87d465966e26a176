"""The actor for workflows: begins runs, shows them, tells them things, cancels them; the process leads its own."""

import asyncio
import contextlib
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from trunkline_events import headers, subjects
from trunkline_events.log import Scope
from trunkline_events.refusal import Refused
from trunkline_events.workflow import (
    WorkflowCancelled,
    WorkflowSignalled,
    WorkflowStarted,
)

from trunkline_actors import workflow as rules
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Reply, endpoint
from trunkline_actors.keys import Access, lacks
from trunkline_actors.keys_door import NOBODY
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.policies import refused as refused_for
from trunkline_actors.runtime import Runtime
from trunkline_actors.shapes import mistyped
from trunkline_actors.shell import Command
from trunkline_actors.workflow import Run
from trunkline_actors.workflow_blobs import BucketBlobs, TooLarge, name_of, or_none
from trunkline_actors.workflow_budget import give_budget
from trunkline_actors.workflow_calls import BusCaller
from trunkline_actors.workflow_checks import input_problems, problems
from trunkline_actors.workflow_code import CodeBook
from trunkline_actors.workflow_leading import Leading
from trunkline_actors.workflow_model import Definition
from trunkline_actors.workflow_source import RunSource
from trunkline_actors.workflow_timeline import Timeline, listed
from trunkline_actors.workflow_walk import functions_of, models_of

MOST_LISTED = 1_000
LONGEST_WAIT = 60.0


class Start(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `workflows.start`: a workflow by its name, or whole. The same `id` begins the same run once.

    Whoever leads it must know the code that `needs` names, besides what its steps call.
    """

    workflow: str | None = None
    definition: dict[str, Any] | None = None
    input: Any = None
    id: str | None = None
    thread: str | None = None
    deadline_s: float | None = None
    needs: list[str] = []
    reason: str | None = None


class OfRun(Struct, frozen=True, kw_only=True):
    """The arguments of what concerns one run."""

    id: str
    reason: str | None = None


class Get(Struct, frozen=True, kw_only=True):
    """The arguments of `workflows.get`. With `wait_s` it is answered once the run is over, or after so many seconds."""

    id: str
    wait_s: float = 0.0


class OfRuns(Struct, frozen=True, kw_only=True):
    """The arguments of `workflows.list`: the runs with ids after `after`, of one workflow or status where given."""

    limit: int = 100
    after: str = ""
    workflow: str | None = None
    status: rules.Status | None = None


class Tell(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `workflows.signal`."""

    id: str
    name: str
    value: Any | UnsetType = UNSET


class WorkflowActor(ServiceActor):
    """Begins, shows, tells and cancels runs of workflows, and leads those of its process."""

    def __init__(self, runtime: Runtime, book: CodeBook) -> None:
        super().__init__(runtime.bus, "trunkline-workflow", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self.book = book
        self._blobs = BucketBlobs(runtime.connection, runtime.replicas)
        self.leading = Leading(runtime, book, self._blobs, BusCaller(runtime.bus))

    def endpoints(self) -> list[Endpoint]:
        at = subjects.WORKFLOWS
        return [
            endpoint(self.bus, "start", f"{at}.start", Start, self.begin),
            endpoint(self.bus, "start-here", subjects.start_here(self._runtime.name), Start, self.begin),
            endpoint(self.bus, "get", f"{at}.get", Get, self._get),
            endpoint(self.bus, "list", f"{at}.list", OfRuns, self._list),
            endpoint(self.bus, "cancel", f"{at}.cancel", OfRun, self._cancel),
            endpoint(self.bus, "signal", f"{at}.signal", Tell, self._signal),
        ]

    async def starting(self) -> None:
        await self.leading.start()
        await super().starting()

    async def quiesce(self) -> None:
        await super().quiesce()
        await self.leading.stop()

    async def stopped(self) -> None:
        await super().stopped()
        await self._blobs.close()

    async def fallen(self) -> None:
        await super().fallen()
        await self.leading.stop()
        await self._blobs.close()

    # -- beginning -------------------------------------------------------------------------------------------------

    async def begin(self, given: Start, delivery: Delivery) -> Reply:
        """Begin a run. Led here where the code it needs is known here; else by whoever knows it.

        What stands around steps here and fails closed is part of that code: nobody goes on without it.
        """
        definition = self._definition(given)
        if isinstance(definition, Refused):
            return definition
        found = problems(definition) or input_problems(definition, given.input, given.deadline_s)
        if found:
            return refused_for(found)
        run_id = given.id or self._runtime.new_id()
        if problem := subjects.id_problem(run_id):
            return Refused(code="invalid_request", message=f"id: {problem}", param="id")
        key = self._runtime.door.who(delivery.header(headers.KEY))
        if definition.budget_usd is not None and given.thread is not None:
            # A thread that others use has its own budget, which is not for whoever begins a run to change.
            message = "a workflow with a budget has a thread of its own; begin it without one"
            return Refused(code="invalid_request", message=message, param="thread")
        thread = given.thread or f"wf-{run_id}"
        known = given.id is not None and await self._runtime.log.last("workflow", run_id) is not None
        # A run that is there has its budget: whoever knows its id changes nothing of it.
        limit = definition.budget_usd
        if limit is not None and not known and (refused := await give_budget(self._runtime, thread, limit)):
            return refused
        return await self._begun(given, definition, run_id, thread, key, delivery.traceparent)

    def _definition(self, given: Start) -> Definition | Refused:
        if (given.workflow is None) == (given.definition is None):
            return Refused(
                code="invalid_request", message="give a workflow by its name, or a definition", param="workflow"
            )
        if given.workflow is not None:
            known = self.book.workflows.get(given.workflow)
            if known is not None:
                return known
            names = ", ".join(sorted(self.book.workflows)) or "none"
            message = f"no workflow {given.workflow!r} is known here, only {names}; `trunkline run workflow --import`"
            return Refused(code="not_found", message=message, param="workflow")
        try:
            return msgspec.convert(given.definition, Definition)
        except msgspec.ValidationError as error:
            message, path = mistyped(error)
            return Refused(code="invalid_request", message=message, param=path.lstrip(".") or "definition")
        except RecursionError:
            return Refused(
                code="invalid_request", message="its steps lie too deep; make it flatter", param="definition"
            )

    async def _begun(
        self, given: Start, definition: Definition, run_id: str, thread: str, key: str, traceparent: str | None
    ) -> Reply:
        runtime = self._runtime
        functions = list(dict.fromkeys([*functions_of(definition), *self.book.needs(), *given.needs]))
        told = msgspec.to_builtins(definition)
        version = name_of(msgspec.json.encode(told, order="deterministic"))
        digest = name_of("input", msgspec.json.encode(given.input, order="deterministic"))
        seconds = given.deadline_s or definition.deadline_s
        fact = WorkflowStarted(
            workflow=definition.name,
            version=version,
            definition=version,
            input=digest,
            thread=thread,
            by="" if self.book.lacks(functions) else runtime.name,
            functions=functions,
            models=models_of(definition),
            key="" if key == NOBODY else key,
            deadline=None if seconds is None else runtime.clock() + seconds,
        )
        try:
            await asyncio.gather(self._blobs.put(run_id, version, told), self._blobs.put(run_id, digest, given.input))
        except TooLarge as error:
            return Refused(code="invalid_request", message=f"the input or the definition is too large: {error}")
        source = RunSource(runtime.log, run_id, runtime.clock)
        source.traceparent = traceparent
        command: Command[Run] = Command(
            category="workflow",
            aggregate=run_id,
            id=f"{run_id}/started",
            decide=lambda run, _now: rules.start(run, fact),
            actor=runtime.name,
            cause=run_id,
            traceparent=traceparent,
        )
        decided = await runtime.shell.execute(source, command)
        if isinstance(decided, Refused):
            return decided
        if decided is not None and not decided.duplicate and fact.by:
            self.leading.lead(run_id, source, (definition, given.input))
        missing = self.book.lacks(functions) if not source.run.by else []
        return {
            "id": run_id,
            "seq": source.sequence,
            "thread": thread,
            "began": decided is not None,
            "waits_for": missing,
        }

    # -- showing ---------------------------------------------------------------------------------------------------

    async def _get(self, given: Get, delivery: Delivery) -> Reply:
        if not 0 <= given.wait_s <= LONGEST_WAIT:
            message = f"wait_s must be from 0 to {LONGEST_WAIT:g} seconds; ask again after that"
            return Refused(code="invalid_request", message=message, param="wait_s")
        with self.leading.ending(given.id) as ended:
            if given.id not in self.leading.runs or not given.wait_s:  # it may be over: look before waiting
                told = await self._told(given.id, delivery)
                if isinstance(told, Refused) or told["status"] != "running" or not given.wait_s:
                    return told
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(given.wait_s):
                    await ended
        return await self._told(given.id, delivery)

    async def _told(self, run_id: str, delivery: Delivery) -> Reply:
        timeline, last = Timeline(run_id), 0
        async with aclosing(self._runtime.log.read(scope=Scope(("workflow",), run_id))) as events:
            async for event in events:
                timeline.add(event)
                last = event.sequence
        if not last:
            return Refused(code="not_found", message=f"there is no run {run_id!r}", param="id")
        run = timeline.run
        if refused := self._kept_from(run, delivery, "read"):
            return refused
        output = await self._blobs.get(run.id, run.output) if run.output else None
        detail = await self._blobs.get(run.id, run.detail) if run.detail else None
        shown = timeline.shown(self._runtime.clock())
        return {"seq": last, **shown, "output": or_none(output), "message": or_none(detail)}

    async def _list(self, given: OfRuns, delivery: Delivery) -> Reply:
        if not 1 <= given.limit <= MOST_LISTED:
            return Refused(code="invalid_request", message=f"limit must be from 1 to {MOST_LISTED:,}", param="limit")
        log_ = self._runtime.log
        end = await log_.end(Scope(("workflow",)))
        found: list[dict[str, Any]] = []
        after = None
        async with aclosing(log_.last_of_each("workflow", end, after=given.after)) as events:
            async for event in events:
                run = self.leading.runs.get(event.aggregate)
                one = listed(event, run, self.book.lacks(run.functions) if run is not None and not run.by else [])
                shown = one["workflow"], one["status"]
                if shown != (given.workflow or shown[0], given.status or shown[1]):
                    continue
                if len(found) == given.limit:
                    after = found[-1]["id"]
                    break
                found.append(one)
        return {"seq": end, "runs": found, "after": after}

    # -- telling ---------------------------------------------------------------------------------------------------

    async def _cancel(self, given: OfRun, delivery: Delivery) -> Reply:
        by = self._runtime.door.who(delivery.header(headers.KEY))

        def decide(run: Run, now: float) -> WorkflowCancelled | Refused | None:
            return self._kept_from(run, delivery, "admin") or rules.cancel(run, by, given.reason, now)

        return await self._change(given.id, "cancelled", decide)

    async def _signal(self, given: Tell, delivery: Delivery) -> Reply:
        value = None if given.value is UNSET else given.value
        name = name_of("signal", given.name, msgspec.json.encode(value, order="deterministic"))
        by = self._runtime.door.who(delivery.header(headers.KEY))
        try:
            await self._blobs.put(given.id, name, value)
        except TooLarge as error:
            return Refused(code="invalid_request", message=f"the value is too large: {error}", param="value")
        what = f"signalled/{name}/{delivery.header(headers.REQUEST) or self._runtime.new_id()}"

        def decide(run: Run, _now: float) -> WorkflowSignalled | Refused | None:
            return self._kept_from(run, delivery, "admin") or rules.signal(run, given.name, name, by)

        return await self._change(given.id, what, decide)

    def _kept_from(self, run: Run, delivery: Delivery, need: Access) -> Refused | None:
        """Why whoever asks may not: a key with this scope may, and so may the one that began the run."""
        key = self._runtime.door.on_bus(delivery.header(headers.KEY), "open")
        if isinstance(key, Refused):
            return key
        if key is None or not lacks(key.scopes, need) or (run.key == key.id and "chat" in key.scopes):
            return None
        return Refused(code="not_found", message=f"there is no run {run.id!r} of this key's", param="id")

    async def _change(self, run_id: str, what: str, decide: Any) -> Reply:
        source = RunSource(self._runtime.log, run_id, self._runtime.clock)
        command: Command[Run] = Command(
            category="workflow",
            aggregate=run_id,
            id=f"{run_id}/{what}",
            decide=decide,
            actor=self._runtime.name,
            cause=run_id,
        )
        decided = await self._runtime.shell.execute(source, command)
        if isinstance(decided, Refused):
            return decided
        return {"id": run_id, "seq": source.sequence, "changed": decided is not None}
