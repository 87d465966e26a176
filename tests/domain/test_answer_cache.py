"""When an answer may be given again: for how long that is wanted, to which requests, and whether it still will do."""

import json
from typing import Any

import pytest
from given import NOON, a_model, a_moment, chat
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors.answer_cache import Kept, Same, caches, fits, name_of, seconds_of
from trunkline_actors.plan import Given
from trunkline_actors.requests import Parsed
from trunkline_events.policy import Defaults, Policy, Rule, When
from trunkline_events.registry import Canary
from trunkline_projections.folds import Gateway
from trunkline_projections.keys import Key
from trunkline_projections.policies import Routing

SAME = Same(key="k", policy_version=1, rule=None, override=None, default_model=None, preferences={}, operation="chat")
KEPT = Kept(
    at=NOON, model="m", provider="p", version="1", origin=7, cost_nanos=5, fields={"f": "stop"}, messages=[b"{}"]
)


def given_for(parsed: Parsed, **preferences: Any) -> Given:
    return Given(parsed=parsed, thread="t", key="k", default_model=None, preferences=preferences, forced=None, now=NOON)


def gateway(policy: Policy | None = None, **model: Any) -> Gateway:
    state = a_moment(a_model(**{"version": "1", **model})).gateway
    return structs.replace(state, routing=Routing(version=1, policy=policy or Policy()))


def a_key(cache_s: float | None) -> Key:
    return Key(id="k", name="", scopes=["chat"], secrets=[], pepper="", cache_s=cache_s)


POLICY = Policy(rules=[Rule(name="r", when=When(model="m"), cache_s=3.0)], defaults=Defaults(cache_s=5.0))
WITHOUT_RULE = Policy(rules=[Rule(name="r", when=When(model="other"), cache_s=3.0)], defaults=Defaults(cache_s=5.0))


@pytest.mark.parametrize(
    ("of_request", "of_key", "policy", "of_thread", "seconds"),
    [
        (1.0, 2.0, POLICY, 4.0, 1.0),
        (0.0, 2.0, POLICY, 4.0, 0.0),
        (None, 2.0, POLICY, 4.0, 2.0),
        (None, 0.0, POLICY, 4.0, 0.0),
        (None, None, POLICY, 4.0, 3.0),
        (None, None, WITHOUT_RULE, 4.0, 4.0),
        (None, None, WITHOUT_RULE, 0.0, 0.0),
        (None, None, WITHOUT_RULE, None, 5.0),
        (None, None, Policy(), None, 0.0),
    ],
)
def test_the_request_then_its_key_then_the_rule_then_the_thread_then_the_defaults_say_for_how_long(
    of_request: float | None, of_key: float | None, policy: Policy, of_thread: float | None, seconds: float
) -> None:
    parsed = chat("m") if of_request is None else chat("m", route={"cache_s": of_request})
    preferences = {} if of_thread is None else {"cache_s": of_thread}
    assert seconds_of(given_for(parsed, **preferences), gateway(policy), a_key(of_key)) == seconds


def test_without_a_key_the_policy_says_it() -> None:
    assert seconds_of(given_for(chat("m")), gateway(POLICY), None) == 3.0


def test_a_policy_caches_where_a_rule_or_its_defaults_do() -> None:
    assert caches(POLICY)
    assert caches(Policy(defaults=Defaults(cache_s=1.0)))
    assert not caches(Policy(rules=[Rule(name="r", cache_s=0.0)]))


BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}


def named(same: Same = SAME, **more: Any) -> str:
    return name_of(same, json.dumps({**BODY, **more}).encode())


def test_what_says_nothing_about_the_answer_makes_no_difference() -> None:
    plain = named()
    backwards = json.dumps(dict(reversed(BODY.items())), indent=2).encode()
    assert name_of(SAME, backwards) == plain
    assert named(metadata={"thread_id": "t"}) == plain
    assert named(stream=False) == plain
    assert named(route={"cache_s": 60, "deadline_ms": 1000, "attempts": 1}) == plain
    assert named(structs.replace(SAME, preferences={"cache_s": 60})) == plain


@pytest.mark.parametrize(
    "more",
    [
        {"model": "n"},
        {"temperature": 0.6},
        {"messages": [{"role": "user", "content": "hi "}]},
        {"stream": True},
        {"user": "somebody"},
        {"route": {"local_only": True}},
        {"seed": 1},
    ],
)
def test_whatever_may_make_another_answer_makes_another_request(more: dict[str, Any]) -> None:
    assert named(**more) != named()


@pytest.mark.parametrize(
    "other",
    [
        {"key": "l"},
        {"policy_version": 2},
        {"rule": "r"},
        {"override": "m"},
        {"default_model": "m"},
        {"preferences": {"avoid": ["m"]}},
        {"operation": "embeddings"},
    ],
)
def test_another_key_policy_or_thread_with_wishes_of_its_own_has_another_answer(other: dict[str, Any]) -> None:
    assert named(structs.replace(SAME, **other)) != named()


@given(st.binary(), st.binary())
def test_any_two_bodies_have_one_name_only_where_they_are_the_same_request(one: bytes, other: bytes) -> None:
    alike = name_of(SAME, one) == name_of(SAME, other)
    if one == other:
        assert alike
    elif alike:
        assert json.loads(one) == json.loads(other)


@pytest.mark.parametrize("body", [b"[]", b"3", b'"x"', b"{", b'{"route": 5}', b"\xff"])
def test_what_is_no_request_has_a_name_all_the_same(body: bytes) -> None:
    assert len(name_of(SAME, body)) == 32


def test_an_answer_does_until_it_is_too_old() -> None:
    asked = given_for(chat("m"))
    assert fits(KEPT, asked, gateway(), 10, NOON + 10)
    assert not fits(KEPT, asked, gateway(), 10, NOON + 10.1)
    assert not fits(KEPT, asked, gateway(), 10, NOON - 0.1), "it is of somebody whose clock is ahead: wait until then"


@pytest.mark.parametrize("model", [{"status": "disabled"}, {"status": "retired"}, {"version": "2"}, {"name": "other"}])
def test_an_answer_of_a_model_that_no_longer_serves_so_does_no_more(model: dict[str, Any]) -> None:
    assert not fits(KEPT, given_for(chat("m")), gateway(**model), 10, NOON + 1)


def test_an_answer_of_a_canary_does_as_long_as_there_is_one() -> None:
    canary = Canary(version="1", provider="p", upstream="m", weight=0.1)
    assert fits(KEPT, given_for(chat("m")), gateway(version="0", canary=canary), 10, NOON)


def test_an_answer_of_a_model_that_the_key_may_not_use_does_not() -> None:
    parsed = chat("auto")
    narrowed = structs.replace(parsed, asked=structs.replace(parsed.asked, allowed=["other-*"]))
    assert not fits(KEPT, given_for(narrowed), gateway(), 10, NOON)
