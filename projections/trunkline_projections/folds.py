"""The folds that actors hold, ready for the runner."""

from typing import cast

from msgspec import Struct, field, structs
from trunkline_events.budget import BudgetFact
from trunkline_events.circuit import CircuitFact
from trunkline_events.envelope import RecordedEvent
from trunkline_events.key import KeyFact
from trunkline_events.policy import PolicyFact
from trunkline_events.registry import ProviderRemoved, RegistryFact
from trunkline_events.secret import SecretFact
from trunkline_events.thread import ThreadFact
from trunkline_events.workflow import WorkflowFact

from trunkline_projections import attempts, budgets, circuits, keys, models, policies, secrets, workflows
from trunkline_projections.attempts import UnderWay
from trunkline_projections.budgets import Budgets
from trunkline_projections.circuits import Circuits
from trunkline_projections.fold import Fold
from trunkline_projections.keys import EMPTY as NO_KEYS
from trunkline_projections.keys import Keys
from trunkline_projections.secrets import EMPTY as NO_SECRETS
from trunkline_projections.secrets import Secrets
from trunkline_projections.workflows import Runs


class Gateway(Struct, frozen=True, kw_only=True):
    """What is decided from, at one position of the log: registry, policy, breakers, budgets, secrets, keys."""

    registry: models.Registry = models.EMPTY
    routing: policies.Routing = policies.EMPTY
    circuits: Circuits = field(default_factory=dict)
    budgets: Budgets = field(default_factory=dict)
    secrets: Secrets = NO_SECRETS
    keys: Keys = NO_KEYS


def _step_gateway(state: Gateway, event: RecordedEvent) -> Gateway:
    if event.category == "circuit":
        broken = circuits.evolve(state.circuits, cast("CircuitFact", event.body), event.sequence)
        return structs.replace(state, circuits=broken)
    if event.category == "budget":
        spent = budgets.evolve(state.budgets, cast("BudgetFact", event.body), event.sequence, event.aggregate)
        return structs.replace(state, budgets=spent)
    if event.category == "policy":
        routing = policies.evolve(state.routing, cast("PolicyFact", event.body), event.sequence)
        return structs.replace(state, routing=routing)
    if event.category == "secret":
        return structs.replace(state, secrets=secrets.evolve(state.secrets, cast("SecretFact", event.body)))
    if event.category == "key":
        held = keys.evolve(state.keys, cast("KeyFact", event.body), event.sequence, event.time)
        return structs.replace(state, keys=held)
    fact = cast("RegistryFact", event.body)
    if isinstance(fact, ProviderRemoved):  # whoever gets its id next begins with a closed circuit
        state = structs.replace(state, circuits=circuits.without(state.circuits, fact.id))
    return structs.replace(state, registry=models.evolve(state.registry, fact, event.sequence))


GATEWAY = Fold(
    name="gateway",
    categories=(
        *models.CATEGORIES,
        *policies.CATEGORIES,
        *circuits.CATEGORIES,
        *budgets.CATEGORIES,
        *secrets.CATEGORIES,
        *keys.CATEGORIES,
    ),
    state=Gateway,
    initial=Gateway,
    step=_step_gateway,
)


def _step_workflows(state: Runs, event: RecordedEvent) -> Runs:
    return workflows.evolve(state, cast("WorkflowFact", event.body), event.aggregate, event.sequence, event.time)


WORKFLOWS: Fold[Runs] = Fold(
    name="workflows", categories=workflows.CATEGORIES, state=Runs, initial=dict, step=_step_workflows
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
