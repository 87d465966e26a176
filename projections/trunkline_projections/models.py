"""The registry as it stands: which models there are, and which provider instances serve them."""

from typing import TypeVar, assert_never

from msgspec import Struct, field, structs
from trunkline_events.registry import (
    Model,
    ModelDeleted,
    ModelDeployed,
    ModelDisabled,
    ModelEnabled,
    ModelPulled,
    ModelRegistered,
    ModelRemoved,
    ModelRetired,
    ModelUpdated,
    Provider,
    ProviderRegistered,
    ProviderRemoved,
    ProviderUpdated,
    PullFailed,
    PullStarted,
    RegistryFact,
    Status,
)


class Registry(Struct, frozen=True, kw_only=True):
    """Models and providers by id. `model_seq` is the sequence of each model's last event: the version of its price.

    `pulls` are those that go on, by their own ids: how each was started, or taken up last.
    """

    models: dict[str, Model] = field(default_factory=dict)
    providers: dict[str, Provider] = field(default_factory=dict)
    model_seq: dict[str, int] = field(default_factory=dict)
    pulls: dict[str, PullStarted] = field(default_factory=dict)


V = TypeVar("V")

EMPTY = Registry()
CATEGORIES = ("model", "provider")


def evolve(state: Registry, fact: RegistryFact, sequence: int) -> Registry:
    """The registry after this event."""
    match fact:
        case ModelRegistered(model=model) | ModelUpdated(model=model) | ModelDeployed(model=model):
            return _with_model(state, model, sequence)
        case ModelEnabled(id=model_id):
            return _with_status(state, model_id, "enabled", sequence)
        case ModelDisabled(id=model_id):
            return _with_status(state, model_id, "disabled", sequence)
        case ModelRetired(id=model_id):
            return _with_status(state, model_id, "retired", sequence)
        case ModelRemoved(id=model_id):
            return structs.replace(
                state, models=_without(state.models, model_id), model_seq=_without(state.model_seq, model_id)
            )
        case ProviderRegistered(provider=provider) | ProviderUpdated(provider=provider):
            return structs.replace(state, providers={**state.providers, provider.id: provider})
        case ProviderRemoved(id=provider_id):
            # Nobody is left to say how its pulls ended.
            pulls = {name: pull for name, pull in state.pulls.items() if pull.provider != provider_id}
            return structs.replace(state, providers=_without(state.providers, provider_id), pulls=pulls)
        case PullStarted(pull=pull):
            return structs.replace(state, pulls={**state.pulls, pull: fact})
        case ModelPulled(pull=pull) | PullFailed(pull=pull):
            return structs.replace(state, pulls=_without(state.pulls, pull))
        case ModelDeleted():
            return state
        case _:  # pragma: no cover
            assert_never(fact)


def _with_model(state: Registry, model: Model, sequence: int) -> Registry:
    return structs.replace(
        state,
        models={**state.models, model.id: model},
        model_seq={**state.model_seq, model.id: sequence},
    )


def _with_status(state: Registry, model_id: str, status: Status, sequence: int) -> Registry:
    model = state.models.get(model_id)
    return state if model is None else _with_model(state, structs.replace(model, status=status), sequence)


def _without(mapping: dict[str, V], key: str) -> dict[str, V]:
    return {name: value for name, value in mapping.items() if name != key}
