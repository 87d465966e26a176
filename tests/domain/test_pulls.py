"""Decisions about models that a provider fetches and deletes."""

from typing import Any

import pytest
from given import DAY, NOON, a_model, a_provider, a_registry
from msgspec import structs
from trunkline_actors.adapters.ollama_models import full_name
from trunkline_actors.managed import Described, LocalModel
from trunkline_actors.pulls import (
    MOST_ATTEMPTS,
    Pull,
    ended,
    failed,
    open_pull,
    other_id,
    pulled,
    registration,
    served_by,
    start,
    take_up,
)
from trunkline_events.refusal import Refused
from trunkline_events.registry import Canary, Model, ModelRegistered, ModelUpdated, PullFailed, PullStarted
from trunkline_projections.models import Registry

BOX = a_provider("box", kind="ollama", local=True)
STARTED = PullStarted(id="qwen3", provider="box", upstream="qwen3", pull="1", began=NOON)
LOCAL = LocalModel(
    model="qwen3:latest",
    digest="500a1f067a9f0123",
    size_bytes=5,
    family="qwen3",
    parameters="8.2B",
    quantization="Q4_K_M",
)
DESCRIBED = Described(context_window=40_960, features=["thinking", "tools"])
REGISTERED = a_model(
    "qwen3",
    provider="box",
    version="500a1f067a9f",
    context_window=40_960,
    features=["thinking", "tools"],
    tags=["family:qwen3", "size:8.2B", "quantization:Q4_K_M"],
)


def same(one: str, other: str) -> bool:
    return full_name(one) == full_name(other)


def holding(*models: Model, pulls: tuple[PullStarted, ...] = ()) -> Registry:
    registry = a_registry(*models, providers=[BOX, a_provider("p")])
    return structs.replace(registry, pulls={pull.pull: pull for pull in pulls})


def started(state: Registry, model: str = "qwen3", name: str | None = None) -> PullStarted | Refused | None:
    return start(state, Pull(model=model, name=name, reason="try"), "box", "1", same, NOON)


def refused(decision: object, code: str) -> str:
    assert isinstance(decision, Refused), decision
    assert decision.code == code
    return decision.message


def test_a_pull_begins_under_the_name_it_is_registered_as() -> None:
    assert started(holding()) == structs.replace(STARTED, reason="try")
    assert started(holding(), name="small") == structs.replace(STARTED, id="small", reason="try")


def test_a_registered_model_may_be_pulled_again() -> None:
    assert isinstance(started(holding(REGISTERED)), PullStarted)
    assert isinstance(started(holding(structs.replace(REGISTERED, upstream="qwen3:latest"))), PullStarted)


def test_a_pull_that_goes_on_is_joined_and_not_begun_again() -> None:
    assert started(holding(pulls=(STARTED,))) is None
    assert started(holding(pulls=(STARTED,)), model="qwen3:latest", name="qwen3") is None
    assert isinstance(started(holding(pulls=(STARTED,)), model="qwen3:8b"), PullStarted)
    elsewhere = structs.replace(STARTED, provider="p")
    assert isinstance(started(holding(pulls=(elsewhere,))), PullStarted)


def test_nobody_joins_a_pull_that_registers_something_else() -> None:
    assert "'qwen3'" in refused(started(holding(pulls=(STARTED,)), name="other"), "conflict")
    assert other_id(STARTED, Pull(model="qwen3")) is None


@pytest.mark.parametrize(
    ("model", "name", "code"),
    [
        ("", None, "invalid_request"),
        ("a\nb", None, "invalid_request"),
        ("qwen3", "-", "invalid_request"),
        ("qwen3", "theirs", "conflict"),
        ("qwen3", "mine", "conflict"),
        ("old", None, "conflict"),
    ],
)
def test_a_pull_that_could_not_be_registered_does_not_begin(model: str, name: str | None, code: str) -> None:
    state = holding(
        a_model("theirs"), a_model("mine", provider="box"), a_model("old", provider="box", status="retired")
    )
    refused(started(state, model, name), code)


def test_a_provider_that_is_gone_pulls_nothing() -> None:
    refused(started(a_registry(providers=[a_provider("p")])), "not_found")


def test_a_pull_without_a_process_is_taken_up_by_one() -> None:
    taken = take_up(holding(pulls=(STARTED,)), STARTED, NOON + 60)
    assert isinstance(taken, PullStarted)
    assert (taken.attempt, taken.began, taken.pull) == (2, NOON, "1")
    assert take_up(holding(pulls=(taken,)), STARTED, NOON + 60) is None
    assert take_up(holding(), STARTED, NOON + 60) is None


@pytest.mark.parametrize(("attempt", "later"), [(MOST_ATTEMPTS, 1.0), (1, DAY + 1)])
def test_a_pull_that_never_ends_is_given_up(attempt: int, later: float) -> None:
    seen = structs.replace(STARTED, attempt=attempt)
    assert isinstance(take_up(holding(pulls=(seen,)), seen, NOON + later), PullFailed)


def test_a_pull_ends_once() -> None:
    end = failed(STARTED, "no room")
    assert ended(holding(pulls=(STARTED,)), end) == end
    assert ended(holding(), end) is None


def test_what_is_pulled_is_recorded_with_what_is_known_of_it() -> None:
    end = pulled(STARTED, LOCAL, DESCRIBED, "why not")
    assert (end.digest, end.size_bytes, end.context_window) == (LOCAL.digest, 5, 40_960)
    assert (end.features, end.problem) == (["thinking", "tools"], "why not")


def test_what_is_pulled_is_registered() -> None:
    made = registration(holding(), STARTED, LOCAL, DESCRIBED)
    assert isinstance(made, ModelRegistered)
    assert made.model == REGISTERED


def test_nothing_new_changes_nothing() -> None:
    assert registration(holding(REGISTERED), STARTED, LOCAL, DESCRIBED) is None


def test_what_somebody_added_stays() -> None:
    theirs: dict[str, Any] = {"version": "old", "tags": ["mine", "size:1B"], "features": ["vision"]}
    known = structs.replace(REGISTERED, capabilities={"speed": 0.5}, **theirs)
    made = registration(holding(known), STARTED, LOCAL, DESCRIBED)
    assert isinstance(made, ModelUpdated)
    assert made.model.tags == ["mine", *REGISTERED.tags]
    assert made.model.features == ["thinking", "tools", "vision"]
    assert (made.model.version, made.model.capabilities) == ("500a1f067a9f", {"speed": 0.5})


def test_what_is_not_known_is_not_registered() -> None:
    made = registration(holding(), STARTED, LocalModel(model="qwen3"), Described())
    assert isinstance(made, ModelRegistered)
    assert made.model == a_model("qwen3", provider="box")


def test_an_id_that_was_taken_meanwhile_is_left_alone() -> None:
    refused(registration(holding(a_model("qwen3")), STARTED, LOCAL, DESCRIBED), "conflict")
    retired = structs.replace(REGISTERED, status="retired", version="old")
    refused(registration(holding(retired), STARTED, LOCAL, DESCRIBED), "conflict")
    gone = structs.replace(holding(), providers={})
    refused(registration(gone, STARTED, LOCAL, DESCRIBED), "invalid_request")


def test_files_are_deleted_with_what_they_serve() -> None:
    retired = a_model("r", provider="box", upstream="qwen3", status="retired")
    other = a_model("o", provider="box", upstream="qwen3:8b")
    also = a_model("also", provider="box", upstream="qwen3:latest")
    assert served_by(holding(REGISTERED, retired, other, also), "box", "qwen3", same) == [also, REGISTERED]
    assert served_by(holding(REGISTERED), "p", "qwen3", same) == []


def test_files_that_are_being_pulled_or_tried_out_are_not_deleted() -> None:
    refused(served_by(holding(pulls=(STARTED,)), "box", "qwen3:latest", same), "conflict")
    canary = Canary(version="2", provider="box", upstream="qwen3", weight=0.1)
    assert "'2'" in refused(served_by(holding(a_model("m", canary=canary)), "box", "qwen3", same), "conflict")


def test_an_open_pull_is_found_by_provider_and_name() -> None:
    state = holding(pulls=(STARTED,))
    assert open_pull(state, "box", "qwen3:latest", same) == STARTED
    assert open_pull(state, "p", "qwen3", same) is None
    assert open_pull(state, "box", "qwen3:8b", same) is None
