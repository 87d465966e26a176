"""Metrics by their OpenTelemetry names, of what processes say of themselves and of the gateway's state. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct
from trunkline_actors import semconv, slices
from trunkline_actors.figures import Figures
from trunkline_actors.totals import Calls, Histogram
from trunkline_projections.circuits import CLOSED
from trunkline_projections.folds import Gateway
from trunkline_projections.models import Registry

Kind = Literal["counter", "gauge", "histogram"]
Labels = dict[str, str]

MOST_BUDGETS = 100
"""Scopes that have series of their own: the gateway, teams, then the keys that have spent most."""
STATES = ("closed", "open", "half-open")


class Point(Struct, frozen=True):
    """One series as it stands: a number, or a histogram."""

    labels: Mapping[str, str]
    value: float = 0.0
    histogram: Histogram | None = None


class Family(Struct, frozen=True, kw_only=True):
    """All series of one metric. `unit` is UCUM's; `bounds` are those of its buckets, where it is a histogram."""

    name: str
    kind: Kind
    unit: str
    help: str
    points: list[Point]
    bounds: Sequence[float] = ()


class Names(Struct, frozen=True):
    """What the registry calls things."""

    registry: Registry

    def labels(self, calls: Calls) -> Labels:
        """The labels of calls: whom the conventions say was called, and what we know it as."""
        provider, model = self.registry.providers.get(calls.provider), self.registry.models.get(calls.model)
        upstream = calls.model
        if model is not None:
            canary = model.canary
            upstream = canary.upstream if canary is not None and canary.version == calls.version else model.upstream
        return {
            semconv.OPERATION: calls.operation,
            semconv.PROVIDER: semconv.provider_name(provider.kind) if provider else calls.provider,
            semconv.REQUEST_MODEL: upstream,
            semconv.MODEL: calls.model,
            semconv.MODEL_VERSION: calls.version,
            semconv.INSTANCE: calls.provider,
        }


def of_process(told: Figures, names: Names) -> Iterator[Family]:
    """What one process has counted since it began, and how it stands."""
    yield from _requests(told)
    yield from _calls(told, names)
    yield from _process(told)


def _requests(told: Figures) -> Iterator[Family]:
    counts: dict[tuple[str, str], int] = {}
    others: list[Point] = []
    for one in told.refusals:
        if one.service == "trunkline-router" and one.endpoint in semconv.DURATION:
            counts[one.endpoint, one.code] = counts.get((one.endpoint, one.code), 0) + one.count
        else:
            others.append(Point({"service": one.service, "endpoint": one.endpoint, "code": one.code}, one.count))
    durations = []
    for served in told.served:
        if not served.code:
            counts[served.operation, "ok"] = served.took.count
        labels = {semconv.OPERATION: served.operation, semconv.PROVIDER: "trunkline"}
        if served.code:
            labels[semconv.ERROR_TYPE] = served.code
        durations.append(Point(labels, histogram=served.took))
    points = [
        Point({semconv.OPERATION: operation, semconv.CODE: code}, count)
        for (operation, code), count in sorted(counts.items())
    ]
    yield _counter(
        "trunkline.requests", "{request}", "Requests that routers are done with, by what they came to", points
    )
    yield _counter("trunkline.errors", "{error}", "Errors that other endpoints on the bus answered with", others)
    yield _histogram(semconv.SERVER_DURATION, "s", "A request's time in a router, waiting included", durations)
    looked = [Point({"result": result}, count) for result, count in told.lookups.items()]
    yield _counter("trunkline.cache.lookups", "{lookup}", "Looks for an answer that may be given again", looked)
    paths = [
        Point(
            {semconv.HTTP_METHOD: one.method, semconv.HTTP_ROUTE: one.route, semconv.HTTP_STATUS: str(one.status)},
            histogram=one.took,
        )
        for one in told.paths
    ]
    help_ = "A request's time at the HTTP edge, until the last byte is written"
    yield _histogram(semconv.HTTP_DURATION, "s", help_, paths, semconv.HTTP_SECONDS)


def _calls(told: Figures, names: Names) -> Iterator[Family]:
    labelled = [(one, names.labels(one)) for one in told.calls]

    def histograms(
        name: str, help_: str, chosen: Callable[[Calls], Histogram | None], unit: str, operation: str
    ) -> Family:
        points = [
            Point(labels, histogram=found)
            for one, labels in labelled
            if one.operation == operation and (found := chosen(one)) is not None
        ]
        return _histogram(name, unit, help_, points, semconv.SECONDS if unit == "s" else semconv.TOKENS)

    def counters(name: str, unit: str, help_: str, value: Callable[[Calls], float], extra: Labels) -> Family:
        points = [Point(labels | extra, value(one)) for one, labels in labelled if one.settled]
        return _counter(name, unit, help_, points)

    for operation, name in semconv.DURATION.items():
        points = [
            Point(labels | ({semconv.ERROR_TYPE: kind} if kind else {}), histogram=took)
            for one, labels in labelled
            if one.operation == operation
            for kind, took in one.took.items()
        ]
        yield _histogram(name, "s", "An upstream call's time, from the attempt's start to its last byte", points)
    first = "Time to the first chunk of a stream, from the attempt's start"
    yield histograms(semconv.FIRST_CHUNK, first, lambda one: one.first, "s", "chat")
    yield histograms(semconv.OPERATION_INPUT, "Input tokens of a call", lambda one: one.input, "{token}", "chat")
    yield histograms(semconv.OPERATION_OUTPUT, "Output tokens of a call", lambda one: one.output, "{token}", "chat")
    embedded = "Input tokens of a call for embeddings"
    yield histograms(semconv.EMBEDDINGS_INPUT, embedded, lambda one: one.input, "{token}", "embeddings")
    modality = {semconv.TOKEN_MODALITY: semconv.UNKNOWN_MODALITY}
    for name, help_, value in (
        (semconv.USAGE_INPUT, "Input tokens settled, cached ones included", lambda one: one.input_tokens),
        (
            semconv.USAGE_CACHE_READ,
            "Input tokens that a provider had in its cache",
            lambda one: one.cached_input_tokens,
        ),
        (semconv.USAGE_OUTPUT, "Output tokens settled, reasoning included", lambda one: one.output_tokens),
        (semconv.USAGE_REASONING, "Output tokens of reasoning", lambda one: one.reasoning_tokens),
    ):
        yield counters(name, "{token}", help_, value, modality)
    yield counters(
        "trunkline.cost", "USD", "What calls cost, as settled in the log", lambda one: one.cost_nanos / 1e9, {}
    )
    yield counters(
        "trunkline.settlements", "{attempt}", "Attempts settled, aborted ones too", lambda one: one.settled, {}
    )


def _process(told: Figures) -> Iterator[Family]:
    running = [
        Point({semconv.INSTANCE: one.provider, semconv.MODEL: one.model, semconv.MODEL_VERSION: one.version}, one.calls)
        for one in told.in_flight
    ]
    yield _gauge("trunkline.calls.in_flight", "{call}", "Upstream calls under way", running)
    modes = [Point({"mode": mode}, since) for mode, since in told.degraded.items()]
    yield _gauge("trunkline.degraded.since", "s", "Unix time since which a degraded mode holds", modes)
    spans = [Point({"state": state}, count) for state, count in told.spans.items()]
    yield _counter(
        "trunkline.telemetry.spans", "{span}", "What is to be spans: recorded, dropped, or not exported", spans
    )
    about = {"version": told.version, "roles": " ".join(told.roles)}
    yield _gauge("trunkline.process.info", "", "Always 1", [Point(about, 1)])
    single = [Point({}, 0)]
    for name, unit, help_, value in (
        ("trunkline.requests.in_flight", "{request}", "Requests that routers here have under way", told.running),
        ("trunkline.attempts.open", "{attempt}", "Attempts that providers here run", told.open),
        ("trunkline.log.backlog", "{event}", "Events that wait for the log to acknowledge them", told.backlog),
        ("trunkline.log.position", "", "The sequence up to which this process has read the log", told.position),
        ("process.memory.usage", "By", "Resident memory", told.memory),
        ("process.open_file_descriptor.count", "{file_descriptor}", "Open file descriptors", told.descriptors),
        ("process.uptime", "s", "Time since the process began to serve", max(0.0, told.at - told.began)),
    ):
        yield _gauge(name, unit, help_, [Point(one.labels, float(value)) for one in single])
    yield _counter("process.cpu.time", "s", "CPU time, of user and system", [Point({}, told.cpu_s)])
    dropped = "Messages dropped since they asked for replies outside the inboxes"
    yield _counter("trunkline.bus.replies_dropped", "{message}", dropped, [Point({}, told.replies_dropped)])


def of_gateway(state: Gateway, end: int | None, now: float) -> Iterator[Family]:
    """What all processes agree on: breakers and budgets as the log has them, and where it ends."""
    circuits = {name: state.circuits.get(name, CLOSED) for name in sorted(state.registry.providers)}
    points = [
        Point({semconv.INSTANCE: name, "state": one}, float(circuit.state == one))
        for name, circuit in circuits.items()
        for one in STATES
    ]
    yield _gauge("trunkline.circuit.state", "", "1 for the state that a provider's breaker is in", points)
    failures = [Point({semconv.INSTANCE: name}, circuit.failures) for name, circuit in circuits.items()]
    yield _gauge("trunkline.circuit.failures", "{failure}", "Failures in a row", failures)
    yield from _budgets(state, now)
    statuses: dict[str, int] = {}
    for model in state.registry.models.values():
        statuses[model.status] = statuses.get(model.status, 0) + 1
    models = [Point({"status": status}, count) for status, count in sorted(statuses.items())]
    yield _gauge("trunkline.models", "{model}", "Registered models", models)
    if end is not None:
        yield _gauge("trunkline.log.end", "", "The sequence at which the log ends", [Point({}, end)])


def _budgets(state: Gateway, now: float) -> Iterator[Family]:
    kinds = {"gateway": 0, "team": 1}

    def order(scope: str) -> tuple[int, int, str]:
        return kinds.get(scope.partition(":")[0], 2), -state.budgets[scope].books.settled_nanos, scope

    chosen = sorted(state.budgets, key=order)[:MOST_BUDGETS]
    books = {scope: slices.turn(state.budgets[scope].books, now) for scope in chosen}
    limits = [
        Point({"scope": scope}, one.limit_nanos / 1e9) for scope, one in books.items() if one.limit_nanos is not None
    ]
    yield _gauge("trunkline.budget.limit", "USD", "What may be spent in the running window", limits)
    settled = [Point({"scope": scope}, one.settled_nanos / 1e9) for scope, one in books.items()]
    yield _gauge("trunkline.budget.settled", "USD", "What was spent in the running window, as reported so far", settled)
    reserved = [Point({"scope": scope}, one.reserved_nanos / 1e9) for scope, one in books.items()]
    yield _gauge("trunkline.budget.reserved", "USD", "What is held for requests under way and by routers", reserved)
    left_out = [Point({}, len(state.budgets) - len(books))]
    yield _gauge("trunkline.budget.left_out", "{budget}", "Budgets without series here", left_out)


def merged(parts: Iterable[tuple[Labels, Iterable[Family]]]) -> list[Family]:
    """Families of several processes as one each, their series told apart by these labels."""
    found: dict[str, Family] = {}
    for labels, families in parts:
        for family in families:
            points = [Point({**one.labels, **labels}, one.value, one.histogram) for one in family.points]
            if family.name in found:
                found[family.name].points.extend(points)
            else:
                found[family.name] = Family(
                    name=family.name,
                    kind=family.kind,
                    unit=family.unit,
                    help=family.help,
                    points=points,
                    bounds=family.bounds,
                )
    return list(found.values())


def _counter(name: str, unit: str, help_: str, points: list[Point]) -> Family:
    return Family(name=name, kind="counter", unit=unit, help=help_, points=points)


def _gauge(name: str, unit: str, help_: str, points: list[Point]) -> Family:
    return Family(name=name, kind="gauge", unit=unit, help=help_, points=points)


def _histogram(
    name: str, unit: str, help_: str, points: list[Point], bounds: Sequence[float] = semconv.SECONDS
) -> Family:
    return Family(name=name, kind="histogram", unit=unit, help=help_, points=points, bounds=bounds)
