"""What a model's usage would have cost at another price, beside what was booked. Pure; nothing in the log changes."""

from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.money import usd_from_nanos
from trunkline_events.rate import Rate
from trunkline_events.thread import Metered, Orphaned
from trunkline_events.usage import Usage

from trunkline_actors.pricing import cost_of

Grouping = Literal["thread", "key", "day"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
"""By id of the thread (`-`: none), by id of the API key (empty: none), by the UTC day of the event's time."""


class Sums(Struct, frozen=True, kw_only=True):
    """So many attempts, what was booked for them, and what they come to at the other price, in nano-dollars."""

    events: int = 0
    booked_nanos: int = 0
    rerated_nanos: int = 0

    @property
    def difference_nanos(self) -> int:
        """What more they would have cost; negative: less."""
        return self.rerated_nanos - self.booked_nanos

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            events=self.events + other.events,
            booked_nanos=self.booked_nanos + other.booked_nanos,
            rerated_nanos=self.rerated_nanos + other.rerated_nanos,
        )


class Tally(Struct, frozen=True, kw_only=True):
    """All attempts of a group, the tokens they used, and those among them whose usage is a bound, not a count.

    A bound is what was reserved or received where the provider sent no final usage; such an attempt was booked at its
    reservation at most, which the other price knows nothing of, so its second figure is a bound too.
    """

    all: Sums = Sums()
    estimated: Sums = Sums()
    tokens: Usage = Usage()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            all=self.all + other.all, estimated=self.estimated + other.estimated, tokens=self.tokens + other.tokens
        )


class Rerating:
    """Takes events in, in any order, each once, and sums those of one model.

    `orphans` were settled at their reservation and have no usage, so no other price can be put on them; they are in no
    other sum. `unknown` holds the sequences of events of threads that this version can't read.
    """

    def __init__(self, model: str, rate: Rate) -> None:
        self._model, self._rate = model, rate
        self.total = Tally()
        self.groups: dict[Grouping, dict[str, Tally]] = {grouping: {} for grouping in GROUPINGS}
        self.orphans = Sums()
        self.unknown: list[int] = []

    def happened(self, event: RecordedEvent) -> None:
        """An event of a thread; others, and those of other models, change nothing."""
        match event.body:
            case Unknown():
                if event.category == "thread":
                    self.unknown.append(event.sequence)
            case Metered(model=self._model) as ending:
                self._count(event, ending)
            case Orphaned(model=self._model, cost_nanos=cost):
                self.orphans += Sums(events=1, booked_nanos=cost, rerated_nanos=cost)

    def _count(self, event: RecordedEvent, ending: Metered) -> None:
        sums = Sums(events=1, booked_nanos=ending.cost_nanos, rerated_nanos=cost_of(self._rate, ending.usage))
        tally = Tally(all=sums, estimated=sums if ending.estimated else Sums(), tokens=ending.usage)
        self.total += tally
        day = datetime.fromtimestamp(event.time, UTC).date().isoformat()
        names: dict[Grouping, str] = {"thread": event.aggregate, "key": ending.key, "day": day}
        for grouping, name in names.items():
            group = self.groups[grouping]
            group[name] = group.get(name, Tally()) + tally


def shown(rerating: Rerating, by: tuple[Grouping, ...] = GROUPINGS) -> dict[str, Any]:
    """Both figures for people and programs: dollars as decimal text, groups in the order of their names."""
    groups = {
        f"by_{grouping}": [
            {grouping: name, **_tally(tally)} for name, tally in sorted(rerating.groups[grouping].items())
        ]
        for grouping in by
    }
    orphans = rerating.orphans
    return {
        "total": _tally(rerating.total),
        **groups,
        "orphans": {"events": orphans.events, "booked_usd": usd_from_nanos(orphans.booked_nanos)},
        "unknown": rerating.unknown,
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {**_sums(tally.all), "tokens": msgspec.to_builtins(tally.tokens), "estimated": _sums(tally.estimated)}


def _sums(sums: Sums) -> dict[str, Any]:
    return {
        "events": sums.events,
        "booked_usd": usd_from_nanos(sums.booked_nanos),
        "rerated_usd": usd_from_nanos(sums.rerated_nanos),
        "difference_usd": usd_from_nanos(sums.difference_nanos),
    }
