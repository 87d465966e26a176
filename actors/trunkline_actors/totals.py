"""What one process has counted since it began: only ever more, so that rates can be taken of it. Pure."""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct
from trunkline_events.failure import FailureClass
from trunkline_events.thread import Ending, Metered

from trunkline_actors.semconv import HTTP_SECONDS, SECONDS, TOKENS
from trunkline_actors.tallies import Line

MOST_LINES = 2_000
"""Series of calls that are kept apart; what comes beyond counts under `_OTHER`."""
MOST_PATHS = 500
OTHER = "_OTHER"


class Histogram(Struct):
    """How many values lie in each bucket: `counts` has one more than there are bounds, for what is above all."""

    counts: list[int]
    sum: float = 0.0

    @classmethod
    def of(cls, bounds: Sequence[float]) -> "Histogram":
        """An empty one."""
        return cls(counts=[0] * (len(bounds) + 1))

    def add(self, bounds: Sequence[float], value: float) -> None:
        """Count a value; one that equals a bound is below it."""
        self.counts[bisect_left(bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


class Calls(Struct, kw_only=True):
    """Upstream calls of one model, version and provider instance, for one operation. `failures` counts by class."""

    provider: str
    model: str
    version: str
    operation: str
    took: dict[str, Histogram] = {}
    """Seconds from the start of an attempt to its end, by failure class; "" where it went well."""
    first: Histogram | None = None
    """Seconds to the first chunk of streams that went well."""
    input: Histogram | None = None
    output: Histogram | None = None
    settled: int = 0
    cost_nanos: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def ended(self, failure: FailureClass | None, ending: Ending | None, seconds: float, *, stream: bool) -> None:
        """A call ended."""
        kind = failure.value if failure is not None else ""
        took = self.took.get(kind)
        if took is None:
            took = self.took[kind] = Histogram.of(SECONDS)
        took.add(SECONDS, seconds)
        if not isinstance(ending, Metered):
            return
        usage = ending.usage
        self.settled += 1
        self.cost_nanos += ending.cost_nanos
        self.input_tokens += usage.input_tokens
        self.cached_input_tokens += usage.cached_input_tokens
        self.output_tokens += usage.output_tokens
        self.reasoning_tokens += usage.reasoning_tokens
        if self.input is None or self.output is None:
            self.input, self.output = Histogram.of(TOKENS), Histogram.of(TOKENS)
        self.input.add(TOKENS, usage.input_tokens)
        self.output.add(TOKENS, usage.output_tokens)
        if stream and failure is None and ending.ttft_ms is not None:
            if self.first is None:
                self.first = Histogram.of(SECONDS)
            self.first.add(SECONDS, ending.ttft_ms / 1000)


class Served(Struct, kw_only=True):
    """Requests of a router for one operation that came to the same: `code` is what was refused, "" for an answer."""

    operation: str
    code: str
    took: Histogram


class Path(Struct, kw_only=True):
    """HTTP requests of an edge on one route that had the same status."""

    method: str
    route: str
    status: int
    took: Histogram


class Refusals(Struct, kw_only=True):
    """Errors that an endpoint of the bus answered with, of one code."""

    service: str
    endpoint: str
    code: str
    count: int = 0


class Totals:
    """The counts of one process."""

    def __init__(self) -> None:
        self.calls: dict[tuple[Line, str], Calls] = {}
        self.served: dict[tuple[str, str], Served] = {}
        self.paths: dict[tuple[str, str, int], Path] = {}
        self.refusals: dict[tuple[str, str, str], Refusals] = {}
        self.lookups = {"hit": 0, "miss": 0}
        """How often routers here looked for an answer in the cache, and what came of it."""
        self.running = 0
        """Requests that routers here have under way."""

    def call(
        self,
        line: Line,
        operation: str,
        failure: FailureClass | None,
        ending: Ending | None,
        seconds: float,
        *,
        stream: bool,
    ) -> None:
        """An upstream call ended: well where `failure` is None; `ending` is what was recorded, where we recorded it."""
        calls = self.calls.get((line, operation))
        if calls is None:
            if len(self.calls) >= MOST_LINES:
                line = Line(OTHER, OTHER, "")
            provider, model, version = line
            fresh = Calls(provider=provider, model=model, version=version, operation=operation)
            calls = self.calls.setdefault((line, operation), fresh)
        calls.ended(failure, ending, seconds, stream=stream)

    def request(self, operation: str, code: str, seconds: float) -> None:
        """A router is done with a request: it was answered, or refused with this code."""
        served = self.served.get((operation, code))
        if served is None:
            fresh = Served(operation=operation, code=code, took=Histogram.of(SECONDS))
            served = self.served[operation, code] = fresh
        served.took.add(SECONDS, seconds)

    def looked_up(self, *, found: bool) -> None:
        """A router looked for an answer in the cache."""
        self.lookups["hit" if found else "miss"] += 1

    def refused(self, service: str, endpoint: str, code: str) -> None:
        """An endpoint answered with an error."""
        key = (service, endpoint, code)
        refusals = self.refusals.get(key)
        if refusals is None:
            refusals = self.refusals[key] = Refusals(service=service, endpoint=endpoint, code=code)
        refusals.count += 1

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered. `route` is the path's template: as many series as there are routes."""
        key = (method, route, status)
        path = self.paths.get(key)
        if path is None:
            if len(self.paths) >= MOST_PATHS:
                method, route = OTHER, OTHER
            fresh = Path(method=method, route=route, status=status, took=Histogram.of(HTTP_SECONDS))
            path = self.paths.setdefault((method, route, status), fresh)
        path.took.add(HTTP_SECONDS, seconds)
