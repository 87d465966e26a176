"""Makes a recorded decision again, from the log alone: as it was, or as it would have been under another policy. Pure.

The request's features, the clock, the draw and all that was measured are in the decision; the registry, the policy and
the breakers are those at its `log_seq`; the thread's books are in the event before it.
"""

from bisect import bisect_right
from collections.abc import Mapping

import msgspec
from msgspec import Struct, structs
from trunkline_events.envelope import RecordedEvent
from trunkline_events.failure import FailureClass
from trunkline_events.money import nanos_from_usd
from trunkline_events.policy import Configuration, Policy
from trunkline_events.rate import Rate
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, RequestRefused, RouteDecided
from trunkline_projections.folds import GATEWAY, Gateway
from trunkline_projections.models import Registry

from trunkline_actors.moment import Moment, Request
from trunkline_actors.pricing import price_model
from trunkline_actors.rates import versions_of
from trunkline_actors.recorded import fund_of
from trunkline_actors.requests import NO_WISHES, Parsed, Route
from trunkline_actors.routing import decide

UNKNOWN = Rate(input_nanos=10**15, cached_input_nanos=10**15, output_nanos=10**15, version="unknown")
"""What a model is taken to cost whose rate was not recorded: it was dearer than sixteen others, or had no part."""

Decision = RouteDecided | RequestRefused | Refused


class Timeline:
    """The gateway at every position of the log: its events are added in their order."""

    def __init__(self) -> None:
        self._sequences: list[int] = [0]
        self._states: list[Gateway] = [Gateway()]

    def add(self, event: RecordedEvent) -> None:
        """One more event; those that routing doesn't decide by change nothing."""
        if event.category in GATEWAY.categories and event.category != "budget":
            self._states.append(GATEWAY.step(self._states[-1], event))
            self._sequences.append(event.sequence)

    def at(self, sequence: int) -> Gateway:
        """The gateway after the event at this sequence. What is held of budgets is in each decision."""
        return self._states[bisect_right(self._sequences, sequence) - 1]


class Recorded(Struct, frozen=True, kw_only=True):
    """A decision in the log: of which thread, and from which books and which state of the gateway it was made."""

    thread: str
    decision: RouteDecided
    books: Books
    gateway: Gateway


def again(recorded: Recorded) -> Decision:
    """The decision, made again: equal to the recorded one, or something is wrong with the log or with this version."""
    decision, registry = recorded.decision, recorded.gateway.registry
    # Prices and statistics of what was left out were not recorded; that it came after the others was.
    left_out = registry.models.keys() - {one.model for one in decision.candidates} if decision.left_out else ()
    rates = rates_of(decision, registry)
    return _decide(recorded, recorded.gateway, rates, blind=decision.basis.blind, behind=frozenset(left_out))


def under(recorded: Recorded, policy: Policy, rates: Mapping[str, Rate]) -> Decision:
    """The decision as it would have been under another policy.

    `rates` are those of that time for models whose own weren't recorded. Statistics that nobody looked at then are
    missing: models count as unmeasured.
    """
    routing = structs.replace(recorded.gateway.routing, version=0, policy=policy)
    known = rates_of(recorded.decision, recorded.gateway.registry)
    used = {name: rates.get(name, rate) if rate is UNKNOWN else rate for name, rate in known.items()}
    return _decide(recorded, structs.replace(recorded.gateway, routing=routing), used, blind=None)


def differences(recorded: RouteDecided, made: Decision) -> list[str]:
    """The fields in which a decision that was made again is another one; empty where it is the same."""
    if not isinstance(made, RouteDecided):
        return [f"refused: {made.message}"]
    return [name for name in recorded.__struct_fields__ if getattr(recorded, name) != getattr(made, name)]


def rates_of(decision: RouteDecided, registry: Registry) -> dict[str, Rate]:
    """What models cost when this was decided, as far as the log says: by model id, canaries by `id@version`."""
    recorded = decision.basis.rates
    return {
        name: recorded.get(name)
        or price_model(model, registry.model_seq[model.id], registry.providers[model.provider], _no_list, UNKNOWN)
        for name, model in versions_of(registry)
        if model.provider in registry.providers
    }


def _no_list(kind: str, upstream: str) -> None:
    return None


def _decide(
    recorded: Recorded,
    gateway: Gateway,
    rates: Mapping[str, Rate],
    *,
    blind: bool | None,
    behind: frozenset[str] = frozenset(),
) -> Decision:
    decision, basis = recorded.decision, recorded.decision.basis
    moment = Moment(
        gateway=gateway,
        rates=rates,
        log_seq=decision.log_seq,
        now=decision.now,
        draw=decision.draw,
        measured=decision.stats,
        busy=basis.busy,
        forced=basis.forced,
        turns={decision.rule or "": basis.turn or 0},
        blind=blind,
        behind=behind,
    )
    return decide(recorded.books, request_of(recorded), moment, tuple(fund_of(one) for one in basis.funds))


def request_of(recorded: Recorded) -> Request:
    """The request as the router had it."""
    decision, basis = recorded.decision, recorded.decision.basis
    asked = decision.asked
    route = msgspec.convert(asked.route, Route) if asked.route else NO_WISHES
    most = None if route.max_cost_usd is None else nanos_from_usd(route.max_cost_usd)
    return Request(
        request_id=decision.request_id,
        attempt_id=decision.attempt_id,
        attempt=decision.attempt,
        parsed=Parsed(asked=asked, route=route, max_cost_nanos=most, choices=asked.choices),
        tried=tuple(decision.tried),
        versions=tuple(basis.versions),
        failures=tuple(FailureClass(name) for name in basis.failures),
        rested=basis.rested,
        reply=decision.reply,
        deadline=decision.deadline,
        key=decision.key,
        thread=recorded.thread,
        configuration=Configuration(
            sequence=basis.config_seq, model=basis.default_model, preferences=decision.preferences
        ),
    )
