"""Plugins over HTTP: which kinds of providers there are, how they fare, and what they did."""

from typing import TYPE_CHECKING, Any

from trunkline.gateway import answers_log, asked
from trunkline.gateway.commands import Nothing, composed, on_bus
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge

MOST = 1000


async def numbers(edge: "Edge", _request: HttpRequest, _asked: Nothing) -> Any:
    """What every plugin did of late: the calls to enabled models, by the kind of their provider."""
    listed = await edge.gateway.plugins.list(limit=MOST)
    found = await edge.gateway.models.discover(limit=MOST)
    kind_of = {provider: plugin["name"] for plugin in listed["plugins"] for provider in plugin["providers"]}
    measured: dict[str, list[dict[str, Any]]] = {}
    for one in found["models"]:
        if one["measured"] is not None:
            measured.setdefault(kind_of.get(one["model"]["provider"], ""), []).append(one["measured"])
    told = [_numbers(plugin, measured.get(plugin["name"], [])) for plugin in listed["plugins"]]
    return {**{name: listed[name] for name in ("ok", "seq", "stale") if name in listed}, "plugins": told}


def _numbers(plugin: dict[str, Any], measured: list[dict[str, Any]]) -> dict[str, Any]:
    calls = sum(one.get("calls", 0) for one in measured)
    good = sum(one.get("calls", 0) * one.get("success", 1.0) for one in measured)
    return {
        "name": plugin["name"],
        "state": plugin["state"],
        "providers": len(plugin["providers"]),
        "processes": plugin["processes"],
        "troubles": len(plugin["troubles"]),
        "crashes": plugin["crashes"],
        "calls": calls,
        "success": good / calls if calls else None,
        "in_flight": sum(one.get("in_flight", 0) for one in measured),
    }


TAG = "Plugins"

ROUTES: list[Route] = [
    on_bus("GET", "/plugins", "plugins", "list", summary="List plugins", tag=TAG,
           asks=asked.PluginsAsked, gives=answers_log.Plugins),
    composed("GET", "/plugins/metrics", numbers, summary="What plugins did of late", tag=TAG,
             asks=Nothing, access="read", gives=answers_log.PluginMetrics),
    on_bus("GET", "/plugins/{name}", "plugins", "get", summary="Show a plugin", tag=TAG,
           gives=answers_log.OnePlugin),
]  # fmt: skip
