"""What commands answer, as the documents of the API have it. Money is US dollars as text, times are RFC 3339."""

from datetime import date
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType
from trunkline_actors.cataloguing import Known
from trunkline_actors.discovering import Found
from trunkline_actors.plugins import Standing
from trunkline_actors.policy_diff import Difference
from trunkline_actors.shapes import Problem
from trunkline_events.measured import Measured
from trunkline_events.policy import Policy
from trunkline_events.registry import Model, Provider

Circuit = Literal["closed", "open", "half-open"]


class Told(Struct, frozen=True, kw_only=True):
    """`seq` is how far the log was read, or where the change is. `stale`: the log was away, this was known last."""

    ok: Literal[True]
    stale: bool = False


class Changed(Told, frozen=True, kw_only=True):
    """`changed: false`: it was so already, and nothing was recorded."""

    seq: int
    id: str
    changed: bool = True


class ModelChanged(Changed, frozen=True, kw_only=True):
    """A model after a change, where that concerned more than its status. `running` calls had not ended in `drain_s`."""

    model: Model | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    drained: bool | UnsetType = UNSET
    running: int | UnsetType = UNSET


class OneModel(Told, frozen=True, kw_only=True):
    """One model."""

    seq: int
    model: Model


class Models(Told, frozen=True, kw_only=True):
    """A page of models, by id; `after` asks for the next one, null: there is none."""

    seq: int
    models: list[Model]
    after: str | None


class Discovered(Told, frozen=True, kw_only=True):
    """The models that fit, the best match first, and how many there are in all."""

    seq: int
    models: list[Found]
    count: int


class Catalogue(Told, frozen=True, kw_only=True):
    """Models that may be registered by name alone, as they were known on the day `dated`."""

    seq: int
    dated: date | None
    models: list[Known]
    after: str | None


class Point(Struct, frozen=True, kw_only=True):
    """The calls that ended in one step of time."""

    at: str
    version: str
    calls: int
    failures: int
    success: float
    p50_ms: float | None
    p95_ms: float | None
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    tokens_per_s: float | None
    cost_usd: str
    input_tokens: int
    output_tokens: int


class Metrics(Told, frozen=True, kw_only=True):
    """What a model did: `now` by version over the last minutes, `series` over time."""

    id: str
    now: dict[str, Measured]
    since: str
    until: str
    step_s: int
    series: list[Point]


class ModelHealth(Struct, frozen=True, kw_only=True):
    """Whether a model can be used now: it is enabled, a process serves its provider, and the circuit is not open."""

    id: str
    provider: str
    status: Literal["enabled", "disabled", "retired"]
    serving: bool
    circuit: Circuit
    usable: bool
    measured: Measured | None


class ModelsHealth(Told, frozen=True, kw_only=True):
    """A page of models, by id."""

    seq: int
    models: list[ModelHealth]
    after: str | None


class ProviderChanged(Changed, frozen=True, kw_only=True):
    """A provider after a change. `serving`: a process serves it already."""

    provider: Provider | UnsetType = UNSET
    serving: bool | UnsetType = UNSET


class OneProvider(Told, frozen=True, kw_only=True):
    """One provider instance."""

    seq: int
    provider: Provider


class Providers(Told, frozen=True, kw_only=True):
    """A page of provider instances, by id."""

    seq: int
    providers: list[Provider]
    after: str | None


class ProviderHealth(Struct, frozen=True, kw_only=True):
    """Whether a process serves a provider, and its circuit."""

    id: str
    kind: str
    serving: bool
    circuit: Circuit


class ProvidersHealth(Told, frozen=True, kw_only=True):
    """A page of provider instances, by id."""

    seq: int
    providers: list[ProviderHealth]
    after: str | None


class Checked(Told, frozen=True, kw_only=True):
    """Whether a provider's server was reached just now, and what is the matter where it wasn't."""

    id: str
    serving: bool
    reachable: bool
    problem: str | None
    plugin: Standing | UnsetType | None = UNSET


# -- routing -----------------------------------------------------------------------------------------------------------


class Candidate(Struct, frozen=True, kw_only=True):
    """A model that was considered: its place by `score` (lower is better), or why it was left out."""

    model: str
    provider: str
    score: float | None
    reason: str


class Advised(Candidate, frozen=True, kw_only=True):
    """A candidate with what helps to judge it: a match from 0 to 1, a typical cost, and how it did of late."""

    match: float
    typical_cost_usd: str | None
    measured: Measured | None


class Recommended(Told, frozen=True, kw_only=True):
    """Whom a request would be sent to now, and who else was considered. `left_out` counts the rest by reason."""

    seq: int
    model: str
    candidates: list[Advised]
    left_out: dict[str, int]
    policy_version: int
    rule: str | None
    override: str | None
    statistics: bool


class Decision(Struct, frozen=True, kw_only=True):
    """One decision, as the log has it."""

    seq: int
    at: str
    thread_id: str
    reserved_usd: str
    request_id: str
    attempt: int
    model: str
    version: str
    provider: str
    rule: str | None
    policy_version: int
    override: str | None
    candidates: list[Candidate]
    left_out: dict[str, int]
    tried: list[str]
    asked: dict[str, Any]


class Decisions(Told, frozen=True, kw_only=True):
    """The last decisions, the oldest first; `before` asks for those before them, null: there are none."""

    seq: int
    decisions: list[Decision]
    before: int | None


class Override(Struct, frozen=True, kw_only=True):
    """Every request goes to one model, up to a time."""

    model: str
    until: str | None
    reason: str | None


class OnePolicy(Told, frozen=True, kw_only=True):
    """A version of the policy, and which one is in force."""

    version: int
    policy: Policy
    override: Override | None
    current: int
    published_at: str | None
    by: str | None
    reason: str | None
    seq: int


class PolicyChanged(Told, frozen=True, kw_only=True):
    """What a change came to: a new version, or an override set or cleared."""

    seq: int
    changed: bool
    version: int | UnsetType = UNSET
    to: int | UnsetType = UNSET
    rules: int | UnsetType = UNSET
    warnings: list[Problem] | UnsetType = UNSET
    override: Override | UnsetType | None = UNSET


class Validated(Told, frozen=True, kw_only=True):
    """Whether a policy could be published, and what is wrong with it where it couldn't."""

    valid: bool
    problems: list[Problem]
    count: int
    warnings: list[Problem]


class PolicyVersion(Struct, frozen=True, kw_only=True):
    """A version of the policy, without its rules."""

    version: int
    published_at: str
    kind: str
    to: int | None
    rules: int
    by: str
    reason: str | None
    seq: int


class PolicyHistory(Told, frozen=True, kw_only=True):
    """A page of versions, the newest first."""

    seq: int
    current: int
    versions: list[PolicyVersion]
    after: int | None


class Compared(Told, frozen=True, kw_only=True, rename={"before": "from"}):
    """What differs between two versions."""

    before: int
    to: int
    same: bool
    diff: Difference
    seq: int
