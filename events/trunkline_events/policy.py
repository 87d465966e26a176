"""The facts of routing policies: documents of rules, published as a whole, numbered, never edited."""

from typing import Any, Literal

from msgspec import Struct, field

Optimize = Literal["cost", "latency", "quality", "balanced", "round_robin", "least_busy"]
"""What the best of several candidates is: the cheapest, quickest, best matching, all three, the next, the idlest."""


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which requests a rule is for: those that fit all that is given.

    `capabilities`, `features`, `tags` and `hints` are names that the request must ask for, or have, all of. `model`,
    `thread` and `key` are patterns in which `*` stands for any text; `model` is what was asked for, `auto` included,
    and `key` a key's id. Tokens count the bound on the input.
    """

    capabilities: list[str] = []
    features: list[str] = []
    tags: list[str] = []
    hints: list[str] = []
    model: str | None = None
    thread: str | None = None
    key: str | None = None
    operation: Literal["chat", "embeddings"] | None = None
    stream: bool | None = None
    min_input_tokens: int | None = None
    max_input_tokens: int | None = None


class Require(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every candidate must keep to, also one that was asked for by name.

    `capabilities` maps names to the least score, or lists names. `tags` are a model's, all of which it must have;
    `data` are promises about data (such as `eu` or `no-training`) that its provider must make, or be local.
    """

    local_only: bool = False
    max_cost_usd: str | None = None
    tags: list[str] = []
    data: list[str] = []
    avoid: list[str] = []
    capabilities: dict[str, float] | list[str] = []


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds for the requests that `when` describes. The first rule that fits is the one that counts.

    `use` names models by id or by tag, in order of preference where `optimize` is absent; `weights` splits the
    requests among models instead. Absent: every model. `fallbacks` come after those, in their order. `min_match` is
    the least match score, 0 to 1, that a model may have for the capabilities wanted. `on_content_filter`: whether a
    filtered request may try another provider. `cache_s`: for so many seconds an answer may be given again to who asks
    the very same; 0: never.
    """

    name: str
    when: When = When()
    use: list[str] = []
    weights: dict[str, float] = {}
    optimize: Optimize | None = None
    fallbacks: list[str] = []
    require: Require = Require()
    min_match: float | None = None
    on_content_filter: Literal["stop", "fallback"] | None = None
    cache_s: float | None = None


class Defaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What holds where no rule says otherwise. `percentile` is the one of latency that `optimize: latency` goes by."""

    optimize: Optimize | None = None
    fallbacks: list[str] = []
    require: Require = Require()
    min_match: float | None = None
    on_content_filter: Literal["stop", "fallback"] = "stop"
    percentile: Literal[50, 95] = 50
    cache_s: float = 0.0


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A routing policy. `analyzer` names what finds hints in requests that leave the choice to us; None: nothing does.

    `hints` says which capabilities a hint asks for, beside or instead of what the analyzer's own table says.
    """

    rules: list[Rule] = []
    defaults: Defaults = Defaults()
    analyzer: str | None = None
    hints: dict[str, list[str]] = {}


class PolicyEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of the policy carries: why it was done, where the caller said so."""

    reason: str | None = None


class PolicyPublished(PolicyEvent, frozen=True, kw_only=True, tag="policy.published.v1"):
    """Requests are routed by this policy from here on. `version` counts from 1."""

    version: int
    policy: Policy


class PolicyRolledBack(PolicyEvent, frozen=True, kw_only=True, tag="policy.rolled-back.v1"):
    """Requests are routed by an earlier policy again: `policy` is that of version `to`, under a number of its own."""

    version: int
    to: int
    policy: Policy


class OverrideSet(PolicyEvent, frozen=True, kw_only=True, tag="policy.override-set.v1"):
    """An operator sends every request to one model, up to `until` (Unix time; None: until it is cleared)."""

    model: str
    until: float | None = None


class OverrideCleared(PolicyEvent, frozen=True, kw_only=True, tag="policy.override-cleared.v1"):
    """The policy decides again."""


PolicyFact = PolicyPublished | PolicyRolledBack | OverrideSet | OverrideCleared

ROUTING = "routing"
"""The one aggregate of the category."""


class Configuration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a thread's configuration says about routing: the event at `sequence` (0: it has none).

    `model` is what `auto` stands for in this thread, where no rule says otherwise; `preferences` has the fields of the
    extension `route` of a request.
    """

    sequence: int = 0
    model: str | None = None
    preferences: dict[str, Any] = field(default_factory=dict)
