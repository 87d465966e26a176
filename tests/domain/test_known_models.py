"""The catalogue of well-known models: each entry could be registered, agrees with the prices' list, and is found."""

from datetime import date
from importlib import resources
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from given import a_provider, a_registry
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.adapters.factory import kinds
from trunkline_actors.capabilities import STANDARD, score
from trunkline_actors.catalogue import _PROVIDER_IDS, KINDS, listed
from trunkline_actors.cataloguing import registration
from trunkline_actors.known_models import OLDEST, BadCatalogue, Catalogue, Entry, read, shipped
from trunkline_events.registry import ModelRegistered

ENTRIES = shipped().entries
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)

NAMES = [
    (entry, kind, name) for entry in ENTRIES for kind, name in [(entry.kind, entry.name), *entry.elsewhere.items()]
]
PRICED = [one for one in NAMES if one[1] in KINDS]
each_priced_name = pytest.mark.parametrize(
    ("entry", "kind", "name"), PRICED, ids=lambda one: one if isinstance(one, str) else ""
)

WITHOUT_A_LIST_PRICE = {"ollama": "runs on a machine of one's own, and costs nothing there"}
"""Kinds of providers that nobody has list prices of, and why."""

OTHER_WINDOWS = {
    (
        "openrouter",
        "anthropic/claude-sonnet-4.5",
    ): "its beta of 1,000,000 ended in April 2026, says the list of Anthropic's",
    ("deepseek", "deepseek-chat"): "the list has the window of V3; V3.1 and V3.2 under this name had 128K",
    ("deepseek", "deepseek-reasoner"): "the same",
}
"""Names whose window in genai-prices is not ours, and why ours is right."""


def catalogue(*models: str, dated: str = "") -> Catalogue:
    return read(dated + "".join(f"[[models]]\n{model}\n" for model in models))


def entry_of(**fields: Any) -> Entry:
    return Entry(**{"name": "m", "kind": "openai", "family": "f", **fields})


# -- what is shipped


def test_the_shipped_list_is_dated_and_has_the_makers_that_people_ask_for() -> None:
    assert shipped().dated is not None
    counts = {
        kind: sum(entry.kind == kind for entry in ENTRIES) for kind in ("openai", "anthropic", "gemini", "ollama")
    }
    assert all(count >= 10 for count in counts.values()), counts


def test_the_list_lies_beside_its_code_in_whatever_is_installed() -> None:
    assert resources.files("trunkline_actors").joinpath("known_models.toml").is_file()


@each_entry
def test_every_entry_would_be_registered_as_it_stands(entry: Entry) -> None:
    decided = registration(entry, {})
    assert isinstance(decided, tuple), decided
    event = decided[1](a_registry(providers=[a_provider("p", kind=entry.kind)]))
    assert isinstance(event, ModelRegistered), event
    assert event.model.id == event.model.upstream == entry.name


@each_entry
def test_every_entry_has_a_window_and_scores_by_the_one_rule(entry: Entry) -> None:
    assert entry.context_window is not None
    assert entry.max_output is None or entry.max_output <= entry.context_window
    assert entry.capabilities is None
    assert (entry.size is None) == ("embeddings" in entry.features)


def test_names_and_aliases_are_unique_and_aliases_lead_to_their_entry() -> None:
    names = [name for entry in ENTRIES for name in entry.names()]
    assert len(names) == len(set(names))
    for entry in ENTRIES:
        for name in entry.names():
            assert shipped().find(name) == entry


def test_every_kind_has_list_prices_or_a_reason_why_not() -> None:
    assert {entry.kind for entry in ENTRIES} - set(KINDS) == set(WITHOUT_A_LIST_PRICE)


def test_every_kind_is_one_of_ours_or_of_those_that_come_as_entry_points() -> None:
    assert {kind for _, kind, _ in NAMES} <= {*kinds(), *KINDS}


@each_priced_name
def test_every_other_name_has_a_list_price(entry: Entry, kind: str, name: str) -> None:
    assert listed(kind, name, 1_795_262_400.0).rate is not None


@each_priced_name
def test_windows_agree_with_those_of_the_price_list(entry: Entry, kind: str, name: str) -> None:
    _, model = get_snapshot().find_provider_model(name, None, _PROVIDER_IDS[kind], None)
    if model.context_window is None:
        return
    assert entry.context_window is not None
    # It rounds: 1,000,000 for 1,047,576.
    agrees = abs(model.context_window - entry.context_window) <= 0.05 * entry.context_window
    assert agrees != ((kind, name) in OTHER_WINDOWS), f"{model.context_window:,} there, {entry.context_window:,} here"


def test_every_exception_is_of_an_entry() -> None:
    assert set(OTHER_WINDOWS) <= {(kind, name) for _, kind, name in PRICED}


# -- the rule


@pytest.mark.parametrize(
    ("fields", "scores"),
    [
        ({"size": "frontier", "features": ["thinking", "json_schema"]}, (0.9, 0.9, 0.9, 0.2)),
        ({"size": "frontier", "features": ["thinking", "json_schema"], "age": 2}, (0.8, 0.8, 0.8, 0.2)),
        ({"size": "medium", "features": ["json_schema"]}, (0.5, 0.7, 0.7, 0.6)),
        ({"size": "medium", "features": ["thinking"]}, (0.7, 0.7, 0.5, 0.6)),
        ({"size": "tiny", "age": 40}, (0.1, 0.1, 0.1, 0.9)),
    ],
)
def test_capabilities_follow_from_size_age_thinking_and_schemas(
    fields: dict[str, Any], scores: tuple[float, ...]
) -> None:
    assert tuple(entry_of(**fields).scores().values()) == scores
    assert tuple(entry_of(**fields).scores()) == STANDARD[:-1]


def test_capabilities_that_are_given_are_taken_and_without_a_size_there_are_none() -> None:
    assert entry_of(size="large", capabilities={"wit": 1.0}).scores() == {"wit": 1.0}
    assert entry_of().scores() == {}


@given(
    st.sampled_from(["tiny", "small", "medium", "large", "frontier"]),
    st.integers(0, 30),
    st.sets(st.sampled_from(["thinking", "json_schema", "tools"])),
)
def test_no_score_leaves_its_range_and_no_model_is_better_for_being_older(size: Any, age: int, able: set[str]) -> None:
    new, old = (entry_of(size=size, age=years, features=sorted(able)).scores() for years in (0, age))
    for name in new:
        assert 0 < old[name] <= new[name] <= 1
    assert new == old or age > 0
    assert entry_of(size=size, age=max(age, OLDEST)).scores() == entry_of(size=size, age=OLDEST).scores()


def test_the_context_of_a_known_model_follows_from_its_window() -> None:
    decided = registration(entry_of(size="small", context_window=2**20), {})
    assert isinstance(decided, tuple)
    event = decided[1](a_registry(providers=[a_provider(kind="openai")]))
    assert isinstance(event, ModelRegistered)
    assert score(event.model, "context") == 1


# -- finding


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("gpt-41", "gpt-4.1"),
        ("GPT-4.1", "gpt-4.1"),
        ("claude sonnet 5.5", "claude-sonnet-5-5"),
        ("llama", "llama4:scout"),
    ],
)
def test_a_name_that_is_not_there_says_what_is_near(asked: str, near: str) -> None:
    assert shipped().find(asked) is None
    assert near in shipped().nearest(asked)


def test_nothing_is_near_what_is_like_no_name() -> None:
    assert shipped().nearest("zzzzzzzzzzzz") == shipped().nearest("") == []


def test_a_beginning_is_completed_to_names_and_to_aliases_where_no_name_begins_so() -> None:
    assert shipped().completions("gpt-4.1") == ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert shipped().completions("claude-opus-4.") == [f"claude-opus-4.{minor}" for minor in (5, 6, 7, 8)]
    assert len(shipped().completions("")) == len(ENTRIES)


# -- one's own on top


def test_own_entries_win_over_names_and_over_aliases() -> None:
    own = catalogue(
        'name = "gpt-5"\nkind = "openai-compatible"\nfamily = "ours"', 'name = "gpt-5.6"\nkind="x"\nfamily="y"'
    )
    both = shipped().with_own(own)
    assert [both.find(name).family for name in ("gpt-5", "gpt-5.6", "gpt-5.6-sol")] == ["ours", "y", "gpt-5.6"]  # type: ignore[union-attr]
    assert both.own == {"gpt-5", "gpt-5.6"}
    assert both.dated == shipped().dated
    assert len(both.entries) == len(ENTRIES) + 1
    names = [name for entry in both.entries for name in entry.names()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = [", "not valid TOML"),
        ("model = 1", "'model' is unknown"),
        ("models = 3", r"\[\[models\]\]"),
        ('dated = "soon"', "like 2026-11-28"),
        ('[[models]]\nname = "m"\nkind = "openai"', r"model 1 \(m\): .*family"),
        ("[[models]]\nname = 3", "model 1: "),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\ncontext = 1', "unknown field `context`"),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\nsize = "huge"', "huge"),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\nfeatures = ["telepathy"]', "not a feature"),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\ncapabilities = {wit = 2}', "from 0 to 1"),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\nage = -1', "half-years"),
        ('[[models]]\nname = "auto"\nkind = "openai"\nfamily = "f"', "can't be a model's id"),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\naliases = [""]', "aliases must not be empty"),
        ('[[models]]\nname = "m"\nkind = "openai"\nfamily = "f"\naliases = ["m"]', "'m' is there twice"),
    ],
)
def test_a_file_that_is_no_catalogue_says_where_and_why(text: str, said: str) -> None:
    with pytest.raises(BadCatalogue, match=said):
        read(text)


def test_a_file_may_be_dated_and_may_hold_nothing() -> None:
    assert read("dated = 2026-11-28") == Catalogue((), date(2026, 11, 28))
    assert read("") == Catalogue(())
