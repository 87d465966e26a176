"""The cache of answers: for how long one may be given again, and which requests are the very same. Pure.

Only who asks with the same API key, for the very same, under the same policy gets an answer that is there.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs
from trunkline_events.policy import Policy
from trunkline_projections.folds import Gateway
from trunkline_projections.keys import Key

from trunkline_actors.keys import may_use
from trunkline_actors.plan import Given, preferences_of, rule_for

NOT_THE_QUESTION = ("metadata",)
NOT_THE_ROUTE = ("cache_s", "deadline_ms", "attempts")
"""What of a request, and of its `route`, says nothing about the answer."""

REUSABLE = frozenset({"stop", "length", "tool_calls"})
"""How an answer ended that may be given again."""


def seconds_of(given: Given, gateway: Gateway, key: Key | None) -> float:
    """How old an answer may be that this request gets; 0: it wants one of its own.

    In order of force: the request, its API key, the rule of the policy that fits it, its thread, the policy's defaults.
    """
    if given.parsed.route.cache_s is not None:
        return given.parsed.route.cache_s
    if key is not None and key.cache_s is not None:
        return key.cache_s
    policy = gateway.routing.policy
    rule = rule_for(policy, given)
    if rule is not None and rule.cache_s is not None:
        return rule.cache_s
    of_thread = preferences_of(given.preferences).cache_s
    return policy.defaults.cache_s if of_thread is None else of_thread


def caches(policy: Policy) -> bool:
    """Whether a policy wants any answer to be given again."""
    return bool(policy.defaults.cache_s or any(rule.cache_s for rule in policy.rules))


class Same(Struct, frozen=True, kw_only=True):
    """What must be the same, beside what is asked: the key, the policy and its rule that fits, an operator's word, what
    the thread prefers.

    What the thread's settings say about parameters is in the body that is sent upstream.
    """

    key: str
    policy_version: int
    rule: str | None
    override: str | None
    default_model: str | None
    preferences: Mapping[str, Any]
    operation: str


def name_of(same: Same, body: bytes) -> str:
    """One name for all requests that may have each other's answers: 32 hex digits."""
    same = structs.replace(same, preferences=_wishes(same.preferences))
    asked = msgspec.json.encode(same, order="deterministic") + b"\0" + _question(body)
    return hashlib.blake2b(asked, digest_size=16).hexdigest()


def _question(body: bytes) -> bytes:
    """A request as one text, however it was written."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, Any])
        for name in NOT_THE_QUESTION:
            asked.pop(name, None)
        if not asked.get("stream"):
            asked.pop("stream", None)
        if isinstance(route := asked.pop("route", None), dict) and (wishes := _wishes(route)):
            asked["route"] = wishes
        return msgspec.json.encode(asked, order="deterministic")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body


def _wishes(route: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in route.items() if name not in NOT_THE_ROUTE}


class Kept(Struct, frozen=True, kw_only=True):
    """An answer that was given at `at` (Unix time), and paid for in the event at `origin`.

    `messages` are its bodies; `fields` the headers of the last one that say how it ended and what it used.
    """

    at: float
    model: str
    provider: str
    version: str
    origin: int
    cost_nanos: int
    fields: dict[str, str]
    messages: list[bytes]


def fits(kept: Kept, given: Given, gateway: Gateway, seconds: float, now: float) -> bool:
    """Whether an answer still will do: young enough, and of a model that may serve, in a version that still does."""
    model = gateway.registry.models.get(kept.model)
    if model is None or model.status != "enabled" or not 0 <= now - kept.at <= seconds:
        return False
    versions = {model.version, *([model.canary.version] if model.canary is not None else [])}
    return kept.version in versions and may_use(given.parsed.asked.allowed, kept.model)
