"""A collector of ours: takes OTLP over HTTP and reads it with the classes generated from OpenTelemetry's own files.

`python tests/otlp.py` runs one as a process that prints its port, so that a test can stop it (SIGSTOP).
"""

import asyncio
import gzip
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


class Seen(NamedTuple):
    """A span as the collector got it; `resource` is what it says of its process."""

    trace: str
    span: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    failed: bool
    resource: dict[str, Any]
    events: list[tuple[str, int, dict[str, Any]]]
    """Name, time and attributes of each."""


class Collector:
    """What was sent. `status` is what it answers with."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.metrics: list[tuple[dict[str, Any], Any]] = []
        self.fields: list[dict[str, str]] = []
        self.status = 200
        self.url = ""
        self._arrived = asyncio.Event()

    async def traces(self, request: web.Request) -> web.Response:
        """`POST /v1/traces`."""
        said = ExportTraceServiceRequest.FromString(await self._body(request))
        if self.status == 200:
            self.spans += spans_of(said)
            self._arrived.set()
        return web.Response(status=self.status)

    async def measured(self, request: web.Request) -> web.Response:
        """`POST /v1/metrics`."""
        said = ExportMetricsServiceRequest.FromString(await self._body(request))
        for of_resource in said.resource_metrics:
            resource = {one.key: value_of(one.value) for one in of_resource.resource.attributes}
            self.metrics += [(resource, metric) for scope in of_resource.scope_metrics for metric in scope.metrics]
        self._arrived.set()
        return web.Response(status=self.status)

    async def _body(self, request: web.Request) -> bytes:
        self.fields.append({name.lower(): value for name, value in request.headers.items()})
        body = await request.read()  # aiohttp has unpacked it already, where it was packed
        return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body

    async def until(self, condition: Callable[["Collector"], bool], within: float = 15.0) -> None:
        """Return when it is so."""
        async with asyncio.timeout(within):
            while not condition(self):
                self._arrived.clear()
                await self._arrived.wait()

    def named(self, name: str) -> list[Seen]:
        """The spans of this name, in order of time."""
        return sorted((one for one in self.spans if one.name == name), key=lambda one: one.start)


def spans_of(said: ExportTraceServiceRequest) -> list[Seen]:
    """All spans of a message."""
    return [
        Seen(
            trace=span.trace_id.hex(),
            span=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            name=span.name,
            kind=span.kind,
            start=span.start_time_unix_nano,
            end=span.end_time_unix_nano,
            attributes={one.key: value_of(one.value) for one in span.attributes},
            failed=span.status.code == 2,
            resource={one.key: value_of(one.value) for one in of_resource.resource.attributes},
            events=[
                (event.name, event.time_unix_nano, {one.key: value_of(one.value) for one in event.attributes})
                for event in span.events
            ],
        )
        for of_resource in said.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]


def value_of(value: AnyValue) -> Any:
    """A value as Python has it."""
    kind = value.WhichOneof("value")
    found = getattr(value, kind) if kind else None
    return [value_of(one) for one in found.values] if kind == "array_value" and found is not None else found


@asynccontextmanager
async def collecting(port: int = 0) -> AsyncIterator[Collector]:
    """A collector that listens here while this lasts."""
    collector = Collector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes([web.post("/v1/traces", collector.traces), web.post("/v1/metrics", collector.measured)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def _main() -> None:
    async with collecting() as collector:
        print(collector.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
