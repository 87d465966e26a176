"""A thread's settings: changed one by one, refused where they make no sense, and put into requests as defaults."""

from typing import Any

import msgspec
import pytest
from given import NOON, a_model, a_registry
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.money import Budget
from trunkline_actors.requests import models_named
from trunkline_actors.thread_settings import Change, Settings, apply, configure, problem_of
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, OpenAttempt, ThreadConfigured

REGISTRY = a_registry(a_model("m"), a_model("n", status="disabled"), a_model("old", status="retired"))
BOOKS = Books(
    settled_nanos=3,
    reserved_nanos=2,
    limit_nanos=9,
    window="day",
    period="2026-11-21",
    warn_at=0.5,
    warned=True,
    open={"r-1": OpenAttempt(request_id="r", reserve_nanos=2)},
)
SET = Settings(model="m", parameters={"temperature": 0.5}, preferences={"optimize": "cost"})


def configured(change: Change, books: Books = BOOKS, settings: Settings = SET) -> ThreadConfigured:
    found = configure(books, settings, change, "c", None, NOON)
    assert isinstance(found, ThreadConfigured), found
    return found


def settings_of(event: ThreadConfigured) -> Settings:
    return Settings(model=event.model, parameters=event.parameters, preferences=event.preferences)


# -- changing


def test_what_is_not_named_stays_as_it_was() -> None:
    event = configured(Change())
    assert settings_of(event) == SET
    assert Books(**{name: getattr(event, name) for name in Books.__struct_fields__}) == BOOKS


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (Change(model="n"), msgspec.structs.replace(SET, model="n")),
        (Change(model=None), msgspec.structs.replace(SET, model=None)),
        (Change(parameters={"seed": 1}), msgspec.structs.replace(SET, parameters={"seed": 1})),
        (Change(parameters=None), msgspec.structs.replace(SET, parameters={})),
        (Change(preferences={}), msgspec.structs.replace(SET, preferences={})),
        (Change(preferences=None), msgspec.structs.replace(SET, preferences={})),
        (Change(budget=Budget(limit_usd="1")), SET),
    ],
)
def test_each_part_is_changed_as_a_whole_and_taken_away_by_null(change: Change, after: Settings) -> None:
    assert settings_of(configured(change)) == after


def test_a_change_of_something_else_lifts_no_limit_and_null_does() -> None:
    kept = configured(Change(model=None))
    assert (kept.limit_nanos, kept.window, kept.warn_at, kept.warned) == (9, "day", 0.5, True)
    lifted = configured(Change(budget=None))
    assert (lifted.limit_nanos, lifted.window, lifted.warn_at, lifted.warned) == (None, "none", None, False)


def test_settings_that_are_too_large_to_remember_are_refused() -> None:
    found = configure(BOOKS, SET, Change(parameters={"logit_bias": {"1": "x" * 20_000}}), "c", None, NOON)
    assert isinstance(found, Refused)
    assert found.param == "parameters"


def test_a_budget_that_makes_no_sense_changes_nothing() -> None:
    assert isinstance(configure(BOOKS, SET, Change(budget=Budget(limit_usd="x")), "c", None, NOON), Refused)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (Settings(), []),
        (Settings(model="m"), ["m"]),
        (Settings(model="m", preferences={"prefer": ["n", "m"], "fallbacks": ["o"], "avoid": ["x"]}), ["m", "n", "o"]),
        (Settings(preferences={"prefer": None}), []),
        (Settings(model="auto"), []),
    ],
)
def test_a_thread_depends_on_its_model_and_those_it_prefers_or_falls_back_to(
    settings: Settings, names: list[str]
) -> None:
    assert models_named(settings.model, settings.preferences) == names


# -- what makes no sense


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (Change(model="x"), "model"),
        (Change(model="old"), "model"),
        (Change(parameters={"model": "m"}), "parameters"),
        (Change(parameters={"messages": []}), "parameters"),
        (Change(parameters={"stream": True}), "parameters"),
        (Change(parameters={"n": 2}), "parameters"),
        (Change(parameters={"route": {}}), "parameters"),
        (Change(parameters={"metadata": {}}), "parameters"),
        (Change(parameters={"temperature": "hot"}), "parameters.temperature"),
        (Change(parameters={"temperature": 3}), "parameters.temperature"),
        (Change(parameters={"max_tokens": 0}), "parameters.max_tokens"),
        (Change(parameters={"stop": ["a"] * 5}), "parameters.stop"),
        (Change(parameters={"max_tokens": 1, "max_completion_tokens": 2}), "parameters"),
        (Change(preferences={"colour": "red"}), "preferences"),
        (Change(preferences={"attempts": 2}), "preferences"),
        (Change(preferences={"deadline_ms": 1000}), "preferences"),
        (Change(preferences={"optimize": "beauty"}), "preferences.optimize"),
        (Change(preferences={"prefer": "m"}), "preferences.prefer"),
        (Change(preferences={"prefer": ["m", "x"]}), "preferences.prefer"),
        (Change(preferences={"fallbacks": ["old"]}), "preferences.fallbacks"),
        (Change(preferences={"prefer": ["auto"]}), "preferences"),
        (Change(preferences={"max_cost_usd": "much"}), "preferences.max_cost_usd"),
        (Change(preferences={"capabilities": {"reasoning": 2}}), "preferences.capabilities"),
        (Change(preferences={"min_match": -1}), "preferences.min_match"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_at_its_field(change: Change, param: str) -> None:
    found = problem_of(change, REGISTRY)
    assert found is not None
    assert found.param == param


@pytest.mark.parametrize(
    "change",
    [
        Change(),
        Change(model=None, parameters=None, preferences=None),
        Change(model="n"),
        Change(parameters={"temperature": 0, "top_p": 1, "stop": "x", "seed": -1, "top_k": 40, "reasoning": {"a": 1}}),
        Change(preferences={"prefer": ["m"], "fallbacks": ["n"], "avoid": ["gone"], "optimize": "cost"}),
        Change(preferences={"capabilities": ["reasoning"], "max_cost_usd": "0.05", "clamp": True, "local_only": True}),
        Change(preferences={"capabilities": {"reasoning": 0.5}, "min_match": 0.5, "tags": ["a"], "data": ["eu"]}),
    ],
)
def test_a_change_that_makes_sense_is_not_refused(change: Change) -> None:
    assert problem_of(change, REGISTRY) is None


# -- defaults of requests


@pytest.mark.parametrize(
    ("body", "after"),
    [
        (b'{"model":"m"}', b'{"temperature":0.2,"max_tokens":5,"model":"m"}'),
        (b' {\n "model" : "m" }\n', b' {"temperature":0.2,"max_tokens":5,\n "model" : "m" }\n'),
        (b'{"temperature":1,"a":2}', b'{"max_tokens":5,"temperature":1,"a":2}'),
        (b'{"temperature":null,"a":2}', b'{"max_tokens":5,"temperature":null,"a":2}'),
        (b'{"max_completion_tokens":9,"temperature":1}', b'{"max_completion_tokens":9,"temperature":1}'),
        (b'{"max_tokens":9}', b'{"temperature":0.2,"max_tokens":9}'),
        (b'{"tem\\u0070erature":1}', b'{"max_tokens":5,"tem\\u0070erature":1}'),
        (b"{}", b"{}"),
        (b"[1]", b"[1]"),
        (b"{broken", b"{broken"),
        (b'{"\xff":1}', b'{"\xff":1}'),
        (b"", b""),
        (b"[" * 5000, b"[" * 5000),
    ],
)
def test_what_a_request_sets_wins_and_nothing_else_of_it_is_touched(body: bytes, after: bytes) -> None:
    assert apply(body, {"temperature": 0.2, "max_tokens": 5}) == after


def test_a_thread_without_parameters_leaves_a_request_as_it_is() -> None:
    assert apply(b'{"model":"m"}', {}) == b'{"model":"m"}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=3)
)
NAMES = st.sampled_from(["a", "b", "temperature", "max_tokens", "ü"]) | st.text(max_size=4)


@given(st.dictionaries(NAMES, JSON, min_size=1), st.dictionaries(NAMES, JSON), st.sampled_from([None, 2]))
def test_a_request_says_after_all_what_it_said_and_the_defaults_besides(
    request: dict[str, Any], parameters: dict[str, Any], indent: int | None
) -> None:
    body = msgspec.json.encode(request)
    body = msgspec.json.format(body, indent=indent) if indent else body
    assert msgspec.json.decode(apply(body, parameters)) == {**parameters, **request}
