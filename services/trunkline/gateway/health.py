"""`/livez`, `/readyz` and `/health`: whether this process lives, can serve, and what the gateway has to do without."""

import asyncio
import time
from typing import Any

import nats.errors
from trunkline_actors.degraded import LOG_UNREACHABLE, REGISTRY_CACHED
from trunkline_events.log import LogError
from trunkline_events.times import format_time

from trunkline import __version__
from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route

ASK_SECONDS = 1.0
ROUTERS = "$SRV.PING.trunkline-router"

_AWAY = {LOG_UNREACHABLE, REGISTRY_CACHED}
"""Degraded modes in which chats are refused."""


async def livez(edge: Edge, request: HttpRequest, _who: Principal) -> None:
    """This process answers."""
    await request.json({"status": "ok"})


async def readyz(edge: Edge, request: HttpRequest, _who: Principal) -> None:
    """Whether a chat sent here now can be served: 200, or 503 with the reasons."""
    reasons = await _reasons(edge)
    status = "unavailable" if reasons else "ok"
    await request.json({"status": status, "reasons": reasons}, 503 if reasons else 200)


async def health(edge: Edge, request: HttpRequest, _who: Principal) -> None:
    """What `readyz` tells, and of every process its roles, its position in the log and its degraded modes."""
    reasons, end = await asyncio.gather(_reasons(edge), _end(edge))
    pulses = edge.pulses.living()
    modes: dict[str, dict[str, Any]] = {}
    for pulse in pulses:
        for mode, since in pulse.degraded.items():
            told = modes.setdefault(mode, {"since": since, "processes": []})
            told["since"] = min(told["since"], since)
            told["processes"].append(pulse.process)
    for told in modes.values():
        told["since"] = format_time(told["since"])
    position = edge.runtime.gateway.position
    told = {
        "status": "unavailable" if reasons else "degraded" if modes else "ok",
        "reasons": reasons,
        "version": __version__,
        "process": edge.runtime.name,
        "draining": edge.draining,
        "in_flight": edge.in_flight,
        "uptime_s": round(time.time() - edge.began, 1),
        "position": position,
        "log": {"reachable": end is not None, "end": end},
        "modes": modes,
        "processes": [
            {
                "process": pulse.process,
                "roles": pulse.roles,
                "position": pulse.position,
                "degraded": sorted(pulse.degraded),
            }
            for pulse in pulses
        ],
    }
    await request.json(told, 503 if reasons else 200)


async def _reasons(edge: Edge) -> list[str]:
    """Why no chat could be served here; none where one could."""
    if edge.draining:
        return ["this process is stopping; ask another one"]
    if not edge.bus.nats.is_connected:
        return ["there is no connection to NATS; it is tried again without end"]
    reasons = []
    degraded = edge.runtime.degraded
    if degraded.log_away:  # unlike a mode, which is told for a while after it has ended
        reasons.append(f"degraded: {', '.join(sorted(_AWAY & degraded.since.keys()))}; see `trunkline doctor`")
    elif await _end(edge) is None:
        reasons.append("the log does not answer; see `trunkline doctor`")
    if not await _router(edge):
        reasons.append("no router is there; start one with `trunkline run router`")
    return reasons


async def _router(edge: Edge) -> bool:
    if any("router" in pulse.roles and not _AWAY & pulse.degraded.keys() for pulse in edge.pulses.living()):
        return True
    try:
        await edge.bus.nats.request(ROUTERS, b"", timeout=ASK_SECONDS)
    except (nats.errors.Error, TimeoutError):
        return False
    return True


async def _end(edge: Edge) -> int | None:
    """The sequence at which the log ends; None where it does not answer."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await edge.runtime.log.end()
    except (LogError, TimeoutError):
        return None


def _probe(path: str, handler: Any, summary: str) -> Route:
    return Route(method="GET", path=path, handler=handler, access="open", summary=summary, tag="Operations")


ROUTES = [
    _probe("/livez", livez, "Whether this process lives"),
    _probe("/readyz", readyz, "Whether a chat can be served"),
    _probe("/health", health, "Degraded modes, processes and positions in the log"),
]
