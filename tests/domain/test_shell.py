"""The one loop that decides and appends: given a log, when a command is carried out, then it is kept once."""

import asyncio

import pytest
from given import NOON
from trunkline_actors.shell import ID_KNOWN, MAX_CONFLICTS, Command, Decided, Shell
from trunkline_events.circuit import CallFailed, CircuitFact, Reset
from trunkline_events.envelope import Event, NewEvent, RecordedEvent
from trunkline_events.log import (
    Appended,
    Conflict,
    Log,
    LogError,
    LogRefused,
    LogUnavailable,
    TooLarge,
    load,
)
from trunkline_events.memory import MemoryLog
from trunkline_events.refusal import Refused


class Unsteady(MemoryLog):
    """A log that fails some appends before it takes them, or loses the acknowledgements of some that it took.

    `forgets`: it no longer knows by their ids what it has, as the real one does after its duplicate window.
    """

    def __init__(self, *errors: LogError, lost: int = 0, blind: int = 0, forgets: bool = False) -> None:
        super().__init__()
        self._errors, self._lost, self._blind, self._forgets = list(errors), lost, blind, forgets
        self.appends = 0

    async def append(self, event: NewEvent, expected: int | None = None) -> Appended:
        self.appends += 1
        if self._errors:
            raise self._errors.pop(0)
        appended = await super().append(event, expected)
        if self._forgets:
            self._ids.clear()
        if self._lost:
            self._lost -= 1
            raise LogUnavailable("the acknowledgement got lost")
        return appended

    async def get(self, sequence: int) -> RecordedEvent | None:
        if self._blind:
            self._blind -= 1
            return None
        return await super().get(sequence)


class Counters:
    """A `Source`: failures in a row of a circuit, remembered until somebody asks for what is fresh."""

    def __init__(self, log: Log, *, locks: bool = True, bound: bool = True) -> None:
        self._log = log
        self._locks, self._bound = locks, bound
        self._known: dict[str, tuple[int, int]] = {}
        self._lock = asyncio.Lock()
        self.asked = 0

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._lock if self._locks else None

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[int, int | None, bool]:
        if not self._bound:
            return 0, None, False
        if aggregate in self._known and not fresh:
            return (*self._known[aggregate], True)
        self.asked += 1
        last = await self._log.last("circuit", aggregate)
        if last is None:
            return 0, 0, False
        assert isinstance(last.body, CallFailed)
        self._known[aggregate] = (last.body.failures, last.sequence)
        return last.body.failures, last.sequence, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        assert isinstance(event, CallFailed)
        self._known[aggregate] = (event.failures, sequence)


def count(name: str, *, most: int = 10**9, persistent: bool = False) -> Command[int]:
    """One more failure, refused beyond `most`, nothing at -1."""

    def decide(failures: int, now: float) -> CircuitFact | Refused | None:
        if most < 0:
            return None
        if failures >= most:
            return Refused(code="conflict", message=f"{failures} are enough")
        return CallFailed(provider="p", failure="timeout", failures=failures + 1)

    return Command(
        category="circuit", aggregate="p", id=name, decide=decide, actor="test", cause="c", persistent=persistent
    )


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def shell_on(log: Log) -> Shell:
    return Shell(log, lambda: NOON)


async def failures(log: Log) -> list[int]:
    bodies = [event.body for event in await load(log, "circuit", "p")]
    return [body.failures for body in bodies if isinstance(body, CallFailed)]


async def test_a_decision_is_appended_with_who_when_and_why(log: MemoryLog) -> None:
    decided = await shell_on(log).execute(Counters(log), count("e1"))
    assert decided == Decided(CallFailed(provider="p", failure="timeout", failures=1), 1)
    event = await log.get(1)
    assert event is not None
    assert (event.id, event.time, event.actor, event.cause) == ("e1", NOON, "test", "c")


async def test_what_was_appended_is_remembered_and_not_read_again(log: MemoryLog) -> None:
    source = Counters(log)
    for name in "abc":
        await shell_on(log).execute(source, count(name))
    assert await failures(log) == [1, 2, 3]
    assert source.asked == 1


async def test_a_conflict_is_decided_again_on_what_is_so_now(log: MemoryLog) -> None:
    mine, theirs = Counters(log), Counters(log)
    await shell_on(log).execute(mine, count("a"))
    await shell_on(log).execute(theirs, count("b"))
    decided = await shell_on(log).execute(mine, count("c"))
    assert isinstance(decided, Decided)
    assert await failures(log) == [1, 2, 3]


async def test_nothing_is_refused_on_what_is_only_remembered(log: MemoryLog) -> None:
    mine, theirs = Counters(log), Counters(log)
    for name in "ab":
        await shell_on(log).execute(mine, count(name))
    reset = NewEvent(
        id="x",
        category="circuit",
        aggregate="p",
        body=CallFailed(provider="p", failure="t", failures=0),
        time=0,
        actor="t",
    )
    await log.append(reset)
    assert isinstance(await shell_on(log).execute(mine, count("c", most=2)), Decided)
    assert isinstance(await shell_on(log).execute(theirs, count("d", most=1)), Refused)


async def test_a_refusal_that_the_log_confirms_is_given_and_nothing_appended(log: MemoryLog) -> None:
    source = Counters(log)
    await shell_on(log).execute(source, count("a"))
    refused = await shell_on(log).execute(source, count("b", most=1))
    assert refused == Refused(code="conflict", message="1 are enough")
    assert await log.end() == 1
    assert source.asked == 2


async def test_a_decision_to_do_nothing_does_nothing(log: MemoryLog) -> None:
    assert await shell_on(log).execute(Counters(log), count("a", most=-1)) is None
    assert await log.end() == 0


async def test_a_decision_that_was_made_before_is_answered_with_the_event_that_is_stored(log: MemoryLog) -> None:
    first = await shell_on(log).execute(Counters(log), count("a"))
    again = await shell_on(log).execute(Counters(log), count("a"))
    assert isinstance(first, Decided)
    assert again == Decided(first.event, first.sequence, duplicate=True)
    assert await failures(log) == [1]


async def test_an_append_whose_acknowledgement_was_lost_is_found_again_by_its_id() -> None:
    unsteady = Unsteady(lost=1, blind=1)
    decided = await shell_on(unsteady).execute(Counters(unsteady), count("a", persistent=True))
    assert decided == Decided(CallFailed(provider="p", failure="timeout", failures=1), 1, duplicate=True)
    assert await failures(unsteady) == [1]


async def test_a_lost_acknowledgement_is_resolved_even_when_the_log_knows_the_id_no_longer() -> None:
    unsteady = Unsteady(lost=1, forgets=True)
    times = iter([1000.0, 1000.0, 1000.0 + 2 * ID_KNOWN])
    shell = Shell(unsteady, lambda: next(times, 1000.0 + 2 * ID_KNOWN))
    unbound = Counters(unsteady, locks=False, bound=False)
    decided = await shell.execute(unbound, count("a", persistent=True))
    assert decided == Decided(CallFailed(provider="p", failure="timeout", failures=1), 1, duplicate=True)
    assert await failures(unsteady) == [1]


async def test_after_long_trouble_what_was_never_stored_is_appended_after_all() -> None:
    unsteady = Unsteady(LogUnavailable("away"), forgets=True)
    times = iter([1000.0, 1000.0, 1000.0 + 2 * ID_KNOWN])
    shell = Shell(unsteady, lambda: next(times, 1000.0 + 2 * ID_KNOWN))
    decided = await shell.execute(Counters(unsteady), count("a", persistent=True))
    assert isinstance(decided, Decided)
    assert not decided.duplicate


async def test_an_event_that_is_too_large_is_refused() -> None:
    refused = await shell_on(Unsteady(TooLarge("a", 9, 8))).execute(Counters(Unsteady()), count("a"))
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_request"
    assert "keep less in it" in refused.message


async def test_a_command_gives_up_after_so_many_lost_races() -> None:
    unsteady = Unsteady(*(Conflict("s", 0) for _ in range(MAX_CONFLICTS)))
    refused = await shell_on(unsteady).execute(Counters(unsteady), count("a"))
    assert isinstance(refused, Refused)
    assert refused.code == "unavailable"
    assert unsteady.appends == MAX_CONFLICTS


async def test_a_command_that_must_not_get_lost_never_gives_up_a_race() -> None:
    unsteady = Unsteady(*(Conflict("s", 0) for _ in range(MAX_CONFLICTS + 3)))
    decided = await shell_on(unsteady).execute(Counters(unsteady), count("a", persistent=True))
    assert isinstance(decided, Decided)


@pytest.mark.parametrize("error", [LogUnavailable("away"), LogRefused(10047, "no disk")])
async def test_trouble_with_the_log_is_the_callers_unless_the_command_must_not_get_lost(error: LogError) -> None:
    unsteady = Unsteady(error, error, error)
    with pytest.raises(type(error)):
        await shell_on(unsteady).execute(Counters(unsteady), count("a"))
    decided = await shell_on(unsteady).execute(Counters(unsteady), count("a", persistent=True))
    assert isinstance(decided, Decided)
    assert await failures(unsteady) == [1]


@pytest.mark.parametrize("locks", [True, False])
async def test_shells_that_race_on_one_aggregate_lose_nothing_and_double_nothing(log: MemoryLog, locks: bool) -> None:
    sources = [Counters(log, locks=locks) for _ in range(3)]
    commands = [count(f"e{n}", persistent=True) for n in range(30)]
    outcomes = await asyncio.gather(
        *(shell_on(log).execute(sources[n % 3], command) for n, command in enumerate(commands))
    )
    assert await failures(log) == list(range(1, 31))
    decided = [one for one in outcomes if isinstance(one, Decided)]
    assert sorted(one.sequence for one in decided) == list(range(1, 31))


async def test_the_same_command_from_many_shells_is_kept_once(log: MemoryLog) -> None:
    outcomes = await asyncio.gather(*(shell_on(log).execute(Counters(log), count("same")) for _ in range(10)))
    assert await failures(log) == [1]
    assert {one.sequence for one in outcomes if isinstance(one, Decided)} == {1}
    assert sum(one.duplicate for one in outcomes if isinstance(one, Decided)) == 9


async def test_a_log_error_says_what_to_do_next() -> None:
    assert "decide again" in str(Conflict("s", 3))
    assert "free some space" in str(LogRefused(10047, "no disk"))
    assert Reset(provider="p").reason is None
