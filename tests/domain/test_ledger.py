"""The owner of books: what it remembers, what it asks of the log, and how an attempt is ended through it."""

import asyncio
from typing import Any

import pytest
from given import NOON, a_decision, new
from trunkline_actors import ledger as ledgers
from trunkline_actors.endings import Attempt, failed, orphaned
from trunkline_actors.ledger import Ledger, OneRequest, end, ending_of, has_ended
from trunkline_actors.shell import Decided, Shell
from trunkline_events.envelope import NewEvent, Unknown
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.log import Appended, load
from trunkline_events.memory import MemoryLog
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import AttemptFailed, Books, Orphaned, ThreadConfigured, UsageRecorded
from trunkline_events.usage import Usage
from trunkline_projections.threads import EMPTY, books_of

FAILURE = Failure(kind=FailureClass.TIMEOUT, message="slow")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def ledger(log: MemoryLog) -> Ledger:
    return Ledger(log)


def books(settled: int) -> Books:
    return Books(settled_nanos=settled)


async def decide(log: MemoryLog, attempt_id: str, aggregate: str = "t", **carried: Any) -> Attempt:
    """An attempt whose decision is in the log."""
    body = a_decision(attempt_id, **carried)
    appended = await log.append(new(body, aggregate, id=f"{attempt_id}/decided"))
    return Attempt(
        aggregate=aggregate,
        request_id="r",
        attempt_id=attempt_id,
        attempt=1,
        model="m",
        provider="p",
        reserve_nanos=body.reserve_nanos,
        books=books_of(body, appended.sequence),
    )


# -- remembering


async def test_a_thread_that_never_was_has_empty_books_at_no_sequence(ledger: Ledger) -> None:
    assert await ledger.load("t", fresh=False) == (EMPTY, 0, True), "a replica that is behind would say the same"
    assert await ledger.load("t", fresh=True) == (EMPTY, 0, False)


async def test_the_last_event_is_the_state_and_is_read_once(log: MemoryLog, ledger: Ledger) -> None:
    await log.append(new(ThreadConfigured(request_id="c", limit_nanos=1), "t"))
    await log.append(new(ThreadConfigured(request_id="c", limit_nanos=2), "t"))
    after = Books(limit_nanos=2, config_seq=2)
    assert await ledger.load("t", fresh=False) == (after, 2, True), "a replica may be behind"
    assert await ledger.load("t", fresh=False) == (after, 2, True), "what is remembered may be stale"
    await log.append(new(ThreadConfigured(request_id="c", limit_nanos=3), "t"))
    assert (await ledger.load("t", fresh=False))[1] == 2
    assert await ledger.load("t", fresh=True) == (Books(limit_nanos=3, config_seq=3), 3, False)


async def test_what_we_appended_is_learnt(ledger: Ledger) -> None:
    ledger.learn("t", ThreadConfigured(request_id="c", limit_nanos=1), 4)
    assert await ledger.load("t", fresh=False) == (Books(limit_nanos=1, config_seq=4), 4, True)


async def test_news_is_taken_over_only_where_it_is_newer(ledger: Ledger) -> None:
    ledger.adopt("t", books(1), 5)
    ledger.adopt("t", books(2), 4)
    assert (await ledger.load("t", fresh=False))[0] == books(1)
    ledger.adopt("t", books(3), 6)
    assert (await ledger.load("t", fresh=False))[0] == books(3)


async def test_the_least_recently_used_books_are_forgotten_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "REMEMBERED", 2)
    ledger.adopt("a", books(1), 1)
    ledger.adopt("b", books(1), 2)
    ledger.adopt("a", books(1), 1)
    ledger.adopt("c", books(1), 3)
    known = [name for name in "abc" if (await ledger.load(name, fresh=False))[0] == books(1)]
    assert known == ["a", "c"]


async def test_requests_without_a_thread_share_no_books_no_lock_and_no_expectation(ledger: Ledger) -> None:
    ledger.adopt(NO_THREAD, books(1), 5)
    ledger.learn(NO_THREAD, a_decision(), 6)
    assert await ledger.load(NO_THREAD, fresh=False) == (EMPTY, None, False)
    assert ledger.lock(NO_THREAD) is None


async def test_a_thread_has_one_lock_and_other_threads_have_others(ledger: Ledger) -> None:
    lock = ledger.lock("t")
    assert lock is not None
    assert ledger.lock("t") is lock
    assert ledger.lock("u") is not lock


async def test_the_books_of_one_request_alone_go_on_from_its_own_events() -> None:
    source = OneRequest(books(3))
    assert source.lock("-") is None
    assert await source.load("-", fresh=True) == (books(3), None, False)
    source.learn("-", ThreadConfigured(request_id="c", settled_nanos=9), 4)
    assert (await source.load("-", fresh=False))[0] == Books(settled_nanos=9, config_seq=4)


# -- ending


@pytest.mark.parametrize("thread", ["t", NO_THREAD])
async def test_an_attempt_ends_under_an_id_that_all_its_endings_share(log: MemoryLog, thread: str) -> None:
    shell, ledger = Shell(log, lambda: NOON), Ledger(log)
    attempt = await decide(log, "r-1", thread)
    decided = await end(shell, ledger, attempt, failed(attempt, FAILURE, 1.0), actor="provider")
    assert decided is not None
    assert isinstance(decided.event, AttemptFailed)
    event = await log.get(decided.sequence)
    assert event is not None
    assert (event.id, event.cause, event.actor, event.aggregate) == ("r-1/ended", "r-1/decided", "provider", thread)
    assert decided.event.open == {}
    assert decided.event.reserved_nanos == 0


@pytest.mark.parametrize("thread", ["t", NO_THREAD])
async def test_whoever_ends_an_attempt_it_ends_once(log: MemoryLog, thread: str) -> None:
    attempt = await decide(log, "r-1", thread)
    endings = [failed(attempt, FAILURE, 1.0), orphaned(attempt, NOON)] * 5
    outcomes = await asyncio.gather(
        *(end(Shell(log, lambda: NOON), Ledger(log), attempt, one, actor="test") for one in endings)
    )
    facts = [event.body for event in await load(log, "thread", thread)][1:]
    assert len(facts) == 1
    assert isinstance(facts[0], AttemptFailed | Orphaned)
    told = [one.event for one in outcomes if one is not None]
    assert told
    assert all(event == facts[0] for event in told)


async def test_an_ending_after_the_end_says_that_there_was_nothing_to_end(log: MemoryLog) -> None:
    shell, ledger = Shell(log, lambda: NOON), Ledger(log)
    attempt = await decide(log, "r-1")
    assert isinstance(await end(shell, ledger, attempt, orphaned(attempt, NOON), actor="a"), Decided)
    assert await end(shell, ledger, attempt, failed(attempt, FAILURE, 1.0), actor="b") is None
    assert await log.end() == 2


async def test_attempts_that_end_at_once_leave_books_without_any(log: MemoryLog) -> None:
    one = await decide(log, "r-1")
    two = await decide(log, "q-1", reserved_nanos=10, open={**one.books.open, **a_decision("q-1").open})
    shells = [Shell(log, lambda: NOON) for _ in range(2)]
    await asyncio.gather(
        end(shells[0], Ledger(log), one, orphaned(one, NOON), actor="a"),
        end(shells[1], Ledger(log), two, orphaned(two, NOON), actor="b"),
    )
    after, _, _ = await Ledger(log).load("t", fresh=True)
    assert (after.settled_nanos, after.reserved_nanos, after.open) == (10, 0, {})


# -- an ending that can't be read


async def end_unreadably(log: MemoryLog, attempt: Attempt, **carried: Any) -> int:
    """The attempt has ended in an event that no version of ours can read."""
    nonsense: Any = "7.5"
    body = UsageRecorded(
        **attempt.named(),
        usage=Usage(input_tokens=nonsense),
        cost_nanos=1,
        price_version="v",
        latency_ms=1.0,
        ttft_ms=1.0,
        finish="stop",
        **carried,
    )
    appended = await log.append(new(body, attempt.aggregate, id=f"{attempt.attempt_id}/ended"))
    event = await log.get(appended.sequence)
    assert event is not None
    assert isinstance(event.body, Unknown)
    return appended.sequence


class ForgetfulLog(MemoryLog):
    """A log whose duplicate window is past."""

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        self._ids.clear()
        return await super().append(event, expected)


@pytest.mark.parametrize("kind", [MemoryLog, ForgetfulLog])
async def test_an_attempt_whose_ending_cannot_be_read_does_not_end_again(kind: type[MemoryLog]) -> None:
    log = kind()
    attempt = await decide(log, "r-1")
    sequence = await end_unreadably(log, attempt)
    shell, ledger = Shell(log, lambda: NOON), Ledger(log)
    assert await end(shell, ledger, attempt, orphaned(attempt, NOON), actor="keeper") is None
    assert await log.end() == sequence
    after, _, _ = await ledger.load("t", fresh=True)
    assert (after.settled_nanos, after.reserved_nanos, after.open) == (5, 0, {}), "settled at its reservation"


async def test_without_a_thread_too_and_nobody_stumbles_over_it(log: MemoryLog) -> None:
    attempt = await decide(log, "r-1", NO_THREAD)
    sequence = await end_unreadably(log, attempt)
    shell, ledger = Shell(log, lambda: NOON), Ledger(log)
    assert await end(shell, ledger, attempt, orphaned(attempt, NOON), actor="keeper") is None
    assert await log.end() == sequence
    assert await has_ended(log, ledger, NO_THREAD, "r-1", 1)
    assert not await has_ended(log, ledger, NO_THREAD, "r-2", 1)
    assert await ending_of(log, NO_THREAD, "r-1", 1) is None
