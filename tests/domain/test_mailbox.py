"""Pykka's promises, kept on asyncio: order, asking and telling, bounds, and nobody left without an answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pykka
import pytest
from trunkline_actors.mailbox import AsyncioActor, AsyncioFuture, Mailbox, MailboxFull


class Recorder(AsyncioActor):
    """Notes what it is told and what becomes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []
        self.turned_away: list[Any] = []
        self.steps: list[str] = []
        self.gate = asyncio.Event()

    async def starting(self) -> None:
        self.steps.append("starting")

    def on_receive(self, message: Any) -> Any:
        self.heard.append(message)
        if message == "raise":
            raise LookupError(message)
        if message == "wait":
            return self.wait()
        if message == "wait and raise":
            return self.wait_and_raise()
        return f"got {message}"

    async def wait(self) -> str:
        await self.gate.wait()
        return "waited"

    async def wait_and_raise(self) -> None:
        await self.gate.wait()
        raise LookupError

    async def turn_away(self, message: Any) -> None:
        self.turned_away.append(message)

    async def stopped(self) -> None:
        self.steps.append("stopped")

    async def fallen(self) -> None:
        self.steps.append("fallen")

    def on_failure(self, *_: Any) -> None:
        self.steps.append("failure")


class Narrow(Recorder):
    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox(limit=1)


class BadStart(Recorder):
    async def starting(self) -> None:
        raise OSError("no start")


async def launched(actor: Recorder) -> Recorder:
    actor.launch()
    await actor.started
    return actor


@pytest.fixture
async def actor() -> AsyncIterator[Recorder]:
    one = await launched(Recorder())
    yield one
    one.gate.set()
    if one.actor_ref.is_alive():
        stop(one)
    with contextlib.suppress(LookupError):
        await one.ended


def stop(actor: Recorder) -> None:
    actor.actor_ref.stop(block=False)


async def ask(actor: Recorder, message: Any) -> Any:
    future = actor.actor_ref.ask(message, block=False)
    assert isinstance(future, AsyncioFuture)
    answer = await future
    return await answer if isinstance(answer, asyncio.Task) else answer


async def test_messages_are_taken_in_the_order_they_were_sent(actor: Recorder) -> None:
    for number in range(50):
        actor.actor_ref.tell(number)
    assert await ask(actor, 50) == "got 50"
    assert actor.heard == list(range(51))


async def test_whoever_asks_is_answered_with_what_the_handler_returns(actor: Recorder) -> None:
    assert await asyncio.gather(*(ask(actor, n) for n in range(3))) == ["got 0", "got 1", "got 2"]


async def test_a_handler_that_waits_does_not_hold_up_the_mailbox(actor: Recorder) -> None:
    waiting = asyncio.ensure_future(ask(actor, "wait"))
    assert await ask(actor, "next") == "got next"
    assert actor.in_flight == 1
    assert not waiting.done()
    actor.gate.set()
    assert await waiting == "waited"
    assert actor.in_flight == 0


async def test_what_a_handler_raises_goes_to_who_asked_and_the_actor_lives_on(actor: Recorder) -> None:
    with pytest.raises(LookupError):
        await ask(actor, "raise")
    assert await ask(actor, "next") == "got next"
    assert actor.actor_ref.is_alive()


async def test_what_nobody_asked_for_and_fails_makes_the_actor_fall_and_turn_the_rest_away() -> None:
    actor = await launched(Recorder())
    actor.actor_ref.tell("raise")
    actor.actor_ref.tell("late")
    asked = actor.actor_ref.ask("asked", block=False)
    with pytest.raises(LookupError):
        await actor.ended
    assert actor.steps == ["starting", "failure", "fallen"]
    assert (actor.heard, actor.turned_away) == (["raise"], ["late"])
    assert not actor.actor_ref.is_alive()
    assert isinstance(asked, AsyncioFuture)
    with pytest.raises(pykka.ActorDeadError):
        await asked


async def test_work_that_fails_beside_the_mailbox_leaves_the_actor_alive(actor: Recorder) -> None:
    actor.actor_ref.tell("wait and raise")
    await ask(actor, "next")
    actor.gate.set()
    await asyncio.wait(actor._tasks)
    assert await ask(actor, "next") == "got next"


async def test_an_actor_that_stops_answers_everyone_in_its_mailbox() -> None:
    actor = await launched(Recorder())
    stop(actor)
    late = actor.actor_ref.ask("asked", block=False)
    actor.actor_ref.tell("told")
    await actor.ended
    assert isinstance(late, AsyncioFuture)
    with pytest.raises(pykka.ActorDeadError):
        await late
    assert actor.turned_away == ["told"]
    assert actor.heard == []
    assert actor.steps == ["starting", "stopped"]


async def test_an_actor_that_stops_first_takes_what_was_sent_before() -> None:
    actor = await launched(Recorder())
    actor.actor_ref.tell("before")
    stop(actor)
    await actor.ended
    assert (actor.heard, actor.turned_away) == (["before"], [])


async def test_a_stopping_actor_waits_for_what_goes_on_beside_its_mailbox() -> None:
    actor = await launched(Recorder())
    work = asyncio.ensure_future(ask(actor, "wait"))
    await ask(actor, "next")
    stop(actor)
    await asyncio.sleep(0)
    assert not actor.ended.done()
    actor.gate.set()
    await actor.ended
    assert await work == "waited"


async def test_work_can_be_cut_so_that_stopping_takes_no_time() -> None:
    actor = await launched(Recorder())
    work = asyncio.ensure_future(ask(actor, "wait"))
    await ask(actor, "next")
    actor.cut()
    stop(actor)
    await actor.ended
    with pytest.raises(asyncio.CancelledError):
        await work
    assert actor.steps == ["starting", "stopped"]


async def test_a_stopped_actor_takes_no_more_messages(actor: Recorder) -> None:
    stop(actor)
    await actor.ended
    with pytest.raises(pykka.ActorDeadError):
        actor.actor_ref.tell("late")


async def test_a_start_that_fails_is_raised_to_who_awaits_it_and_answers_who_asked_already() -> None:
    actor = BadStart()
    actor.launch()
    actor.actor_ref.tell("early")
    with pytest.raises(OSError, match="no start"):
        await actor.started
    with pytest.raises(OSError, match="no start"):
        await actor.ended
    assert actor.turned_away == ["early"]
    assert not actor.actor_ref.is_alive()


async def test_pykkas_own_start_works_too() -> None:
    ref = Recorder.start()
    actor = ref._actor_weakref()
    assert actor is not None
    ended = actor.ended
    future = ref.ask("hello", block=False)
    assert isinstance(future, AsyncioFuture)
    assert await future == "got hello"
    ref.stop(block=False)
    await ended


# -- the mailbox alone


async def test_a_full_mailbox_refuses_and_takes_again_when_there_is_room() -> None:
    mailbox = Mailbox(limit=2)
    mailbox.put(1)
    mailbox.put(2)
    with pytest.raises(MailboxFull):
        mailbox.put(3)
    assert (len(mailbox), mailbox.empty()) == (2, False)
    assert await mailbox.next() == 1
    mailbox.put(3)
    assert [mailbox.get(), mailbox.get()] == [2, 3]
    assert mailbox.empty()


async def test_who_tells_a_full_actor_is_told_so() -> None:
    actor = Narrow()
    actor.launch()
    actor.actor_ref.tell("one")
    with pytest.raises(MailboxFull):
        actor.actor_ref.tell("two")
    await actor.started
    assert await ask(actor, "three") == "got three"
    stop(actor)
    await actor.ended
    assert actor.heard == ["one", "three"]


async def test_a_reader_that_waits_gets_the_next_message() -> None:
    mailbox = Mailbox()
    reader = asyncio.ensure_future(mailbox.next())
    await asyncio.sleep(0)
    mailbox.put(1)
    mailbox.put(2)
    assert await reader == 1
    assert len(mailbox) == 1


# -- the future alone


async def test_a_future_is_set_once_and_read_without_waiting_only_when_it_is_there() -> None:
    future: AsyncioFuture[int] = AsyncioFuture()
    with pytest.raises(asyncio.InvalidStateError):
        future.get()
    future.set(1)
    future.set(2)
    future.set_exception()
    assert future.get() == await future == 1


async def test_a_failure_that_nobody_looks_at_is_no_warning() -> None:
    future: AsyncioFuture[int] = AsyncioFuture()
    future.set_exception((ValueError, ValueError("x"), None))
    with pytest.raises(ValueError, match="x"):
        await future
    other: AsyncioFuture[int] = AsyncioFuture()
    other.set_exception()
    with pytest.raises(RuntimeError):
        other.get()
