"""The folds that actors hold, ready for the runner."""

from typing import cast

from msgspec import Struct, field, structs
from trunkline_events.circuit import CircuitFact
from trunkline_events.envelope import RecordedEvent
from trunkline_events.registry import RegistryFact
from trunkline_events.thread import ThreadFact

from trunkline_projections import attempts, circuits, models
from trunkline_projections.attempts import Attempts
from trunkline_projections.circuits import Circuits
from trunkline_projections.fold import Fold


class Gateway(Struct, frozen=True, kw_only=True):
    """What routing decides from, at one position of the log: the registry and the breakers."""

    registry: models.Registry = models.EMPTY
    circuits: Circuits = field(default_factory=dict)


def _step_gateway(state: Gateway, event: RecordedEvent) -> Gateway:
    if event.category == "circuit":
        fact = cast("CircuitFact", event.body)
        return structs.replace(state, circuits=circuits.evolve(state.circuits, fact, event.sequence))
    registry = models.evolve(state.registry, cast("RegistryFact", event.body), event.sequence)
    return structs.replace(state, registry=registry)


GATEWAY = Fold(
    name="gateway",
    categories=(*models.CATEGORIES, *circuits.CATEGORIES),
    state=Gateway,
    initial=Gateway,
    step=_step_gateway,
)


def _step_attempts(state: Attempts, event: RecordedEvent) -> Attempts:
    return attempts.evolve(state, cast("ThreadFact", event.body), event.sequence, event.aggregate)


ATTEMPTS: Fold[Attempts] = Fold(
    name="attempts",
    categories=attempts.CATEGORIES,
    state=Attempts,
    initial=dict,
    step=_step_attempts,
)
