"""Workflows by hypothesis, and a run of one in which steps come to their ends in any order."""

import hashlib
from random import Random
from typing import Any

from hypothesis import strategies as st
from msgspec import Struct, field
from trunkline_actors.workflow_model import (
    Choice,
    Condition,
    Definition,
    Each,
    Llm,
    Parallel,
    Step,
    Sub,
    Wait,
)
from trunkline_actors.workflow_walk import Failure, Ready, Walked, walk

INPUT = {"topic": "foxes", "list": ["a", "b", "c"], "no": 0}
SIGNALS = ("s", "t")
NAMES = ("a", "b", "c", "d")

variables = st.sampled_from(["topic", "list", "no", "topic", "list", *NAMES, "a.b", "zzz"])
conditions = st.builds(
    Condition,
    value=variables,
    is_=st.sampled_from(["true", "false", "equal", "not equal", "above", "in"]),
    to=st.sampled_from([None, 0, 1, "foxes", ["foxes", 1]]),
)
common: dict[str, Any] = {
    "name": st.just("x"),
    "when": st.none() | st.none() | conditions,
    "critical": st.sampled_from([True, True, False]),
}
lone = st.builds(Llm, **common, prompt=st.just("x")) | st.builds(Wait, **common, signal=st.sampled_from(SIGNALS))


def named(steps: list[Step]) -> list[Step]:
    """Each with a name of its own on its level."""
    return [
        type(step)(**{**{f: getattr(step, f) for f in step.__struct_fields__}, "name": name})
        for step, name in zip(steps, NAMES, strict=False)
    ]


def some(steps: st.SearchStrategy[Any], least: int = 1) -> st.SearchStrategy[list[Step]]:
    return st.lists(steps, min_size=least, max_size=len(NAMES)).map(named)


def composed(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    inner = st.builds(Definition, name=st.just("i"), steps=some(steps), output=st.none() | st.sampled_from(["a", "d"]))
    return (
        st.builds(Parallel, **common, steps=some(steps))
        | st.builds(Choice, **common, condition=conditions, then=some(steps), otherwise=some(steps, 0))
        | st.builds(Each, **common, over=variables, steps=some(steps), at_once=st.integers(1, 3))
        | st.builds(
            Sub, **common, definition=inner, input=st.dictionaries(st.sampled_from(["topic", "list"]), variables)
        )
    )


def definitions() -> st.SearchStrategy[Definition]:
    """Of every kind of step, some of which are broken, and fail."""
    steps = st.recursive(lone, composed, max_leaves=8)
    return st.builds(
        Definition, name=st.just("w"), steps=some(steps), output=st.none() | st.sampled_from([*NAMES, "a.b", "list"])
    )


def outcome_of(path: str, salt: int) -> Any:
    """What the step at this path comes to, the same each time: a value, or one time out of eight a failure."""
    drawn = hashlib.blake2b(f"{path}{salt}".encode(), digest_size=1).digest()[0]
    return Failure("busy") if drawn < 32 else [0, "foxes", {"b": 1}, ["x", "y"], 1, None][drawn % 6]


class Played(Struct):
    """A run that has ended: how often each step was begun, what it came to, which were cut, and where it stood."""

    end: Walked = field(default_factory=Walked)
    started: dict[str, int] = field(default_factory=dict)
    done: dict[str, Any] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    forced: set[str] = field(default_factory=set)
    """Those that came to what the walk said: passed over, broken, or what a signal brought."""
    places: list[tuple[dict[str, Any], dict[str, Any], Walked]] = field(default_factory=list)


def play(definition: Definition, order: Random, salt: int) -> Played:
    """Go through a run: of what is under way, and of the signals to come, one comes next."""
    played, signals, under_way = Played(), dict[str, Any](), dict[str, Ready]()
    for _ in range(2_000):
        found = walk(definition, INPUT, played.done, signals)
        played.places.append((dict(played.done), dict(signals), found))
        played.cut |= under_way.keys() - {one.path for one in found.ready}
        if found.finished or found.failed is not None or found.broken:
            played.end = found
            return played
        now = {one.path: one for one in found.ready}
        for path in now.keys() - under_way.keys():
            played.started[path] = played.started.get(path, 0) + 1
        under_way = now
        coming = [*under_way, *(f"signal {name}" for name in SIGNALS if name not in signals)]
        assert coming, "a run that has not ended has something to do, or waits for a signal"
        chosen = order.choice(coming)
        if chosen.startswith("signal "):
            signals[chosen.removeprefix("signal ")] = chosen
        else:
            _end(played, under_way.pop(chosen), salt)
    raise AssertionError("the run does not end")


def _end(played: Played, one: Ready, salt: int) -> None:
    if one.skipped or one.broken or isinstance(one.step, Wait):
        played.forced.add(one.path)
    if one.broken:
        played.done[one.path] = Failure("invalid_input", one.broken)
    elif one.skipped:
        played.done[one.path] = None
    elif isinstance(one.step, Wait):
        played.done[one.path] = one.variables["signal"]
    else:
        played.done[one.path] = outcome_of(one.path, salt)
