"""What may be registered, changed and removed: given a registry, when a command comes, then a fact or a refusal."""

from typing import Any

import pytest
from given import a_model, a_provider, a_registry
from trunkline_actors.registry import (
    RegisterModel,
    RegisterProvider,
    register_model,
    register_provider,
    remove_model,
    remove_provider,
    set_model_status,
    update_model,
    update_provider,
)
from trunkline_events.refusal import Refused
from trunkline_events.registry import (
    Model,
    ModelDisabled,
    ModelEnabled,
    ModelRegistered,
    ModelRemoved,
    ModelRetired,
    ModelUpdated,
    Price,
    Provider,
    ProviderRegistered,
    ProviderRemoved,
    ProviderUpdated,
    RegistryFact,
    Status,
)
from trunkline_projections.models import EMPTY

KINDS = frozenset({"scripted", "openai", "openai-compatible"})
WITH_M = a_registry(a_model("m", tags=["a"]))


def refused(decision: RegistryFact | Refused | None, code: str = "invalid_request", param: str | None = None) -> str:
    assert isinstance(decision, Refused), decision
    assert (decision.code, decision.param) == (code, param)
    return decision.message


# -- models


def test_a_model_is_registered_with_its_defaults() -> None:
    decision = register_model(a_registry(), RegisterModel(id="gpt-4.1", provider="p", reason="why"))
    assert decision == ModelRegistered(model=Model(id="gpt-4.1", provider="p", upstream="gpt-4.1"), reason="why")


def test_a_model_is_registered_as_it_was_described() -> None:
    fields: dict[str, Any] = {
        "id": "m",
        "provider": "p",
        "upstream": "up",
        "version": "2",
        "capabilities": {"reasoning": 0.5},
        "features": ["tools"],
        "context_window": 1000,
        "max_output": 10,
        "price": Price(input="1", output="2", cached_input="0.5"),
        "tags": ["a"],
        "status": "disabled",
    }
    assert register_model(a_registry(), RegisterModel(**fields)) == ModelRegistered(model=Model(**fields))


def test_capabilities_given_as_names_score_one_each() -> None:
    decision = register_model(a_registry(), RegisterModel(id="m", provider="p", capabilities=["reasoning", "speed"]))
    assert isinstance(decision, ModelRegistered)
    assert decision.model.capabilities == {"reasoning": 1.0, "speed": 1.0}


def test_a_model_that_is_registered_already_is_a_conflict() -> None:
    message = refused(register_model(WITH_M, RegisterModel(id="m", provider="p")), "conflict", "id")
    assert "use update" in message


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"id": ""}, "id", "empty"),
        ({"id": "-"}, "id", "no thread"),
        ({"id": "auto"}, "id", "lets the gateway choose"),
        ({"provider": "q"}, "provider", "'q' is not registered"),
        ({"capabilities": {"reasoning": 1.1}}, "capabilities", "from 0 to 1"),
        ({"capabilities": {"reasoning": -0.1}}, "capabilities", "from 0 to 1"),
        ({"capabilities": {"reasoning": float("nan")}}, "capabilities", "from 0 to 1"),
        ({"features": ["tools", "smell"]}, "features", "'smell'"),
        ({"context_window": 0}, "context_window", "at least 1"),
        ({"max_output": -1}, "max_output", "at least 1"),
        ({"price": Price(input="x", output="1")}, "price", "'x'"),
        ({"price": Price(input="1", output="-1")}, "price", "'-1'"),
        ({"price": Price(input="1", output="1", cached_input="inf")}, "price", "'inf'"),
        ({"status": "asleep"}, None, "status"),
    ],
)
def test_a_model_that_makes_no_sense_is_refused_at_its_field(
    fields: dict[str, Any], param: str | None, words: str
) -> None:
    command = RegisterModel(**{"id": "m", "provider": "p", **fields})
    assert words in refused(register_model(a_registry(), command), param=param)


def test_an_update_changes_what_it_names_and_says_what_that_was() -> None:
    decision = update_model(WITH_M, "m", {"tags": ["b"], "provider": "p", "max_output": 5}, "why")
    assert decision == ModelUpdated(
        model=a_model("m", tags=["b"], max_output=5), changed=["max_output", "tags"], reason="why"
    )


def test_an_update_takes_capabilities_by_name_and_a_price_as_json() -> None:
    changes = {"capabilities": ["reasoning"], "price": {"input": "1", "output": "2"}}
    decision = update_model(WITH_M, "m", changes, None)
    assert isinstance(decision, ModelUpdated)
    assert decision.model.capabilities == {"reasoning": 1.0}
    assert decision.model.price == Price(input="1", output="2")


def test_an_update_can_take_a_value_away() -> None:
    state = a_registry(a_model("m", max_output=5))
    assert update_model(state, "m", {"max_output": None}, None) == ModelUpdated(
        model=a_model("m"), changed=["max_output"]
    )


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"colour": "red"}, "colour", "not a field"),
        ({"status": "enabled"}, "status", "enable, disable and retire"),
        ({"tags": 3}, None, "tags"),
        ({"max_output": "many"}, None, "max_output"),
        ({"price": {"input": "1"}}, None, "output"),
        ({"upstream": ""}, "upstream", "must name"),
        ({"version": ""}, "version", "must not be empty"),
        ({"provider": "q"}, "provider", "register it first"),
        ({"capabilities": [[]]}, None, ""),
        ({"tags": {1: object()}}, None, ""),
    ],
)
def test_an_update_to_what_could_not_be_registered_is_refused(
    changes: dict[str, Any], param: str | None, words: str
) -> None:
    assert words in refused(update_model(WITH_M, "m", changes, None), param=param)


def test_a_model_that_is_not_registered_can_not_be_changed() -> None:
    for decision in (
        update_model(EMPTY, "m", {}, None),
        set_model_status(EMPTY, "m", "enable", None),
        remove_model(EMPTY, "m", None),
    ):
        assert "'m'" in refused(decision, "model_not_found", "id")


@pytest.mark.parametrize(
    ("status", "verb", "fact"),
    [
        ("enabled", "enable", None),
        ("enabled", "disable", ModelDisabled(id="m", reason="why")),
        ("enabled", "retire", ModelRetired(id="m", reason="why")),
        ("disabled", "enable", ModelEnabled(id="m", reason="why")),
        ("disabled", "disable", None),
        ("disabled", "retire", ModelRetired(id="m", reason="why")),
        ("retired", "retire", None),
    ],
)
def test_a_models_status_changes_once(status: Status, verb: str, fact: RegistryFact | None) -> None:
    assert set_model_status(a_registry(a_model("m", status=status)), "m", verb, "why") == fact


@pytest.mark.parametrize("verb", ["enable", "disable"])
def test_a_retired_model_stays_retired(verb: str) -> None:
    decision = set_model_status(a_registry(a_model("m", status="retired")), "m", verb, None)
    assert "retired" in refused(decision, "conflict", "id")


def test_a_registered_model_can_be_removed() -> None:
    assert remove_model(WITH_M, "m", "why") == ModelRemoved(id="m", reason="why")


# -- providers


def test_a_provider_is_registered_as_it_was_described() -> None:
    fields: dict[str, Any] = {
        "id": "box.1",
        "kind": "openai-compatible",
        "base_url": "https://box",
        "secret": "env:KEY",
        "local": True,
        "max_concurrency": 1,
        "timeout_s": 0.5,
        "headers": {"X-Team": "a"},
    }
    decision = register_provider(EMPTY, RegisterProvider(**fields, reason="why"), KINDS)
    assert decision == ProviderRegistered(provider=Provider(**fields), reason="why")


def test_a_provider_that_is_registered_already_is_a_conflict() -> None:
    refused(register_provider(a_registry(), RegisterProvider(id="p", kind="scripted"), KINDS), "conflict", "id")


NONSENSE: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "abacus"}, "kind", "'abacus'"),
    ({"base_url": "ftp://box"}, "base_url", "http"),
    ({"kind": "openai-compatible"}, "base_url", "needs a base_url"),
    ({"secret": "sk-123"}, "secret", "never the key itself"),
    ({"timeout_s": 0.0}, "timeout_s", "more than 0"),
    ({"max_concurrency": 0}, "max_concurrency", "at least 1"),
    ({"breaker_failures": 0}, "breaker_failures", "at least 1"),
    ({"headers": {"Authorization": "Bearer x"}}, "headers", "`secret`"),
    ({"headers": {"x-API-key": "x"}}, "headers", "`secret`"),
    ({"headers": {"Cookie": "x"}}, "headers", "`secret`"),
    ({"headers": {"Host": "x"}}, "headers", "'Host'"),
    ({"base_url": "http:///v1"}, "base_url", "host"),
]

ADDRESSES = [
    "http://box:8000/v1",
    "https://a.b-c.example./x",
    "http://[::1]:80",
    "http://10.0.0.1",
    "http://bücher.example",
]
NO_ADDRESSES = {
    "no password": ["http://user:sk-canary@host/v1", "http://sk-canary@host", "http://sk-canary@", "http://:@host"],
    "must end with the path": ["http://host/v1?api_key=sk-canary", "http://host/v1?", "http://host#sk-canary"],
    "name a host": ["http://", "http:///v1", "http://:80/v1", "http://h:port", "http://h:65536", "http://[::1/v1"],
    "must name a host": ["http://a..b", f"http://{'a' * 64}.example", "http://[::x]", "http://[h]/v1", "http://h%0a/"],
    "control character": ["http://ho st", "http://host/\r\nX: sk-canary", "http://host\\@sk-canary", "http://h\t/"],
    "http://": ["ftp://box", "HTTP//box", "", "box:80"],
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_a_provider_is_registered_at_an_address(url: str) -> None:
    command = RegisterProvider(id="q", kind="openai", base_url=url)
    assert isinstance(register_provider(EMPTY, command, KINDS), ProviderRegistered)


@pytest.mark.parametrize(("words", "url"), [(words, url) for words, urls in NO_ADDRESSES.items() for url in urls])
def test_an_address_that_is_none_or_holds_a_secret_is_refused_and_not_repeated(words: str, url: str) -> None:
    command = RegisterProvider(id="q", kind="openai", base_url=url)
    message = refused(register_provider(EMPTY, command, KINDS), param="base_url")
    assert words in message
    assert "sk-canary" not in message


FRAMING = [
    "Content-Length",
    "transfer-encoding",
    "HOST",
    "Connection",
    "Keep-Alive",
    "TE",
    "Upgrade",
    "Accept-Encoding",
]


@pytest.mark.parametrize(
    "headers",
    [
        *({name: "1"} for name in FRAMING),
        *({name: "1"} for name in ("", "X Team", "X-Team:", "X-T\u00e9am", "X-Team\n")),
        *({"X-Team": f"a{text}b"} for text in ("\r\nHost: x", "\n", "\0", "\x7f", "\u00e9")),
        *({"X-Team": value} for value in (" a", "a ", "\ta", " ")),
    ],
    ids=repr,
)
def test_a_header_that_would_break_a_request_is_refused(headers: dict[str, str]) -> None:
    command = RegisterProvider(id="q", kind="openai", headers=headers)
    refused(register_provider(EMPTY, command, KINDS), param="headers")


@pytest.mark.parametrize("value", ["", "a", "a b\tc", 'x=1; y="2"'])
def test_other_headers_are_taken(value: str) -> None:
    command = RegisterProvider(id="q", kind="openai", headers={"X-Team_1": value})
    assert isinstance(register_provider(EMPTY, command, KINDS), ProviderRegistered)


@pytest.mark.parametrize(("fields", "param", "words"), [({"id": ""}, "id", "empty"), *NONSENSE])
def test_a_provider_that_makes_no_sense_is_refused_at_its_field(fields: dict[str, Any], param: str, words: str) -> None:
    command = RegisterProvider(**{"id": "q", "kind": "scripted", **fields})
    assert words in refused(register_provider(EMPTY, command, KINDS), param=param)


@pytest.mark.parametrize(("changes", "param", "words"), NONSENSE)
def test_a_provider_is_not_changed_into_what_makes_no_sense(changes: dict[str, Any], param: str, words: str) -> None:
    assert words in refused(update_provider(a_registry(), "p", changes, None, KINDS), param=param)


def test_a_refused_secret_is_not_repeated_in_the_refusal() -> None:
    decision = register_provider(EMPTY, RegisterProvider(id="p", kind="scripted", secret="sk-123"), KINDS)
    assert "sk-123" not in refused(decision, param="secret")


def test_a_providers_settings_change_by_what_is_named() -> None:
    decision = update_provider(a_registry(), "p", {"timeout_s": 5, "local": True}, "why", KINDS)
    assert decision == ProviderUpdated(provider=a_provider("p", timeout_s=5.0), changed=["timeout_s"], reason="why")


def test_a_provider_field_of_the_wrong_type_is_refused() -> None:
    assert "timeout_s" in refused(update_provider(a_registry(), "p", {"timeout_s": "long"}, None, KINDS))


def test_a_provider_is_not_registered_with_a_setting_of_the_wrong_type() -> None:
    command = RegisterProvider(id="q", kind="scripted", timeout_s="long")  # type: ignore[arg-type]
    assert "timeout_s" in refused(register_provider(EMPTY, command, KINDS))


def test_a_provider_that_is_registered_without_an_address_may_be_of_a_kind_that_has_one() -> None:
    decision = register_provider(EMPTY, RegisterProvider(id="o", kind="openai"), KINDS)
    assert isinstance(decision, ProviderRegistered)


def test_a_provider_that_is_not_registered_can_not_be_changed() -> None:
    refused(update_provider(EMPTY, "p", {}, None, KINDS), "not_found", "id")
    refused(remove_provider(EMPTY, "p", None), "not_found", "id")


def test_a_provider_that_serves_models_can_not_be_removed() -> None:
    state = a_registry(*(a_model(f"m{n}") for n in range(7)), a_model("other", provider="q"))
    decision = remove_provider(state, "p", None)
    assert "m0, m1, m2, m3, m4;" in refused(decision, "conflict")
    assert isinstance(decision, Refused)
    assert decision.metadata == {"models": [f"m{n}" for n in range(7)]}


def test_a_provider_that_serves_nothing_can_be_removed() -> None:
    assert remove_provider(a_registry(), "p", "why") == ProviderRemoved(id="p", reason="why")
