"""What a secret may be called and bound to, which may go, and what the log has still to be told: given, when, then."""

import random

import pytest
from msgspec import structs
from trunkline_actors import vault
from trunkline_actors.sealing import Kdf, derive
from trunkline_actors.secret_rules import binding, bound_now, condition, may_delete, shown, still_news, untold, users
from trunkline_actors.vault import Fresh, Opened, Vault
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_events.secret import (
    SecretDeleted,
    SecretFact,
    SecretRotated,
    SecretStored,
    VaultRekeyed,
    is_stored,
    name_problem,
    reference_problem,
)
from trunkline_projections.models import Registry
from trunkline_projections.secrets import EMPTY, Secrets, evolve

DRAW = random.Random(6).randbytes
KDF = Kdf(algorithm="argon2id", salt=b"0123456789abcdef", rounds=1, memory_kib=8, lanes=1)
KEY = derive(KDF, b"a passphrase")
URL = "https://api.example.com/v1"


def registry(*providers: Provider) -> Registry:
    return Registry(providers={one.id: one for one in providers})


FAR = Provider(id="far", kind="openai-compatible", base_url=f"{URL}/", secret="main")
KNOWN = registry(FAR)


def empty() -> tuple[Vault, Opened]:
    made = vault.create(KEY, KDF, DRAW)
    return made, vault.unlock(made, KEY)


def holding(*names: str) -> tuple[Vault, Opened]:
    made, opened = empty()
    for name in names:
        made = vault.put(made, opened, Fresh(id=name, provider="far", address=URL, secret="sk"), 1.0, DRAW)
    return made, opened


def told(*facts: SecretFact) -> Secrets:
    state = EMPTY
    for fact in facts:
        state = evolve(state, fact)
    return state


def news(state: Secrets, held: Vault | None, revision: int = 9) -> list[SecretFact]:
    return [fact for _, fact in untold(state, held, revision)]


@pytest.mark.parametrize("name", ["main", "openai-main", "team/openai.prod 2", "schlüssel", "spk-main-production-key"])
def test_a_plain_name_may_name_a_secret(name: str) -> None:
    assert name_problem(name) is None
    assert reference_problem(name) is None
    assert is_stored(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-", "a\nb", "x" * 129, "file:key", "env:not a name", "env:sk-canary", "env:"),
        *("sk-proj-x", "gsk_0123", "AKIA0123456789ABCDEF", "AIzaSyD-0123456789abcdefghij", "hf_abcdefghijklmnop"),
        *("Bearer abc", "a1b2c3d4e5f6a7b8c9d0e1f2", "my-a1b2c3d4e5f6a7b8c9d0e1f2"),
    ],
)
def test_what_looks_like_a_key_or_breaks_a_subject_names_no_secret(name: str) -> None:
    assert reference_problem(name)
    assert len(name) < 8 or name not in str(reference_problem(name))


def test_a_variable_of_the_environment_is_not_stored() -> None:
    assert reference_problem("env:OPENAI_API_KEY") is None
    assert not is_stored("env:OPENAI_API_KEY")
    assert not is_stored(None)


def test_a_secret_is_bound_to_the_only_provider_that_names_it() -> None:
    bound = binding(KNOWN, None, "main", None)
    assert not isinstance(bound, Refused)
    assert (bound.provider, bound.address, bound.change) == ("far", URL, "")
    own = registry(Provider(id="open", kind="openai", secret="main"))
    assert getattr(binding(own, None, "main", None), "address", None) == "kind:openai"


def test_a_secret_that_several_or_no_providers_name_needs_one_named() -> None:
    both = registry(FAR, structs.replace(FAR, id="near"))
    for state, name in ((both, "main"), (KNOWN, "other")):
        refused = binding(state, None, name, None)
        assert isinstance(refused, Refused)
        assert refused.param == "provider"
    assert users(both, "main") == ["far", "near"]
    assert getattr(binding(both, None, "main", "near"), "provider", None) == "near"
    assert getattr(binding(KNOWN, None, "main", "nobody"), "code", None) == "not_found"
    assert getattr(binding(KNOWN, None, "sk-x", "far"), "code", None) == "invalid_request"


def test_a_stored_secret_that_nobody_names_stays_its_providers() -> None:
    held, _ = holding("other")
    bound = binding(KNOWN, held, "other", None)
    assert not isinstance(bound, Refused)
    assert (bound.provider, bound.change) == ("far", held.entries["other"].change)


def test_what_a_secret_is_bound_to_now_is_refused_where_its_provider_moved_or_went() -> None:
    held, _ = holding("main")
    assert not isinstance(bound_now(KNOWN, held, "main"), Refused)
    for state in (registry(structs.replace(FAR, base_url="https://elsewhere.example.com")), registry()):
        assert getattr(bound_now(state, held, "main"), "code", None) == "conflict"
    assert getattr(bound_now(KNOWN, held, "nothing"), "code", None) == "not_found"
    assert getattr(bound_now(KNOWN, None, "main"), "code", None) == "not_found"


def test_a_secret_that_is_named_goes_by_force_only() -> None:
    refused = may_delete(KNOWN, "main", force=False)
    assert refused is not None
    assert refused.metadata == {"providers": ["far"]}
    assert may_delete(KNOWN, "main", force=True) is None
    assert may_delete(KNOWN, "other", force=False) is None


def test_what_the_vault_has_and_the_log_lacks_is_told_once() -> None:
    held, opened = holding("main")
    [stored] = news(EMPTY, held)
    assert isinstance(stored, SecretStored)
    assert (stored.id, stored.provider, stored.address, stored.kdf) == ("main", "far", URL, "argon2id")
    known = told(stored)
    assert news(known, held) == []
    fresh = Fresh(id="main", provider="far", address=URL, secret="sk2", how="rotated")
    [rotated] = news(known, vault.put(held, opened, fresh, 2.0, DRAW))
    assert isinstance(rotated, SecretRotated)
    assert rotated.replaced == stored.fingerprint
    assert news(told(stored, rotated), vault.remove(held, "main")) == [
        SecretDeleted(vault=held.id, revision=9, change=rotated.change + "-deleted", id="main")
    ]
    assert news(EMPTY, None) == []


def test_what_was_rotated_and_never_told_as_stored_is_told_as_stored() -> None:
    held, opened = empty()
    fresh = Fresh(id="main", provider="far", address=URL, secret="sk", how="rotated")
    [fact] = news(EMPTY, vault.put(held, opened, fresh, 2.0, DRAW))
    assert isinstance(fact, SecretStored)


def test_of_a_vault_that_was_put_back_or_is_another_one_nothing_is_told_as_deleted() -> None:
    held, _ = holding("main")
    [stored] = news(EMPTY, held, revision=9)
    without = vault.remove(held, "main")
    assert news(told(stored), without, revision=8) == []
    assert news(told(stored), empty()[0]) == []
    assert len(news(told(stored), without, revision=9)) == 1


def test_a_new_passphrase_is_told_once() -> None:
    held, opened = holding("main")
    [stored] = news(EMPTY, held)
    after = vault.rekey(held, opened, derive(KDF, b"another"), KDF, DRAW)
    [fact] = news(told(stored), after)
    assert fact == VaultRekeyed(vault=held.id, revision=9, change=after.change, kdf="argon2id", secrets=1)
    assert news(told(stored, fact), after) == []
    assert still_news(told(stored, fact), fact) is None


def test_what_the_log_was_told_meanwhile_is_not_told_again() -> None:
    held, _ = holding("main")
    [stored] = news(EMPTY, held)
    [deleted] = news(told(stored), vault.remove(held, "main"))
    assert still_news(EMPTY, stored) == stored
    assert still_news(told(stored), stored) is None
    assert still_news(told(stored), deleted) == deleted
    assert still_news(told(stored, deleted), deleted) is None
    again = SecretStored(**{**structs.asdict(stored), "change": "another"})
    assert still_news(told(stored, deleted, again), deleted) is None


def test_each_condition_of_a_secret_is_told_apart() -> None:
    held, opened = holding("main")
    assert condition(KNOWN, held, opened, "main") == "usable"
    assert condition(KNOWN, held, None, "main") == "locked"
    assert condition(registry(), held, opened, "main") == "unbound"
    assert condition(registry(structs.replace(FAR, base_url=None)), held, opened, "main") == "unbound"
    assert condition(KNOWN, None, None, "main") == "missing"
    bad = structs.replace(held, entries={"main": structs.replace(held.entries["main"], created=7.0)})
    assert condition(KNOWN, bad, opened, "main") == "undecryptable"


def test_all_that_are_stored_told_of_or_named_are_shown() -> None:
    held, opened = holding("main", "spare")
    [*facts] = news(EMPTY, held)
    lost = SecretStored(**{**structs.asdict(facts[0]), "id": "lost"})
    more = registry(
        FAR, Provider(id="next", kind="openai", secret="wanted"), Provider(id="env", kind="openai", secret="env:K")
    )
    listed = shown(more, told(*facts, lost), held, opened)
    assert [(one["id"], one["state"]) for one in listed] == [
        ("lost", "missing"),
        ("main", "usable"),
        ("spare", "usable"),
        ("wanted", "missing"),
    ]
    assert (listed[1]["used_by"], listed[3]["used_by"]) == (["far"], ["next"])
    assert listed[0]["fingerprint"] == lost.fingerprint
    assert listed[3]["fingerprint"] is None


def test_a_rotation_of_what_was_never_stored_changes_nothing() -> None:
    fact = SecretRotated(vault="v", revision=3, change="c", id="x", fingerprint="a", replaced="b")
    state = told(fact)
    assert (state.stored, state.revisions) == ({}, {"v": 3})
