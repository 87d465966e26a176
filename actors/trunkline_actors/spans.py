"""What spans say, made of what was recorded anyway: requests at an edge, at a router, and attempts at a provider. Pure.

No prompt, no answer, no key and no words of an upstream: ids, names, counts, codes and times.
"""

from collections.abc import Iterator
from typing import NamedTuple

from trunkline_events.failure import FailureClass
from trunkline_events.registry import Provider
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import Asked, AttemptFailed, Ending, Metered, RouteDecided

from trunkline_actors import semconv
from trunkline_actors.dispatch import Dispatch

INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans, by their number in OTLP."""

Value = str | int | float | bool | list[str]


class Context(NamedTuple):
    """A span that has begun: hex ids, `parent` empty for the first of a trace, and the Unix time."""

    trace: str
    span: str
    parent: str
    start: float

    @property
    def traceparent(self) -> str:
        """What whoever works for this span is given."""
        return f"00-{self.trace}-{self.span}-01"

    def child(self, number: int) -> str:
        """The id of a span in this one, other for each number: no other span has it, as little as this one's own."""
        return f"{(int(self.span, 16) + number * _STEP) % 2**64 or 1:016x}"


_STEP = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: odd, so that no two numbers make the same


Common = tuple[tuple[str, str | int | bool], ...]
Own = list[tuple[str, Value]]


class Span(NamedTuple):
    """One span. Times are Unix times in seconds; `failed`: its status is an error, else it has none.

    `common` are attributes that many spans have alike, whose encoding is kept: the values of a name are of one type.
    """

    trace: str
    span: str
    parent: str
    name: str
    kind: int
    start: float
    end: float
    common: Common
    attributes: Own
    failed: bool = False


def http(context: Context, end: float, method: str, path: str, route: str | None, status: int) -> Iterator[Span]:
    """A request that an edge answered; status 0: its client went away before it was."""
    common: Common = (
        (semconv.HTTP_METHOD, method),
        (semconv.URL_SCHEME, "http"),
        (semconv.HTTP_ROUTE, route or ""),
        (semconv.HTTP_STATUS, status),
    )
    if not status:
        common = (*common[:3], (semconv.ERROR_TYPE, "disconnected"))
    elif status >= 400:
        common = (*common, (semconv.ERROR_TYPE, str(status)))
    said: Own = [] if path == route else [(semconv.URL_PATH, path[:500])]
    trace, span, parent, start = context
    name = f"{method} {route}" if route else method
    yield Span(trace, span, parent, name, SERVER, start, end, common, said, status >= 500)


def routed(
    context: Context,
    end: float,
    request_id: str,
    thread: str,
    asked: Asked,
    code: str,
    decisions: list[tuple[RouteDecided, int, float]],
) -> Iterator[Span]:
    """A request at a router from its arrival to its end, and in it each decision until the log had it."""
    trace, span, parent, start = context
    common: Common = (
        (semconv.OPERATION, asked.operation),
        (semconv.PROVIDER, "trunkline"),
        (semconv.REQUEST_MODEL, asked.model),
        (semconv.REQUEST_STREAM, asked.stream),
        (semconv.ATTEMPTS, len(decisions)),
    )
    if decisions:
        common = (*common, (semconv.RESPONSE_MODEL, decisions[-1][0].model))
    if code:
        common = (*common, (semconv.ERROR_TYPE, code))
    own: Own = [(semconv.REQUEST_ID, request_id)]
    if thread != NO_THREAD:
        own.append((semconv.CONVERSATION, thread))
    yield Span(trace, span, parent, f"route {asked.operation}", SERVER, start, end, common, own, bool(code))
    for event, sequence, stored in decisions:
        common = (
            (semconv.ATTEMPT, event.attempt),
            (semconv.MODEL, event.model),
            (semconv.INSTANCE, event.provider),
            (semconv.CANDIDATES, len(event.candidates)),
            (semconv.LEFT_OUT, sum(event.left_out.values())),
            (semconv.POLICY_VERSION, event.policy_version),
        )
        own = [(semconv.LOG_SEQUENCE, sequence)]
        name = f"decide {event.model}"
        yield Span(trace, context.child(event.attempt), span, name, INTERNAL, event.now, stored, common, own)


def attempted(
    context: Context,
    over: float,
    end: float,
    provider: Provider,
    dispatch: Dispatch,
    failure: FailureClass | None,
    ending: Ending | None,
) -> Iterator[Span]:
    """An attempt at a provider up to the end of its upstream call, and from then on what settling it took."""
    trace, span, parent, start = context
    operation = dispatch.operation
    common: Common = (
        (semconv.OPERATION, operation),
        (semconv.PROVIDER, semconv.provider_name(provider.kind)),
        (semconv.REQUEST_MODEL, dispatch.upstream),
        (semconv.REQUEST_STREAM, dispatch.stream),
        (semconv.MODEL, dispatch.model),
        (semconv.INSTANCE, provider.id),
        (semconv.ATTEMPT, dispatch.attempt),
    )
    own: Own = [(semconv.REQUEST_ID, dispatch.request_id)]
    if dispatch.max_tokens is not None:
        own.append((semconv.REQUEST_MAX_TOKENS, dispatch.max_tokens))
    if isinstance(ending, Metered):
        _metered(own, ending, stream=dispatch.stream)
    if failure is not None:
        common = (*common, (semconv.ERROR_TYPE, failure.value))
        if isinstance(ending, AttemptFailed) and ending.status is not None:
            common = (*common, (semconv.HTTP_STATUS, ending.status))
    name = f"{operation} {dispatch.upstream}"
    yield Span(trace, span, parent, name, CLIENT, start, over, common, own, failure is not None)
    settled: Common = ((semconv.ATTEMPT, dispatch.attempt),)
    yield Span(trace, context.child(1), span, "settle", INTERNAL, over, end, settled, [], ending is None)


def _metered(own: Own, ending: Metered, *, stream: bool) -> None:
    usage = ending.usage
    own += (
        (semconv.INPUT_TOKENS, usage.input_tokens),
        (semconv.OUTPUT_TOKENS, usage.output_tokens),
        (semconv.FINISH_REASONS, [ending.finish]),
        (semconv.COST, ending.cost_nanos / 1e9),
    )
    if usage.cached_input_tokens:
        own.append((semconv.CACHE_READ_TOKENS, usage.cached_input_tokens))
    if usage.reasoning_tokens:
        own.append((semconv.REASONING_TOKENS, usage.reasoning_tokens))
    if ending.partial:
        own.append((semconv.PARTIAL, True))
    if stream and ending.ttft_ms is not None:
        own.append((semconv.TIME_TO_FIRST_CHUNK, ending.ttft_ms / 1000))
