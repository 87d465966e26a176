"""Routing over HTTP: what would be chosen, what was, and by which policy."""

from trunkline_actors.policy_commands import Publish, RollBack, SetOverride, Validate

from trunkline.gateway import answers, asked
from trunkline.gateway.commands import Arguments, on_bus
from trunkline.gateway.routes import Route


def _advised(given: Arguments) -> Arguments:
    request = {name: value for name, value in given.items() if name in asked.OF_THE_REQUEST}
    route = {name: value for name, value in given.items() if name not in request}
    return {**request, "route": route} if route else request


TAG = "Routing"

ROUTES: list[Route] = [
    on_bus("GET", "/api/routing/recommend", "routing", "recommend", summary="Whom a request would be sent to", tag=TAG,
           asks=asked.RecommendAsked, gives=answers.Recommended, shape=_advised),
    on_bus("GET", "/api/routing/logs", "routing", "log", summary="The last decisions", tag=TAG,
           asks=asked.LogsAsked, gives=answers.Decisions),
    on_bus("GET", "/api/routing/policy", "policy", "get", summary="Show the policy", tag=TAG,
           asks=asked.VersionAsked, gives=answers.OnePolicy),
    on_bus("PUT", "/api/routing/policy", "policy", "publish", summary="Publish a policy", tag=TAG,
           takes=Publish, gives=answers.PolicyChanged),
    on_bus("GET", "/api/routing/policy/history", "policy", "history", summary="All versions of the policy", tag=TAG,
           asks=asked.HistoryAsked, gives=answers.PolicyHistory),
    on_bus("GET", "/api/routing/policy/diff", "policy", "diff", summary="What differs between versions", tag=TAG,
           asks=asked.DiffAsked, gives=answers.Compared),
    on_bus("POST", "/api/routing/policy/validate", "policy", "validate", summary="Check a policy", tag=TAG,
           takes=Validate, gives=answers.Validated),
    on_bus("POST", "/api/routing/policy/rollback", "policy", "rollback", summary="Go back to a version", tag=TAG,
           takes=RollBack, gives=answers.PolicyChanged),
    on_bus("POST", "/api/routing/override", "policy", "override", summary="Force a model, or stop that", tag=TAG,
           takes=SetOverride, gives=answers.PolicyChanged),
]  # fmt: skip
