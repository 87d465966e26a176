"""What every log promises to who appends and reads: one suite, the log in memory and the one on JetStream."""

import asyncio
import time

import pytest
from logs import an_event, append, ids
from msgspec import structs
from trunkline.embedded.config import MAX_PAYLOAD
from trunkline_events.circuit import Reset
from trunkline_events.codec import CODEC
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.log import Appended, Conflict, Log, Scope, TooLarge, load
from trunkline_events.memory import MemoryLog

ODD_IDS = ["gpt-4.1", "meta/llama", "é模😀", "a b", "*", ">", "=2E", "x" * 128]


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


async def test_an_event_that_is_there_already_is_a_conflict_or_a_duplicate_and_never_stored_again(log: Log) -> None:
    await log.append(an_event("a1"), 0)
    await conflict_or_duplicate(log, 0)
    assert await log.append(an_event("a1"), 1) == Appended(1, duplicate=True)
    await log.append(an_event("a2"), 1)
    with pytest.raises(Conflict):
        await log.append(an_event("a1"), 1)
    assert await log.append(an_event("a1"), 2) == Appended(1, duplicate=True)
    assert await ids(log.read()) == ["a1", "a2"]


async def conflict_or_duplicate(log: Log, expected: int) -> None:
    """The expectation is checked before the id; whoever looks what it conflicts with finds itself."""
    try:
        assert await log.append(an_event("a1"), expected) == Appended(1, duplicate=True)
    except Conflict:
        assert await log.end() == 1


async def test_of_many_that_expect_the_same_exactly_one_is_stored(log: Log) -> None:
    outcomes = await asyncio.gather(*(log.append(an_event(f"e{n}"), 0) for n in range(20)), return_exceptions=True)
    assert [one for one in outcomes if not isinstance(one, Conflict)] == [Appended(1)]


async def test_many_appends_in_flight_are_all_kept_each_at_its_own_place(log: Log) -> None:
    events = [an_event(f"e{n}", f"a{n % 7}") for n in range(500)]
    appended = await asyncio.gather(*(log.append(event) for event in events))
    assert sorted(one.sequence for one in appended) == list(range(1, 501))
    stored = {event.sequence: event.id async for event in log.read()}
    assert stored == {one.sequence: event.id for one, event in zip(appended, events, strict=True)}


async def test_an_event_that_is_too_large_is_refused_with_both_sizes_and_stores_nothing(log: Log) -> None:
    if isinstance(log, MemoryLog):
        pytest.skip("this one holds whatever memory does")
    await append(log, "a1")
    with pytest.raises(TooLarge) as caught:
        await log.append(of_size(MAX_PAYLOAD + 1), 1)
    assert caught.value.size > caught.value.limit > MAX_PAYLOAD // 2
    for number in (caught.value.size, caught.value.limit):
        assert f"{number:,}" in str(caught.value)
    assert await log.append(an_event("a2"), 1) == Appended(2)
    assert await ids(log.read()) == ["a1", "a2"]


async def test_an_event_just_small_enough_is_stored(log: Log) -> None:
    """Headers as long as they come included: what the limit lets through, the server takes."""
    if isinstance(log, MemoryLog):
        pytest.skip("this one holds whatever memory does")
    long = {"cause": "é" * 128, "aggregate": "模" * 42}
    with pytest.raises(TooLarge) as caught:
        await log.append(structs.replace(of_size(MAX_PAYLOAD), **long), 0)
    fits = MAX_PAYLOAD - (caught.value.size - caught.value.limit)
    with pytest.raises(TooLarge):
        await log.append(structs.replace(of_size(fits + 1), **long), 0)
    assert await log.append(structs.replace(of_size(fits), **long), 0) == Appended(1)


def of_size(size: int) -> NewEvent:
    """An event whose body takes so many bytes."""
    event = an_event("large")
    empty = len(CODEC.encode(Reset(provider="a", reason="")))
    return structs.replace(event, body=Reset(provider="a", reason="x" * (size - empty)))


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


@pytest.mark.parametrize("aggregate", ["a", *ODD_IDS])
async def test_a_glance_at_an_aggregate_sees_its_last_event(log: Log, aggregate: str) -> None:
    assert await log.glance("circuit", aggregate) is None
    await append(log, "a1", "a2", aggregate=aggregate)
    await append(log, "b1", aggregate="b")
    assert await log.glance("circuit", aggregate) == await log.last("circuit", aggregate) == await log.get(2)
    assert await log.glance("model", aggregate) is None


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
