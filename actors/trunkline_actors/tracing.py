"""One trace for each request: contexts that travel with it, and spans that are made after the fact.

A span is made of what was recorded anyway, once its work is over: those of a few requests together, which costs half of
what it does one by one, between all that a request needs. Nothing here waits: what doesn't fit into the queue is
dropped and counted.
Contexts are W3C's (https://www.w3.org/TR/trace-context/, version 00).
"""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import structlog
from trunkline_events.registry import Provider

from trunkline_actors.adapters.noticing import UPSTREAM
from trunkline_actors.spans import Context, Span

log = structlog.get_logger()

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

ToUpstream = Literal["none", "local", "all"]
"""Which providers get the trace's context in a header: none, those that are our own, or all."""

Sampler = Callable[[str, bool | None], bool]
"""Whether a trace is recorded: of this id, whose caller records it, or doesn't, or (None) there is none."""


TOGETHER = 32
"""Spans are made when so many requests and attempts are over, in a tenth of a millisecond that others wait for."""


class Tracing:
    """The traces of one process. `most` spans wait at once; `wake` is called when `batch` of them do.

    Call `flush` now and then: what is over waits for others until then.
    """

    def __init__(
        self,
        sampler: Sampler,
        encode: Callable[[Span], bytes],
        *,
        to_upstream: ToUpstream = "local",
        most: int = 2048,
        batch: int = 512,
    ) -> None:
        self._sampler = sampler
        self._encode = encode
        self._to_upstream = to_upstream
        self._most = most
        self._batch = batch
        self._together = min(TOGETHER, batch, most)
        self._over: list[Iterable[Span]] = []
        self.waiting: deque[bytes] = deque()
        """What is encoded."""
        self.recorded = 0
        self.dropped = 0
        self.wake: Callable[[], None] = lambda: None

    def begin(self, traceparent: str | None) -> tuple[Context | None, str]:
        """A span of this parent, or the first of a new trace; and what to send along.

        None where the trace is not recorded: then that is what goes along.
        """
        found = _TRACEPARENT.match(traceparent) if traceparent else None
        if found is not None and traceparent is not None:
            trace, parent, flags = found.groups()
            recorded = flags[1] in _ODD
            if not self._sampler(trace, recorded):
                return None, f"00-{trace}-{parent}-00" if recorded else traceparent
        else:
            trace, parent = next(_ids) + next(_ids), ""
            if not self._sampler(trace, None):
                return None, f"00-{trace}-{next(_ids)}-00"
        context = Context(trace, next(_ids), parent, time.time())
        return context, context.traceparent

    def wants(self, trace: str, traceparent: str | None) -> bool:
        """Whether spans of this trace are recorded, which began here or, with a traceparent, elsewhere."""
        return self._sampler(trace, traceparent[-1] in _ODD if traceparent else None)

    def record(self, spans: Iterable[Span]) -> None:
        """Have these made and sent, if there is room for them."""
        over = self._over
        if len(self.waiting) + len(over) >= self._most:
            self.dropped += 1
            return
        over.append(spans)
        if len(over) >= self._together:
            self.flush()

    def flush(self) -> None:
        """Make the spans of all that is over. Never raises: what can't be told is dropped, and nothing else with it."""
        over, self._over = self._over, []
        made: list[bytes] = []
        for spans in over:
            try:
                made += map(self._encode, spans)
            except Exception as error:
                self.dropped += 1
                log.exception("telemetry.span_not_made", error=type(error).__name__)
        waited = len(self.waiting)
        self.waiting.extend(made)
        self.recorded += len(made)
        if waited < self._batch <= waited + len(made):
            self.wake()

    def take_along(self, context: Context | None, provider: Provider) -> None:
        """The call that this task is about to make is for a span; its provider is told where it may be."""
        if context is not None and (self._to_upstream == "all" or (self._to_upstream == "local" and provider.local)):
            UPSTREAM.set(context.traceparent)


_ODD = frozenset("13579bdf")


def _draw() -> Iterator[str]:
    """Ids of 16 hex digits that nobody else draws, many from one call of the system."""
    while True:
        drawn = os.urandom(8 * _DRAWN).hex()
        for place in range(0, 16 * _DRAWN, 16):
            one = drawn[place : place + 16]
            if one != _NO_SPAN:
                yield one


_DRAWN = 512
_NO_SPAN = "0" * 16
_ids = _draw()


def sampler(name: str, argument: float) -> Sampler:
    """One of OpenTelemetry's samplers by its name in OTEL_TRACES_SAMPLER. Raises KeyError for another one."""
    based, _, root = name.rpartition("parentbased_")
    threshold = int(argument * 2**64)

    def ratio(trace: str) -> bool:
        return int(trace[16:], 16) < threshold

    roots: dict[str, Callable[[str], bool]] = {
        "always_on": lambda _trace: True,
        "always_off": lambda _trace: False,
        "traceidratio": ratio,
    }
    chosen = roots[root]
    if name.startswith("parentbased_") and not based:
        return lambda trace, parent: chosen(trace) if parent is None else parent
    return lambda trace, _parent: chosen(trace)
