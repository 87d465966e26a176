"""The folds: total over every event, never objecting, and whole after a snapshot."""

from typing import Any

import msgspec
import pytest
from given import NOON, a_decision, a_model, a_provider, a_registry, recorded
from golden.examples import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from trunkline_events.circuit import CallFailed, CircuitFact, Closed, Opened, ProbeStarted, Recovered, Reset
from trunkline_events.codec import CODEC
from trunkline_events.envelope import RecordedEvent
from trunkline_events.registry import (
    ModelDeleted,
    ModelDeployed,
    ModelDisabled,
    ModelEnabled,
    ModelPulled,
    ModelRegistered,
    ModelRemoved,
    ModelRetired,
    ModelUpdated,
    ProviderRegistered,
    ProviderRemoved,
    ProviderUpdated,
    PullFailed,
    PullStarted,
    RegistryFact,
)
from trunkline_events.thread import AttemptFailed, Orphaned, ThreadConfigured, UsageRecorded
from trunkline_events.usage import Usage
from trunkline_projections import circuits, models, threads
from trunkline_projections.attempts import Pending, UnderWay
from trunkline_projections.circuits import CLOSED, Circuit, Circuits
from trunkline_projections.fold import Fold
from trunkline_projections.folds import ATTEMPTS, GATEWAY
from trunkline_projections.models import EMPTY, Registry
from trunkline_projections.threads import ModelUse, ThreadHistory

FOLDS: list[Fold[Any]] = [GATEWAY, ATTEMPTS]


def events_for(fold: Fold[Any]) -> list[RecordedEvent]:
    found = [(name.partition(".")[0], body) for name, body in EXAMPLES.items()]
    wanted = [(category, body) for category, body in found if category in fold.categories]
    return [recorded(body, place, category=category) for place, (category, body) in enumerate(wanted, 1)]


def folded(fold: Fold[Any], events: list[RecordedEvent]) -> Any:
    state = fold.initial()
    for event in events:
        state = fold.step(state, event)
    return state


# -- every fold


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
@given(st.data())
def test_no_order_of_events_makes_a_fold_object_and_its_snapshot_is_whole(fold: Fold[Any], data: st.DataObject) -> None:
    events = data.draw(st.lists(st.sampled_from(events_for(fold)), max_size=20))
    kept = msgspec.msgpack.encode(folded(fold, events))
    assert msgspec.msgpack.decode(kept, type=fold.state) == folded(fold, events)
    for event in events_for(fold):
        assert fold.step(msgspec.msgpack.decode(kept, type=fold.state), event) == folded(fold, [*events, event])


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_a_fold_takes_every_event_of_its_categories(fold: Fold[Any]) -> None:
    assert {event.type for event in events_for(fold)} == {
        name for name in CODEC.types if name.partition(".")[0] in fold.categories
    }
    folded(fold, events_for(fold))


# -- the registry

M, P = a_model("m"), a_provider("p")
HELD = a_registry(M, providers=[P])
OFF = a_model("m", status="disabled")
PULL = PullStarted(id="m", provider="p", upstream="m", pull="1", began=NOON)
TAKEN_UP = structs.replace(PULL, attempt=2)


@pytest.mark.parametrize(
    ("before", "fact", "after"),
    [
        (EMPTY, ModelRegistered(model=M), Registry(models={"m": M}, model_seq={"m": 9})),
        (EMPTY, ModelUpdated(model=M, changed=[]), Registry(models={"m": M}, model_seq={"m": 9})),
        (EMPTY, ModelDeployed(model=M), Registry(models={"m": M}, model_seq={"m": 9})),
        (
            HELD,
            ModelUpdated(model=OFF, changed=[]),
            Registry(models={"m": OFF}, providers={"p": P}, model_seq={"m": 9}),
        ),
        (HELD, ModelDisabled(id="m"), Registry(models={"m": OFF}, providers={"p": P}, model_seq={"m": 9})),
        (HELD, ModelEnabled(id="m"), Registry(models={"m": M}, providers={"p": P}, model_seq={"m": 9})),
        (
            HELD,
            ModelRetired(id="m"),
            Registry(models={"m": a_model("m", status="retired")}, providers={"p": P}, model_seq={"m": 9}),
        ),
        (HELD, ModelRemoved(id="m"), Registry(providers={"p": P})),
        (HELD, ModelDisabled(id="gone"), HELD),
        (HELD, ModelRemoved(id="gone"), HELD),
        (EMPTY, ProviderRegistered(provider=P), Registry(providers={"p": P})),
        (EMPTY, ProviderUpdated(provider=P, changed=[]), Registry(providers={"p": P})),
        (HELD, ProviderRemoved(id="p"), Registry(models={"m": M}, model_seq={"m": 1})),
        (EMPTY, ProviderRemoved(id="gone"), EMPTY),
        (EMPTY, PULL, Registry(pulls={"1": PULL})),
        (Registry(pulls={"1": PULL}), TAKEN_UP, Registry(pulls={"1": TAKEN_UP})),
        (Registry(pulls={"1": PULL}), ModelPulled(id="m", provider="p", upstream="m", pull="1"), EMPTY),
        (Registry(pulls={"1": PULL}), PullFailed(id="m", provider="p", upstream="m", pull="1", message="no"), EMPTY),
        (Registry(pulls={"1": PULL}), ProviderRemoved(id="p"), EMPTY),
        (Registry(pulls={"1": PULL}), ProviderRemoved(id="q"), Registry(pulls={"1": PULL})),
        (HELD, ModelDeleted(id="m", provider="p", upstream="m"), HELD),
    ],
)
def test_the_registry_is_what_its_events_say(before: Registry, fact: RegistryFact, after: Registry) -> None:
    assert models.evolve(before, fact, 9) == after


# -- the breakers

FAILING = {"p": Circuit(failures=4)}
OPEN = {"p": Circuit(state="open", failures=5, opened_at=1.0, retry_at=61.0)}


@pytest.mark.parametrize(
    ("before", "fact", "after"),
    [
        ({}, CallFailed(provider="p", failure="timeout", failures=1), Circuit(failures=1)),
        (FAILING, Recovered(provider="p"), CLOSED),
        (FAILING, Opened(provider="p", failures=5, opened_at=1.0, retry_at=61.0), OPEN["p"]),
        (
            OPEN,
            ProbeStarted(provider="p", attempt_id="a-1", until=70.0),
            Circuit(state="half-open", failures=5, opened_at=1.0, retry_at=61.0, probe_until=70.0, probe="a-1"),
        ),
        (OPEN, Closed(provider="p"), CLOSED),
        (OPEN, Reset(provider="p"), CLOSED),
        ({}, Reset(provider="p"), CLOSED),
    ],
)
def test_a_breaker_is_what_its_events_say(before: Circuits, fact: CircuitFact, after: Circuit) -> None:
    others = {"q": Circuit(failures=2)}
    assert circuits.evolve({**others, **before}, fact, 9) == {**others, "p": structs.replace(after, sequence=9)}


def test_the_gateway_holds_registry_and_breakers_at_once() -> None:
    state = folded(
        GATEWAY,
        [
            recorded(ModelRegistered(model=M), 1, category="model"),
            recorded(Reset(provider="p"), 2, category="circuit"),
            recorded(ProviderRegistered(provider=P), 3, category="provider"),
        ],
    )
    assert (set(state.registry.models), set(state.registry.providers), set(state.circuits)) == ({"m"}, {"p"}, {"p"})


# -- attempts under way


def failed(attempt_id: str) -> AttemptFailed:
    return AttemptFailed(request_id="r", attempt_id=attempt_id, attempt=1, model="m", provider="p", failure="timeout")


def test_an_attempt_is_under_way_from_its_decision_to_its_end() -> None:
    under_way = folded(ATTEMPTS, [recorded(a_decision("r-1"), 4, "t"), recorded(a_decision("q-1"), 5, "-")])
    begun = under_way.attempts
    assert begun["r-1"] == Pending(aggregate="t", attempt_id="r-1", sequence=4, deadline=a_decision().deadline)
    assert set(begun) == {"r-1", "q-1"}
    assert set(ATTEMPTS.step(under_way, recorded(failed("r-1"), 6)).attempts) == {"q-1"}


def test_an_end_without_a_beginning_is_passed_over() -> None:
    assert folded(ATTEMPTS, [recorded(failed("r-1"))]) == UnderWay()


# -- a thread's history


def used(attempt_id: str, cost: int, model: str = "m", **books: Any) -> UsageRecorded:
    return UsageRecorded(
        request_id="r",
        attempt_id=attempt_id,
        attempt=1,
        model=model,
        provider="p",
        usage=Usage(output_tokens=cost),
        cost_nanos=cost,
        price_version="v",
        latency_ms=1.0,
        ttft_ms=None,
        finish="stop",
        **books,
    )


def test_a_history_counts_requests_and_what_each_model_cost() -> None:
    state = ThreadHistory()
    facts: list[Any] = [
        a_decision("r-1", 5, attempt=1),
        failed("r-1"),
        a_decision("r-2", 5, attempt=2),
        used("r-2", 4),
        a_decision("q-1", 9),
        Orphaned(request_id="q", attempt_id="q-1", attempt=1, model="n", provider="p", cost_nanos=9, last_seen=1.0),
        used("never-1", 2),
    ]
    for sequence, fact in enumerate(facts, 1):
        state = threads.evolve(state, fact, sequence)
    assert state.requests == 2
    assert state.models == {
        "m": ModelUse(attempts=2, tokens=Usage(output_tokens=6), cost_nanos=6),
        "n": ModelUse(attempts=1, cost_nanos=9),
    }
    assert (state.books.settled_nanos, state.books.reserved_nanos, state.books.open) == (15, 0, {})


def test_a_new_period_starts_with_nothing_settled() -> None:
    state = threads.evolve(ThreadHistory(), used("a-1", 4, window="day", period="2026-11-20"), 1)
    assert state.books.settled_nanos == 4
    state = threads.evolve(state, used("b-1", 3, window="day", period="2026-11-21"), 2)
    assert (state.books.settled_nanos, state.books.period) == (3, "2026-11-21")


def test_a_configuration_sets_limit_and_window_from_its_place_in_the_log() -> None:
    fact = ThreadConfigured(request_id="c", limit_nanos=7, window="month", period="2026-11")
    books = threads.evolve(ThreadHistory(), fact, 12).books
    assert (books.limit_nanos, books.window, books.period, books.config_seq) == (7, "month", "2026-11", 12)
    assert threads.books_of(fact, 12) == books


@given(st.lists(st.sampled_from([body for name, body in EXAMPLES.items() if name.startswith("thread.")])))
def test_no_order_of_events_makes_a_history_object(facts: list[Any]) -> None:
    state = ThreadHistory()
    for sequence, fact in enumerate(facts, 1):
        state = threads.evolve(state, fact, sequence)
