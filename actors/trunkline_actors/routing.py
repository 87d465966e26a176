"""Which model serves a request, and at what reservation. Pure: everything a decision is made from is an argument."""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct, structs
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.policy import Configuration
from trunkline_events.rate import Rate
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import Asked, Books, Candidate, RequestRefused, RouteDecided
from trunkline_projections.circuits import Circuit
from trunkline_projections.folds import Gateway

from trunkline_actors import money
from trunkline_actors.bounds import encoding_of, image_bound
from trunkline_actors.money import Exceeded, Fund, Underfunded, Waiting
from trunkline_actors.pricing import worst_case
from trunkline_actors.requests import AUTO, BYTES_A_TOKEN, MOST_BYTES_A_TOKEN, Parsed

MAX_CANDIDATES = 16
AFTER_ALL = 1e15
"""A score behind any cost in nano-dollars: a million dollars."""
TYPICAL_OUTPUT = 512
"""Output tokens a request is compared at where it sets no bound."""


class Request(Struct, frozen=True, kw_only=True):
    """One request on its way, and what has been tried for it. Times are Unix time in seconds; `key` is a key's id.

    `failures` are the classes of what was `tried`, in the same order; the first `rested` of them were waited out, and
    may be tried again. `configuration` is that of its thread.
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
    failures: tuple[FailureClass, ...] = ()
    rested: int = 0
    configuration: Configuration = Configuration()


class Ranked(Struct, frozen=True):
    """The models that can serve a request, best first, and every one that was considered, with the reason."""

    models: list[Model]
    considered: list[Candidate]
    left_out: dict[str, int]


class Moment(Struct, frozen=True, kw_only=True):
    """What the world looked like: the gateway at `log_seq`, the rates that applied, the clock and the draw.

    `measured` are the statistics of models, `forced` the model that this process was told to use, `turn` counts its
    decisions.
    """

    gateway: Gateway
    rates: Mapping[str, Rate]
    log_seq: int
    now: float
    draw: float
    measured: Mapping[str, Measured] = {}
    forced: str | None = None
    turn: int = 0


def rank(request: Request, moment: Moment) -> Ranked | Refused:
    """Order the models that can serve this request: as named, or all of them, preferred first, then cheapest first."""
    parsed, registry = request.parsed, moment.gateway.registry
    asked = parsed.asked
    if asked.model != AUTO and asked.model not in registry.models:
        return Refused(
            code="model_not_found",
            message=f"no model is registered as {asked.model!r}; `trunkline models list` shows what there is",
            param="model",
        )
    fits: list[tuple[float, int, Model, str]] = []
    seen: set[str] = set()
    rejected: list[Candidate] = []
    for place, (model, why) in enumerate(_named(request, registry.models)):
        if model.id in seen:
            continue
        seen.add(model.id)
        problem = _problem(model, request, moment)
        if problem is None:
            fits.append((_score(model, place, request, moment), place, model, why))
        else:
            rejected.append(Candidate(model=model.id, provider=model.provider, score=None, reason=problem))
    fits.sort(key=lambda entry: entry[:2])
    if not fits:
        return _no_route(request, rejected)
    considered = [
        Candidate(model=model.id, provider=model.provider, score=score, reason=why) for score, _, model, why in fits
    ]
    considered += rejected
    rest = considered[MAX_CANDIDATES:]
    return Ranked(
        [model for _, _, model, _ in fits],
        considered[:MAX_CANDIDATES],
        dict(Counter(one.reason for one in rest)) if rest else {},
    )


def decide(
    books: Books, request: Request, moment: Moment, funds: tuple[Fund, ...] = ()
) -> RouteDecided | RequestRefused | Refused:
    """Choose the first candidate whose worst case every budget allows, and reserve it.

    A refusal for want of money is itself an event, since the books answered it; any other is not. Waiting, or
    Underfunded where a slice of `funds` is too small for the best candidate: ask again when that has changed.
    """
    ranked = rank(request, moment)
    if isinstance(ranked, Refused):
        return ranked
    refused: Refused | None = None
    for model in ranked.models:
        reserved = _reserve(books, model, request, moment, funds)
        if not isinstance(reserved, Refused):
            return _decided(reserved, model, ranked, request, moment, funds)
        if isinstance(reserved, Underfunded):
            return reserved
        if refused is None or (isinstance(reserved, Waiting) and not isinstance(refused, Waiting)):
            refused = reserved
    assert refused is not None
    if not isinstance(refused, Exceeded):
        return refused
    return RequestRefused(
        request_id=request.request_id,
        key=request.key,
        code=refused.code,
        message=refused.message,
        asked=request.parsed.asked,
        needed_nanos=refused.needed_nanos,
        budget=refused.scope,
        **money.fields(money.turn(books, moment.now)),
    )


def _decided(
    reserved: money.Reserved,
    model: Model,
    ranked: Ranked,
    request: Request,
    moment: Moment,
    funds: tuple[Fund, ...],
) -> RouteDecided:
    return RouteDecided(
        request_id=request.request_id,
        key=request.key,
        slices={fund.scope: fund.slice for fund in funds},
        attempt_id=request.attempt_id,
        attempt=request.attempt,
        model=model.id,
        provider=model.provider,
        candidates=ranked.considered,
        left_out=ranked.left_out,
        reserve_nanos=reserved.reserve_nanos,
        max_tokens=reserved.max_tokens,
        input_bound=input_bound(model, request.parsed.asked, moment),
        price_version=moment.rates[model.id].version,
        asked=request.parsed.asked,
        tried=list(request.tried),
        log_seq=moment.log_seq,
        policy_version=0,
        override=None,
        preferences={},
        stats={},
        now=moment.now,
        draw=moment.draw,
        deadline=request.deadline,
        reply=request.reply,
        **money.fields(reserved.books),
    )


def _reserve(
    books: Books, model: Model, request: Request, moment: Moment, funds: tuple[Fund, ...]
) -> money.Reserved | Refused:
    parsed = request.parsed
    asked = parsed.asked
    clamp = parsed.route.clamp
    return money.reserve(
        books,
        money.Reserve(
            attempt_id=request.attempt_id,
            request_id=request.request_id,
            rate=moment.rates[model.id],
            input_bound=input_bound(model, asked, moment),
            max_tokens=asked.max_tokens,
            model_max=model.max_output,
            generates=asked.operation == "chat",
            choices=parsed.choices,
            clamp=asked.max_tokens is None if clamp is None else clamp,
            max_cost_nanos=parsed.max_cost_nanos,
            funds=funds,
        ),
        moment.now,
    )


def input_bound(model: Model, asked: Asked, moment: Moment) -> int:
    """The most tokens that this model can be billed for the input: as counted, where that is less than its bytes."""
    bound = asked.input_bound
    if asked.tokens:
        encoding = encoding_of(moment.gateway.registry.providers[model.provider].kind, model.upstream)
        bound = min(bound, asked.tokens.get(encoding or "", bound))
    return bound + asked.images * image_bound(model.upstream) if asked.images else bound


def _named(request: Request, models: Mapping[str, Model]) -> Iterable[tuple[Model, str]]:
    """The models to consider, in the order asked for, each with what brought it in."""
    route, asked = request.parsed.route, request.parsed.asked
    if asked.model != AUTO:
        yield models[asked.model], "asked for"
    else:
        for name in route.prefer:
            if name in models:
                yield models[name], "preferred"
        for model in models.values():
            if model.id not in route.prefer and model.id not in route.fallbacks:
                yield model, "cheapest first"
    for name in route.fallbacks:
        if name in models and name != asked.model:
            yield models[name], "fallback"


def _score(model: Model, place: int, request: Request, moment: Moment) -> float:
    """Lower is better: the place where the caller gave an order, else a typical cost in nano-dollars."""
    route, asked = request.parsed.route, request.parsed.asked
    if asked.model != AUTO or model.id in route.prefer:
        return float(place)
    if model.id in route.fallbacks:
        return AFTER_ALL + route.fallbacks.index(model.id)
    cost = worst_case(moment.rates[model.id], asked.input_bound // BYTES_A_TOKEN, asked.max_tokens or TYPICAL_OUTPUT)
    return len(route.prefer) + float(cost)


def _problem(model: Model, request: Request, moment: Moment) -> str | None:
    """Why this model can't serve this request, in words that count well."""
    parsed = request.parsed
    route, asked = parsed.route, parsed.asked
    provider = moment.gateway.registry.providers.get(model.provider)
    if model.status != "enabled":
        return model.status
    if provider is None:
        return "its provider is not registered"
    if model.id in request.tried:
        return "failed already for this request"
    if model.id in route.avoid:
        return "to be avoided"
    if route.local_only and not provider.local:
        return "not local"
    missing = [name for name in asked.features if name not in model.features]
    if missing:
        return f"lacks {missing[0]}"
    lacking = [name for name in route.capabilities if not model.capabilities.get(name)]
    if lacking:
        return f"lacks capability {lacking[0]}"
    if model.context_window is not None and _surely_longer(asked, model.context_window):
        return TOO_LONG
    if _is_open(moment.gateway.circuits.get(model.provider), moment.now):
        return "its circuit is open"
    return None


def _surely_longer(asked: Asked, window: int) -> bool:
    """Only what no tokenizer could squeeze in: the provider knows better, and says so (`context_length`)."""
    counted = asked.operation == "chat" and "vision" not in asked.features
    return counted and asked.input_bound // MOST_BYTES_A_TOKEN > window


TOO_LONG = "its context window is too small"


def _is_open(circuit: Circuit | None, now: float) -> bool:
    return circuit is not None and circuit.state == "open" and (circuit.retry_at or 0.0) > now


def _no_route(request: Request, rejected: list[Candidate]) -> Refused:
    reasons = Counter(one.reason for one in rejected)
    if rejected and all(one.reason == TOO_LONG for one in rejected):
        return Refused(
            code="context_length_exceeded",
            message="the request is longer than the context window of every model that could serve it",
            param="messages",
        )
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
    return Refused(
        code="no_route",
        message=f"no enabled model can serve this request: {listed or 'none is registered'}",
        metadata={"reasons": dict(reasons), "tried": list(request.tried)},
    )


def with_attempt(request: Request, attempt_id: str, tried: str, failure: FailureClass) -> Request:
    """The same request, one attempt on."""
    return structs.replace(
        request,
        attempt_id=attempt_id,
        attempt=request.attempt + 1,
        tried=(*request.tried, tried),
        failures=(*request.failures, failure),
    )


def with_id(request: Request, attempt_id: str) -> Request:
    """The same attempt under another id, since this one was used before."""
    return structs.replace(request, attempt_id=attempt_id)


def with_tokens(request: Request, tokens: dict[str, int]) -> Request:
    """The same request with its input counted, by tokenizer."""
    asked = structs.replace(request.parsed.asked, tokens=tokens)
    return structs.replace(request, parsed=structs.replace(request.parsed, asked=asked))
