"""One trace for each request: contexts that travel with it, and spans that are made after the fact.

A span is made of what was recorded anyway, once, when its work is over, and encoded at once: objects that waited would
cost more in garbage collection than that. Nothing here waits: what doesn't fit into the queue is dropped and counted.
Contexts are W3C's (https://www.w3.org/TR/trace-context/, version 00).
"""

import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from trunkline_events.registry import Provider

from trunkline_actors.adapters.noticing import UPSTREAM
from trunkline_actors.spans import Context, Span

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

ToUpstream = Literal["none", "local", "all"]
"""Which providers get the trace's context in a header: none, those that are our own, or all."""

Sampler = Callable[[str, bool | None], bool]
"""Whether a trace is recorded: of this id, whose caller records it, or doesn't, or (None) there is none."""


class Tracing:
    """The traces of one process. `most` spans wait at once; `wake` is called when `batch` of them do."""

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
        self.waiting: deque[bytes] = deque()
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
            if not self._sampler(trace, bool(int(flags, 16) & 1)):
                return None, traceparent if flags[1] in "02468ace" else f"00-{trace}-{parent}-00"
        else:
            trace, parent = f"{random.getrandbits(128) or 1:032x}", ""
            if not self._sampler(trace, None):
                return None, f"00-{trace}-{new_span()}-00"
        context = Context(trace, new_span(), parent, time.time())
        return context, context.traceparent

    def wants(self, trace: str, traceparent: str | None) -> bool:
        """Whether spans of this trace are recorded, which began here or, with a traceparent, elsewhere."""
        return self._sampler(trace, bool(int(traceparent[-2:], 16) & 1) if traceparent else None)

    def record(self, spans: Iterable[Span]) -> None:
        """Have these sent; they are made only if there is room for them."""
        waiting = self.waiting
        before = len(waiting)
        if before >= self._most:
            self.dropped += 1
            return
        waiting.extend(map(self._encode, spans))
        self.recorded += len(waiting) - before
        if before < self._batch <= len(waiting):
            self.wake()

    def take_along(self, context: Context | None, provider: Provider) -> None:
        """The call that this task is about to make is for a span; its provider is told where it may be."""
        if context is not None and (self._to_upstream == "all" or (self._to_upstream == "local" and provider.local)):
            UPSTREAM.set(context.traceparent)


def new_span() -> str:
    """An id that no other span of a trace has."""
    return f"{random.getrandbits(64) or 1:016x}"


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
