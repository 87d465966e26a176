"""The facts of the registry: models and the provider instances that serve them."""

from typing import Literal

from msgspec import Struct, field


class Price(Struct, frozen=True, kw_only=True):
    """US dollars a million tokens, as decimal text. `cached_input` absent: cached tokens cost what input costs."""

    input: str
    output: str
    cached_input: str | None = None


Status = Literal["enabled", "disabled", "retired"]


class Canary(Struct, frozen=True, kw_only=True):
    """A version of a model that serves a share `weight` (above 0, below 1) of its requests, to be tried out."""

    version: str
    provider: str
    upstream: str
    weight: float
    price: Price | None = None


class Model(Struct, frozen=True, kw_only=True):
    """A model as registered. `upstream` is the provider's own name of it; capability scores run from 0 to 1."""

    id: str
    provider: str
    upstream: str
    version: str = "1"
    capabilities: dict[str, float] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    context_window: int | None = None
    max_output: int | None = None
    price: Price | None = None
    tags: list[str] = field(default_factory=list)
    status: Status = "enabled"
    canary: Canary | None = None


RESPONSES = "responses/"
"""What a model's `upstream` begins with where it is served by OpenAI's Responses API alone; its name there follows."""

Transport = Literal["raw", "sdk"]
"""How a provider is reached, where its kind has both: by our own HTTP path, or by its SDK."""


class Provider(Struct, frozen=True, kw_only=True):
    """A provider instance. `secret` names a secret (`env:NAME`), it never is one; `timeout_s` bounds one call.

    `first_token_timeout_s` bounds the wait for a stream's first chunk, `stall_timeout_s` that for each further one.
    `breaker_failures` in a row open its circuit, for `breaker_open_s` seconds. A call that comes while
    `max_concurrency` others run waits for its turn, at most `queue_timeout_s`. `data` lists what it promises about
    data, in words of your own, such as `eu`.
    """

    id: str
    kind: str
    base_url: str | None = None
    secret: str | None = None
    local: bool = False
    max_concurrency: int | None = None
    timeout_s: float = 60.0
    headers: dict[str, str] = field(default_factory=dict)
    first_token_timeout_s: float | None = None
    stall_timeout_s: float = 20.0
    breaker_failures: int = 5
    breaker_open_s: float = 60.0
    data: list[str] = field(default_factory=list)
    queue_timeout_s: float = 10.0
    transport: Transport = "raw"


class RegistryEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of the registry carries: why it was done, where the caller said so."""

    reason: str | None = None


class ModelRegistered(RegistryEvent, frozen=True, kw_only=True, tag="model.registered.v1"):
    """A model can be routed to from here on."""

    model: Model


class ModelUpdated(RegistryEvent, frozen=True, kw_only=True, tag="model.updated.v1"):
    """A model's registration changed; `model` is the whole of it after the change, `changed` the fields that did."""

    model: Model
    changed: list[str]


class ModelDeployed(RegistryEvent, frozen=True, kw_only=True, tag="model.deployed.v1"):
    """A new version of a model serves under the same id: all of its requests, or a share of them as a canary."""

    model: Model


class ModelEnabled(RegistryEvent, frozen=True, kw_only=True, tag="model.enabled.v1"):
    """A disabled model may be routed to again."""

    id: str


class ModelDisabled(RegistryEvent, frozen=True, kw_only=True, tag="model.disabled.v1"):
    """A model stays registered but is not routed to."""

    id: str


class ModelRetired(RegistryEvent, frozen=True, kw_only=True, tag="model.retired.v1"):
    """A model reached the end of its life; it is never enabled again."""

    id: str


class ModelRemoved(RegistryEvent, frozen=True, kw_only=True, tag="model.removed.v1"):
    """A model is no longer registered; its id is free."""

    id: str


class PullStarted(RegistryEvent, frozen=True, kw_only=True, tag="model.pull-started.v1"):
    """A provider instance began to fetch a model's files, or went on with that after the process that did so was gone.

    `id` is the model they will be registered as, `upstream` the provider's name of it; `pull` tells this pull from any
    other. `began` is when it was asked for (Unix time); `attempt` counts the processes that have taken it up.
    """

    id: str
    provider: str
    upstream: str
    pull: str
    began: float
    attempt: int = 1


class ModelPulled(RegistryEvent, frozen=True, kw_only=True, tag="model.pulled.v1"):
    """A provider instance has a model's files. It was registered just before, or `problem` says why it was not.

    `size_bytes` is what they take on its disk, `parameters` the size of the model as its makers give it, like `7.6B`.
    """

    id: str
    provider: str
    upstream: str
    pull: str
    digest: str = ""
    size_bytes: int | None = None
    family: str = ""
    parameters: str = ""
    quantization: str = ""
    context_window: int | None = None
    features: list[str] = field(default_factory=list)
    problem: str | None = None


class PullFailed(RegistryEvent, frozen=True, kw_only=True, tag="model.pull-failed.v1"):
    """A model's files were not fetched; what had come is kept by the provider, so that a further pull goes on there.

    `aborted`: on somebody's wish. `message` says what happened.
    """

    id: str
    provider: str
    upstream: str
    pull: str
    message: str
    aborted: bool = False


class ModelDeleted(RegistryEvent, frozen=True, kw_only=True, tag="model.deleted.v1"):
    """A provider instance no longer has a model's files. What was registered with them was removed before."""

    id: str
    provider: str
    upstream: str


class ProviderRegistered(RegistryEvent, frozen=True, kw_only=True, tag="provider.registered.v1"):
    """A provider instance can serve models from here on."""

    provider: Provider


class ProviderUpdated(RegistryEvent, frozen=True, kw_only=True, tag="provider.updated.v1"):
    """A provider's settings changed; `provider` is the whole of them after the change."""

    provider: Provider
    changed: list[str]


class ProviderRemoved(RegistryEvent, frozen=True, kw_only=True, tag="provider.removed.v1"):
    """A provider instance is no longer registered; its id is free."""

    id: str


RegistryFact = (
    ModelRegistered
    | ModelUpdated
    | ModelDeployed
    | ModelEnabled
    | ModelDisabled
    | ModelRetired
    | ModelRemoved
    | PullStarted
    | ModelPulled
    | PullFailed
    | ModelDeleted
    | ProviderRegistered
    | ProviderUpdated
    | ProviderRemoved
)
