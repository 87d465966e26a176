"""The ASGI application: finds the route, decides who may, and answers errors in the client's dialect."""

import asyncio
import itertools
import time
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from nats.nuid import NUID
from trunkline_actors.bus import Bus
from trunkline_actors.runtime import Runtime
from trunkline_actors.spans import http
from trunkline_events.refusal import CODES, Refused
from trunkline_projections.folds import Gateway as State

from trunkline import errors
from trunkline.client import Gateway
from trunkline.errors import TrunklineError
from trunkline.gateway import dialects
from trunkline.gateway.access import Access, Principal
from trunkline.gateway.http import LARGEST_BODY, HttpRequest, Receive, Scope, Send
from trunkline.gateway.pulses import Pulses
from trunkline.gateway.routes import Dialect, Route, Routes

__all__ = ["Edge", "Principal"]

if TYPE_CHECKING:
    from trunkline.gateway.server import HttpServer

log = structlog.get_logger()


class Limits(Struct, frozen=True, kw_only=True):
    """What one request may take: bytes of its body, and seconds until its head and body are in."""

    body: int = LARGEST_BODY
    read_s: float = 30.0


class Edge:
    """The application of one process. `gateway` asks commands, `bus` carries chats: both on one connection."""

    def __init__(
        self,
        runtime: Runtime,
        access: Access,
        routes: Iterable[Route],
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._started = False
        self._moving: asyncio.Future[None] | None = None
        self.stand_on(runtime)
        self._own, self._numbers = NUID().next().decode(), itertools.count(1)
        self.access = access
        self.routes = Routes(routes)
        self.limits = limits
        self.drains = asyncio.Event()
        """Set when the process begins to stop: what has no end of its own must end."""
        self.in_flight = 0
        self.pulses = Pulses()
        self.known_times: dict[int, int] = {}
        """When events happened that were asked for: sequence → Unix time."""
        self.server: HttpServer | None = None
        self.url = ""
        """Where it is served."""
        self.began = time.time()

    async def start(self) -> None:
        """Begin to listen to the rest of the gateway."""
        self._started = True
        await self.pulses.start(self.runtime)

    async def stop(self) -> None:
        """Listen no more."""
        self._started = False
        await self.pulses.stop()

    @property
    def draining(self) -> bool:
        """Whether the process takes no new requests."""
        return self.drains.is_set()

    def stand_on(self, runtime: Runtime) -> None:
        """Use this process's connection and view of the log from now on."""
        self.runtime: Runtime = runtime
        self.bus: Bus = runtime.bus
        self.gateway: Gateway = Gateway(runtime.connection, runtime.door.own_key or None)
        if self._started:
            self._moving = asyncio.ensure_future(self.pulses.start(runtime))

    @property
    def state(self) -> State:
        """The gateway as this process knows it: registry, policies, breakers, keys."""
        return self.runtime.gateway.state

    def new_id(self) -> str:
        """A request id that nobody else draws."""
        return f"{self._own}{next(self._numbers)}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3: HTTP only; the server tells nothing by lifespan that we need."""
        if scope["type"] != "http":
            return
        request = HttpRequest(scope, receive, send, self.limits.body)
        self.in_flight += 1
        began, tracing, span = time.time(), self.runtime.tracing, None
        if tracing is not None:
            span, request.traceparent = tracing.begin(request.headers.get("traceparent"))
        try:
            await self._serve(request)
        finally:
            self.in_flight -= 1
            self._count(request, began)
            if tracing is not None and span is not None and (request.access != "open" or span.parent):
                said = (request.method, request.path, request.route, request.status)
                tracing.record(http(span, time.time(), *said))
            request.close()

    def _count(self, request: HttpRequest, began: float) -> None:
        took = max(0.0, time.time() - began)
        self.runtime.totals.http(request.method, request.route or "", request.status, took)

    async def _serve(self, request: HttpRequest) -> None:
        dialect: Dialect = "openai"
        try:
            route = self._route(request)
            dialect = route.dialect
            await route.handler(self, request, self._admitted(request, route))
        except TrunklineError as error:
            await self._refuse(request, error, dialect)
        except Exception as error:
            log.exception("edge.crashed", path=request.path, error=type(error).__name__)
            await self._refuse(request, INTERNAL, dialect)

    def _admitted(self, request: HttpRequest, route: Route) -> Principal:
        principal = self.access.admit(request, route)
        if isinstance(principal, Refused):
            raise _raised(principal)
        return principal

    def _route(self, request: HttpRequest) -> Route:
        try:
            methods, params = self.routes.find(request.path)
        except UnicodeDecodeError:
            raise _no_path(request) from None
        route = methods.get(request.method) or (methods.get("GET") if request.method == "HEAD" else None)
        if route is None and request.method == "OPTIONS" and methods:
            return _options(methods)
        if route is None:
            raise _no_method(request, methods) if methods else _no_path(request)
        request.params = params
        request.route, request.access = route.path, route.access
        return route

    async def _refuse(self, request: HttpRequest, error: TrunklineError, dialect: Dialect) -> None:
        if request.started:  # what is out can't be taken back: the connection ends without an end of the answer
            raise error
        status, body, fields = dialects.refusal(error, dialect)
        fields.setdefault("x-request-id", self.new_id())
        await request.reply(status, body, fields)


INTERNAL = errors.Internal("something went wrong here; its log says what", code="internal", status=500, retryable=True)


def _raised(refused: Refused) -> TrunklineError:
    retryable = CODES[refused.code].retryable if refused.retryable is None else refused.retryable
    return TrunklineError(
        refused.message,
        code=refused.code,
        status=refused.status,
        retryable=retryable,
        param=refused.param,
        metadata=refused.metadata,
    )


def allowed_of(methods: Collection[str]) -> str:
    """The header `allow` of a path with these methods."""
    return ", ".join(sorted({*methods, "OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def _options(methods: Mapping[str, Route]) -> Route:
    """What a path may be asked for. Nothing of this lets a page of another origin in: CORS is off."""

    async def handler(_edge: Edge, request: HttpRequest, _who: Principal) -> None:
        await request.body()
        await request.start(204, {"allow": allowed_of(methods)})
        await request.end()

    return Route(method="OPTIONS", path="", handler=handler, access="open", summary="", tag="")


def _no_path(request: HttpRequest) -> TrunklineError:
    return errors.NotFound(
        f"there is no path {request.path!r} here; GET /openapi.json lists them", code="not_found", status=404
    )


def _no_method(request: HttpRequest, methods: Collection[str]) -> TrunklineError:
    allowed = allowed_of(methods)
    return errors.InvalidRequest(
        f"{request.method} is not for {request.path!r}; use {allowed}",
        code="invalid_request",
        status=405,
        metadata={"allow": allowed},
    )
