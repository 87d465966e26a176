"""The registry over HTTP: models and the provider instances that serve them."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import nats.errors
from trunkline_actors.registry import RegisterModel, RegisterProvider
from trunkline_events import headers, subjects

from trunkline.gateway import answers, asked
from trunkline.gateway.commands import Arguments, Reason, composed, on_bus
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge

READY_WAIT = 1.0
"""Seconds a process may take to say that it serves a provider."""
MOST = 1000


def _discovered(given: Arguments) -> Arguments:
    least = given.pop("min_score", 0.0)
    names = given.pop("capability", [])
    return {**given, "capabilities": dict.fromkeys(names, least)} if names else given


async def model_health(edge: "Edge", _request: HttpRequest, page: asked.Page) -> Any:
    """A page of models, and for each whether it can be used."""
    listed = await edge.gateway.models.list(limit=page.limit, after=page.after)
    found = await edge.gateway.models.discover(limit=MOST)
    measured = {one["model"]["id"]: one["measured"] for one in found["models"]}
    serving, circuits = await _standing(edge, (model["provider"] for model in listed["models"]))
    told = [
        {
            "id": model["id"],
            "provider": model["provider"],
            "status": model["status"],
            "serving": serving[model["provider"]],
            "circuit": circuits.get(model["provider"], "closed"),
            "usable": model["status"] == "enabled"
            and serving[model["provider"]]
            and circuits.get(model["provider"]) != "open",
            "measured": measured.get(model["id"]),
        }
        for model in listed["models"]
    ]
    return {**listed, "models": told}


async def provider_health(edge: "Edge", _request: HttpRequest, page: asked.Page) -> Any:
    """A page of providers, and for each whether a process serves it."""
    listed = await edge.gateway.providers.list(limit=page.limit, after=page.after)
    serving, circuits = await _standing(edge, (provider["id"] for provider in listed["providers"]))
    told = [
        {
            "id": provider["id"],
            "kind": provider["kind"],
            "serving": serving[provider["id"]],
            "circuit": circuits.get(provider["id"], "closed"),
        }
        for provider in listed["providers"]
    ]
    return {**listed, "providers": told}


async def _standing(edge: "Edge", providers: Iterable[str]) -> tuple[dict[str, bool], dict[str, str]]:
    """Which of these providers a process serves, and the circuits of all that are not closed."""
    wanted = sorted(set(providers))
    ready = await asyncio.gather(*(_serves(edge, provider) for provider in wanted))
    circuits: dict[str, str] = {}
    for state in ("open", "half-open"):
        after: str | None = ""
        while after is not None:
            page = await edge.gateway.circuits.list(state=state, limit=MOST, after=after)
            circuits.update({one["provider"]: one["state"] for one in page["circuits"]})
            after = page["after"]
    return dict(zip(wanted, ready, strict=True)), circuits


async def _serves(edge: "Edge", provider: str) -> bool:
    try:
        subject = subjects.provider_endpoint(provider, "ready")
        reply = await edge.bus.nats.request(subject, timeout=READY_WAIT)
    except (nats.errors.Error, TimeoutError):
        return False
    return headers.ERROR not in (reply.headers or {})


MODELS = "Models"
PROVIDERS = "Providers"

ROUTES: list[Route] = [
    on_bus("POST", "/api/models/register", "models", "register", summary="Register a model", tag=MODELS,
           takes=(RegisterModel, asked.FromCatalogue), gives=answers.ModelChanged, status=201),
    on_bus("GET", "/api/models/discover", "models", "discover", summary="Find models by what they can do", tag=MODELS,
           asks=asked.DiscoverAsked, gives=answers.Discovered, shape=_discovered),
    on_bus("GET", "/api/models/catalogue", "models", "catalogue", summary="Models that are known by name", tag=MODELS,
           asks=asked.CatalogueAsked, gives=answers.Catalogue),
    composed("GET", "/api/models/health", model_health, summary="Whether models can be used now", tag=MODELS,
             asks=asked.Page, access="read", gives=answers.ModelsHealth),
    on_bus("GET", "/api/models", "models", "list", summary="List models", tag=MODELS,
           asks=asked.ModelsAsked, gives=answers.Models),
    on_bus("GET", "/api/models/{id}", "models", "get", summary="Show a model", tag=MODELS, gives=answers.OneModel),
    on_bus("PATCH", "/api/models/{id}", "models", "update", summary="Change a model", tag=MODELS,
           takes=asked.ModelChanges, gives=answers.ModelChanged),
    on_bus("DELETE", "/api/models/{id}", "models", "remove", summary="Remove a model", tag=MODELS,
           asks=asked.Removal, gives=answers.ModelChanged),
    on_bus("POST", "/api/models/{id}/enable", "models", "enable", summary="Route to a model again", tag=MODELS,
           takes=Reason, gives=answers.ModelChanged),
    on_bus("POST", "/api/models/{id}/disable", "models", "disable", summary="Route to a model no more", tag=MODELS,
           takes=asked.Ending, gives=answers.ModelChanged),
    on_bus("POST", "/api/models/{id}/retire", "models", "retire", summary="End a model for good", tag=MODELS,
           takes=asked.Retiring, gives=answers.ModelChanged),
    on_bus("POST", "/api/models/{id}/deploy", "models", "deploy", summary="Deploy a version of a model", tag=MODELS,
           takes=asked.Deployment, gives=answers.ModelChanged),
    on_bus("POST", "/api/models/{id}/promote", "models", "promote", summary="Make a canary the model", tag=MODELS,
           takes=Reason, gives=answers.ModelChanged),
    on_bus("GET", "/api/models/{id}/metrics", "models", "metrics", summary="What a model did over time", tag=MODELS,
           asks=asked.MetricsAsked, gives=answers.Metrics),
    on_bus("POST", "/api/providers/register", "providers", "register", summary="Register a provider", tag=PROVIDERS,
           takes=RegisterProvider, gives=answers.ProviderChanged, status=201),
    composed("GET", "/api/providers/health", provider_health, summary="Whether providers are served", tag=PROVIDERS,
             asks=asked.Page, access="read", gives=answers.ProvidersHealth),
    on_bus("GET", "/api/providers", "providers", "list", summary="List providers", tag=PROVIDERS,
           asks=asked.Page, gives=answers.Providers),
    on_bus("GET", "/api/providers/{id}", "providers", "get", summary="Show a provider", tag=PROVIDERS,
           gives=answers.OneProvider),
    on_bus("PATCH", "/api/providers/{id}", "providers", "update", summary="Change a provider", tag=PROVIDERS,
           takes=asked.ProviderChanges, gives=answers.ProviderChanged),
    on_bus("DELETE", "/api/providers/{id}", "providers", "remove", summary="Remove a provider", tag=PROVIDERS,
           asks=asked.Why, gives=answers.ProviderChanged),
    on_bus("GET", "/api/providers/{id}/health", "providers", "check", summary="Try to reach a provider", tag=PROVIDERS,
           gives=answers.Checked),
]  # fmt: skip
