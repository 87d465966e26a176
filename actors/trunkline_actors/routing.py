"""Which model serves a request, and at what reservation. Pure: everything a decision is made from is an argument."""

from msgspec import Struct
from trunkline_events.measured import Measured
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model
from trunkline_events.thread import Asked, Basis, Books, Candidate, RequestRefused, RouteDecided

from trunkline_actors import money
from trunkline_actors.bounds import encoding_of, image_bound
from trunkline_actors.moment import Moment, Request, Served, served
from trunkline_actors.money import Exceeded, Fund, Underfunded, Waiting
from trunkline_actors.pricing import is_in_log
from trunkline_actors.ranking import Ranked, rank
from trunkline_actors.recorded import funded

RECONFIGURED = "the thread was configured anew"


class Reconfigured(Refused, frozen=True, kw_only=True):
    """The thread has another configuration than the request was read with: that of the event at `sequence`."""

    sequence: int


def decide(
    books: Books, request: Request, moment: Moment, funds: tuple[Fund, ...] = ()
) -> RouteDecided | RequestRefused | Refused:
    """Choose the first candidate whose worst case every budget allows, and reserve it.

    A refusal for want of money is itself an event, since the books answered it; any other is not. Waiting, or
    Underfunded where a slice of `funds` is too small for the best candidate, or Reconfigured: ask again when that has
    changed.
    """
    if books.config_seq != request.configuration.sequence:
        return Reconfigured(code="unavailable", message=RECONFIGURED, sequence=books.config_seq)
    ranked = rank(request, moment)
    if isinstance(ranked, Refused):
        return ranked
    refused: Refused | None = None
    for place, model in enumerate(ranked.models):
        serves = served(model, request, moment, ranked.plan.needs)
        reserved = _reserve(books, model, serves, ranked, request, moment, funds)
        if not isinstance(reserved, Refused):
            choice = Choice(ranked=ranked, place=place, model=model, serves=serves, reserved=reserved)
            return _decided(choice, request, moment, funds)
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


class Choice(Struct, frozen=True, kw_only=True):
    """The model that was chosen, at which place among those ranked, how it serves, and what was set aside for it."""

    ranked: Ranked
    place: int
    model: Model
    serves: Served
    reserved: money.Reserved


def _decided(choice: Choice, request: Request, moment: Moment, funds: tuple[Fund, ...]) -> RouteDecided:
    ranked, serves = choice.ranked, choice.serves
    candidates, left_out = ranked.recorded(choice.place)
    return RouteDecided(
        request_id=request.request_id,
        key=request.key,
        slices={fund.scope: fund.slice for fund in funds},
        attempt_id=request.attempt_id,
        attempt=request.attempt,
        model=choice.model.id,
        provider=serves.provider,
        version=serves.version,
        candidates=candidates,
        left_out=left_out,
        reserve_nanos=choice.reserved.reserve_nanos,
        max_tokens=choice.reserved.max_tokens,
        input_bound=input_bound(serves, request.parsed.asked, moment),
        price_version=moment.rates[serves.name].version,
        asked=request.parsed.asked,
        tried=list(request.tried),
        log_seq=moment.log_seq,
        policy_version=moment.gateway.routing.version,
        rule=ranked.plan.rule,
        override=ranked.plan.override,
        preferences=dict(request.configuration.preferences),
        stats=_statistics(ranked, candidates, moment),
        basis=_basis(ranked, serves, candidates, request, moment, funds),
        now=moment.now,
        draw=moment.draw,
        deadline=request.deadline,
        reply=request.reply,
        **money.fields(choice.reserved.books),
    )


def _statistics(ranked: Ranked, candidates: list[Candidate], moment: Moment) -> dict[str, Measured]:
    """Those that it was decided by: of the candidates, or of every model where a measured speed is asked for."""
    if not moment.measured or not (ranked.uses_statistics or ranked.by_speed):
        return {}
    names = moment.measured if ranked.by_speed else [one.model for one in candidates]
    return {name: moment.measured[name] for name in names if name in moment.measured}


def _basis(
    ranked: Ranked,
    serves: Served,
    candidates: list[Candidate],
    request: Request,
    moment: Moment,
    funds: tuple[Fund, ...],
) -> Basis:
    configuration = request.configuration
    rates = {one.model: moment.rates[one.model] for one in candidates if one.model in moment.rates}
    rates[serves.name] = moment.rates[serves.name]
    return Basis(
        failures=[failure.value for failure in request.failures],
        versions=list(request.versions),
        rested=request.rested,
        turn=ranked.turn,
        busy={one.model: moment.busy[one.model] for one in candidates if one.model in moment.busy}
        if ranked.uses_statistics
        else {},
        blind=ranked.blind,
        rates={name: rate for name, rate in rates.items() if not is_in_log(rate)},
        config_seq=configuration.sequence,
        default_model=configuration.model,
        forced=moment.forced,
        funds=[funded(fund) for fund in funds],
    )


def _reserve(
    books: Books,
    model: Model,
    serves: Served,
    ranked: Ranked,
    request: Request,
    moment: Moment,
    funds: tuple[Fund, ...],
) -> money.Reserved | Refused:
    asked, clamp = request.parsed.asked, ranked.plan.clamp
    return money.reserve(
        books,
        money.Reserve(
            attempt_id=request.attempt_id,
            request_id=request.request_id,
            rate=moment.rates[serves.name],
            input_bound=input_bound(serves, asked, moment),
            max_tokens=asked.max_tokens,
            model_max=model.max_output,
            generates=asked.operation == "chat",
            choices=asked.choices,
            clamp=asked.max_tokens is None if clamp is None else clamp,
            max_cost_nanos=ranked.plan.max_cost_nanos,
            funds=funds,
        ),
        moment.now,
    )


def input_bound(serves: Served, asked: Asked, moment: Moment) -> int:
    """The most tokens that a model can be billed for the input: as counted, where that is less than its bytes."""
    bound = asked.input_bound
    if asked.tokens:
        encoding = encoding_of(moment.gateway.registry.providers[serves.provider].kind, serves.upstream)
        bound = min(bound, asked.tokens.get(encoding or "", bound))
    return bound + asked.images * image_bound(serves.upstream) if asked.images else bound
