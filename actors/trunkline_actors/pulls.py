"""Decisions about models that a provider instance fetches and deletes. Pure.

A pull is open from `model.pull-started` to `model.pulled` or `model.pull-failed`. One is open for each model of an
instance at most, whoever asks for it, and one process runs it; where that is gone, another takes it up.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct, structs
from trunkline_events.refusal import Refused
from trunkline_events.registry import (
    Model,
    ModelPulled,
    ModelRegistered,
    ModelUpdated,
    PullFailed,
    PullStarted,
)
from trunkline_events.subjects import id_problem
from trunkline_projections.models import Registry

from trunkline_actors import registry
from trunkline_actors.managed import Described, LocalModel

MOST_ATTEMPTS = 5
"""Processes that take one pull up before it is given up: what it does may be what ends them."""
LONGEST = 86_400.0
"""Seconds after which a pull that nobody runs is not taken up any more: nobody may still want it."""

Same = Callable[[str, str], bool]
"""Whether two names of a provider mean the same model."""


class Pull(Struct, frozen=True, kw_only=True):
    """The arguments of `pull`: the provider's name of a model, and the id to register it as, by default the same."""

    model: str
    name: str | None = msgspec.field(default=None, name="as")
    reason: str | None = None

    @property
    def id(self) -> str:
        """What it is to be registered as."""
        return self.model if self.name is None else self.name


class Named(Struct, frozen=True, kw_only=True):
    """The arguments of `delete` and `abort-pull`. `force`: also where a policy or a thread depends on the model."""

    model: str
    force: bool = False
    reason: str | None = None


def open_pull(state: Registry, provider: str, upstream: str, same: Same) -> PullStarted | None:
    """The pull of this model that goes on, if there is one."""
    found = (one for one in state.pulls.values() if one.provider == provider and same(one.upstream, upstream))
    return next(found, None)


def start(
    state: Registry, asked: Pull, provider: str, pull: str, same: Same, now: float
) -> PullStarted | Refused | None:
    """Begin to fetch a model. None where that goes on already, for the same id: join it."""
    for field, name in (("model", asked.model), ("as", asked.id)):
        if problem := id_problem(name):
            return registry.invalid(problem, field)
    if provider not in state.providers:
        return Refused(code="not_found", message=f"no provider is registered as {provider!r}", param="provider")
    running = open_pull(state, provider, asked.model, same)
    if running is not None:
        return other_id(running, asked)
    known = state.models.get(asked.id)
    if known is not None and known.status == "retired":
        return registry.retired(known.id)
    if known is not None and (known.provider != provider or not same(known.upstream, asked.model)):
        return Refused(
            code="conflict",
            message=f"{known.id!r} is {known.upstream!r} of {known.provider!r}; register what is pulled `as` another",
            param="as",
        )
    return PullStarted(id=asked.id, provider=provider, upstream=asked.model, pull=pull, began=now, reason=asked.reason)


def other_id(running: PullStarted, asked: Pull) -> Refused | None:
    """Why a pull that goes on can't be joined: it registers the model as something else."""
    if running.id == asked.id:
        return None
    return Refused(
        code="conflict",
        message=f"{running.upstream!r} is being pulled as {running.id!r}; join that, or register {asked.id!r} after it",
        param="as",
    )


def take_up(state: Registry, seen: PullStarted, now: float) -> PullStarted | PullFailed | None:
    """Go on with a pull whose process is gone, or give it up. None where it has ended, or another was quicker."""
    if state.pulls.get(seen.pull) != seen:
        return None
    if seen.attempt >= MOST_ATTEMPTS or now - seen.began > LONGEST:
        return failed(
            seen, f"the process that pulled it is gone, after {seen.attempt} attempts; pull it again to go on"
        )
    return structs.replace(seen, attempt=seen.attempt + 1, reason="the process that pulled it is gone")


def failed(pull: PullStarted, message: str, *, aborted: bool = False, reason: str | None = None) -> PullFailed:
    """The end of a pull that brought nothing."""
    return PullFailed(
        id=pull.id,
        provider=pull.provider,
        upstream=pull.upstream,
        pull=pull.pull,
        message=message,
        aborted=aborted,
        reason=reason,
    )


def pulled(pull: PullStarted, local: LocalModel, described: Described, problem: str | None) -> ModelPulled:
    """The end of a pull that brought the model. `problem`: why it could not be registered."""
    return ModelPulled(
        id=pull.id,
        provider=pull.provider,
        upstream=pull.upstream,
        pull=pull.pull,
        digest=local.digest,
        size_bytes=local.size_bytes,
        family=local.family,
        parameters=local.parameters,
        quantization=local.quantization,
        context_window=described.context_window,
        features=list(described.features),
        problem=problem,
    )


def ended(state: Registry, end: ModelPulled | PullFailed) -> ModelPulled | PullFailed | None:
    """Close a pull. None where it is closed: whoever was taken for gone must not end what others have ended."""
    return end if end.pull in state.pulls else None


_TAGS = ("family", "size", "quantization")


def registration(
    state: Registry, pull: PullStarted, local: LocalModel, described: Described
) -> ModelRegistered | ModelUpdated | Refused | None:
    """Register what was pulled, or bring its registration up to date. None where nothing about it is new.

    `version` is what Ollama shows as the ID of a model: the first 12 digits of its digest. Tags of ours are renewed,
    all others stay, and so do features that somebody added.
    """
    known = state.models.get(pull.id)
    values = zip(_TAGS, (local.family, local.parameters, local.quantization), strict=True)
    tags = [f"{name}:{value}" for name, value in values if value]
    changes: dict[str, Any] = {"upstream": pull.upstream, "features": list(described.features)}
    if local.digest:
        changes["version"] = local.digest[:12]
    if described.context_window is not None:
        changes["context_window"] = described.context_window
    if known is None:
        command = registry.RegisterModel(id=pull.id, provider=pull.provider, tags=tags, reason="pulled", **changes)
        made = registry.register_model(state, command)
        return made if isinstance(made, ModelRegistered) else _refused(made)
    if known.provider != pull.provider:
        return Refused(code="conflict", message=f"model {pull.id!r} is registered with {known.provider!r}", param="as")
    kept = [tag for tag in known.tags if tag.partition(":")[0] not in _TAGS]
    changes["tags"] = [*kept, *tags]
    changes["features"] = sorted({*known.features, *described.features})
    if all(getattr(known, name) == value for name, value in changes.items()):
        return None
    updated = registry.update_model(state, pull.id, changes, "pulled again")
    return updated if isinstance(updated, ModelUpdated) else _refused(updated)


def _refused(decision: object) -> Refused:
    assert isinstance(decision, Refused)
    return decision


def served_by(state: Registry, provider: str, upstream: str, same: Same) -> list[Model] | Refused:
    """The registered models whose files these are, or why the files can't be deleted."""
    running = open_pull(state, provider, upstream, same)
    if running is not None:
        message = f"{running.upstream!r} is being pulled; abort that first"
        return Refused(code="conflict", message=message, param="model")
    found = []
    for model in state.models.values():
        canary = model.canary
        if canary is not None and canary.provider == provider and same(canary.upstream, upstream):
            message = f"version {canary.version!r} of {model.id!r} is tried out with it; deploy another version first"
            return Refused(code="conflict", message=message, param="model", metadata={"models": [model.id]})
        if model.provider == provider and same(model.upstream, upstream) and model.status != "retired":
            found.append(model)
    return sorted(found, key=lambda model: model.id)
