"""What tests of logs share: events to append, a handler that remembers, and writers at work while servers die."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from append_history import Fate, Findings, History, Stored, Told, check
from nats.aio.client import Msg
from trunkline_events import headers
from trunkline_events.circuit import Reset
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Appended, Conflict, Follower, Log, LogUnavailable
from trunkline_events.pace import Pace
from trunkline_events.registry import ModelEnabled
from trunkline_events.subjects import EVENTS


def an_event(name: str, aggregate: str = "a", category: str = "circuit") -> NewEvent:
    body = Reset(provider=aggregate, reason=name) if category == "circuit" else ModelEnabled(id=aggregate, reason=name)
    return NewEvent(id=name, category=category, aggregate=aggregate, body=body, time=time.time(), actor="test")


async def append(log: Log, *names: str, aggregate: str = "a", category: str = "circuit") -> int:
    """Append without expectation; the sequence of the last one."""
    appended = [await log.append(an_event(name, aggregate, category)) for name in names]
    return appended[-1].sequence


class EagerPace(Pace):
    """For who wants batches without load: whatever waits goes out together, even one alone."""

    def chooses_batch(self, count: int, now: float) -> bool:
        return count > 0


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


# -- the log under fault


async def open_log(connection: Connection, *, group_commit: bool = True, replicas: int = 1) -> JetStreamLog:
    """The log as the fault tests open it: every one of them runs on both ways of appending."""
    return await JetStreamLog.open(connection, replicas=replicas, group_commit=group_commit)


ANSWERED_AT_ONCE = 0.9
"""Seconds within which an answer can't be one to a second try of the same call: those follow after a second."""
BURST = 8
Modes = tuple[bool, bool]
BOTH: Modes = (True, False)
"""With and without group commit in one run, each on its own connection."""
RACE = "race"


class Writers:
    """Eight writers, two followers and a plain subscriber on one log, and what each of them was told.

    Three writers append in bursts without expectation, three chain each event to their last, two race for one
    aggregate. Who isn't answered, or loses a race, tries again under the same id. They share two connections, each with
    a log of its own and its own way of appending, `group_commit`.
    """

    def __init__(self, url: str, *, group_commit: Modes = BOTH, replicas: int = 1) -> None:
        self._url = url
        self._modes, self._replicas = group_commit, replicas
        self.history = History()
        self.longest = 0.0
        """Seconds that the slowest call of `append` took."""
        self.errors: list[BaseException] = []
        """What else than an answer, a conflict or LogUnavailable an append ended in: nothing should."""
        self.unanswered: list[LogUnavailable] = []
        self.acknowledged: Counter[str] = Counter()
        """How many appends of each writer were acknowledged."""
        self._grown = asyncio.Condition()
        self._ending = False
        self._heard = {"first": Heard(), "second": Heard()}
        self._overheard: list[Stored] = []
        self.connections: list[Connection] = []
        self.logs: list[JetStreamLog] = []
        self._followers: list[Follower] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Writers":
        for mode in self._modes:
            connection = await Connection.open(self._url, name="writers")
            self.connections.append(connection)
            self.logs.append(await open_log(connection, group_commit=mode, replicas=self._replicas))
        for log, heard in zip(self.logs, self._heard.values(), strict=True):
            self._followers.append(await log.follow(heard))
        await self.connections[0].nats.subscribe(f"{EVENTS}.>", cb=self._overhear)
        kinds = [
            self._bursts,
            self._chain,
            self._bursts,
            self._chain,
            self._race,
            self._race,
            self._bursts,
            self._chain,
        ]
        for number, kind in enumerate(kinds):
            work = kind(f"w{number}", self.logs[number % 2])
            self._tasks.append(asyncio.create_task(work))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for follower in self._followers:
            await follower.stop()
        for log, connection in zip(self.logs, self.connections, strict=True):
            await log.close()
            await connection.close()

    async def go_on(self, count: int = 1, within: float = 30.0) -> None:
        """Return when each writer has been acknowledged so many times more."""
        before = self.acknowledged.copy()
        names = [f"w{number}" for number in range(len(self._tasks))]
        await self._until(lambda: all(self.acknowledged[name] - before[name] >= count for name in names), within)

    async def store(self, count: int, within: float = 30.0) -> None:
        """Return when so many more appends have been acknowledged, of whichever writer."""
        target = self.acknowledged.total() + count
        await self._until(lambda: self.acknowledged.total() >= target, within)

    async def give_up(self, count: int, within: float) -> None:
        """Return when so many calls in all have ended in LogUnavailable."""
        await self._until(lambda: len(self.unanswered) >= count, within)

    async def finish(self) -> Findings:
        """Let every writer end its last append, and check all that anybody was told against a fresh reader's log."""
        self._ending = True
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks)
        stored = await self._read()
        async with asyncio.timeout(30):
            for follower in self._followers:
                await follower.reached(stored[-1].sequence)
        told = {name: [_as_stored(event) for event in heard.events] for name, heard in self._heard.items()}
        return check(self.history, stored, told, {"plain": self._overheard})

    async def _read(self) -> list[Stored]:
        reader = await Connection.open(self._url, name="reader", timeout=10)
        try:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(LogUnavailable):  # a cluster that has just lost a server may need a moment
                        return [_as_stored(event) async for event in JetStreamLog(reader).read()]
        finally:
            await reader.close()

    async def prove(self) -> None:
        """`finish`, and all is well: every append is stored, once, where it was said to be, and everybody saw it."""
        findings = await self.finish()
        assert findings.violations == [], findings.report()
        assert not self.errors, self.errors
        assert findings.count(Fate.STORED) == len(self.history.appends) == self.acknowledged.total()
        assert self._overheard, "the plain subscriber saw something at least"

    # -- the writers

    async def _bursts(self, name: str, log: Log) -> None:
        number = 0
        while not self._ending:
            keeps = [self._keep(log, an_event(f"{name}-{number + n}", name), name) for n in range(BURST)]
            await asyncio.gather(*keeps)
            number += BURST

    async def _keep(self, log: Log, event: NewEvent, name: str) -> None:
        while await self._try(log, event, None, name) is None:
            pass

    async def _chain(self, name: str, log: Log) -> None:
        await self._behind_the_last(name, log, name)

    async def _race(self, name: str, log: Log) -> None:
        await self._behind_the_last(name, log, RACE)

    async def _behind_the_last(self, name: str, log: Log, aggregate: str) -> None:
        """One event after another, each behind the aggregate's last as this writer knows it."""
        number, expected = 0, 0
        while not self._ending:
            event = an_event(f"{name}-{number}", aggregate)
            while (appended := await self._try(log, event, expected, name)) is None:
                expected = await self._last(log, aggregate)
            number += 1
            if aggregate == RACE:
                expected = await self._last(log, aggregate)  # or who has won once would always be the first again
            elif not appended.duplicate:
                expected = appended.sequence

    async def _last(self, log: Log, aggregate: str) -> int:
        while True:
            try:
                async with asyncio.timeout(1):  # a question that died with the server is asked again sooner than in 5 s
                    found = await log.last("circuit", aggregate)
            except (LogUnavailable, TimeoutError):
                continue
            return found.sequence if found else 0

    async def _try(self, log: Log, event: NewEvent, expected: int | None, name: str) -> Appended | None:
        """One call of `append`, written down; None where the event should be appended again."""
        one = self.history.begin(event.id, event.aggregate, expected)
        began = time.monotonic()
        try:
            appended = await log.append(event, expected)
        except Conflict:
            # What was sent twice may conflict with itself, and so may what a leader refuses as it loses its lead:
            # `Log.append` says so. It must still be stored once, and behind what it expected.
            doubtful = self._replicas > 1 or time.monotonic() - began > ANSWERED_AT_ONCE
            self.history.deny(one, Told.CONFLICT, resent=doubtful)
        except LogUnavailable as error:
            self.history.deny(one, Told.UNANSWERED)
            self.unanswered.append(error)
        except Exception as error:
            self.history.deny(one, Told.UNANSWERED)
            self.errors.append(error)
            raise
        else:
            self.history.acknowledge(one, appended.sequence, duplicate=appended.duplicate)
            self.acknowledged[name] += 1
            return appended
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
            async with self._grown:
                self._grown.notify_all()
        return None

    # -- what they wait for, and who listens

    async def _until(self, so: Callable[[], bool], within: float) -> None:
        async with asyncio.timeout(within), self._grown:
            await self._grown.wait_for(lambda: self.errors or so())
        assert not self.errors, self.errors

    async def _overhear(self, message: Msg) -> None:
        aggregate = message.subject.rpartition(".")[2]
        sequence = int(message.headers["Nats-Sequence"])
        self._overheard.append(Stored(sequence, message.headers[headers.MSG_ID], aggregate))


def _as_stored(event: RecordedEvent) -> Stored:
    return Stored(event.sequence, event.id, event.aggregate)
