"""Which models can serve a request, best first, and why the others can't: everything that was considered. Pure."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, structs
from trunkline_events.failure import FailureClass
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model
from trunkline_events.thread import Asked, Candidate

from trunkline_actors import plan
from trunkline_actors.moment import Moment, Request, closed_off, failed_before, refusing
from trunkline_actors.plan import Given, Needs, Plan, Stage
from trunkline_actors.requests import AUTO, BYTES_A_TOKEN, MOST_BYTES_A_TOKEN
from trunkline_actors.shortlist import SPEED, Shortlist, World
from trunkline_actors.strategies import Conditions, Order, order

MAX_CANDIDATES = 16
AFTER_ALL = 1e15
"""A score behind any other: a million dollars in nano-dollars."""
TYPICAL_OUTPUT = 512
"""Output tokens a request is compared at where it sets no bound."""

TOO_LONG = "its context window is too small"
NO_LONGER = "its context window is no larger than that of one that was too small"
FAILED = "failed already for this request"
_SHAKES = frozenset(
    {
        *(FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.UNAVAILABLE),
        *(FailureClass.CONNECTION, FailureClass.TIMEOUT),
    }
)


class Ranked(Struct, frozen=True, kw_only=True):
    """The models that can serve a request, best first, and what was considered, with the reason.

    `considered` holds the first `MAX_CANDIDATES`, those that can serve before those that can't; `left_out` counts the
    rest by reason. `blind`: statistics were asked for and there were none. `by_speed`: a speed that is measured decided
    who fits. `turn`: whose turn it was, where models take turns.
    """

    models: list[Model]
    considered: list[Candidate]
    left_out: dict[str, int]
    stages: "list[Placed]"
    plan: Plan
    uses_statistics: bool = False
    by_speed: bool = False
    blind: bool = False
    turn: int | None = None

    def recorded(self, chosen: int) -> tuple[list[Candidate], dict[str, int]]:
        """What is recorded where the model at this place was chosen: candidates, it among them, and counts of the rest.

        Those before it fit as well, but not the money.
        """
        told = [
            structs.replace(one, reason=f"{one.reason}, but over budget") if place < chosen else one
            for place, one in enumerate(self.considered)
        ]
        if chosen < MAX_CANDIDATES:
            return told, self.left_out
        stage = next(stage for stage in self.stages if chosen < stage.end)
        counts = Counter(self.left_out)
        counts[stage.why] -= 1
        counts[self.considered[-1].reason] += 1
        last = stage.candidate(chosen, self.models[chosen])
        return [*told[:-1], last], {reason: count for reason, count in counts.items() if count}


class Placed(Struct, frozen=True):
    """The models of one stage among all that were found: from `start` up to `end`, scores in the order of places."""

    start: int
    end: int
    offset: float
    order: Order

    @property
    def why(self) -> str:
        """Why they are where they are."""
        return self.order.why

    def candidate(self, place: int, model: Model) -> Candidate:
        """The model at this place among all, for the record."""
        score = self.offset + self.order.scores[self.order.places[place - self.start]]
        return Candidate(model=model.id, provider=model.provider, score=score, reason=self.order.why)


def rank(request: Request, moment: Moment) -> Ranked | Refused:
    """Find the models that can serve this request and put them in order, or say why there are none."""
    asked, registry = request.parsed.asked, moment.gateway.registry
    if asked.model != AUTO and asked.model not in registry.models:
        return Refused(
            code="model_not_found",
            message=f"no model is registered as {asked.model!r}; `trunkline models list` shows what there is",
            param="model",
        )
    planned = plan.make(given_of(request, moment), moment.gateway)
    if not planned.guessed:
        return _ranked(planned, planned.needs, request, moment)
    ranked = _ranked(planned, _with_guesses(planned), request, moment)
    # A guess never leaves a request without a model.
    return _ranked(planned, planned.needs, request, moment) if isinstance(ranked, Refused) else ranked


def given_of(request: Request, moment: Moment) -> Given:
    """What a plan is made from, out of a request and its moment."""
    return Given(
        parsed=request.parsed,
        thread=request.thread,
        key=request.key,
        default_model=request.configuration.model,
        preferences=request.configuration.preferences,
        forced=moment.forced,
        now=moment.now,
    )


def _with_guesses(planned: Plan) -> Needs:
    needs, known = planned.needs, dict(planned.needs.capabilities)
    guessed = [name for name in planned.guessed if name not in known]
    return structs.replace(
        needs,
        capabilities=(*needs.capabilities, *((name, 0.0) for name in guessed)),
        wanted=(*needs.wanted, *guessed),
    )


def _ranked(planned: Plan, needs: Needs, request: Request, moment: Moment) -> Ranked | Refused:
    world = World(moment.gateway.registry, moment.rates, moment.measured)
    bars = Bars.of(request, moment)
    found = _Found()
    for number, stage in enumerate(planned.stages):
        listed = moment.shortlists.of(stage.names, needs, world, MAX_CANDIDATES)
        last = stage.why == "fallback" and number > 0
        passed_over = planned.fallbacks if not last and stage.names is None else ()
        found.add(stage, listed, bars, planned, passed_over, request, moment)
    if not found.models:
        return _no_route(request, planned, found.rejected, found.reasons)
    by_speed = SPEED in needs.wanted or SPEED in planned.guessed
    return structs.replace(found.ranked(structs.replace(planned, needs=needs)), by_speed=by_speed)


class _Found:
    """What was found so far, stage by stage."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self.fits: list[Candidate] = []
        self.rejected: list[Candidate] = []
        self.reasons: Counter[str] = Counter()
        self.whys: Counter[str] = Counter()
        self.stages: list[Placed] = []
        self.uses_statistics = self.blind = False
        self.turn: int | None = None
        self._seen: set[str] = set()
        self._named: dict[str, str] = {}
        self._before = 0.0

    def add(
        self,
        stage: Stage,
        listed: Shortlist,
        bars: "Bars",
        planned: Plan,
        passed_over: Sequence[str],
        request: Request,
        moment: Moment,
    ) -> None:
        """The models of one stage, behind those of the stages before."""
        models, prices = listed.fits, listed.prices
        if self._seen or passed_over or bars.any(listed):
            kept = [place for place, model in enumerate(models) if self._keeps(model, bars, passed_over, listed)]
            models, prices = [models[place] for place in kept], [prices[place] for place in kept]
        if listed.reasons:
            self.reasons.update(listed.reasons)
        for one in listed.rejected:
            if one.model not in self._seen:
                self._seen.add(one.model)
                self.rejected.append(one)
        if stage.names is None:
            if self._named:  # those that were named before are among all: they count once
                self.reasons.subtract(self._named.values())
        elif listed.rejected:
            self._named.update((one.model, one.reason) for one in listed.rejected)
        if not models:
            return
        behind = moment.behind | bars.behind(models) if stage.optimize else moment.behind
        conditions = _conditions(request, moment, planned, stage, listed, behind)
        ordered = order(models, prices, stage, conditions)
        if ordered.turned:
            self.turn = conditions.turn
        self.blind = self.blind or ordered.blind
        self.uses_statistics = self.uses_statistics or stage.optimize in _CONSULTING
        offset = AFTER_ALL if stage.why == "fallback" else self._before
        start = len(self.models)
        self.models += [models[place] for place in ordered.places]
        placed = Placed(start, len(self.models), offset, ordered)
        self.stages.append(placed)
        recorded = range(start, min(placed.end, MAX_CANDIDATES))
        self.fits += [placed.candidate(place, self.models[place]) for place in recorded]
        self.whys[ordered.why] += len(models)
        self._seen.update(model.id for model in models)
        self._before = offset + max(ordered.scores) + 1

    def _keeps(self, model: Model, bars: "Bars", passed_over: Sequence[str], listed: Shortlist) -> bool:
        """Whether a model that fits the needs may serve now; if not for the first time, why it may not is kept."""
        if model.id in self._seen or model.id in passed_over:
            return False
        problem = bars.problem(model)
        if problem is None:
            return True
        self._seen.add(model.id)
        self.reasons[problem] += 1
        if len(self.rejected) < MAX_CANDIDATES:
            self.rejected.append(Candidate(model=model.id, provider=model.provider, score=None, reason=problem))
        return False

    def ranked(self, planned: Plan) -> Ranked:
        """All of it."""
        considered = [*self.fits, *self.rejected][:MAX_CANDIDATES]
        left_out: Counter[str] = Counter()
        if sum(self.whys.values()) + sum(self.reasons.values()) > len(considered):
            left_out = self.whys + self.reasons
            left_out.subtract(one.reason for one in considered)
        return Ranked(
            models=self.models,
            considered=considered,
            left_out={reason: count for reason, count in left_out.items() if count > 0},
            stages=self.stages,
            plan=planned,
            uses_statistics=self.uses_statistics,
            blind=self.blind,
            turn=self.turn,
        )


_BY_QUALITY = frozenset({"quality", "balanced"})
_CONSULTING = frozenset({"latency", "quality", "balanced", "least_busy"})


def _conditions(
    request: Request, moment: Moment, planned: Plan, stage: Stage, listed: Shortlist, behind: frozenset[str]
) -> Conditions:
    asked = request.parsed.asked
    return Conditions(
        tokens_in=asked.input_bound // BYTES_A_TOKEN,
        tokens_out=asked.max_tokens or TYPICAL_OUTPUT,
        qualities=listed.qualities(moment.measured) if stage.optimize in _BY_QUALITY else {},
        measured=moment.measured,
        busy=moment.busy,
        draw=moment.draw,
        turn=moment.turns.get(planned.rule or "", 0),
        percentile=planned.percentile,
        blind=moment.blind,
        behind=behind,
    )


class Bars(Struct, frozen=True):
    """What keeps models from serving this one request: what failed, which circuits are open, how long it is."""

    models: dict[str, str]
    circuits: dict[str, str]
    no_larger_than: int
    tokens: int

    shaken: frozenset[str] = frozenset()
    """Providers that failed this request in a way that other models of theirs may share: others come first."""

    @classmethod
    def of(cls, request: Request, moment: Moment) -> "Bars":
        registry = moment.gateway.registry
        circuits = {name: why for name in moment.gateway.circuits if (why := closed_off(name, moment)) is not None}
        tokens = _surely(request.parsed.asked)
        if not request.tried:
            return cls({}, circuits, 0, tokens)
        models: dict[str, str] = {}
        no_larger_than = 0
        shaken: set[str] = set()
        for model, tried, failure in failed_before(request, registry):
            if tried.name == model.id:  # where its canary failed, the model itself may serve
                models[model.id] = FAILED
            if failure == FailureClass.CONTEXT_LENGTH:
                no_larger_than = max(no_larger_than, model.context_window or 0)
            if failure in _SHAKES:
                shaken.add(tried.provider)
        return cls(models, {**circuits, **refusing(request, registry)}, no_larger_than, tokens, frozenset(shaken))

    def behind(self, models: Sequence[Model]) -> frozenset[str]:
        """The models of providers that failed this request, where there are others."""
        if not self.shaken:
            return frozenset()
        return frozenset(model.id for model in models if model.provider in self.shaken)

    def any(self, listed: Shortlist) -> bool:
        """Whether any of these models can be concerned."""
        return bool(
            self.models
            or self.no_larger_than
            or self.tokens > listed.smallest
            or (self.circuits and not listed.providers.isdisjoint(self.circuits))
        )

    def problem(self, model: Model) -> str | None:
        """Why this model may not serve now."""
        if model.id in self.models:
            return self.models[model.id]
        if model.context_window is not None:
            if self.tokens > model.context_window:
                return TOO_LONG
            if model.context_window <= self.no_larger_than:
                return NO_LONGER
        return self.circuits.get(model.provider)


def _surely(asked: Asked) -> int:
    """Tokens that no tokenizer could squeeze it into: the provider knows better, and says so (`context_length`)."""
    counted = asked.operation == "chat" and "vision" not in asked.features
    return asked.input_bound // MOST_BYTES_A_TOKEN if counted else 0


def _no_route(request: Request, planned: Plan, rejected: list[Candidate], reasons: Counter[str]) -> Refused:
    if rejected and set(reasons) <= {TOO_LONG, NO_LONGER}:
        return Refused(
            code="context_length_exceeded",
            message="the request is longer than the context window of every model that could serve it",
            param="messages",
        )
    listed = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(4))
    if planned.override is not None:
        listed = f"an operator sends everything to {planned.override!r}: {listed or 'it is not registered'}"
    return Refused(
        code="no_route",
        message=f"no enabled model can serve this request: {listed or 'none is registered'}",
        metadata={"reasons": dict(reasons), "tried": list(request.tried)},
    )
