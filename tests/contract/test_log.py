"""What every log promises: one suite, the log in memory and the one on JetStream."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from trunkline.embedded import EmbeddedServer
from trunkline_events.circuit import Reset
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent, Unknown
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Appended, Conflict, Follower, Log, Scope, load
from trunkline_events.memory import MemoryLog
from trunkline_events.registry import ModelEnabled

ODD_IDS = ["gpt-4.1", "meta/llama", "é模😀", "a b", "*", ">", "=2E", "x" * 128]


@pytest.fixture(params=["memory", "jetstream"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    if request.param == "memory":
        yield MemoryLog()
        return
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as server:
        connection = await Connection.open(server.url, name="test")
        opened = await JetStreamLog.open(connection)
        yield opened
        await opened.close()
        await connection.close()


def an_event(name: str, aggregate: str = "a", category: str = "circuit") -> NewEvent:
    body = Reset(provider=aggregate, reason=name) if category == "circuit" else ModelEnabled(id=aggregate, reason=name)
    return NewEvent(id=name, category=category, aggregate=aggregate, body=body, time=time.time(), actor="test")


async def append(log: Log, *names: str, aggregate: str = "a", category: str = "circuit") -> int:
    """Append without expectation; the sequence of the last one."""
    appended = [await log.append(an_event(name, aggregate, category)) for name in names]
    return appended[-1].sequence


class Heard:
    """A handler that keeps what it is told, and says when that is so much."""

    def __init__(self) -> None:
        self.events: list[RecordedEvent] = []
        self._more = asyncio.Condition()

    async def __call__(self, event: RecordedEvent) -> None:
        async with self._more:
            self.events.append(event)
            self._more.notify_all()

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    async def until(self, count: int) -> list[str]:
        async with asyncio.timeout(10), self._more:
            await self._more.wait_for(lambda: len(self.events) >= count)
        return self.ids


async def within(follower: Follower, sequence: int | None = None) -> None:
    async with asyncio.timeout(10):
        await (follower.caught_up() if sequence is None else follower.reached(sequence))


async def ids(events: AsyncIterator[RecordedEvent]) -> list[str]:
    return [event.id async for event in events]


# -- appending


async def test_an_event_is_recorded_as_it_was_appended(log: Log) -> None:
    event = NewEvent(
        id="e1",
        category="circuit",
        aggregate="box.1",
        body=Reset(provider="box.1", reason="é"),
        time=1_795_262_400.123456,
        actor="router",
        cause="Zürich\n100%",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    assert await log.append(event) == Appended(1)
    assert await log.get(1) == RecordedEvent(
        sequence=1,
        id="e1",
        category="circuit",
        aggregate="box.1",
        type="circuit.reset.v1",
        body=event.body,
        time=event.time,
        actor="router",
        cause="Zürich\n100%",
        traceparent=event.traceparent,
    )


async def test_an_append_that_expects_what_is_so_is_stored(log: Log) -> None:
    assert await log.append(an_event("a1", "a"), 0) == Appended(1)
    assert await log.append(an_event("b1", "b"), 0) == Appended(2)
    assert await log.append(an_event("a2", "a"), 1) == Appended(3)


@pytest.mark.parametrize("expected", [0, 2, 99])
async def test_an_append_that_expects_what_is_not_so_is_a_conflict_and_stores_nothing(log: Log, expected: int) -> None:
    await append(log, "a1")
    await append(log, "b1", aggregate="b")
    with pytest.raises(Conflict) as caught:
        await log.append(an_event("a2"), expected)
    assert (caught.value.subject, caught.value.expected) == ("trunkline.log.circuit.a", expected)
    assert await log.end() == 2
    assert await log.append(an_event("a2"), 1) == Appended(3), "the id is free still"


async def test_an_id_is_stored_once_and_answered_with_where_it_is(log: Log) -> None:
    await append(log, "a1", "a2")
    assert await log.append(an_event("a1")) == Appended(1, duplicate=True)
    assert await log.append(an_event("a1", "other", "model")) == Appended(1, duplicate=True), "whatever it belongs to"
    assert await log.end() == 2


async def test_the_expectation_is_checked_before_the_id(log: Log) -> None:
    await log.append(an_event("a1"), 0)
    with pytest.raises(Conflict):
        await log.append(an_event("a1"), 0)
    assert await log.append(an_event("a1"), 1) == Appended(1, duplicate=True)
    await log.append(an_event("a2"), 1)
    with pytest.raises(Conflict):
        await log.append(an_event("a1"), 1)
    assert await log.append(an_event("a1"), 2) == Appended(1, duplicate=True)


async def test_of_many_that_expect_the_same_exactly_one_is_stored(log: Log) -> None:
    outcomes = await asyncio.gather(*(log.append(an_event(f"e{n}"), 0) for n in range(20)), return_exceptions=True)
    assert [one for one in outcomes if not isinstance(one, Conflict)] == [Appended(1)]


async def test_many_appends_in_flight_are_all_kept_each_at_its_own_place(log: Log) -> None:
    events = [an_event(f"e{n}", f"a{n % 7}") for n in range(500)]
    appended = await asyncio.gather(*(log.append(event) for event in events))
    assert sorted(one.sequence for one in appended) == list(range(1, 501))
    stored = {event.sequence: event.id async for event in log.read()}
    assert stored == {one.sequence: event.id for one, event in zip(appended, events, strict=True)}


# -- reading


async def test_an_aggregates_events_are_loaded_oldest_first(log: Log) -> None:
    await append(log, "a1")
    await append(log, "b1", aggregate="b")
    await append(log, "a2")
    await append(log, "m1", category="model")
    found = await load(log, "circuit", "a")
    assert [(event.id, event.sequence) for event in found] == [("a1", 1), ("a2", 3)]
    assert await load(log, "circuit", "nobody") == []


async def test_an_aggregates_last_event_is_read_alone(log: Log) -> None:
    assert await log.last("circuit", "a") is None
    await append(log, "a1", "a2")
    await append(log, "b1", aggregate="b")
    last = await log.last("circuit", "a")
    assert last is not None
    assert (last.id, last.sequence, last.subject) == ("a2", 2, "trunkline.log.circuit.a")
    assert await log.last("model", "a") is None


async def test_an_event_is_found_by_its_sequence(log: Log) -> None:
    await append(log, "a1", "a2")
    event = await log.get(2)
    assert event is not None
    assert event.id == "a2"
    assert await log.get(3) is None


async def test_the_end_is_that_of_the_scope(log: Log) -> None:
    everything = [
        Scope(),
        Scope(("circuit",)),
        Scope(("model",)),
        Scope(("circuit",), "a"),
        Scope(("model", "circuit")),
    ]
    assert [await log.end(scope) for scope in everything] == [0, 0, 0, 0, 0]
    await append(log, "a1")
    await append(log, "b1", aggregate="b")
    await append(log, "m1", aggregate="a", category="model")
    assert [await log.end(scope) for scope in everything] == [3, 2, 3, 1, 3]
    assert await log.end(Scope(("provider",))) == 0


async def test_reading_ends_at_the_end_of_the_log_as_it_was(log: Log) -> None:
    assert await ids(log.read()) == []
    await append(log, "a1", "a2", "a3")
    seen = []
    async for event in log.read(1):
        seen.append(event.id)
        await append(log, f"late after {event.id}")
    assert seen == ["a2", "a3"]
    assert await ids(log.read(5)) == []
    assert await ids(log.read(99)) == []


async def test_a_reader_may_leave_early(log: Log) -> None:
    await append(log, *(f"a{n}" for n in range(20)))
    reading = log.read()
    async for event in reading:
        if event.sequence == 3:
            break
    await reading.aclose()
    assert len(await ids(log.read())) == 20


async def test_reading_since_a_time_leaves_out_what_is_older(log: Log) -> None:
    await append(log, "a1", "a2")
    moment = time.time()
    await append(log, "a3", "a4")
    assert await ids(log.read(since=moment)) == ["a3", "a4"]
    assert await ids(log.read(since=moment, scope=Scope(("model",)))) == []
    assert await ids(log.read(since=time.time() + 60)) == []
    assert await ids(log.read(since=0.0)) == ["a1", "a2", "a3", "a4"]


async def test_odd_ids_are_aggregates_like_any_other(log: Log) -> None:
    for number, aggregate in enumerate(ODD_IDS, 1):
        assert await log.append(an_event(f"e{number}", aggregate), 0) == Appended(number)
    assert await log.aggregates("circuit") == sorted(ODD_IDS)
    assert await log.aggregates("model") == []
    for number, aggregate in enumerate(ODD_IDS, 1):
        (event,) = await load(log, "circuit", aggregate)
        assert (event.id, event.aggregate) == (f"e{number}", aggregate)


async def test_an_aggregate_is_listed_once_however_many_its_events(log: Log) -> None:
    await append(log, "a1", "a2")
    await append(log, "b1", aggregate="b")
    assert await log.aggregates("circuit") == ["a", "b"]


# -- following


async def test_a_follower_is_told_what_was_there_and_what_comes(log: Log) -> None:
    await append(log, "a1", "a2")
    heard = Heard()
    follower = await log.follow(heard)
    await within(follower)
    assert heard.ids == ["a1", "a2"]
    assert follower.position == 2
    sequence = await append(log, "a3")
    await within(follower, sequence)
    assert heard.ids == ["a1", "a2", "a3"]
    assert [event.sequence for event in heard.events] == [1, 2, 3]
    await follower.stop()


async def test_a_follower_starts_after_the_sequence_it_is_given(log: Log) -> None:
    await append(log, "a1", "a2", "a3")
    heard = Heard()
    follower = await log.follow(heard, 2)
    await within(follower)
    await append(log, "a4")
    assert await heard.until(2) == ["a3", "a4"]
    await follower.stop()


async def test_a_follower_starts_at_a_time(log: Log) -> None:
    await append(log, "a1")
    moment = time.time()
    await append(log, "a2")
    heard = Heard()
    follower = await log.follow(heard, since=moment)
    await within(follower)
    await append(log, "a3")
    assert await heard.until(2) == ["a2", "a3"]
    await follower.stop()


async def test_a_follower_is_told_only_of_its_scope(log: Log) -> None:
    scopes = {
        "categories": Scope(("circuit",)),
        "both": Scope(("model", "circuit")),
        "aggregate": Scope(("circuit",), "a.b"),
        "nothing": Scope(("provider",)),
    }
    heard = {name: Heard() for name in scopes}
    followers = [await log.follow(heard[name], scope=scope) for name, scope in scopes.items()]
    await append(log, "c1", aggregate="a.b")
    await append(log, "m1", aggregate="a.b", category="model")
    await append(log, "c2", aggregate="other")
    await heard["both"].until(3)
    await heard["categories"].until(2)
    await heard["aggregate"].until(1)
    assert {name: one.ids for name, one in heard.items()} == {
        "categories": ["c1", "c2"],
        "both": ["c1", "m1", "c2"],
        "aggregate": ["c1"],
        "nothing": [],
    }
    for follower in followers:
        await follower.stop()


@pytest.mark.parametrize("scope", [Scope(), Scope(("circuit",)), Scope(("model",)), Scope(("circuit",), "b")])
async def test_a_follower_that_has_nothing_to_catch_up_with_has_caught_up(log: Log, scope: Scope) -> None:
    empty = await log.follow(Heard(), scope=scope)
    await within(empty)
    sequence = await append(log, "a1")
    late = await log.follow(Heard(), sequence, scope=scope)
    await within(late)
    await within(late, 1)
    for follower in (empty, late):
        await follower.stop()


async def test_who_waits_for_a_sequence_waits_until_it_is_handled(log: Log) -> None:
    heard = Heard()
    follower = await log.follow(heard)
    waiting = [asyncio.create_task(within(follower, sequence)) for sequence in (3, 1, 2)]
    await append(log, "a1", "a2")
    await asyncio.gather(*waiting[1:])
    assert not waiting[0].done()
    await append(log, "a3")
    await waiting[0]
    assert len(heard.events) == 3
    await follower.stop()


async def test_a_handler_that_raises_is_told_of_the_next_event_all_the_same(log: Log) -> None:
    heard: list[str] = []

    def stumble(event: RecordedEvent) -> None:
        heard.append(event.id)
        raise ValueError(event.id)

    follower = await log.follow(stumble)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    sequence = await append(log, "a1", "a2", "a3")
    await within(follower, sequence)
    assert heard == ["a1", "a2", "a3"]
    assert follower.position == 3
    await follower.stop()


async def test_a_follower_that_was_stopped_is_told_nothing_more(log: Log) -> None:
    heard, other = Heard(), Heard()
    follower, witness = await log.follow(heard), await log.follow(other)
    await append(log, "a1")
    await heard.until(1)
    await follower.stop()
    sequence = await append(log, "a2")
    await within(witness, sequence)
    assert heard.ids == ["a1"]
    await witness.stop()


async def test_followers_are_told_the_same_in_the_same_order_while_many_append(log: Log) -> None:
    heard = [Heard() for _ in range(3)]
    followers = [await log.follow(one) for one in heard]
    await asyncio.gather(*(log.append(an_event(f"e{n}", f"a{n % 5}")) for n in range(100)))
    for one in heard:
        await one.until(100)
        assert [event.sequence for event in one.events] == list(range(1, 101))
    for follower in followers:
        await follower.stop()


# -- what can't be read


async def test_an_event_whose_body_can_not_be_read_is_handed_over_as_unknown(log: Log) -> None:
    odd = NewEvent(
        id="odd",
        category="circuit",
        aggregate="a",
        body=Reset(provider=1),  # type: ignore[arg-type]  # what a newer version may write
        time=time.time(),
        actor="test",
    )
    heard = Heard()
    follower = await log.follow(heard)
    await log.append(odd)
    await append(log, "a2")
    assert await heard.until(2) == ["odd", "a2"]
    for event in (heard.events[0], await log.get(1), (await load(log, "circuit", "a"))[0]):
        assert event is not None
        assert isinstance(event.body, Unknown)
        assert (event.type, event.body.name, event.aggregate) == ("circuit.reset.v1", "circuit.reset.v1", "a")
    await follower.stop()
