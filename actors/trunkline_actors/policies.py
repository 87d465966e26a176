"""Decisions about the routing policy: what may be published, rolled back to and forced. Pure."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_events.policy import OverrideCleared, OverrideSet, Policy, PolicyPublished, PolicyRolledBack
from trunkline_events.refusal import Refused
from trunkline_events.times import format_time
from trunkline_projections.models import Registry
from trunkline_projections.policies import Override, Routing

from trunkline_actors.policy_checks import problems
from trunkline_actors.policy_diff import diff
from trunkline_actors.policy_warnings import models_named, warnings
from trunkline_actors.shapes import Problem, problems_of, shown, suggestion

__all__ = ["check", "force", "models_named", "publish", "read", "refused", "release", "roll_back", "warnings"]

MOST_RULES = 1_000
MOST_BYTES = 256 * 1024
MOST_TOLD = 200
"""Problems that are told at once: a reply must fit a message."""
LONGEST_S = 366 * 86_400.0
"""Seconds that an override may be set for."""


class Standing(Struct, frozen=True, kw_only=True):
    """What decisions are made from: the policy in force, the registry, and the analyzers there are."""

    routing: Routing
    registry: Registry
    analyzers: frozenset[str]


def read(document: object) -> tuple[Policy, list[Problem]]:
    """A document as a policy, and every place where it has not the shape of one; the policy is without those."""
    if isinstance(document, Mapping):
        if (size := len(msgspec.json.encode(document))) > MOST_BYTES:
            return Policy(), [Problem("policy", f"has {size:,} bytes as JSON; at most {MOST_BYTES:,} are taken")]
        rules = document.get("rules")
        if isinstance(rules, list) and len(rules) > MOST_RULES:
            told = f"has {len(rules):,} rules; at most {MOST_RULES:,} are taken: name models by tag, and use patterns"
            return Policy(), [Problem("rules", told)]
    found, policy = problems_of(document, Policy, "policy")
    return policy, found


def check(document: object, registry: Registry, analyzers: Collection[str]) -> tuple[Policy, list[Problem]]:
    """A document as a policy, and everything that keeps it from being published now."""
    policy, found = read(document)
    return policy, found + problems(policy, registry, analyzers)


def refused(found: list[Problem]) -> Refused:
    """All of these problems as one refusal: the first in the message, all in `metadata`."""
    more = f" (and {len(found) - 1:,} more problems)" if len(found) > 1 else ""
    return Refused(
        code="invalid_request",
        message=f"{found[0]}{more}",
        param=found[0].path,
        metadata={"problems": msgspec.to_builtins(found[:MOST_TOLD]), "count": len(found)},
    )


def publish(
    standing: Standing, document: object, base: int | None, reason: str | None
) -> PolicyPublished | Refused | None:
    """Publish a document under the next number; None where it is the one in force. `base` is what it was made from."""
    routing = standing.routing
    if base is not None and base != routing.version:
        return Refused(
            code="conflict",
            message=f"version {routing.version} of the policy is in force, not {base}; get it, change that one, and "
            f"publish it with base {routing.version}",
            param="base",
            metadata={"version": routing.version},
        )
    policy, found = check(document, standing.registry, standing.analyzers)
    if found:
        return refused(found)
    if routing.version and diff(routing.policy, policy).empty:
        return None
    return PolicyPublished(version=routing.version + 1, policy=policy, reason=reason)


def roll_back(
    standing: Standing, to: int, earlier: Policy, reason: str | None, *, force: bool
) -> PolicyRolledBack | Refused | None:
    """Publish an earlier version again, under the next number; None where it is what is in force.

    What it names may have gone since: that is refused as it is with a new one, unless forced.
    """
    routing = standing.routing
    if diff(routing.policy, earlier).empty:
        return None
    found = problems(earlier, standing.registry, standing.analyzers)
    if found and not force:
        refusal = refused(found)
        told = f"version {to} can't be used as it is: {refusal.message}; publish a mended one, or force it"
        return msgspec.structs.replace(refusal, message=told)
    return PolicyRolledBack(version=routing.version + 1, to=to, policy=earlier, reason=reason)


def force(
    standing: Standing, model_id: str, until: float | None, reason: str | None, now: float
) -> OverrideSet | Refused | None:
    """Send every request to one model, up to `until`; None where that is so already."""
    models = standing.registry.models
    model = models.get(model_id)
    if model is None:
        like = suggestion(model_id, models) or "; `trunkline models list` shows what there is"
        message = f"no model is registered as {shown(model_id)}{like}"
        return Refused(code="model_not_found", message=message, param="model")
    if model.status != "enabled":
        message = f"model {shown(model_id)} is {model.status} and can't serve; enable it, or name another one"
        return Refused(code="conflict", message=message, param="model")
    if until is not None and not 0 < until - now <= LONGEST_S:
        message = "an override must end in the future, and within a year; leave the end out for one until it is cleared"
        return Refused(code="invalid_request", message=message, param="until")
    override = standing.routing.override
    if override is not None and (override.model, override.until, override.reason) == (model_id, until, reason):
        return None
    return OverrideSet(model=model_id, until=until, reason=reason)


def release(standing: Standing, reason: str | None, now: float) -> OverrideCleared | None:
    """Let the policy decide again; None where it does."""
    return None if in_force(standing.routing, now) is None else OverrideCleared(reason=reason)


def in_force(routing: Routing, now: float) -> Override | None:
    """The override that holds at this Unix time."""
    return None if routing.forced(now) is None else routing.override


def end_of(for_s: float | None, until: float | str | None, now: float) -> float | Refused | None:
    """When an override ends, as Unix time: so many seconds from now, or then, in RFC 3339 or Unix time."""
    if for_s is not None and until is not None:
        return _bad_end("give either for_s or until, not both", "until")
    if for_s is not None:
        if not 0 < for_s <= LONGEST_S:
            return _bad_end("for_s must be more than 0 and at most a year of seconds", "for_s")
        return round(now + for_s, 6)  # as it is shown
    if isinstance(until, str):
        try:
            moment = datetime.fromisoformat(until)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            return _bad_end(f"{shown(until)} is no time; write it like 2026-11-20T12:00:00Z", "until")
        return moment.timestamp()
    return until


def _bad_end(message: str, param: str) -> Refused:
    return Refused(code="invalid_request", message=message, param=param)


def shown_override(routing: Routing, now: float) -> dict[str, Any] | None:
    """The override in force as commands show it."""
    override = in_force(routing, now)
    if override is None:
        return None
    until = None if override.until is None else format_time(override.until)
    return {"model": override.model, "until": until, "reason": override.reason}
