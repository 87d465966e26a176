"""What writers were told while servers died, held against what the log has: was a promise broken, and which?

Three outcomes for each append, as for any write over a network: `STORED` (acknowledged, and there), `LOST`
(acknowledged, and not there), `UNKNOWN` (never acknowledged: the log may hold it or not, both are right). Everything
here is pure: it can be told of a history that never happened, which is how its tests show that it can fail.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise

from msgspec import Struct


class Told(Enum):
    """How one try ended. Only ACKNOWLEDGED is a promise; only CONFLICT and REFUSED deny that it was stored."""

    ACKNOWLEDGED = "acknowledged"
    CONFLICT = "conflict"
    REFUSED = "refused"
    UNANSWERED = "unanswered"


class Try(Struct, kw_only=True):
    """One call of `append`. `began` and `ended` order all calls of a history, across its writers."""

    expected: int | None
    began: int
    ended: int = 0
    told: Told = Told.UNANSWERED
    sequence: int = 0
    duplicate: bool = False
    resent: bool = False
    """Whether the call may have sent the event twice, so that a denial of the second says nothing of the first."""

    @property
    def may_have_stored(self) -> bool:
        return self.resent or self.told in {Told.ACKNOWLEDGED, Told.UNANSWERED}


class Append(Struct, kw_only=True):
    """All tries to store one event, under one id."""

    id: str
    aggregate: str
    tries: list[Try] = []

    @property
    def acknowledged(self) -> list[Try]:
        return [one for one in self.tries if one.told is Told.ACKNOWLEDGED]


class Stored(Struct, frozen=True):
    """An event as the log, or a subscriber, shows it."""

    sequence: int
    id: str
    aggregate: str


class Fate(Enum):
    """What became of an append."""

    STORED = "stored"
    LOST = "lost"
    UNKNOWN = "unknown"


class Fault(Enum):
    """What a log must not do; the value says so in words."""

    LOST = "acknowledged, but not in the log"
    MOVED = "acknowledged at another sequence than it is stored at"
    TWICE = "stored twice"
    ALTERED = "stored for another aggregate than it was appended to"
    INVENTED = "in the log, but nobody appended it"
    DENIED = "in the log, though every try was told that it is not"
    UNEXPECTED = "stored behind another event than its writer expected"
    LATE = "stored before an event that was acknowledged before it was begun"
    HOLE = "the log's sequences are not 1, 2, 3, …"
    MISSED = "a follower was not told of it"
    REPEATED = "a follower was told of it again, or out of order"
    PHANTOM = "a subscriber was told of it, but the log does not hold it there"


class Violation(Struct, frozen=True):
    """One broken promise: which, and where to look."""

    fault: Fault
    where: str


class Findings(Struct, frozen=True):
    """What the check came to."""

    fates: dict[str, Fate]
    violations: list[Violation]

    def count(self, fate: Fate) -> int:
        return sum(one is fate for one in self.fates.values())

    @property
    def faults(self) -> set[Fault]:
        return {one.fault for one in self.violations}

    def report(self) -> str:
        """For whoever has to look into it: how often each promise was broken, and the first cases of each."""
        lines = [f"{self.count(fate)} {fate.value}" for fate in Fate]
        for fault, times in Counter(one.fault for one in self.violations).items():
            places = [one.where for one in self.violations if one.fault is fault][:5]
            lines.append(f"{times} × {fault.value}: {'; '.join(places)}")
        return "\n".join(lines)


class History:
    """What all writers together asked for and were told, as it happened."""

    def __init__(self) -> None:
        self.appends: dict[str, Append] = {}
        self._moment = 0

    def begin(self, id: str, aggregate: str, expected: int | None = None) -> Try:
        """Somebody calls `append`; more calls under one id are more tries of one append."""
        one = Try(expected=expected, began=self._next())
        self.appends.setdefault(id, Append(id=id, aggregate=aggregate)).tries.append(one)
        return one

    def acknowledge(self, one: Try, sequence: int, *, duplicate: bool = False) -> None:
        """It was answered with where the event is."""
        one.told, one.sequence, one.duplicate, one.ended = Told.ACKNOWLEDGED, sequence, duplicate, self._next()

    def deny(self, one: Try, told: Told, *, resent: bool = False) -> None:
        """It was answered that it is not stored, or not answered."""
        one.told, one.resent, one.ended = told, resent, self._next()

    def _next(self) -> int:
        self._moment += 1
        return self._moment


def check(
    history: History,
    stored: Sequence[Stored],
    followers: Mapping[str, Sequence[Stored]] | None = None,
    bystanders: Mapping[str, Sequence[Stored]] | None = None,
) -> Findings:
    """Whether the log, from first to last event, is one that the writers can have made by what they were told.

    followers       who must have seen all of it, once, in order
    bystanders      who may have missed some, but must not have seen what is not there
    """
    found = [*_of_the_log(history, stored), *_of_the_promises(history, stored), *_of_the_order(history, stored)]
    for name, seen in (followers or {}).items():
        found += _of_a_follower(name, seen, stored)
    for name, seen in (bystanders or {}).items():
        found += _phantoms(name, seen, stored)
    held = {event.id for event in stored}
    return Findings({append.id: _fate(append, held) for append in history.appends.values()}, found)


def _fate(append: Append, held: set[str]) -> Fate:
    if not append.acknowledged:
        return Fate.UNKNOWN
    return Fate.STORED if append.id in held else Fate.LOST


def _of_the_log(history: History, stored: Sequence[Stored]) -> Iterator[Violation]:
    """What is in the log was appended, once, and may be there."""
    seen: set[str] = set()
    before = 0
    for event in stored:
        where = f"{event.id} at {event.sequence}"
        if event.sequence != before + 1:
            yield Violation(Fault.HOLE, f"{where}, after {before}")
        before = event.sequence
        if event.id in seen:
            yield Violation(Fault.TWICE, where)
        seen.add(event.id)
        append = history.appends.get(event.id)
        if append is None:
            yield Violation(Fault.INVENTED, where)
            continue
        if event.aggregate != append.aggregate:
            yield Violation(Fault.ALTERED, f"{where}: {event.aggregate}, not {append.aggregate}")
        if not any(one.may_have_stored for one in append.tries):
            yield Violation(Fault.DENIED, where)


def _of_the_promises(history: History, stored: Sequence[Stored]) -> Iterator[Violation]:
    """What was acknowledged is in the log, where it was said to be."""
    places = {event.id: event.sequence for event in reversed(stored)}
    for append in history.appends.values():
        for one in append.acknowledged:
            if append.id not in places:
                yield Violation(Fault.LOST, f"{append.id}, acknowledged at {one.sequence}")
            elif one.sequence != places[append.id]:
                yield Violation(Fault.MOVED, f"{append.id}: {one.sequence}, but it is at {places[append.id]}")


def _of_the_order(history: History, stored: Sequence[Stored]) -> Iterator[Violation]:
    """Every event follows the one that its writer expected, and none overtakes what was done before it was begun."""
    last: dict[str, int] = {}
    for event in stored:
        append = history.appends.get(event.id)
        if append is not None:
            before = last.get(event.aggregate, 0)
            hoped = _expectations(append)
            if hoped and before not in hoped and None not in hoped:
                yield Violation(Fault.UNEXPECTED, f"{event.id} at {event.sequence}: behind {before}, not {hoped}")
        last[event.aggregate] = event.sequence
    first_done_later: tuple[int, str] | None = None
    for event in reversed(stored):
        append = history.appends.get(event.id)
        if append is None:
            continue
        if first_done_later is not None and first_done_later[0] < append.tries[0].began:
            yield Violation(Fault.LATE, f"{event.id} at {event.sequence}, before {first_done_later[1]}")
        told = [(one.ended, append.id) for one in append.acknowledged if one.sequence == event.sequence]
        done = min(told, default=None)
        first_done_later = min((one for one in (first_done_later, done) if one is not None), default=None)


def _expectations(append: Append) -> set[int | None]:
    """What the try that stored it may have expected: known where one was acknowledged as no duplicate."""
    told = {one.expected for one in append.acknowledged if not one.duplicate}
    return told or {one.expected for one in append.tries if one.may_have_stored}


def _of_a_follower(name: str, seen: Sequence[Stored], stored: Sequence[Stored]) -> Iterator[Violation]:
    told = {event.sequence for event in seen}
    for event in stored:
        if event.sequence not in told:
            yield Violation(Fault.MISSED, f"{name}: {event.id} at {event.sequence}")
    for before, after in pairwise(seen):
        if after.sequence <= before.sequence:
            yield Violation(Fault.REPEATED, f"{name}: {after.id} at {after.sequence} after {before.sequence}")
    yield from _phantoms(name, seen, stored)


def _phantoms(name: str, seen: Sequence[Stored], stored: Sequence[Stored]) -> Iterator[Violation]:
    held = set(stored)
    for event in seen:
        if event not in held:
            yield Violation(Fault.PHANTOM, f"{name}: {event.id} at {event.sequence}")
