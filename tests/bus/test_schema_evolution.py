"""An event gets a second version while writers of the first still run: the example in docs/evolving-events.md."""

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from golden.examples import file_of
from trunkline_actors.snapshots import KvSnapshots
from trunkline_events.circuit import CircuitEvent, Opened, Reset
from trunkline_events.codec import CODEC, Codec
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent, Unknown
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope, load
from trunkline_projections.fold import Fold
from trunkline_projections.runner import View

pytest_plugins = ["gateway"]

PAGE = Path(__file__).parents[2] / "docs" / "evolving-events.md"


def example() -> dict[str, Any]:
    """What the code on the page defines."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), space)
    return space


EXAMPLE = example()
OpenedV2: Any = EXAMPLE["OpenedV2"]
TODAY, READERS_FIRST, THEN_WRITERS = CODEC, EXAMPLE["READERS_FIRST"], EXAMPLE["THEN_WRITERS"]

Breakers = dict[str, tuple[float, str]]
"""By provider: when it may be tried again, and why it can't be tried now."""


def step_today(state: Breakers, event: RecordedEvent) -> Breakers:
    """The fold as it was: it knows v1 alone."""
    match event.body:
        case Opened(provider=provider, retry_at=retry_at):
            return {**state, provider: (retry_at, "")}
        case Reset(provider=provider):
            return {name: held for name, held in state.items() if name != provider}
    raise AssertionError(event)


def step_tomorrow(state: Breakers, event: RecordedEvent) -> Breakers:
    """The fold as it will be: it knows v2 alone."""
    match event.body:
        case OpenedV2(provider=provider, opened_at=opened_at, pause_s=pause, cause=cause):
            return {**state, provider: (opened_at + pause, cause)}
        case Reset(provider=provider):
            return {name: held for name, held in state.items() if name != provider}
    raise AssertionError(event)


def fold(step: Callable[[Breakers, RecordedEvent], Breakers]) -> Fold[Breakers]:
    return Fold(name="breakers", categories=("circuit",), state=Breakers, initial=dict, step=step)


class Process:
    """One process of one release, on a connection of its own: it appends, and holds a view."""

    def __init__(
        self, connection: Connection, codec: Codec, step: Callable[[Breakers, RecordedEvent], Breakers]
    ) -> None:
        self.connection, self.codec, self.fold = connection, codec, fold(step)
        self.log = JetStreamLog(connection, codec)
        self.view: View[Breakers] = View(self.log, self.fold)

    async def start(self, snapshots: KvSnapshots | None = None) -> None:
        self.log = await JetStreamLog.open(self.connection, codec=self.codec)
        self.view = View(self.log, self.fold, snapshots)
        await self.view.start()

    async def append(self, body: Any) -> int:
        number = await self.log.end() + 1
        aggregate = body.provider
        event = NewEvent(id=f"e{number}", category="circuit", aggregate=aggregate, body=body, time=1.0, actor="test")
        return (await self.log.append(event)).sequence

    async def stop(self) -> None:
        await self.view.stop()
        await self.log.close()


Start = Callable[..., Any]


@pytest.fixture
async def start(bus_url: str) -> AsyncIterator[Start]:
    """Start processes of any release on one bus; `upgraded` reads and writes like tomorrow's readers-first release."""
    running: list[Process] = []

    async def started(codec: Codec, step: Any, *, kept: bool = False) -> Process:
        connection = await Connection.open(bus_url, name="test")
        process = Process(connection, codec, step)
        snapshots = KvSnapshots(connection) if kept else None
        if snapshots:
            await snapshots.open()
        await process.start(snapshots)
        running.append(process)
        return process

    yield started
    for process in running:
        await process.stop()
        await process.connection.close()


V1 = Opened(provider="a", failures=5, opened_at=100.0, retry_at=160.0)
V2 = OpenedV2(provider="b", failures=5, opened_at=100.0, pause_s=30.0, cause="timeout")


async def test_upgraded_readers_read_what_old_writers_write(start: Start) -> None:
    old = await start(TODAY, step_today)
    new = await start(READERS_FIRST, step_tomorrow)
    sequence = await old.append(V1)
    for process in (old, new):
        await process.view.reached(sequence)
    assert old.view.state == {"a": (160.0, "")}
    assert new.view.state == {"a": (160.0, "unknown")}


async def test_an_upgraded_process_writes_what_old_readers_read(start: Start) -> None:
    old = await start(TODAY, step_today)
    new = await start(READERS_FIRST, step_tomorrow)
    sequence = await new.append(V1)
    for process in (old, new):
        await process.view.reached(sequence)
    assert old.view.state == {"a": (160.0, "")}
    assert old.view.skipped == 0
    assert new.view.state == {"a": (160.0, "unknown")}


async def test_old_and_new_writers_run_side_by_side(start: Start) -> None:
    readers_first = await start(READERS_FIRST, step_tomorrow)
    then_writers = await start(THEN_WRITERS, step_tomorrow)
    for writer, body in ((readers_first, V1), (then_writers, V2), (readers_first, Reset(provider="a"))):
        sequence = await writer.append(body)
    for process in (readers_first, then_writers):
        await process.view.reached(sequence)
        assert process.view.state == {"b": (130.0, "timeout")}
        assert (process.view.skipped, process.log.skipped) == (0, 0)
        stored = [type(event.body) async for event in process.log.read(scope=Scope(("circuit",)))]
        assert stored == [OpenedV2, OpenedV2, Reset]


async def test_a_reader_left_behind_skips_what_it_does_not_know_and_goes_on(start: Start) -> None:
    old = await start(TODAY, step_today)
    new = await start(THEN_WRITERS, step_tomorrow)
    await old.append(V1)
    await new.append(V2)
    sequence = await old.append(Reset(provider="a"))
    await old.view.reached(sequence)
    assert (old.view.state, old.view.skipped, old.view.position) == ({}, 1, sequence)
    (event,) = await load(old.log, "circuit", "b")
    assert isinstance(event.body, Unknown)
    assert event.body.name == "circuit.opened.v2"


async def test_a_reader_that_is_upgraded_knows_what_it_had_skipped(start: Start) -> None:
    """The old version's snapshot is no help: it lacks what was skipped. Nor does the new one spoil the old one's."""
    old = await start(TODAY, step_today, kept=True)
    new = await start(THEN_WRITERS, step_tomorrow)
    sequence = await new.append(V2)
    await old.view.reached(sequence)
    assert old.view.state == {}
    await old.view.save()
    upgraded = await start(THEN_WRITERS, step_tomorrow, kept=True)
    assert upgraded.view.state == {"b": (130.0, "timeout")}
    await upgraded.view.save()
    rolled_back = await start(TODAY, step_today, kept=True)
    assert (rolled_back.view.state, rolled_back.view.position) == ({}, sequence)


class OpenedV3(CircuitEvent, frozen=True, kw_only=True, tag="circuit.opened.v3"):
    """What is left of it."""

    pause_s: float
    cause: str


async def test_a_third_version_takes_both_steps(start: Start) -> None:
    def to_third(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "cause": f"{fields['cause']}!"}

    third = Codec(
        {"circuit.opened.v3": OpenedV3},
        {**EXAMPLE["UPCASTERS"], "circuit.opened.v2": ("circuit.opened.v3", to_third)},
    )
    old, new = await start(READERS_FIRST, step_tomorrow), await start(THEN_WRITERS, step_tomorrow)
    await old.append(V1)
    await new.append(V2)
    newest = JetStreamLog(new.connection, third)
    bodies = [event.body async for event in newest.read()]
    assert bodies == [
        OpenedV3(provider="a", pause_s=60.0, cause="unknown!"),
        OpenedV3(provider="b", pause_s=30.0, cause="timeout!"),
    ]


async def test_an_event_that_its_step_can_not_take_is_skipped_and_the_next_one_follows(start: Start) -> None:
    def stumble(fields: dict[str, Any]) -> dict[str, Any]:
        if fields["failures"] > 5:
            raise ZeroDivisionError
        taken: dict[str, Any] = EXAMPLE["opened_v1_to_v2"](fields)
        return taken

    old = await start(TODAY, step_today)
    stumbling = Codec(THEN_WRITERS.types, {"circuit.opened.v1": ("circuit.opened.v2", stumble)})
    new = await start(stumbling, step_tomorrow)
    await old.append(Opened(provider="odd", failures=6, opened_at=1.0, retry_at=2.0))
    sequence = await old.append(V1)
    await new.view.reached(sequence)
    assert (new.view.state, new.view.skipped) == ({"a": (160.0, "unknown")}, 1)


@pytest.mark.parametrize("codec", [READERS_FIRST, THEN_WRITERS], ids=["readers first", "then writers"])
def test_golden_bytes_of_the_first_version_read_as_the_second(codec: Codec) -> None:
    data = file_of("circuit.opened.v1").read_bytes()
    first = CODEC.decode("circuit.opened.v1", data)
    assert isinstance(first, Opened)
    assert codec.decode("circuit.opened.v1", data) == OpenedV2(
        provider=first.provider,
        failures=first.failures,
        opened_at=first.opened_at,
        pause_s=first.retry_at - first.opened_at,
        cause="unknown",
    )


@pytest.mark.parametrize("codec", [READERS_FIRST, THEN_WRITERS], ids=["readers first", "then writers"])
def test_no_version_that_was_ever_stored_is_forgotten(codec: Codec) -> None:
    assert codec.readable >= CODEC.readable
