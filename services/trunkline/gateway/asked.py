"""What may be asked of the paths of the API: the fields of their queries, and bodies that differ from a command's."""

from typing import Annotated, Literal

from msgspec import Meta, Struct
from trunkline_actors.lifecycle import DeployModel
from trunkline_actors.registry import RegisterModel
from trunkline_actors.thread_settings import Change
from trunkline_events.policy import Optimize
from trunkline_events.registry import Model, Provider

from trunkline.gateway.commands import Reason, without

Limit = Annotated[int, Meta(description="how many at most", ge=1, le=1000)]
After = Annotated[str, Meta(description="the id before the first one wanted: `after` of the page before")]
Names = list[str]


class Page(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a list."""

    limit: Limit = 100
    after: After = ""


class ModelsAsked(Page, frozen=True, kw_only=True):
    """Which models."""

    provider: Annotated[str | None, Meta(description="served by this provider instance")] = None
    status: Annotated[Literal["enabled", "disabled", "retired"] | None, Meta(description="with this status")] = None
    capability: Annotated[str | None, Meta(description="good at this, at least a little")] = None
    tag: Annotated[str | None, Meta(description="with this tag")] = None


class DiscoverAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model must be able to do."""

    capability: Annotated[Names, Meta(description="good at all of these, such as reasoning")] = []
    min_score: Annotated[float, Meta(description="the least score in each of them", ge=0, le=1)] = 0.0
    features: Annotated[Names, Meta(description="able to do all of these, such as tools, vision")] = []
    tags: Annotated[Names, Meta(description="with all of these tags")] = []
    local_only: Annotated[bool, Meta(description="served by a provider of your own only")] = False
    context_window: Annotated[int, Meta(description="the least, in tokens")] | None = None
    limit: Limit = 100


class CatalogueAsked(Page, frozen=True, kw_only=True):
    """Which entries of the catalogue."""

    limit: Limit = 1000
    kind: Annotated[str | None, Meta(description="served by this kind of provider")] = None
    family: Annotated[str | None, Meta(description="of this family")] = None
    capabilities: Annotated[Names, Meta(description="good at all of these")] = []
    features: Annotated[Names, Meta(description="able to do all of these")] = []
    context_window: Annotated[int, Meta(description="the least, in tokens")] | None = None


class Removal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to remove a model."""

    force: Annotated[bool, Meta(description="even where threads or policies depend on it")] = False
    reason: Annotated[str | None, Meta(description="why: it is recorded")] = None


class Why(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why something is done."""

    reason: Annotated[str | None, Meta(description="why: it is recorded")] = None


class MetricsAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which time, by default the last hour in minutes."""

    since: Annotated[str | None, Meta(description="RFC 3339")] = None
    until: Annotated[str | None, Meta(description="RFC 3339")] = None
    step_s: Annotated[int, Meta(description="seconds a point stands for, a multiple of 60")] = 60
    version: Annotated[str | None, Meta(description="of this version of the model only")] = None


class RecommendAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that nobody sends."""

    model: Annotated[str, Meta(description="what it asks for")] = "auto"
    operation: Literal["chat", "embeddings"] = "chat"
    stream: bool = False
    input_tokens: Annotated[int, Meta(description="tokens of its input", ge=0)] = 1000
    max_tokens: Annotated[int, Meta(description="tokens of output at most", ge=1)] | None = None
    features: Annotated[Names, Meta(description="what it needs, such as tools, vision")] = []
    hints: Annotated[Names, Meta(description="what an analyzer would find in it")] = []
    thread_id: Annotated[str | None, Meta(description="as a request of this thread")] = None
    limit: Limit = 16
    capabilities: Annotated[Names, Meta(description="what a model must be good at")] = []
    min_match: Annotated[float, Meta(description="the least match for them", ge=0, le=1)] | None = None
    prefer: Annotated[Names, Meta(description="models that come first")] = []
    fallbacks: Annotated[Names, Meta(description="models that come last")] = []
    avoid: Annotated[Names, Meta(description="models that are left out")] = []
    tags: Annotated[Names, Meta(description="tags that a model must have")] = []
    data: Annotated[Names, Meta(description="promises about data that its provider must make")] = []
    optimize: Optimize | None = None
    max_cost_usd: Annotated[str | None, Meta(description="what it may cost at most")] = None
    local_only: bool = False


OF_THE_REQUEST = (
    "model",
    "operation",
    "stream",
    "input_tokens",
    "max_tokens",
    "features",
    "hints",
    "thread_id",
    "limit",
)
"""What of it is no wish about routing."""


class LogsAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which decisions."""

    limit: Limit = 100
    thread_id: Annotated[str | None, Meta(description="of this thread only")] = None
    before: Annotated[int, Meta(description="before this sequence: `before` of the page before", ge=1)] | None = None


class VersionAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which version of the policy."""

    version: Annotated[int, Meta(description="by default the one in force", ge=0)] | None = None


class HistoryAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which versions of the policy."""

    limit: Limit = 100
    after: Annotated[int, Meta(description="older than this version")] | None = None


class DiffAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"before": "from"}):
    """Which versions to compare."""

    before: Annotated[int, Meta(description="by default the one before `to`", ge=0)] | None = None
    to: Annotated[int, Meta(description="by default the one in force", ge=0)] | None = None


class CircuitsAsked(Page, frozen=True, kw_only=True):
    """Which breakers."""

    state: Annotated[Literal["closed", "open", "half-open"] | None, Meta(description="in this state")] = None


class LastAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many of the last."""

    limit: Limit = 100


class PluginsAsked(Page, frozen=True, kw_only=True):
    """Which plugins."""

    status: Annotated[str | None, Meta(description="in this state: ready, failed, missing or unused")] = None


# -- bodies ------------------------------------------------------------------------------------------------------------

FromCatalogue = without(
    "RegisterFromCatalogue",
    "Register a model as the catalogue describes it; what is given besides wins over the entry.",
    RegisterModel,
    optional=True,
    more={"from_catalogue": str},
)


class Ending(Reason, frozen=True, kw_only=True):
    """`force`: even where threads or policies depend on the model."""

    force: bool = False


class Retiring(Ending, frozen=True, kw_only=True):
    """`drain_s`: wait so many seconds for what runs to end."""

    drain_s: float | None = None


ModelChanges = without(
    "ModelChanges",
    "The fields of a model to change; what isn't named stays. A name as null takes away what may be missing.",
    Model,
    *("id", "status", "canary"),
    optional=True,
    more={"reason": str | None},
)
ProviderChanges = without(
    "ProviderChanges",
    "The settings of a provider to change; what isn't named stays.",
    Provider,
    "id",
    optional=True,
    more={"reason": str | None},
)
Deployment = without(
    "Deployment",
    "A version of a model. What isn't given is as in the current one; `weight` is its share of the requests.",
    DeployModel,
    "id",
)
ThreadChange = without(
    "ThreadChange",
    "What of a thread's configuration is to be changed: what isn't named stays, null takes it away.",
    Change,
    optional=True,
    more={"reason": str | None},
)
