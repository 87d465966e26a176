"""How headers of an upstream's answers get to whoever keeps its rate limits, and a trace's context to the upstream.

A transport says what it got; who made the call has said who wants to hear of it. That goes by the task the call runs in
and not through every adapter's hands, since no wire format has anything to add.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar

Listener = Callable[[Mapping[str, str]], None]
"""Takes the headers of one answer, of whatever status; names have lower case or are compared without regard to it."""

LISTENER: ContextVar[Listener | None] = ContextVar("trunkline_headers", default=None)
"""Who listens in the task that runs. Set it before a call."""
UPSTREAM: ContextVar[str | None] = ContextVar("trunkline_traceparent", default=None)
"""The `traceparent` that a call of the task that runs takes along. Transports send it; None: none is sent."""


def noticed(headers: Mapping[str, str]) -> None:
    """An answer came with these headers. For transports: say so once for each answer, errors included."""
    listener = LISTENER.get()
    if listener is not None:
        listener(headers)
