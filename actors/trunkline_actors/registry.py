"""Decisions about models and providers: what may be registered, changed and removed. Pure."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from trunkline_events.money import BadAmount, nanos_from_usd
from trunkline_events.refusal import Refused
from trunkline_events.registry import (
    Canary,
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
)
from trunkline_events.secret import reference_problem
from trunkline_events.subjects import id_problem
from trunkline_projections.models import Registry

from trunkline_actors.addressing import base_url_problem, headers_problem
from trunkline_actors.plugins import unknown_kind
from trunkline_actors.requests import AUTO

LONGEST_S = 86_400
"""Seconds that anything about a provider may last."""

FEATURES = frozenset({"tools", "vision", "json_schema", "thinking", "embeddings"})

AFTER = {"enable": "enabled", "disable": "disabled", "retire": "retired"}
"""What a model's status is after each verb."""

R = TypeVar("R", Model, Provider)

Decision = RegistryFact | Refused


class RegisterModel(Struct, frozen=True, kw_only=True):
    """Register a model. `capabilities` may be a list of names: each then scores 1."""

    id: str
    provider: str
    upstream: str | None = None
    version: str = "1"
    capabilities: dict[str, float] | list[str] = {}
    features: list[str] = []
    context_window: int | None = None
    max_output: int | None = None
    price: Price | None = None
    tags: list[str] = []
    status: str = "enabled"
    reason: str | None = None


class RegisterProvider(Struct, frozen=True, kw_only=True):
    """Register a provider instance."""

    id: str
    kind: str
    base_url: str | None = None
    secret: str | None = None
    local: bool = False
    max_concurrency: int | None = None
    timeout_s: float = 60.0
    headers: dict[str, str] = {}
    first_token_timeout_s: float | None = None
    stall_timeout_s: float = 20.0
    breaker_failures: int = 5
    breaker_open_s: float = 60.0
    data: list[str] = []
    queue_timeout_s: float = 10.0
    transport: str = "raw"
    reason: str | None = None


def register_model(state: Registry, command: RegisterModel) -> Decision:
    """Register a new model, or refuse. The same registration again is refused as a conflict: update it instead."""
    if problem := id_problem(command.id):
        return invalid(problem, "id")
    if command.id == AUTO:
        return invalid(f"{AUTO!r} lets the gateway choose and can't be a model's id", "id")
    if command.id in state.models:
        return Refused(code="conflict", message=f"model {command.id!r} is registered already; use update", param="id")
    fields = structs.asdict(command)
    reason = fields.pop("reason")
    fields["upstream"] = command.upstream or command.id
    model = _converted(fields, Model)
    if isinstance(model, Refused):
        return model
    return model_problem(state, model) or ModelRegistered(model=model, reason=reason)


def update_model(state: Registry, model_id: str, changes: dict[str, Any], reason: str | None) -> Decision:
    """Change some fields of a model; what isn't named stays. Refused if the result could not have been registered."""
    known = state.models.get(model_id)
    if known is None:
        return no_model(model_id)
    if known.status == "retired":
        return retired(model_id)
    if "canary" in changes:
        return invalid("the canary is changed by deploy and promote", "canary")
    updated = _updated(known, changes, Model)
    if isinstance(updated, Refused):
        return updated
    model, changed = updated
    return model_problem(state, model) or ModelUpdated(model=model, changed=changed, reason=reason)


def set_model_status(state: Registry, model_id: str, verb: str, reason: str | None) -> Decision | None:
    """Enable, disable or retire. None where the model already is so: nothing happened, nothing is recorded."""
    model = state.models.get(model_id)
    if model is None:
        return no_model(model_id)
    if model.status == "retired" and verb != "retire":
        return retired(model_id)
    if model.status == AFTER.get(verb):
        return None
    match verb:
        case "enable":
            return ModelEnabled(id=model_id, reason=reason)
        case "disable":
            return ModelDisabled(id=model_id, reason=reason)
        case _:
            return ModelRetired(id=model_id, reason=reason)


def remove_model(state: Registry, model_id: str, reason: str | None) -> Decision:
    """Forget a model; its id is free afterwards."""
    return ModelRemoved(id=model_id, reason=reason) if model_id in state.models else no_model(model_id)


def register_provider(state: Registry, command: RegisterProvider, kinds: frozenset[str]) -> Decision:
    """Register a new provider instance of a known kind, or refuse."""
    if problem := id_problem(command.id):
        return invalid(problem, "id")
    if command.id in state.providers:
        return Refused(
            code="conflict", message=f"provider {command.id!r} is registered already; use update", param="id"
        )
    fields = structs.asdict(command)
    reason = fields.pop("reason")
    provider = _converted(fields, Provider)
    if isinstance(provider, Refused):
        return provider
    return _provider_problem(provider, kinds) or ProviderRegistered(provider=provider, reason=reason)


def update_provider(
    state: Registry, provider_id: str, changes: dict[str, Any], reason: str | None, kinds: frozenset[str]
) -> Decision:
    """Change some settings of a provider instance; what isn't named stays."""
    known = state.providers.get(provider_id)
    if known is None:
        return _no_provider(provider_id)
    updated = _updated(known, changes, Provider)
    if isinstance(updated, Refused):
        return updated
    provider, changed = updated
    return _provider_problem(provider, kinds) or ProviderUpdated(provider=provider, changed=changed, reason=reason)


def remove_provider(state: Registry, provider_id: str, reason: str | None) -> Decision:
    """Forget a provider instance that no model uses."""
    if provider_id not in state.providers:
        return _no_provider(provider_id)
    users = sorted(model.id for model in state.models.values() if provider_id in providers_of(model))
    if users:
        return Refused(
            code="conflict",
            message=f"provider {provider_id!r} still serves {', '.join(users[:5])}; remove those models first",
            metadata={"models": users},
        )
    return ProviderRemoved(id=provider_id, reason=reason)


def providers_of(model: Model) -> set[str]:
    """The provider instances that serve a model, its canary's included."""
    return {model.provider} if model.canary is None else {model.provider, model.canary.provider}


def _updated(known: R, changes: dict[str, Any], kind: type[R]) -> tuple[R, list[str]] | Refused:
    unknown = sorted(set(changes) - set(kind.__struct_fields__))
    if unknown:
        return invalid(f"{unknown[0]!r} is not a field that can be changed", unknown[0])
    if "status" in changes:
        return invalid("status is changed by enable, disable and retire", "status")
    result = _converted({**structs.asdict(known), **changes, "id": known.id}, kind)
    if isinstance(result, Refused):
        return result
    return result, sorted(name for name in changes if getattr(result, name) != getattr(known, name))


def _converted(fields: dict[str, Any], kind: type[R]) -> R | Refused:
    names = fields.get("capabilities")
    try:
        if isinstance(names, list | tuple):
            fields = {**fields, "capabilities": dict.fromkeys(names, 1.0)}
        return msgspec.convert(msgspec.to_builtins(fields), kind)
    except (msgspec.ValidationError, TypeError) as error:
        return invalid(str(error), None)


def model_problem(state: Registry, model: Model) -> Refused | None:
    """Why a model could not be registered so, its canary included."""
    if model.provider not in state.providers:
        return invalid(f"provider {model.provider!r} is not registered; register it first", "provider")
    if not model.upstream:
        return invalid("upstream must name the provider's model", "upstream")
    for name, score in model.capabilities.items():
        if not 0 <= score <= 1:
            return invalid(f"capability {name!r} scores {score}; scores run from 0 to 1", "capabilities")
    unknown = sorted(set(model.features) - FEATURES)
    if unknown:
        return invalid(f"{unknown[0]!r} is not a feature; there are {', '.join(sorted(FEATURES))}", "features")
    for field, limit in (("context_window", model.context_window), ("max_output", model.max_output)):
        if limit is not None and limit < 1:
            return invalid(f"{field} must be at least 1 token", field)
    if not model.version:
        return invalid("version must not be empty", "version")
    if model.canary is not None and (problem := _canary_problem(state, model, model.canary)):
        return problem
    return _price_problem(model.price) if model.price else None


def _canary_problem(state: Registry, model: Model, canary: Canary) -> Refused | None:
    if canary.version == model.version:
        return invalid(f"version {canary.version!r} is that of the model's canary; promote it instead", "version")
    if canary.provider not in state.providers:
        return invalid(f"provider {canary.provider!r} is not registered; register it first", "provider")
    if not canary.upstream:
        return invalid("upstream must name the provider's model", "upstream")
    return _price_problem(canary.price) if canary.price else None


def _price_problem(price: Price) -> Refused | None:
    try:
        for amount in (price.input, price.output, price.cached_input):
            if amount is not None:
                nanos_from_usd(amount)
    except BadAmount as error:
        return invalid(str(error), "price")
    return None


def _provider_problem(provider: Provider, kinds: frozenset[str]) -> Refused | None:
    if provider.kind not in kinds:
        return invalid(unknown_kind(provider.kind, kinds), "kind")
    if provider.base_url is not None and (problem := base_url_problem(provider.base_url)):
        return invalid(problem, "base_url")
    if provider.kind == "openai-compatible" and provider.base_url is None:
        return invalid("a provider of kind 'openai-compatible' needs a base_url", "base_url")
    if provider.secret is not None and (problem := reference_problem(provider.secret)):
        return invalid(f"secret names a secret, never the key itself: {problem}", "secret")
    for name in ("timeout_s", "first_token_timeout_s", "stall_timeout_s", "breaker_open_s"):
        seconds = getattr(provider, name)
        if seconds is not None and not 0 < seconds <= LONGEST_S:
            return invalid(f"{name} must be more than 0 and at most {LONGEST_S:,} seconds", name)
    if not 0 <= provider.queue_timeout_s <= LONGEST_S:
        return invalid(f"queue_timeout_s must be at least 0 and at most {LONGEST_S:,} seconds", "queue_timeout_s")
    if provider.breaker_failures < 1:
        return invalid("breaker_failures must be at least 1", "breaker_failures")
    if provider.max_concurrency is not None and provider.max_concurrency < 1:
        return invalid("max_concurrency must be at least 1", "max_concurrency")
    problem = headers_problem(provider.headers)
    return invalid(problem, "headers") if problem else None


def invalid(message: str, param: str | None) -> Refused:
    """A command that makes no sense."""
    return Refused(code="invalid_request", message=message, param=param)


def no_model(model_id: str) -> Refused:
    """A command about a model that is not there."""
    return Refused(code="model_not_found", message=f"no model is registered as {model_id!r}", param="id")


def retired(model_id: str) -> Refused:
    """A command about a model that nothing changes any more."""
    return Refused(code="conflict", message=f"model {model_id!r} is retired; register a new one", param="id")


def _no_provider(provider_id: str) -> Refused:
    return Refused(code="not_found", message=f"no provider is registered as {provider_id!r}", param="id")
