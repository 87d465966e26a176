"""What differs between two policies, told by the names of their rules. Pure."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_events.policy import Policy, Rule

from trunkline_actors.shapes import at


class Change(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """A value before and after; null where there was none."""

    before: Any
    after: Any


class ChangedRule(Struct, frozen=True):
    """A rule that both policies have, and the fields that differ, by path: `use`, `when.model`."""

    name: str
    fields: dict[str, Change]


class MovedRule(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """A rule with another place among the rules, counted from 0."""

    name: str
    before: int
    after: int


class Difference(Struct, frozen=True, kw_only=True):
    """Rules that only the later one has, that only the earlier one has, that differ; and whatever else differs.

    `moved` are as few rules as one has to take out so that the rest is in the same order. `fields` are those outside
    of rules, by path: `defaults.optimize`, `analyzer`.
    """

    added: list[Rule]
    removed: list[Rule]
    changed: list[ChangedRule]
    moved: list[MovedRule]
    fields: dict[str, Change]

    @property
    def empty(self) -> bool:
        """Whether the two are the same."""
        return not (self.added or self.removed or self.changed or self.moved or self.fields)


def diff(before: Policy, after: Policy) -> Difference:
    """What it takes to make the one of the other. Names of rules are taken to be different within a policy."""
    was = {rule.name: place for place, rule in enumerate(before.rules)}
    now = {rule.name: place for place, rule in enumerate(after.rules)}
    kept = [name for name in now if name in was]
    changes = {name: _fields(before.rules[was[name]], after.rules[now[name]]) for name in kept}
    stayed = _longest_rising([was[name] for name in kept])
    return Difference(
        added=[after.rules[place] for name, place in now.items() if name not in was],
        removed=[before.rules[place] for name, place in was.items() if name not in now],
        changed=[ChangedRule(name, fields) for name, fields in changes.items() if fields],
        moved=[MovedRule(name, was[name], now[name]) for name in kept if was[name] not in stayed],
        fields=_fields(_without_rules(before), _without_rules(after)),
    )


def _without_rules(policy: Policy) -> Policy:
    return msgspec.structs.replace(policy, rules=[])


def _fields(before: Struct, after: Struct) -> dict[str, Change]:
    return _differing(msgspec.to_builtins(before), msgspec.to_builtins(after), "")


def _differing(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> dict[str, Change]:
    found: dict[str, Change] = {}
    for name in {**after, **before}:
        old, new = before.get(name), after.get(name)
        place = at(path, name)
        if isinstance(old, dict | None) and isinstance(new, dict | None):
            found |= _differing(old or {}, new or {}, place)
        elif old != new:
            found[place] = Change(old, new)
    return found


def _longest_rising(numbers: list[int]) -> set[int]:
    """As many of these different numbers as rise from left to right."""
    tails: list[int] = []  # the least number that so many rising ones end in
    before: dict[int, int | None] = {}
    for number in numbers:
        length = bisect_left(tails, number)
        before[number] = tails[length - 1] if length else None
        tails[length : length + 1] = [number]
    chosen: set[int] = set()
    last = tails[-1] if tails else None
    while last is not None:
        chosen.add(last)
        last = before[last]
    return chosen
