"""Runs workflows from Python: leads its own runs, and waits for them, wherever they are led in the end."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from trunkline_actors.workflow_code import CodeBook, Middleware
from trunkline_events.envelope import RecordedEvent
from trunkline_events.subjects import WORKFLOWS, start_here
from trunkline_events.workflow import WorkflowEnded

from trunkline import client, errors, settings, telemetry
from trunkline.client import Gateway

if TYPE_CHECKING:
    from trunkline.host import Host
    from trunkline.workflows import Workflow

WAIT_S = 4.0
"""Seconds that one question waits for the end of a run; then it is asked again."""
ANSWER_S = 2.0
AGAIN_S = 0.5
PATIENCE_S = 60.0
"""Seconds without any answer after which whoever waits for a run gives up."""

_WHY = {"cancelled": "somebody cancelled it", "timeout": "its time was over"}
"""What is said of a run that failed with no step."""

OnEvent = Callable[[RecordedEvent], None]


class WorkflowResult(Struct, frozen=True, kw_only=True):
    """What a run came to. `metrics` has `duration_ms`, `cost_usd`, `usage`, `chats` and `retries`; so have `steps`."""

    id: str
    workflow: str
    output: Any
    metrics: dict[str, Any]
    steps: list[dict[str, Any]]


class WorkflowFailed(errors.TrunklineError):
    """A run failed or was cancelled: `result` has what came of it, `step` is the one it failed with."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        step, code = told.get("failed_step"), told.get("code") or "failed"
        place = f" at {step!r}" if step else ""
        message = told.get("message") or _WHY.get(code, "what it said is kept no more")
        super().__init__(
            f"run {told['id']} of {told['workflow']!r} {told['status']}{place} ({code}): {message}",
            code=code,
            status=500,
            retryable=False,
        )
        self.step = step
        self.result = WorkflowResult(
            id=told["id"], workflow=told["workflow"], output=None, metrics=told["metrics"], steps=told["steps"]
        )


class Engine:
    """`async with Engine(url) as engine`: leads runs in this process for as long as it is open.

    What runs when it closes, or dies, is gone on with by any process that knows the code: another engine, or
    `trunkline run workflow --import`. `middleware` stands around the steps that are done here, the first outermost.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        workflows: "Sequence[Workflow]" = (),
        middleware: Sequence[Middleware] = (),
    ) -> None:
        chosen = settings.load({})
        self._url = url or chosen.nats or f"nats://127.0.0.1:{chosen.nats_port}"
        self._chosen = chosen
        self._key = key or settings.client_key()
        self.book = CodeBook(middleware=list(middleware))
        for workflow in workflows:
            workflow.register(self.book)
        self._host: Host | None = None
        self._gateway: Gateway | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "Engine":
        from trunkline.development import asks_for_keys
        from trunkline.host import Host

        async with AsyncExitStack() as opening:
            opening.enter_context(telemetry.as_guest())
            self._host = await Host.start(
                self._url,
                ("workflow",),
                replicas=self._chosen.replicas,
                require_keys=asks_for_keys(self._chosen.require_keys, self._url),
                code=self.book,
            )
            opening.push_async_callback(self._host.stop)
            self._gateway = await opening.enter_async_context(client.connect(self._url, self._key))
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @property
    def gateway(self) -> Gateway:
        """The client that this engine asks with."""
        if self._gateway is None:
            raise RuntimeError("the engine is not open: use `async with Engine(…) as engine`")
        return self._gateway

    async def start(
        self,
        workflow: "Workflow",
        input: Any = None,  # noqa: A002
        *,
        id: str | None = None,  # noqa: A002
        thread: str | None = None,
        deadline_s: float | None = None,
    ) -> str:
        """Begin a run, and return its id at once. The same `id` begins the same run once. Raises TrunklineError."""
        workflow.register(self.book)
        given = {
            "definition": msgspec.to_builtins(workflow.definition),
            "input": msgspec.to_builtins(input),
            "id": id,
            "thread": thread,
            "deadline_s": deadline_s,
        }
        told = {name: value for name, value in given.items() if value is not None}
        if self._host is None:
            raise RuntimeError("the engine is not open: use `async with Engine(…) as engine`")
        started = await self.gateway.command(start_here(self._host.runtime.name), told)
        return str(started["id"])

    async def run(
        self,
        workflow: "Workflow",
        input: Any = None,  # noqa: A002
        *,
        id: str | None = None,  # noqa: A002
        thread: str | None = None,
        deadline_s: float | None = None,
        on_event: OnEvent | None = None,
    ) -> WorkflowResult:
        """Begin a run, wait until it is over, and return what it came to. Raises WorkflowFailed, TrunklineError."""
        run_id = await self.start(workflow, input, id=id, thread=thread, deadline_s=deadline_s)
        return await self.result(run_id, workflow, on_event=on_event)

    async def result(
        self, run_id: str, workflow: "Workflow | None" = None, *, on_event: OnEvent | None = None
    ) -> WorkflowResult:
        """Wait until a run is over. Raises WorkflowFailed, NotFound."""
        told = await finished(self.gateway, run_id, on_event)
        if told["status"] != "completed":
            raise WorkflowFailed(told)
        output = told["output"]
        if workflow is not None and workflow.returns is not None:
            output = msgspec.convert(output, workflow.returns)
        return WorkflowResult(
            id=run_id, workflow=told["workflow"], output=output, metrics=told["metrics"], steps=told["steps"]
        )

    def run_sync(self, workflow: "Workflow", input: Any = None, **more: Any) -> WorkflowResult:  # noqa: A002
        """The same without asyncio: opens the engine, runs, and closes it. Not from within a running loop."""

        async def once() -> WorkflowResult:
            async with self:
                return await self.run(workflow, input, **more)

        return asyncio.run(once())


async def finished(gateway: Gateway, run_id: str, on_event: OnEvent | None = None) -> dict[str, Any]:
    """What `workflows.get` says of a run once it is over; `on_event` hears all of its events from its beginning."""
    if on_event is not None:
        async with aclosing(events_of_run(gateway, run_id)) as events:
            async for event in events:
                on_event(event)
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while True:
        try:
            asked = {"id": run_id, "wait_s": WAIT_S}
            told = await gateway.command(f"{WORKFLOWS}.get", asked, timeout=WAIT_S + ANSWER_S)
        except errors.Unavailable:  # who was asked may have been killed meanwhile: others go on with the run
            if loop.time() - heard > PATIENCE_S:
                raise
            await asyncio.sleep(AGAIN_S)
            continue
        if told["status"] != "running":
            return told
        heard = loop.time()


async def events_of_run(gateway: Gateway, run_id: str) -> AsyncGenerator[RecordedEvent, None]:
    """The events of a run from its first to its last, as they happen; without gaps. Raises NotFound."""
    await gateway.workflows.get(id=run_id)
    async with aclosing(gateway.events("workflow", id=run_id, since=0)) as events:
        async for event in events:
            yield event
            if isinstance(event.body, WorkflowEnded):
                return
