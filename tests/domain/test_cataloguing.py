"""Registering from the catalogue: given an entry, arguments and a registry, then what registering by hand would be."""

from typing import Any

import pytest
from given import a_model, a_provider, a_rate, a_registry
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.cataloguing import Browse, browse, find, registration, warnings
from trunkline_actors.known_models import Catalogue, Entry, shipped
from trunkline_actors.registry import RegisterModel, register_model
from trunkline_events.rate import Rate
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model, ModelRegistered, Price
from trunkline_projections.models import Registry


def entry_of(name: str) -> Entry:
    entry = shipped().find(name)
    assert entry is not None
    return entry


GPT = entry_of("gpt-4.1")
LLAMA = entry_of("llama3.3:70b")
OPENAI = a_registry(providers=[a_provider("oa", kind="openai"), a_provider("scripted")])


def registered(entry: Entry, state: Registry = OPENAI, **fields: Any) -> Model:
    decided = registration(entry, fields)
    assert isinstance(decided, tuple), decided
    event = decided[1](state)
    assert isinstance(event, ModelRegistered), event
    assert decided[0] == event.model.id
    return event.model


def refused(entry: Entry, state: Registry = OPENAI, **fields: Any) -> Refused:
    decided = registration(entry, fields)
    decision = decided[1](state) if isinstance(decided, tuple) else decided
    assert isinstance(decision, Refused), decision
    return decision


def test_it_comes_to_what_registering_with_all_the_fields_comes_to() -> None:
    by_hand = RegisterModel(
        id="gpt-4.1",
        provider="oa",
        upstream="gpt-4.1",
        capabilities=GPT.scores(),
        features=["tools", "vision", "json_schema"],
        context_window=1_047_576,
        max_output=32_768,
        reason="why",
    )
    decided = registration(GPT, {"from_catalogue": "gpt-4.1", "reason": "why"})
    assert isinstance(decided, tuple)
    assert decided[1](OPENAI) == register_model(OPENAI, by_hand)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.just("mine"),
            "provider": st.just("oa"),
            "upstream": st.just("ft:gpt-4.1"),
            "version": st.just("7"),
            "capabilities": st.just({"wit": 0.5}),
            "features": st.just(["tools"]),
            "context_window": st.just(1000),
            "max_output": st.just(None),
            "price": st.just(Price(input="1", output="2")),
            "tags": st.just(["a"]),
            "status": st.just("disabled"),
        },
    )
)
def test_what_is_given_besides_wins_and_the_rest_is_as_the_catalogue_has_it(fields: dict[str, Any]) -> None:
    plain, model = registered(GPT), registered(GPT, **fields)
    for name in Model.__struct_fields__:
        assert getattr(model, name) == fields.get(name, getattr(plain, name))


def test_a_model_that_is_registered_already_is_a_conflict() -> None:
    state = a_registry(a_model("gpt-4.1", provider="oa"), providers=[a_provider("oa", kind="openai")])
    assert refused(GPT, state).code == "conflict"
    assert registered(GPT, state, id="again").id == "again"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"max_output": "much"}, "max_output"), ({"id": 3}, "id"), ({"features": ["telepathy"]}, "features")],
)
def test_arguments_that_make_no_sense_are_refused_with_their_place(fields: dict[str, Any], param: str) -> None:
    assert (refused(GPT, **fields).code, refused(GPT, **fields).param) == ("invalid_request", param)


# -- which provider


def test_the_only_provider_of_its_kind_is_taken() -> None:
    assert registered(GPT).provider == "oa"
    assert registered(GPT, provider=None).provider == "oa"


def test_without_a_provider_of_its_kind_it_says_how_to_add_one() -> None:
    refusal = refused(LLAMA)
    assert refusal.param == "provider"
    assert "trunkline providers register ollama --kind ollama" in refusal.message


def test_among_several_of_its_kind_one_must_be_named() -> None:
    state = a_registry(providers=[a_provider(name, kind="openai") for name in ("oa-2", "oa-1")])
    refusal = refused(GPT, state)
    assert "oa-1, oa-2; name one with --provider" in refusal.message
    assert refusal.metadata == {"providers": ["oa-1", "oa-2"]}
    assert registered(GPT, state, provider="oa-2").provider == "oa-2"


@pytest.mark.parametrize("name", ["nobody", 3])
def test_a_provider_that_is_not_registered_is_refused(name: object) -> None:
    assert refused(GPT, provider=name).param == "provider"


def test_a_provider_of_another_kind_is_refused_with_the_reason() -> None:
    message = refused(GPT, provider="scripted").message
    assert "'scripted' is of kind 'scripted'" in message
    assert "served by openai, openrouter, openai-compatible" in message
    assert refused(GPT, provider="scripted", upstream="echo").param == "provider"


def test_openrouter_serves_it_under_the_name_it_has_there() -> None:
    state = a_registry(providers=[a_provider("or", kind="openrouter")])
    assert registered(GPT, state, provider="or").upstream == "openai/gpt-4.1"
    assert registered(GPT, state, provider="or").id == "gpt-4.1"


def test_a_name_that_openrouter_is_not_known_to_have_must_be_given() -> None:
    state = a_registry(providers=[a_provider("or", kind="openrouter")])
    refusal = refused(LLAMA, state, provider="or")
    assert (refusal.param, "--upstream" in refusal.message) == ("upstream", True)
    assert registered(LLAMA, state, provider="or", upstream="meta/llama").upstream == "meta/llama"


def test_an_openai_compatible_server_is_taken_to_call_it_as_its_maker_does() -> None:
    state = a_registry(providers=[a_provider("lab", kind="openai-compatible")])
    assert registered(LLAMA, state, provider="lab").upstream == "llama3.3:70b"


def test_an_own_entry_may_have_another_name_upstream() -> None:
    own = Entry(name="house", kind="openai", family="f", upstream="ft:gpt-4.1:x")
    assert (registered(own).id, registered(own).upstream) == ("house", "ft:gpt-4.1:x")


# -- names


def test_an_unknown_name_says_what_is_near_and_how_to_do_without() -> None:
    refusal = find(shipped(), "gpt-41")
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param) == ("not_found", "from_catalogue")
    assert "near are gpt-4.1" in refusal.message
    assert "--provider" in refusal.message
    assert refusal.metadata["near"][0] == "gpt-4.1"
    far = find(shipped(), "zzzzzzzzzzzz")
    assert isinstance(far, Refused)
    assert "near" not in far.message


@pytest.mark.parametrize("name", ["", "x" * 100_000, "\n"])
def test_what_could_be_no_name_at_all_is_looked_for_nowhere(name: str) -> None:
    refusal = find(shipped(), name)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.param, len(refusal.message) < 200) == ("invalid_request", "from_catalogue", True)


def test_an_alias_leads_to_the_entry() -> None:
    assert find(shipped(), "llama3.3") == LLAMA


def test_whoever_registers_a_model_that_ends_is_told_when() -> None:
    the_day = 1_799_884_800.0  # 2027-01-14, 00:00 UTC
    assert warnings(GPT, the_day - 1) == ["its provider ends gpt-4.1 on 2027-01-14"]
    assert warnings(GPT, the_day) == ["its provider ended gpt-4.1 on 2027-01-14"]
    assert warnings(LLAMA, the_day) == []


# -- looking through it


def names_of(catalogue: Catalogue = shipped(), **asked: Any) -> list[str]:  # noqa: B008 - it never changes
    found = browse(catalogue, Browse(**asked), lambda _kind, _upstream: None)
    assert isinstance(found, dict), found
    return [known.name for known in found["models"]]


def test_it_is_looked_through_by_what_models_can_do() -> None:
    assert names_of(features=["embeddings"], kind="openai") == [
        "text-embedding-3-large",
        "text-embedding-3-small",
        "text-embedding-ada-002",
    ]
    assert "gpt-6-astra" in names_of(capabilities={"reasoning": 0.9})
    assert "gpt-6-luna" not in names_of(capabilities={"reasoning": 0.9})
    assert names_of(family="llama4", context_window=2_000_000) == ["llama4:scout"]
    assert "gpt-4.1" in names_of(kind="openrouter")
    assert len(names_of(capabilities=["speed"])) > 100


def test_it_is_given_in_pages() -> None:
    first = browse(shipped(), Browse(limit=2), lambda _kind, _upstream: None)
    assert isinstance(first, dict)
    assert first["after"] == first["models"][-1].name
    assert [known.name for known in first["models"]] + names_of(after=first["after"]) == names_of()


def test_an_entry_is_shown_with_its_list_price_and_whose_it_is() -> None:
    own = shipped().with_own(Catalogue((Entry(name="a", kind="openai", family="f"),)))

    def rate(kind: str, upstream: str) -> Rate | None:
        return a_rate(2000, 8000, 500) if (kind, upstream) == ("openai", "gpt-4.1") else None

    found = browse(own, Browse(kind="openai"), rate)
    assert isinstance(found, dict)
    known = {one.name: one for one in found["models"]}
    assert known["gpt-4.1"].price == Price(input="2", cached_input="0.5", output="8")
    assert (known["a"].price, known["a"].own, known["gpt-4.1"].own) == (None, True, False)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"capabilities": {"reasoning": 2}}, "capabilities"),
        ({"capabilities": [""]}, "capabilities"),
        ({"features": ["telepathy"]}, "features"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
    ],
)
def test_what_can_not_be_looked_for_is_refused(asked: dict[str, Any], param: str) -> None:
    refusal = browse(shipped(), Browse(**asked), lambda _kind, _upstream: None)
    assert isinstance(refusal, Refused)
    assert refusal.param == param
