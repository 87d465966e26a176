"""`GET /metrics`: the figures of all processes, and the state they agree on, as Prometheus reads them."""

import asyncio

from trunkline_actors.telling import collect
from trunkline_events.log import LogError

from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route
from trunkline.telemetry.families import Names, merged, of_gateway, of_process
from trunkline.telemetry.prometheus import CONTENT_TYPE, text_of

ASK_SECONDS = 0.5


async def metrics(edge: Edge, request: HttpRequest, _who: Principal) -> None:
    """Of every process that answers within half a second; `?process=self`: of this one alone, at once."""
    runtime = edge.runtime
    own = runtime.telling.now()
    told, end = [own], None
    if request.query().get("process") != "self" and edge.bus.nats.is_connected:
        others = {pulse.process for pulse in edge.pulses.living()} - {own.process}
        heard, end = await asyncio.gather(collect(edge.bus, others), _end(edge))
        told += [one for one in heard if one.process != own.process]
    names = Names(edge.state.registry)
    families = merged(({"process": one.process}, of_process(one, names)) for one in told)
    families += of_gateway(edge.state, end, runtime.clock())
    await request.reply(200, text_of(families), {"cache-control": "no-store"}, CONTENT_TYPE)


async def _end(edge: Edge) -> int | None:
    try:
        async with asyncio.timeout(ASK_SECONDS):
            return await edge.runtime.log.end()
    except (LogError, TimeoutError):
        return None


ROUTES = [
    Route(
        method="GET",
        path="/metrics",
        handler=metrics,
        access="read",
        summary="Metrics of all processes, as Prometheus reads them",
        tag="Operations",
        query={"process": "`self`: of the process that answers, and of no other"},
        media="text/plain",
    )
]
