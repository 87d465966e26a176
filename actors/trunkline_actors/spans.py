"""What spans say, made of what was recorded anyway: requests at an edge, at a router, and attempts at a provider. Pure.

No prompt, no answer, no key and no words of an upstream: ids, names, counts, codes and times.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

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


Attributes = dict[str, Value]
Own = list[tuple[str, Value]]
Said = tuple[Any, ...]
"""A shape, and what it takes: whatever many spans have alike. What a shape takes in one place is always of one type."""


class Mark(NamedTuple):
    """Something that happened within a span, at a Unix time: an event, as OpenTelemetry calls it.

    `said` and `own` are as a span has them, without a kind.
    """

    time: float
    said: Said
    own: Own


class Span(NamedTuple):
    """One span. Times are Unix times in seconds; `failed`: its status is an error, else it has none.

    `said[0](*said[1:])` gives its name, its kind and the attributes that many have alike; `own` are its others. Who
    encodes spans keeps the former by `said`, and so seldom needs to ask.
    """

    trace: str
    span: str
    parent: str
    said: Said
    start: float
    end: float
    own: Own
    failed: bool = False
    marks: tuple[Mark, ...] = ()


def http(context: Context, end: float, method: str, path: str, route: str | None, status: int) -> Iterator[Span]:
    """A request that an edge answered; status 0: its client went away before it was."""
    own: Own = [] if path == route else [(semconv.URL_PATH, path[:500])]
    trace, span, parent, start = context
    yield Span(trace, span, parent, (_http, method, route or "", status), start, end, own, status >= 500)


def _http(method: str, route: str, status: int) -> tuple[str, int, Attributes]:
    said: Attributes = {semconv.HTTP_METHOD: method, semconv.URL_SCHEME: "http"}
    if route:
        said[semconv.HTTP_ROUTE] = route
    if status:
        said[semconv.HTTP_STATUS] = status
    if status >= 400 or not status:
        said[semconv.ERROR_TYPE] = str(status) if status else "disconnected"
    return f"{method} {route}" if route else method, SERVER, said


def routed(
    context: Context,
    end: float,
    request_id: str,
    thread: str,
    asked: Asked,
    code: str,
    decisions: list[tuple[RouteDecided, int, float]],
    *,
    reused: bool = False,
) -> Iterator[Span]:
    """A request at a router from its arrival to its end, in which each decision is marked where the log had it."""
    trace, span, parent, start = context
    served = decisions[-1][0].model if decisions else ""
    said: Said = (_routed, asked.operation, asked.model, asked.stream, len(decisions), served, code, reused)
    own: Own = [(semconv.REQUEST_ID, request_id)]
    if thread != NO_THREAD:
        own.append((semconv.CONVERSATION, thread))
    yield Span(trace, span, parent, said, start, end, own, bool(code), tuple([_mark(*one) for one in decisions]))


def _routed(
    operation: str, model: str, stream: bool, attempts: int, served: str, code: str, reused: bool
) -> tuple[str, int, Attributes]:
    said: Attributes = {
        semconv.OPERATION: operation,
        semconv.PROVIDER: "trunkline",
        semconv.REQUEST_MODEL: model,
        semconv.REQUEST_STREAM: stream,
        semconv.ATTEMPTS: attempts,
    }
    if served:
        said[semconv.RESPONSE_MODEL] = served
    if reused:
        said[semconv.CACHE_HIT] = True
    if code:
        said[semconv.ERROR_TYPE] = code
    return f"route {operation}", SERVER, said


def _mark(event: RouteDecided, sequence: int, stored: float) -> Mark:
    left_out = sum(event.left_out.values()) if event.left_out else 0
    said = (
        *(_decided, event.attempt, event.model, event.provider),
        *(len(event.candidates), left_out, event.policy_version),
    )
    return Mark(stored, said, [(semconv.LOG_SEQUENCE, sequence), (semconv.DECIDE_SECONDS, stored - event.now)])


def _decided(
    attempt: int, model: str, provider: str, candidates: int, left_out: int, policy: int
) -> tuple[str, Attributes]:
    said: Attributes = {
        semconv.ATTEMPT: attempt,
        semconv.MODEL: model,
        semconv.INSTANCE: provider,
        semconv.CANDIDATES: candidates,
        semconv.LEFT_OUT: left_out,
        semconv.POLICY_VERSION: policy,
    }
    return "decided", said


def attempted(
    context: Context,
    over: float,
    end: float,
    provider: Provider,
    dispatch: Dispatch,
    failure: FailureClass | None,
    ending: Ending | None,
) -> Iterator[Span]:
    """An attempt at a provider up to the end of its upstream call; where we settled it, what that took from then on."""
    trace, span, parent, start = context
    finish, status = "", None
    own: Own = [(semconv.REQUEST_ID, dispatch.request_id)]
    if isinstance(ending, Metered):
        finish = ending.finish
        _metered(own, ending, stream=dispatch.stream)
    elif isinstance(ending, AttemptFailed):
        status = ending.status
    said = (
        *(_attempted, dispatch.operation, provider.kind, provider.id, dispatch.model, dispatch.upstream),
        *(dispatch.stream, dispatch.attempt, dispatch.max_tokens, finish, failure, status),
    )
    if ending is not None:
        own.append((semconv.SETTLE_SECONDS, end - over))
    yield Span(trace, span, parent, said, start, over, own, failure is not None)


def _attempted(
    operation: str,
    kind: str,
    instance: str,
    model: str,
    upstream: str,
    stream: bool,
    attempt: int,
    max_tokens: int | None,
    finish: str,
    failure: FailureClass | None,
    status: int | None,
) -> tuple[str, int, Attributes]:
    said: Attributes = {
        semconv.OPERATION: operation,
        semconv.PROVIDER: semconv.provider_name(kind),
        semconv.REQUEST_MODEL: upstream,
        semconv.REQUEST_STREAM: stream,
        semconv.MODEL: model,
        semconv.INSTANCE: instance,
        semconv.ATTEMPT: attempt,
    }
    if max_tokens is not None:
        said[semconv.REQUEST_MAX_TOKENS] = max_tokens
    if finish:
        said[semconv.FINISH_REASONS] = [finish]
    if failure is not None:
        said[semconv.ERROR_TYPE] = failure.value
    if status is not None:
        said[semconv.HTTP_STATUS] = status
    return f"{operation} {upstream}", CLIENT, said


def _metered(own: Own, ending: Metered, *, stream: bool) -> None:
    usage = ending.usage
    own += (
        (semconv.INPUT_TOKENS, usage.input_tokens),
        (semconv.OUTPUT_TOKENS, usage.output_tokens),
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
