"""Decisions about versions of a model: a new one serves at once, or a share of the requests first. Pure."""

from msgspec import UNSET, Struct, UnsetType, structs
from trunkline_events.refusal import Refused
from trunkline_events.registry import Canary, Model, ModelDeployed, Price
from trunkline_events.subjects import id_problem
from trunkline_projections.models import Registry

from trunkline_actors.registry import invalid, model_problem, no_model, retired


class DeployModel(Struct, frozen=True, kw_only=True):
    """Deploy a version. What isn't given is as in the current version, or, where the version is the canary's, as there.

    `weight` is its share of the requests, above 0; 1, or none given, is all of them.
    """

    id: str
    version: str
    upstream: str | None = None
    provider: str | None = None
    price: Price | UnsetType | None = UNSET
    weight: float | None = None
    reason: str | None = None


def deploy(state: Registry, command: DeployModel) -> ModelDeployed | Refused | None:
    """The model with a version deployed; None where it is so already. A model has one canary at most: the newest.

    The current version again ends the canary; the canary's again, with another weight, moves its share.
    """
    model = state.models.get(command.id)
    if model is None:
        return no_model(command.id)
    if problem := _problem(model, command):
        return problem
    after = _deployed(model, command)
    if problem := model_problem(state, after):
        return problem
    return None if after == model else ModelDeployed(model=after, reason=command.reason)


def promote(state: Registry, model_id: str, reason: str | None) -> ModelDeployed | Refused:
    """The model with its canary serving all requests."""
    model = state.models.get(model_id)
    if model is None:
        return no_model(model_id)
    if model.status == "retired":
        return retired(model_id)
    if model.canary is None:
        text = f"model {model_id!r} has no canary; deploy a version with a weight below 1 first"
        return Refused(code="conflict", message=text, param="id")
    return ModelDeployed(model=_replaced(model, model.canary), reason=reason)


def _problem(model: Model, command: DeployModel) -> Refused | None:
    if model.status == "retired":
        return retired(model.id)
    if problem := id_problem(command.version):
        return invalid("a version" + problem.removeprefix("an id"), "version")
    if command.weight is not None and not 0 < command.weight <= 1:
        return invalid(f"weight is a share of the requests above 0 and at most 1, not {command.weight}", "weight")
    if command.version != model.version:
        return None
    if command.weight is not None and command.weight < 1:
        text = f"version {model.version!r} serves already; a canary is another version"
        return invalid(text, "version")
    same = Canary(version=model.version, provider=model.provider, upstream=model.upstream, price=model.price, weight=1)
    if _candidate(model, command) != same:
        text = f"version {model.version!r} serves already, and otherwise; name the new version, or use update"
        return Refused(code="conflict", message=text, param="version")
    return None


def _deployed(model: Model, command: DeployModel) -> Model:
    candidate = _candidate(model, command)
    if candidate.weight < 1:
        return structs.replace(model, canary=candidate)
    return _replaced(model, candidate)


def _candidate(model: Model, command: DeployModel) -> Canary:
    """What is to be deployed, with a weight of 1 where it is to serve all requests."""
    canary = model.canary
    base = canary if canary is not None and canary.version == command.version else model
    return Canary(
        version=command.version,
        provider=base.provider if command.provider is None else command.provider,
        upstream=base.upstream if command.upstream is None else command.upstream,
        price=base.price if command.price is UNSET else command.price,
        weight=1.0 if command.weight is None else command.weight,
    )


def _replaced(model: Model, by: Canary) -> Model:
    return structs.replace(
        model, version=by.version, provider=by.provider, upstream=by.upstream, price=by.price, canary=None
    )
