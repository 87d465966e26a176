"""API keys: what is kept of one, what it may do, and the decisions about it."""

import base64
from typing import Any

import msgspec
import pytest
from given import NOON, a_model, a_moment, a_request, chat
from trunkline_actors import keys
from trunkline_actors.keys import Fresh, Issue, Rotate
from trunkline_actors.ranking import rank
from trunkline_actors.requests import Parsed
from trunkline_events.key import KeyIssued, KeyRevoked
from trunkline_events.refusal import Refused
from trunkline_events.thread import Asked
from trunkline_projections.keys import EMPTY, Key, Keys, evolve

PEPPER = bytes(range(32))
HOUR = 3600.0


def fresh(text: str = "tl-" + "a" * 43) -> Fresh:
    return Fresh(digest=keys.digest_of(PEPPER, text), pepper=keys.name_of(PEPPER), by="boss")


def issued(name: str = "search", *, text: str = "tl-" + "a" * 43, state: Keys = EMPTY, **given: Any) -> Keys:
    decided = keys.issue(state, Issue(**given), name, fresh(text), NOON)
    assert isinstance(decided, KeyIssued), decided
    return evolve(state, decided, 1, NOON)


def held(state: Keys, text: str, now: float = NOON) -> str:
    """`ok`, or the code of the refusal."""
    found = keys.find(state, keys.digest_of(PEPPER, text))
    if found is None:
        return keys.UNKNOWN.code
    refused = keys.ended(*found, now)
    return "ok" if refused is None else refused.code


def test_a_key_is_256_bits_of_base64url() -> None:
    key = keys.made_of(bytes(range(100, 132)))
    assert keys.is_key(key)
    assert len(key) == 46
    assert base64.urlsafe_b64decode(key.removeprefix("tl-") + "=") == bytes(range(100, 132))


def test_nothing_of_a_key_and_nothing_of_the_pepper_is_in_its_event() -> None:
    text = keys.made_of(bytes(range(32)))
    event = keys.issue(EMPTY, Issue(name="x"), "search", fresh(text), NOON)
    stored = msgspec.json.encode(event).decode()
    for size in range(6, len(text)):
        assert text[:size] not in stored
    assert PEPPER.hex() not in stored
    assert keys.own_key(PEPPER) not in stored


def test_another_pepper_makes_another_hash_of_the_same_key() -> None:
    assert keys.digest_of(PEPPER, "tl-x") != keys.digest_of(PEPPER[::-1], "tl-x")
    assert keys.name_of(PEPPER) != keys.name_of(PEPPER[::-1])


def test_a_key_is_known_by_the_whole_of_its_hash() -> None:
    state = issued()
    digest = keys.digest_of(PEPPER, "tl-" + "a" * 43)
    assert keys.find(state, digest) is not None
    assert keys.find(state, digest[:-1] + ("0" if digest[-1] != "0" else "1")) is None
    assert keys.find(state, "0" * 64) is None


@pytest.mark.parametrize(
    ("scopes", "chat_", "read", "admin"),
    [(["chat"], 1, 0, 0), (["read"], 0, 1, 0), (["admin"], 0, 1, 1), (["chat", "read", "admin"], 1, 1, 1)],
)
def test_what_a_scope_lets_one_do(scopes: list[str], chat_: int, read: int, admin: int) -> None:
    assert [not keys.lacks(scopes, need) for need in ("chat", "read", "admin", "open")] == [chat_, read, admin, True]


def test_a_command_nobody_thought_of_takes_the_most() -> None:
    assert keys.needed("trunkline.models.list") == "read"
    assert keys.needed("trunkline.provider.far=2E.models.list") == "read"
    assert keys.needed("trunkline.models.explode") == "admin"
    assert keys.needed("trunkline.keys.issue") == "admin"


def test_a_key_holds_until_it_expires_and_not_at_that_moment() -> None:
    state = issued(expires_in_s=HOUR)
    assert held(state, "tl-" + "a" * 43, NOON + HOUR - 0.001) == "ok"
    assert held(state, "tl-" + "a" * 43, NOON + HOUR) == "unauthenticated"


def test_a_rotated_key_has_two_secrets_until_the_overlap_is_over() -> None:
    state = issued(scopes=["read"], models=["gpt-*"], requests_per_minute=5)
    before = state.by_id["search"]
    event = keys.rotate(state, Rotate(id="search", overlap_s=HOUR), fresh("tl-" + "b" * 43), NOON)
    assert isinstance(event, KeyIssued)
    assert event.rotated
    state = evolve(state, event, 2, NOON)
    after = state.by_id["search"]
    assert (after.scopes, after.models, after.requests_per_minute) == (["read"], ["gpt-*"], 5)
    assert before.secrets[0].digest == after.secrets[1].digest
    assert held(state, "tl-" + "b" * 43) == held(state, "tl-" + "a" * 43, NOON + HOUR - 1) == "ok"
    assert held(state, "tl-" + "a" * 43, NOON + HOUR) == "unauthenticated"
    assert keys.state_of(after, NOON) == "rotating"
    assert keys.state_of(after, NOON + HOUR) == "active"


def test_without_overlap_the_old_secret_is_unknown_at_once_and_after_a_third_rotation_the_first_is() -> None:
    state = issued()
    for number, letter in enumerate("bc", 2):
        event = keys.rotate(state, Rotate(id="search", overlap_s=HOUR), fresh(f"tl-{letter * 43}"), NOON)
        state = evolve(state, event, number, NOON)  # type: ignore[arg-type]
    assert [held(state, f"tl-{letter * 43}") for letter in "abc"] == ["unauthenticated", "ok", "ok"]
    event = keys.rotate(state, Rotate(id="search"), fresh("tl-" + "d" * 43), NOON)
    state = evolve(state, event, 4, NOON)  # type: ignore[arg-type]
    assert [held(state, f"tl-{letter * 43}") for letter in "abcd"] == ["unauthenticated"] * 3 + ["ok"]
    assert len(state.by_hash) == 1


def test_a_revoked_key_holds_no_more_and_its_id_is_never_given_away_again() -> None:
    state = issued()
    event = keys.revoke(state, "search", "boss", "leaked")
    assert event == KeyRevoked(id="search", by="boss", reason="leaked")
    state = evolve(state, event, 2, NOON)
    assert held(state, "tl-" + "a" * 43) == "unauthenticated"
    assert keys.revoke(state, "search", "boss", None) is None
    again = keys.issue(state, Issue(), "search", fresh(), NOON)
    rotated = keys.rotate(state, Rotate(id="search"), fresh(), NOON)
    assert [one.code for one in (again, rotated) if isinstance(one, Refused)] == ["conflict", "conflict"]
    assert keys.state_of(state.by_id["search"], NOON) == "revoked"


def test_what_was_never_issued_can_be_neither_rotated_nor_revoked() -> None:
    for refused in (keys.revoke(EMPTY, "x", "", None), keys.rotate(EMPTY, Rotate(id="x"), fresh(), NOON)):
        assert isinstance(refused, Refused)
        assert refused.code == "not_found"
    assert evolve(EMPTY, KeyRevoked(id="x"), 1, NOON) == EMPTY


@pytest.mark.parametrize(
    ("name", "given", "param"),
    [
        ("", {}, "id"),
        ("Search", {}, "id"),
        ("trunkline", {}, "id"),
        ("tl-" + "a" * 29, {}, "id"),
        ("sk-abcdefghijklmnop123456789", {}, "id"),
        ("x", {"name": "a\nb"}, "name"),
        ("x", {"name": "tl-" + "a" * 43}, "name"),
        ("x", {"scopes": []}, "scopes"),
        ("x", {"models": [""]}, "models"),
        ("x", {"models": ["m"] * 65}, "models"),
        ("x", {"requests_per_minute": 0}, "requests_per_minute"),
        ("x", {"tokens_per_minute": 10**10}, "tokens_per_minute"),
        ("x", {"expires_in_s": 0}, "expires_in_s"),
        ("x", {"expires_in_s": float("nan")}, "expires_in_s"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_issued(name: str, given: dict[str, Any], param: str) -> None:
    refused = keys.issue(EMPTY, Issue(**given), name, fresh(), NOON)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.param) == ("invalid_request", param)


@pytest.mark.parametrize("overlap", [-1.0, 91 * 86_400.0, float("inf"), float("nan")])
def test_an_overlap_is_at_most_90_days(overlap: float) -> None:
    refused = keys.rotate(issued(), Rotate(id="search", overlap_s=overlap), fresh(), NOON)
    assert isinstance(refused, Refused)
    assert refused.param == "overlap_s"


def a_key(*models: str) -> Key:
    return Key(id="k", name="", scopes=["chat"], secrets=[], pepper="", models=list(models))


def test_a_model_that_is_asked_for_must_be_one_of_the_keys() -> None:
    assert keys.within(chat("gpt-5"), a_key()) == chat("gpt-5")
    assert isinstance(keys.within(chat("gpt-5"), a_key("gpt-*", "m")), Parsed)
    refused = keys.within(chat("claude"), a_key("gpt-*", "m"))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.param) == ("permission_denied", "model")


def test_routing_leaves_out_what_the_key_may_not_use_preferred_or_not() -> None:
    models = [a_model("gpt-1"), a_model("gpt-2"), a_model("claude")]
    wished = chat("auto", route={"prefer": ["claude", "gpt-2"], "fallbacks": ["claude"]})
    parsed = keys.within(wished, a_key("gpt-*"))
    assert isinstance(parsed, Parsed)
    ranked = rank(a_request(parsed), a_moment(*models))
    assert not isinstance(ranked, Refused)
    assert [model.id for model in ranked.models] == ["gpt-2", "gpt-1"]
    asked = keys.within(chat("gpt-1", route={"fallbacks": ["claude", "gpt-2"]}), a_key("gpt-*"))
    ranked = rank(a_request(asked), a_moment(*models))  # type: ignore[arg-type]
    assert not isinstance(ranked, Refused)
    assert [model.id for model in ranked.models] == ["gpt-1", "gpt-2"]


def test_a_key_with_no_model_left_finds_no_route() -> None:
    parsed = keys.within(chat("auto"), a_key("none-*"))
    assert isinstance(parsed, Parsed)
    refused = rank(a_request(parsed), a_moment(a_model("gpt-1")))
    assert isinstance(refused, Refused)
    assert refused.code == "no_route"


def test_what_a_request_counts_as_is_its_input_and_the_output_it_asks_for() -> None:
    parsed = Parsed(
        asked=Asked(operation="chat", model="m", stream=False, input_bound=401, max_tokens=50, choices=2),
        route=chat().route,
    )
    assert keys.tokens_of(parsed) == 101 + 100
