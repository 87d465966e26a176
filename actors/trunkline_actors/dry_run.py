"""A policy tried on requests that were served: who would have served them, and what that would have cost. Pure."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field, structs
from trunkline_events.money import usd_from_nanos
from trunkline_events.policy import Policy
from trunkline_events.rate import Rate
from trunkline_events.thread import Ending, Metered, RouteDecided
from trunkline_projections.folds import Gateway
from trunkline_projections.threads import books_of

from trunkline_actors.endings import cost_of as cost_of_ending
from trunkline_actors.pricing import cost_of
from trunkline_actors.redeciding import Recorded, rates_of, under
from trunkline_actors.requests import AUTO


def recorded_alone(thread: str, decision: RouteDecided, gateway: Gateway) -> Recorded:
    """A decision with the books it was made from, worked out from those after it."""
    after = books_of(decision, decision.basis.config_seq)
    books = structs.replace(
        after,
        reserved_nanos=after.reserved_nanos - decision.reserve_nanos,
        open={name: one for name, one in after.open.items() if name != decision.attempt_id},
    )
    return Recorded(thread=thread, decision=decision, books=books, gateway=gateway)


class Tried(Struct, kw_only=True):
    """One request: who served it, who would have, and both costs, as far as they are known.

    `blind`: the policy goes by statistics, and none were recorded with it; `unhinted`: it goes by hints, likewise.
    """

    sequence: int
    request_id: str
    was: str
    would_be: str | None
    refused: str | None
    rate: Rate | None
    blind: bool = False
    unhinted: bool = False
    cost_nanos: int = 0
    settled: Metered | None = None

    @property
    def would_cost_nanos(self) -> int | None:
        """For the tokens that were used, where they are known and somebody would have served the request."""
        if self.settled is None or self.rate is None:
            return None
        return cost_of(self.rate, self.settled.usage)


class DryRun:
    """Tries a policy on requests, one after another. What failed and was tried again counts as its first choice."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._of: dict[str, Tried] = {}
        self.tried: list[Tried] = []

    def decided(self, sequence: int, recorded: Recorded, rates: Mapping[str, Rate]) -> None:
        """A first decision of a request; `rates` are those of that time, for models that nobody looked at then."""
        decision = recorded.decision
        made = under(recorded, self._policy, rates)
        would_be, rate, refused = None, None, None
        if isinstance(made, RouteDecided):
            would_be = made.model
            own = recorded.gateway.registry.models[made.model].version == made.version
            name = made.model if own else f"{made.model}@{made.version}"
            rate = rates_of(made, recorded.gateway.registry)[name]
        else:
            refused = made.code
        asked = decision.asked
        tried = Tried(
            sequence=sequence,
            request_id=decision.request_id,
            was=decision.model,
            would_be=would_be,
            refused=refused,
            rate=rate,
            blind=isinstance(made, RouteDecided) and made.basis.blind,
            unhinted=self._policy.analyzer is not None and asked.model == AUTO and not asked.hints,
        )
        self.tried.append(tried)
        self._of[run_of(decision.attempt_id)] = tried

    def ended(self, ending: Ending) -> None:
        """An attempt ended: of the request that was decided before, where it was."""
        tried = self._of.get(run_of(ending.attempt_id))
        if tried is not None:
            tried.cost_nanos += cost_of_ending(ending)
            if isinstance(ending, Metered):
                tried.settled = ending


def run_of(attempt_id: str) -> str:
    """What the ids of all attempts of a request have in common: unlike its id, no other caller's request has it."""
    return attempt_id.rpartition("-")[0]


class Summary(Struct, kw_only=True):
    """What a dry run came to. Costs are of the requests whose tokens are known and which would be served."""

    requests: int = 0
    same: int = 0
    moved: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    blind: int = 0
    unhinted: int = 0
    was_nanos: int = 0
    would_be_nanos: int = 0


def summary(run: DryRun) -> Summary:
    """Count and add up."""
    told = Summary()
    for one in run.tried:
        told.requests += 1
        told.blind += one.blind
        told.unhinted += one.unhinted
        if one.would_be is None:
            told.refused[one.refused or "refused"] += 1
        elif one.would_be == one.was:
            told.same += 1
        else:
            told.moved[one.was, one.would_be] += 1
        would_cost = one.would_cost_nanos
        if would_cost is not None:
            told.compared += 1
            told.was_nanos += one.cost_nanos
            told.would_be_nanos += would_cost
    return told


def shown(told: Summary) -> dict[str, Any]:
    """The summary for programs: costs in US dollars as text."""
    return {
        "requests": told.requests,
        "same": told.same,
        "moved": [{"from": was, "to": new, "requests": count} for (was, new), count in told.moved.most_common()],
        "refused": dict(told.refused),
        "compared": told.compared,
        "without_statistics": told.blind,
        "without_hints": told.unhinted,
        "cost_usd": usd_from_nanos(told.was_nanos),
        "would_cost_usd": usd_from_nanos(told.would_be_nanos),
    }
