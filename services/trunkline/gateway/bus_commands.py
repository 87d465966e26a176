"""The commands of the bus with their arguments and replies, for the AsyncAPI document. A test holds it to them."""

from typing import Any

from msgspec import Struct
from trunkline_actors import (
    cataloguing,
    keyholder,
    keys,
    lifecycle,
    policy_commands,
    registry,
    secretary,
    workflow_actor,
)
from trunkline_actors.advice import Recent, Recommend
from trunkline_actors.budgets import Scope, SetBudget
from trunkline_actors.circuits import OfAll, OfHistory, OfProvider
from trunkline_actors.commands import ById, Page
from trunkline_actors.discovering import Discover
from trunkline_actors.metrics import Asked as MetricsAsked
from trunkline_actors.plugin_reader import OfPlugin
from trunkline_actors.threads import Configure, ThreadId
from trunkline_events.registry import Model, Provider

from trunkline.gateway import answers, answers_log, answers_money, answers_workflows, asked
from trunkline.gateway.commands import without

ANY: dict[str, Any] = {"type": "object"}
"""A reply whose fields are told by the documentation alone."""

_MODEL_UPDATE = without(
    "UpdateModel", "The fields of a model to change.", Model, *("id", "status", "canary"), optional=True,
    more={"id": str, "reason": str | None},
)  # fmt: skip
_PROVIDER_UPDATE = without(
    "UpdateProvider", "The settings of a provider to change.", Provider, "id", optional=True,
    more={"id": str, "reason": str | None},
)  # fmt: skip


class EndModel(ById, frozen=True, kw_only=True):
    """Take a model out of use. `force`: even where threads or policies depend on it."""

    force: bool = False


class RetireModel(EndModel, frozen=True, kw_only=True):
    """`drain_s`: wait so many seconds for what runs to end."""

    drain_s: float | None = None


class Command(Struct, frozen=True):
    """What a command takes and what it answers: types, several to choose from, or a JSON schema."""

    takes: Any
    gives: Any


COMMANDS: dict[str, Command] = {
    "trunkline.models.register": Command((registry.RegisterModel, asked.FromCatalogue), answers.ModelChanged),
    "trunkline.models.update": Command(_MODEL_UPDATE, answers.ModelChanged),
    "trunkline.models.enable": Command(ById, answers.ModelChanged),
    "trunkline.models.disable": Command(EndModel, answers.ModelChanged),
    "trunkline.models.retire": Command(RetireModel, answers.ModelChanged),
    "trunkline.models.remove": Command(EndModel, answers.ModelChanged),
    "trunkline.models.deploy": Command(lifecycle.DeployModel, answers.ModelChanged),
    "trunkline.models.promote": Command(ById, answers.ModelChanged),
    "trunkline.models.discover": Command(Discover, answers.Discovered),
    "trunkline.models.catalogue": Command(cataloguing.Browse, answers.Catalogue),
    "trunkline.models.get": Command(ById, answers.OneModel),
    "trunkline.models.list": Command(Page, answers.Models),
    "trunkline.models.metrics": Command(MetricsAsked, answers.Metrics),
    "trunkline.providers.register": Command(registry.RegisterProvider, answers.ProviderChanged),
    "trunkline.providers.update": Command(_PROVIDER_UPDATE, answers.ProviderChanged),
    "trunkline.providers.remove": Command(ById, answers.ProviderChanged),
    "trunkline.providers.get": Command(ById, answers.OneProvider),
    "trunkline.providers.list": Command(Page, answers.Providers),
    "trunkline.providers.check": Command(ById, answers.Checked),
    "trunkline.policy.publish": Command(policy_commands.Publish, answers.PolicyChanged),
    "trunkline.policy.validate": Command(policy_commands.Validate, answers.Validated),
    "trunkline.policy.get": Command(policy_commands.Get, answers.OnePolicy),
    "trunkline.policy.history": Command(policy_commands.Listing, answers.PolicyHistory),
    "trunkline.policy.diff": Command(policy_commands.Compare, answers.Compared),
    "trunkline.policy.rollback": Command(policy_commands.RollBack, answers.PolicyChanged),
    "trunkline.policy.override": Command(policy_commands.SetOverride, answers.PolicyChanged),
    "trunkline.routing.recommend": Command(Recommend, answers.Recommended),
    "trunkline.routing.log": Command(Recent, answers.Decisions),
    "trunkline.threads.configure": Command(Configure, answers_money.OneThread),
    "trunkline.threads.get": Command(ThreadId, answers_money.OneThread),
    "trunkline.threads.list": Command(Page, answers_money.Threads),
    "trunkline.budgets.set": Command(SetBudget, answers_money.OneBudget),
    "trunkline.budgets.get": Command(Scope, answers_money.OneBudget),
    "trunkline.budgets.list": Command(Page, answers_money.Budgets),
    "trunkline.circuits.get": Command(OfProvider, answers_money.OneCircuit),
    "trunkline.circuits.list": Command(OfAll, answers_money.Circuits),
    "trunkline.circuits.reset": Command(OfProvider, answers_money.OneCircuit),
    "trunkline.circuits.history": Command(OfHistory, answers_money.CircuitHistory),
    "trunkline.workflows.start": Command(workflow_actor.Start, answers_workflows.Begun),
    "trunkline.workflows.get": Command(workflow_actor.Get, answers_workflows.OneRun),
    "trunkline.workflows.list": Command(workflow_actor.OfRuns, answers_workflows.Runs),
    "trunkline.workflows.cancel": Command(workflow_actor.OfRun, answers_workflows.RunChanged),
    "trunkline.workflows.signal": Command(workflow_actor.Tell, answers_workflows.RunChanged),
    "trunkline.plugins.list": Command(Page, answers_log.Plugins),
    "trunkline.plugins.get": Command(OfPlugin, answers_log.OnePlugin),
    "trunkline.keys.issue": Command(keys.Issue, ANY),
    "trunkline.keys.rotate": Command(keys.Rotate, ANY),
    "trunkline.keys.revoke": Command(ById, ANY),
    "trunkline.keys.get": Command(ById, ANY),
    "trunkline.keys.list": Command(Page, ANY),
    "trunkline.secrets.describe": Command(secretary.Describe, ANY),
    "trunkline.secrets.set": Command(secretary.Set, ANY),
    "trunkline.secrets.rotate": Command(secretary.Rotate, ANY),
    "trunkline.secrets.delete": Command(secretary.Delete, ANY),
    "trunkline.secrets.list": Command(Page, ANY),
    "trunkline.secrets.holders": Command(keyholder.Nothing, ANY),
    "trunkline.secrets.lock": Command(keyholder.Nothing, ANY),
    "trunkline.secrets.unlock": Command(keyholder.Unlock, ANY),
}
