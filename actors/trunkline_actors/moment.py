"""What a decision is made from: a request with what was tried for it, and the world at that moment. Pure."""

from collections.abc import Mapping

from msgspec import Struct, field, structs
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.policy import Configuration
from trunkline_events.rate import Rate
from trunkline_events.registry import Canary, Model
from trunkline_events.subjects import NO_THREAD
from trunkline_projections.folds import Gateway
from trunkline_projections.models import Registry

from trunkline_actors.circuit import offers
from trunkline_actors.plan import Needs
from trunkline_actors.requests import Parsed
from trunkline_actors.shortlist import Shortlists, leaks

MEAN_STRIDE = 1_000_003
"""A prime: what is left of a draw multiplied by it is another draw."""


class Request(Struct, frozen=True, kw_only=True):
    """One request on its way, and what has been tried for it. Times are Unix time in seconds; `key` is a key's id.

    `versions` and `failures` are the versions and the failure classes of what was `tried`, in the same order; the first
    `rested` of them were waited out, and may be tried again. `configuration` is that of its thread.
    """

    request_id: str
    attempt_id: str
    attempt: int
    parsed: Parsed
    tried: tuple[str, ...]
    reply: str
    deadline: float
    key: str = ""
    thread: str = NO_THREAD
    versions: tuple[str, ...] = ()
    failures: tuple[FailureClass, ...] = ()
    rested: int = 0
    configuration: Configuration = Configuration()


class Moment(Struct, frozen=True, kw_only=True):
    """What the world looked like: the gateway at `log_seq`, the rates that applied, the clock and the draw, 0 to 1.

    `measured` are the statistics of models, `busy` how many calls of each this router itself has under way, `forced`
    the model that this process was told to use; `turns` counts the requests that took turns, by rule ("": of none).
    `blind` says whether there were no statistics at all, `behind` which models came after all others, where that is
    known from somewhere else. `shortlists` are those made before.
    """

    gateway: Gateway
    rates: Mapping[str, Rate]
    log_seq: int
    now: float
    draw: float
    measured: Mapping[str, Measured] = {}
    busy: Mapping[str, int] = {}
    forced: str | None = None
    turns: Mapping[str, int] = {}
    blind: bool | None = None
    behind: frozenset[str] = frozenset()
    shortlists: Shortlists = field(default_factory=Shortlists)


class Served(Struct, frozen=True):
    """A model as it serves one request: itself, or its canary. `name` is what its rate and its statistics go by."""

    version: str
    provider: str
    upstream: str
    name: str


def served(model: Model, request: Request, moment: Moment, needs: Needs) -> Served:
    """Which version of a model serves: its canary for a share of requests, unless that failed or can't be called.

    A canary at another provider gets no request whose data must not go there.
    """
    canary = model.canary
    if (
        canary is None
        or moment.draw * MEAN_STRIDE % 1.0 >= canary.weight
        or canary.provider not in moment.gateway.registry.providers
        or any(pair == (model.id, canary.version) for pair in zip(request.tried, request.versions, strict=False))
        or canary.provider in refusing(request, moment.gateway.registry)
        or leaks(moment.gateway.registry.providers[canary.provider], needs) is not None
        or closed_off(canary.provider, moment) is not None
    ):
        return itself(model)
    return _canary(model, canary)


def as_decided(model: Model, version: str) -> Served:
    """The version of a model that was decided on."""
    canary = model.canary
    return _canary(model, canary) if canary is not None and canary.version == version else itself(model)


def _canary(model: Model, canary: Canary) -> Served:
    return Served(canary.version, canary.provider, canary.upstream, f"{model.id}@{canary.version}")


def itself(model: Model) -> Served:
    """A model in its own version."""
    return Served(model.version, model.provider, model.upstream, model.id)


REFUSED_US = "its provider refused our key"
FILTERED = "its provider filtered this request"
_REFUSING = {FailureClass.AUTH: REFUSED_US, FailureClass.CONTENT_FILTER: FILTERED}


def failed_before(request: Request, registry: Registry) -> list[tuple[Model, Served, FailureClass]]:
    """What failed and was not waited out: the model, as what it served (its canary, for one), and how."""
    failures = request.failures or (FailureClass.INTERNAL,) * len(request.tried)
    versions = request.versions or ("",) * len(request.tried)
    found = []
    for name, version, failure in list(zip(request.tried, versions, failures, strict=False))[request.rested :]:
        model = registry.models.get(name)
        if model is not None:
            found.append((model, as_decided(model, version), failure))
    return found


def refusing(request: Request, registry: Registry) -> dict[str, str]:
    """Providers that no model of theirs can serve this request at any more, and why."""
    if not request.tried:
        return {}
    failed = failed_before(request, registry)
    return {tried.provider: _REFUSING[failure] for _, tried, failure in failed if failure in _REFUSING}


def closed_off(provider: str, moment: Moment) -> str | None:
    """Why a provider can't be called right now; None where it can, if only as a probe."""
    return offers(moment.gateway.circuits.get(provider), moment.now)


def with_attempt(request: Request, attempt_id: str, tried: str, failure: FailureClass, version: str = "") -> Request:
    """The same request, one attempt on: that of this model, in this version, failed so."""
    return structs.replace(
        request,
        attempt_id=attempt_id,
        attempt=request.attempt + 1,
        tried=(*request.tried, tried),
        versions=(*request.versions, version),
        failures=(*request.failures, failure),
    )


def with_id(request: Request, attempt_id: str) -> Request:
    """The same attempt under another id, since this one was used before."""
    return structs.replace(request, attempt_id=attempt_id)


def with_tokens(request: Request, tokens: dict[str, int]) -> Request:
    """The same request with its input counted, by tokenizer."""
    asked = structs.replace(request.parsed.asked, tokens=tokens)
    return structs.replace(request, parsed=structs.replace(request.parsed, asked=asked))
