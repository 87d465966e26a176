"""What every log promises to who follows it: one suite, the log in memory and the one on JetStream."""

import asyncio
import time
from collections.abc import Awaitable

import pytest
from logs import Heard, an_event, append, within
from trunkline_events.circuit import Reset
from trunkline_events.envelope import NewEvent, RecordedEvent, Unknown
from trunkline_events.log import Log, LogUnavailable, Scope, load
from trunkline_events.log_waiting import FollowerStopped


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


async def test_who_waits_for_a_sequence_is_told_when_the_follower_is_stopped(log: Log) -> None:
    follower = await log.follow(Heard())
    await within(follower, await append(log, "a1"))
    waiting = [asyncio.create_task(follower.reached(sequence)) for sequence in (2, 5)]
    await asyncio.sleep(0)
    await follower.stop()
    for task, sequence in zip(waiting, (2, 5), strict=True):
        with pytest.raises(LogUnavailable, match=f"at 1, before {sequence}"):
            await asyncio.wait_for(task, 5)
    with pytest.raises(FollowerStopped) as caught:
        await follower.reached(3)
    assert caught.value.position == 1
    await within(follower, 1)
    await within(follower)


async def test_who_waits_to_be_caught_up_is_told_when_the_follower_is_stopped(log: Log) -> None:
    async def forever(_event: RecordedEvent) -> None:
        await asyncio.Event().wait()

    await append(log, "a1")
    follower = await log.follow(forever)
    waiting = asyncio.create_task(follower.caught_up())
    await asyncio.sleep(0)
    await follower.stop()
    with pytest.raises(FollowerStopped):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(FollowerStopped):
        await follower.caught_up()


async def test_a_handler_may_stop_its_follower(log: Log) -> None:
    heard: list[str] = []
    stopped = asyncio.Event()

    async def once(event: RecordedEvent) -> None:
        heard.append(event.id)
        await follower.stop()
        stopped.set()

    follower = await log.follow(once)
    await append(log, "a1", "a2")
    await asyncio.wait_for(stopped.wait(), 5)
    witness = Heard()
    other = await log.follow(witness)
    await append(log, "a3")
    await witness.until(3)
    assert heard == ["a1"]
    await other.stop()


async def test_a_handler_whose_own_wait_is_cancelled_is_told_of_the_next_event(log: Log) -> None:
    heard: list[str] = []

    async def cancelled(event: RecordedEvent) -> None:
        heard.append(event.id)
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    follower = await log.follow(cancelled)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await within(follower, await append(log, "a1", "a2"))
    assert heard == ["a1", "a2"]
    await follower.stop()


async def test_handlers_that_return_and_handlers_that_wait_keep_their_order(log: Log) -> None:
    heard: list[str] = []

    def now_and_then(event: RecordedEvent) -> Awaitable[None] | None:
        async def late() -> None:
            await asyncio.sleep(0.001)
            heard.append(event.id)

        if event.sequence % 3:
            heard.append(event.id)
            return None
        return late()

    follower = await log.follow(now_and_then)
    names = [f"e{n}" for n in range(30)]
    await within(follower, await append(log, *names))
    assert heard == names
    await follower.stop()


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
