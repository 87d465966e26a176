"""What makes two folds the same fold: a snapshot of one that was changed must not be taken for the new one's."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from trunkline_events import codec as codecs
from trunkline_events.codec import CODEC, Codec
from trunkline_events.envelope import RecordedEvent
from trunkline_projections import fold as folds_module
from trunkline_projections import models
from trunkline_projections.fold import Fold
from trunkline_projections.folds import ATTEMPTS, GATEWAY


def keep(state: Any, _event: RecordedEvent) -> Any:
    return state


def fold_of(
    state: Any = dict, step: Callable[[Any, RecordedEvent], Any] = keep, categories: tuple[str, ...] = ()
) -> Fold[Any]:
    return Fold(name="f", categories=categories, state=state, initial=dict, step=step)


def schema_of(step: Callable[[Any, RecordedEvent], Any]) -> str:
    return fold_of(step=step).schema()


def test_the_shape_of_the_state_counts() -> None:
    first = msgspec.defstruct("State", [("a", int)])
    same = msgspec.defstruct("State", [("a", int)])
    more = msgspec.defstruct("State", [("a", int), ("b", int, 0)])
    other = msgspec.defstruct("State", [("a", str)])
    inner = msgspec.defstruct("Outer", [("a", dict[str, more])])  # type: ignore[valid-type]
    schemas = [fold_of(state).schema() for state in (first, more, other, inner)]
    assert len(set(schemas)) == 4
    assert fold_of(same).schema() == schemas[0]
    assert GATEWAY.schema() == GATEWAY.schema() != ATTEMPTS.schema()


def test_the_categories_count() -> None:
    schemas = {fold_of(categories=categories).schema() for categories in ((), ("model",), ("model", "circuit"))}
    assert len(schemas) == 3


def _compiled(source: str, module: str = "trunkline_test") -> Callable[[Any, RecordedEvent], Any]:
    space: dict[str, Any] = {"__name__": module}
    exec(compile(source, "step.py", "exec"), space)
    step: Callable[[Any, RecordedEvent], Any] = space["step"]
    return step


PLAIN = """
LIMIT = 10
NAMES = {"a": (1, 2)}

def helper(state):
    return state

class Kind:
    def grown(self, state):
        return [value + 1 for value in state]

def step(state, event):
    if len(state) < LIMIT:
        return helper(Kind().grown(state))
    return NAMES
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return NAMES", "return None"),
        ("state) < LIMIT", "state) > LIMIT"),
        ("LIMIT = 10", "LIMIT = 11"),
        ('{"a": (1, 2)}', '{"a": (1, 3)}'),
        ("    return state\n", "    return list(state)\n"),
        ("value + 1", "value + 2"),
        ("def helper(state):", "def helper(state, more=1):"),
        ("return NAMES", "return {*NAMES}"),
    ],
)
def test_any_code_that_a_step_comes_to_counts(old: str, new: str) -> None:
    assert old in PLAIN
    assert schema_of(_compiled(PLAIN)) != schema_of(_compiled(PLAIN.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def helper(state):", "# why\n\n\ndef helper(  state  ):"),
        ("def helper(state):", 'def helper(state):\n    """Says what it does."""'),
        ("def step(state, event):", 'def step(state, event):\n    """Says more."""'),
        ("LIMIT = 10", "LIMIT = 10\nUNUSED = 11"),
    ],
)
def test_words_about_the_code_do_not_count(old: str, new: str) -> None:
    assert schema_of(_compiled(PLAIN)) == schema_of(_compiled(PLAIN.replace(old, new)))


def test_what_a_step_closes_over_counts() -> None:
    def by(amount: int) -> Callable[[Any, RecordedEvent], Any]:
        return lambda state, _event: state + amount

    assert schema_of(by(1)) == schema_of(by(1)) != schema_of(by(2))


def test_code_in_other_modules_of_ours_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = GATEWAY.schema()
    folds_module._schema.cache_clear()
    monkeypatch.setattr(models, "_without", lambda mapping, key: mapping)
    assert GATEWAY.schema() != before
    folds_module._schema.cache_clear()


@pytest.mark.parametrize(
    "codec",
    [
        Codec({**CODEC.types, "model.praised.v1": CODEC.types["model.enabled.v1"]}),
        Codec(CODEC.types, {"model.seen.v1": ("model.enabled.v1", lambda fields: fields)}),
    ],
    ids=["a new event", "an old one that can be read now"],
)
def test_what_a_version_can_read_counts(monkeypatch: pytest.MonkeyPatch, codec: Codec) -> None:
    """A state that an event was skipped for must not be taken for one that knows it."""
    before = {fold.name: fold.schema() for fold in (GATEWAY, ATTEMPTS)}
    folds_module._schema.cache_clear()
    monkeypatch.setattr(folds_module, "CODEC", codec)
    assert GATEWAY.schema() != before["gateway"]
    assert ATTEMPTS.schema() == before["attempts"], "it reads threads alone"
    folds_module._schema.cache_clear()
    assert codecs.CODEC is CODEC


def test_a_changed_step_between_versions_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas = set()
    for step in (lambda fields: fields, lambda fields: {**fields, "reason": None}):
        monkeypatch.setattr(folds_module, "CODEC", Codec(CODEC.types, {"model.seen.v1": ("model.enabled.v1", step)}))
        folds_module._schema.cache_clear()
        schemas.add(GATEWAY.schema())
    folds_module._schema.cache_clear()
    assert len(schemas) == 2


def test_every_process_comes_to_the_same_schema() -> None:
    script = "from trunkline_projections.folds import ATTEMPTS, GATEWAY\nprint(ATTEMPTS.schema(), GATEWAY.schema())"
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {f"{ATTEMPTS.schema()} {GATEWAY.schema()}"}
