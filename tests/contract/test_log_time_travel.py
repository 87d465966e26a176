"""What every log promises to who asks for the past: one suite, the log in memory and the one on JetStream."""

import asyncio
import random
import time
from collections.abc import Sequence

import pytest
from logs import Heard, an_event, append, ids, within
from trunkline_events import direct
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Log, Scope


async def last_of_each(log: Log, up_to: int, *, only: Sequence[str] | None = None, after: str = "") -> list[str]:
    return await ids(log.last_of_each("circuit", up_to, only=only, after=after))


async def moments(log: Log, *names: str) -> list[float]:
    """Append these one by one; a time before the first, and one after each."""
    times = [time.time()]
    for name in names:
        await append(log, name)
        times.append(await later(times[-1]))
    return times


async def later(moment: float) -> float:
    """A time that is at least two microseconds after this one, and after what was stored until now."""
    while time.time() < moment + 0.000_002:  # noqa: ASYNC110 - nothing says when a clock has moved on
        await asyncio.sleep(0)
    return time.time()


# -- from a time and after a sequence


async def test_a_reader_that_names_a_sequence_and_a_time_gets_what_fits_both(log: Log) -> None:
    start, _, second, third = await moments(log, "a1", "a2", "a3")
    assert await ids(log.read(1, since=start)) == ["a2", "a3"]
    assert await ids(log.read(1, since=second)) == ["a3"]
    assert await ids(log.read(2, since=second)) == ["a3"]
    assert await ids(log.read(3, since=start)) == []
    assert await ids(log.read(1, since=third)) == []


@pytest.mark.parametrize(("after", "at", "found"), [(1, 0, ["a2", "a3"]), (1, 2, ["a3"]), (2, 1, ["a3"])])
async def test_a_follower_that_names_a_sequence_and_a_time_is_told_what_fits_both(
    log: Log, after: int, at: int, found: list[str]
) -> None:
    times = await moments(log, "a1", "a2", "a3")
    heard = Heard()
    follower = await log.follow(heard, after, since=times[at])
    await within(follower)
    assert heard.ids == found
    await append(log, "a4")
    assert await heard.until(len(found) + 1) == [*found, "a4"]
    await follower.stop()


async def test_a_time_to_come_is_the_end_of_the_log(log: Log) -> None:
    await append(log, "a1")
    heard = Heard()
    follower = await log.follow(heard, since=time.time() + 3600)
    await within(follower)
    await append(log, "a2")
    assert await heard.until(1) == ["a2"]
    await follower.stop()


async def test_one_aggregate_is_read_and_followed_without_naming_its_category(log: Log) -> None:
    await append(log, "c1", aggregate="a.b")
    await append(log, "m1", aggregate="a.b", category="model")
    await append(log, "c2", aggregate="other")
    mine = Scope((), "a.b")
    assert await ids(log.read(scope=mine)) == ["c1", "m1"]
    assert await log.end(mine) == 2
    heard = Heard()
    follower = await log.follow(heard, scope=mine)
    await append(log, "c3", aggregate="a.b")
    assert await heard.until(3) == ["c1", "m1", "c3"]
    await follower.stop()


# -- which sequence it was


async def test_a_time_names_the_last_event_that_was_stored_by_then(log: Log) -> None:
    assert await log.position_at(time.time()) == 0
    times = await moments(log, "a1", "a2", "a3")
    assert [await log.position_at(moment) for moment in times] == [0, 1, 2, 3]
    assert await log.position_at(0.0) == 0
    assert await log.position_at(-1e12) == 0
    assert await log.position_at(times[-1] + 1e9) == 3
    assert await log.position_at(1e12) == 3


async def test_the_times_of_a_log_part_it_without_overlap_or_gap(log: Log) -> None:
    await asyncio.gather(*(log.append(an_event(f"e{n}")) for n in range(50)))
    start = time.time() - 1
    for moment in (start + n * 0.02 for n in range(60)):
        position = await log.position_at(moment)
        after = await ids(log.read(since=moment + 0.000_001))
        assert position + len(after) == 50


# -- the last event of each aggregate


async def test_the_last_events_are_those_of_the_position_in_the_order_of_ids(log: Log) -> None:
    for name in ("b1", "a1", "b2", "c1", "a2"):
        await append(log, name, aggregate=name[0])
    await append(log, "m1", category="model")
    assert [await last_of_each(log, up_to) for up_to in range(8)] == [
        [],
        ["b1"],
        ["a1", "b1"],
        ["a1", "b2"],
        ["a1", "b2", "c1"],
        ["a2", "b2", "c1"],
        ["a2", "b2", "c1"],
        ["a2", "b2", "c1"],
    ]


@pytest.mark.parametrize("up_to", [-1, 0, 1, 2, 10**30])
async def test_any_position_is_one_that_can_be_asked_for(log: Log, up_to: int) -> None:
    assert await last_of_each(log, up_to) == []
    await append(log, "a1")
    assert await last_of_each(log, up_to) == (["a1"] if up_to > 0 else [])
    assert await ids(log.last_of_each("model", up_to)) == []


async def test_some_aggregates_are_asked_for_by_name_or_by_page(log: Log) -> None:
    for name in "abcde":
        await append(log, f"{name}1", f"{name}2", aggregate=name)
    assert await last_of_each(log, 99, only=["d", "a", "nobody", "d"]) == ["a2", "d2"]
    assert await last_of_each(log, 99, only=[]) == []
    assert await last_of_each(log, 99, after="b") == ["c2", "d2", "e2"]
    assert await last_of_each(log, 99, after="e") == []
    assert await last_of_each(log, 99, only=["a", "d", "e"], after="d") == ["e2"]
    assert await last_of_each(log, 5, only=["c", "d"]) == ["c1"]


async def test_a_last_event_is_whole(log: Log) -> None:
    for aggregate in ("a.b", "meta/llama", "é模😀", "*", ">", "=2E"):
        await log.append(an_event(f"e {aggregate}".encode().hex(), aggregate))
    recorded = [event async for event in log.last_of_each("circuit", 6)]
    assert recorded == sorted([event async for event in log.read()], key=lambda event: event.aggregate)


@pytest.mark.parametrize("at_once", [1, 7, 500])
async def test_any_history_is_told_as_it_was_at_any_position(
    log: Log, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "SUBJECTS_AT_ONCE", at_once)
    chance = random.Random(at_once)
    for number in range(120):
        await append(
            log, f"e{number}", aggregate=f"a{chance.randrange(12)}", category=chance.choice(["circuit", "model"])
        )
    history = [event async for event in log.read()]
    everybody = [f"a{n}" for n in range(12)]
    for up_to in chance.sample(range(121), 12):
        expected: dict[str, RecordedEvent] = {e.aggregate: e for e in history[:up_to] if e.category == "circuit"}
        wanted = [expected[aggregate] for aggregate in sorted(expected)]
        assert [event async for event in log.last_of_each("circuit", up_to)] == wanted
        assert [event async for event in log.last_of_each("circuit", up_to, only=everybody)] == wanted


async def test_more_aggregates_than_one_answer_holds_are_all_told(log: Log) -> None:
    names = [f"a{n}" for n in range(1300)]
    await asyncio.gather(*(log.append(an_event(name, name)) for name in names))
    await asyncio.gather(*(log.append(an_event(f"{name} again", name)) for name in names))
    by_name = {event.aggregate: event.id async for event in log.read() if event.sequence <= 2000}
    expected = [by_name[name] for name in sorted(names)]
    assert await last_of_each(log, 2000) == expected
    assert await last_of_each(log, 2000, after="a5") == [by_name[name] for name in sorted(names) if name > "a5"]
    assert await log.aggregates("circuit") == sorted(names)


async def test_the_last_events_are_of_one_position_while_others_append(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "SUBJECTS_AT_ONCE", 10)
    names = [f"a{n:02}" for n in range(40)]
    for name in names:
        await append(log, name, aggregate=name)
    seen = []
    async for event in log.last_of_each("circuit", 40, only=names):
        seen.append(event.id)
        await append(log, f"{event.id} late", aggregate=f"a{39 - len(seen):02}")
    assert seen == names
