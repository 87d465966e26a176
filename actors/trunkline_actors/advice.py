"""The actor that tells how requests are routed: whom one would be sent to now, and what was decided of late."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct, structs
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Scope
from trunkline_events.money import BadAmount, nanos_from_usd, usd_from_nanos
from trunkline_events.refusal import Refused
from trunkline_events.thread import Asked, Books, Operation, RouteDecided
from trunkline_events.times import format_time

from trunkline_actors import capabilities
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Reply, endpoint
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.moment import Moment, Request
from trunkline_actors.present import moment_of
from trunkline_actors.pricing import worst_case
from trunkline_actors.ranking import TYPICAL_OUTPUT, rank
from trunkline_actors.requests import AUTO, Parsed, Route, route_problem
from trunkline_actors.routing import decide
from trunkline_actors.runtime import Runtime
from trunkline_actors.shortlist import Shortlists

NOBODY = "-"
TYPICAL_INPUT = 1_000
"""Tokens of input that a recommendation is for where none are named."""
MOST = 1_000
A_DECISION = 4
"""Events of a request, at a guess: to begin with so many are read for each decision that is asked for."""


class Recommend(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that nobody sends: its sizes in tokens, what it needs, and its extension `route`.

    `key` is the id of the key it would come with.
    """

    model: str = AUTO
    operation: Operation = "chat"
    stream: bool = False
    input_tokens: int = TYPICAL_INPUT
    max_tokens: int | None = None
    features: list[str] = []
    hints: list[str] = []
    route: Route = Route()
    thread_id: str | None = None
    key: str = ""
    limit: int = 16


class Recent(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last `limit` decisions (1 to 1,000), or the last of one thread; before the sequence `before`, for pages."""

    limit: int = 100
    thread_id: str | None = None
    before: int | None = None


class AdviceActor(ServiceActor):
    """Recommends models, and lists decisions."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-routing", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._shortlists = Shortlists()

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "recommend", f"{subjects.ROUTING}.recommend", Recommend, self._recommend),
            endpoint(self.bus, "log", f"{subjects.ROUTING}.log", Recent, self._recent),
        ]

    async def _recommend(self, given: Recommend, delivery: Delivery) -> Reply:
        if problem := _problem(given) or route_problem(given.route):
            return problem
        try:
            most = None if given.route.max_cost_usd is None else nanos_from_usd(given.route.max_cost_usd)
        except BadAmount as error:
            return Refused(code="invalid_request", message=str(error), param="route.max_cost_usd")
        runtime = self._runtime
        await runtime.gateway.catch_up()
        now = runtime.clock()
        moment = moment_of(runtime, now, 0.5, shortlists=self._shortlists, busy={}, turns={})
        thread = given.thread_id or subjects.NO_THREAD
        configured = await runtime.configurations.of(thread)
        request = structs.replace(_request(given, now, most), thread=thread, configuration=configured.routing)
        ranked = rank(request, moment)
        # As a request would be, but for budgets: what may be spent is not looked at, what it may cost is.
        decision = decide(Books(config_seq=configured.routing.sequence), request, moment)
        if isinstance(ranked, Refused) or not isinstance(decision, RouteDecided):
            refused = ranked if isinstance(ranked, Refused) else decision
            assert isinstance(refused, Refused), "nothing is exceeded where there is no budget"
            return refused
        return {
            "seq": moment.log_seq,
            "model": decision.model,
            "candidates": [
                {**msgspec.to_builtins(one), **_told(one.model, given, ranked.plan.needs.wanted, moment)}
                for one in decision.candidates[: given.limit]
            ],
            "left_out": decision.left_out,
            "policy_version": moment.gateway.routing.version,
            "rule": ranked.plan.rule,
            "override": ranked.plan.override,
            "statistics": not ranked.blind,
        }

    async def _recent(self, given: Recent, delivery: Delivery) -> Reply:
        if not 1 <= given.limit <= MOST:
            return Refused(code="invalid_request", message=f"limit must be from 1 to {MOST:,}", param="limit")
        log = self._runtime.log
        end = await log.end() if given.before is None else given.before - 1
        width = given.limit * A_DECISION
        while True:
            found = [event async for event in self._decisions(max(0, end - width), end, given.thread_id)]
            if width >= end or len(found) >= given.limit:
                break
            width *= 4
        shown = [_shown(event) for event in found[-given.limit :]]
        more = len(found) > given.limit or width < end
        return {"seq": end, "decisions": shown, "before": shown[0]["seq"] if shown and more else None}

    async def _decisions(self, after: int, until: int, thread: str | None) -> AsyncGenerator[RecordedEvent, None]:
        async with aclosing(self._runtime.log.read(after, scope=Scope(("thread",), thread))) as events:
            async for event in events:
                if event.sequence > until:
                    return
                if isinstance(event.body, RouteDecided):
                    yield event


def _problem(given: Recommend) -> Refused | None:
    if given.input_tokens < 0 or (given.max_tokens is not None and given.max_tokens < 1):
        return Refused(
            code="invalid_request", message="tokens are counted from 0, max_tokens from 1", param="input_tokens"
        )
    if not 1 <= given.limit <= MOST:
        return Refused(code="invalid_request", message=f"limit must be from 1 to {MOST:,}", param="limit")
    return None


def _request(given: Recommend, now: float, most: int | None) -> Request:
    route = msgspec.to_builtins(given.route)
    asked = Asked(
        operation=given.operation,
        model=given.model,
        stream=given.stream,
        input_bound=given.input_tokens,
        max_tokens=given.max_tokens,
        features=given.features,
        route=route,
        hints=given.hints,
    )
    return Request(
        request_id=NOBODY,
        attempt_id=NOBODY,
        attempt=1,
        parsed=Parsed(asked=asked, route=given.route, max_cost_nanos=most),
        key=given.key,
        tried=(),
        reply="",
        deadline=now,
    )


def _told(model_id: str, given: Recommend, wanted: tuple[str, ...], moment: Moment) -> dict[str, Any]:
    """What helps to judge a candidate: match, a typical cost in US dollars, and how it did of late."""
    model, rate, measured = moment.gateway.registry.models[model_id], moment.rates.get(model_id), moment.measured
    cost = None if rate is None else worst_case(rate, given.input_tokens, given.max_tokens or TYPICAL_OUTPUT)
    return {
        "match": capabilities.match(model, wanted, measured.get(model_id)),
        "typical_cost_usd": None if cost is None else usd_from_nanos(cost),
        "measured": measured.get(model_id),
    }


def _shown(event: RecordedEvent) -> dict[str, Any]:
    body = event.body
    assert isinstance(body, RouteDecided)
    return {
        "seq": event.sequence,
        "at": format_time(event.time),
        "thread_id": event.aggregate,
        "reserved_usd": usd_from_nanos(body.reserve_nanos),
        **{name: msgspec.to_builtins(getattr(body, name)) for name in _FIELDS},
    }


_FIELDS = (
    *("request_id", "attempt", "model", "version", "provider", "rule", "policy_version", "override"),
    *("candidates", "left_out", "tried", "asked"),
)
