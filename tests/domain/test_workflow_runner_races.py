"""What happens while who leads a run reads values is neither slept over, nor is a step done again that ended then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from trunkline.testing import ScriptedCaller
from trunkline.workflows import ParallelStep, TransformStep, WaitStep, Workflow
from trunkline_actors import workflow as rules
from trunkline_actors.shell import Command, Shell
from trunkline_actors.workflow_blobs import MemoryBlobs
from trunkline_actors.workflow_code import CodeBook
from trunkline_actors.workflow_runner import Runner
from trunkline_actors.workflow_source import RunSource
from trunkline_events.memory import MemoryLog
from trunkline_events.workflow import WorkflowStarted

GO = asyncio.Event()
CALLS: list[str] = []


async def once() -> str:
    CALLS.append("once")
    await GO.wait()
    return "done"


BOTH = Workflow("both", [ParallelStep("p", [TransformStep("a", once), WaitStep("s", "s"), WaitStep("t", "t")])])


async def turns() -> None:
    """Whatever is under way comes as far as it can by itself."""
    for _ in range(500):
        await asyncio.sleep(0)


class Blobs(MemoryBlobs):
    """Something happens while the value of this name is read."""

    def __init__(self, name: str, happens: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._name, self._happens = name, happens

    async def get(self, run: str, name: str) -> Any:
        if name == self._name:
            await self._happens()
            await turns()
        return await super().get(run, name)


class Led:
    """A run that is led, by somebody who hears its events."""

    def __init__(self, happens: Callable[[], Awaitable[None]]) -> None:
        self.log, self.blobs = MemoryLog(), Blobs("value-read", happens)
        self.shell = Shell(self.log, lambda: 1.0)
        self.source = RunSource(self.log, "r")

    async def decide(self, what: str, decide: Any) -> None:
        command: Command[rules.Run] = Command(category="workflow", aggregate="r", id=what, decide=decide, actor="test")
        await self.shell.execute(RunSource(self.log, "r"), command)

    async def signal(self, name: str) -> None:
        await self.blobs.put("r", f"value-{name}", name)
        await self.decide(name, lambda run, _now: rules.signal(run, name, f"value-{name}", "test"))


@asynccontextmanager
async def led(happens: Callable[[], Awaitable[None]]) -> AsyncIterator[tuple[Led, asyncio.Task[None]]]:
    CALLS.clear()
    GO.clear()
    run = Led(happens)
    await run.blobs.put("r", "definition", msgspec.to_builtins(BOTH.definition))
    started = WorkflowStarted(
        workflow="both", version="v", definition="definition", input="input", thread="t", by="one", functions=[]
    )
    await run.decide("started", lambda state, _now: rules.start(state, started))
    await run.source.read()
    runner = Runner(
        run.source,
        shell=run.shell,
        blobs=run.blobs,
        book=CodeBook(functions=BOTH.functions),
        caller=ScriptedCaller(),
        name="one",
    )

    def hear(event: Any) -> None:
        run.source.heard(event)
        runner.wake()

    following = await run.log.follow(hear)
    leading = asyncio.create_task(runner.lead())
    try:
        yield run, leading
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await following.stop()


async def test_a_step_that_ends_while_a_signal_is_read_is_not_done_again() -> None:
    async def ends() -> None:
        GO.set()

    async with led(ends) as (run, leading):
        await turns()
        await run.signal("read")
        await turns()
        await run.signal("s")
        await run.signal("t")
        async with asyncio.timeout(5):
            await leading
        assert (CALLS, run.source.run.status) == (["once"], "completed")


async def test_a_signal_that_comes_while_another_one_is_read_is_not_slept_over() -> None:
    async def comes() -> None:
        await run.signal("t")

    async with led(comes) as (run, leading):
        GO.set()
        await run.signal("s")
        await turns()
        await run.signal("read")
        async with asyncio.timeout(5):
            await leading
        assert run.source.run.status == "completed"


async def test_a_run_that_nobody_could_go_on_with_for_a_while_goes_on_afterwards() -> None:
    tried = []

    async def breaks() -> None:
        tried.append(1)
        if len(tried) < 3:
            raise RuntimeError("a surprise")

    async with led(breaks) as (run, leading):
        GO.set()
        await run.signal("read")
        await run.signal("s")
        await run.signal("t")
        async with asyncio.timeout(5):
            await leading
        assert (len(tried), CALLS, run.source.run.status) == (3, ["once"], "completed")
