"""The folds that actors hold, ready for the runner."""

from typing import cast

from msgspec import Struct, field, structs
from trunkline_events.budget import BudgetFact
from trunkline_events.circuit import CircuitFact
from trunkline_events.envelope import RecordedEvent
from trunkline_events.registry import RegistryFact
from trunkline_events.thread import ThreadFact

from trunkline_projections import attempts, budgets, circuits, models
from trunkline_projections.attempts import UnderWay
from trunkline_projections.budgets import Budgets
from trunkline_projections.circuits import Circuits
from trunkline_projections.fold import Fold


class Gateway(Struct, frozen=True, kw_only=True):
    """What routing decides from, at one position of the log: the registry, the breakers, and budgets above threads."""

    registry: models.Registry = models.EMPTY
    circuits: Circuits = field(default_factory=dict)
    budgets: Budgets = field(default_factory=dict)


def _step_gateway(state: Gateway, event: RecordedEvent) -> Gateway:
    if event.category == "circuit":
        fact = cast("CircuitFact", event.body)
        return structs.replace(state, circuits=circuits.evolve(state.circuits, fact, event.sequence))
    if event.category == "budget":
        spent = budgets.evolve(state.budgets, cast("BudgetFact", event.body), event.sequence, event.aggregate)
        return structs.replace(state, budgets=spent)
    registry = models.evolve(state.registry, cast("RegistryFact", event.body), event.sequence)
    return structs.replace(state, registry=registry)


GATEWAY = Fold(
    name="gateway",
    categories=(*models.CATEGORIES, *circuits.CATEGORIES, *budgets.CATEGORIES),
    state=Gateway,
    initial=Gateway,
    step=_step_gateway,
)


def _step_attempts(state: UnderWay, event: RecordedEvent) -> UnderWay:
    return attempts.evolve(state, cast("ThreadFact | BudgetFact", event.body), event.sequence, event.aggregate)


ATTEMPTS: Fold[UnderWay] = Fold(
    name="attempts",
    categories=attempts.CATEGORIES,
    follows_all=True,
    state=UnderWay,
    initial=UnderWay,
    step=_step_attempts,
)
