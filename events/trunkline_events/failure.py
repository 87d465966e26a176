"""Everything we know about what can go wrong with an attempt, sorted into classes.

A failure class decides what happens next: whether another candidate may serve the request, or the same one a little
later; what it means for the provider's circuit and success rate; and what the caller is told. Adapters translate a
foreign error into a `Failure` once, by code and never by prose; everything else in the project reasons about the class
alone.
"""

import re
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import force_setattr

MESSAGE_LIMIT = 300
"""Characters of a message. What is longer is no message, and may not fit where it is to be told."""
_LONGEST_WAIT = 1e12
# Anything that may be a credential: what follows "Bearer", the prefixes providers use, and any long unbroken token.
_KEY = re.compile(r"(?i:bearer)\s+\S+|\b(?:sk|tl|pk|rk|gsk|xai|key)[-_][\w*-]{4,}|\bAIza[\w-]{8,}|[\w+/-]{32,}")


class FailureClass(StrEnum):
    """What kind of thing went wrong, seen from the gateway."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    AUTH = "auth"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    MODEL_NOT_FOUND = "model_not_found"
    BUDGET = "budget"
    ABORTED = "aborted"
    INTERNAL = "internal"


class Answer(Struct, frozen=True):
    """What a caller is told when no other candidate is left: the contract's code, its HTTP status, whether to retry."""

    code: str
    status: int
    retryable: bool


class Failure(Struct, frozen=True, kw_only=True):
    """One failed upstream call, as recorded and as told.

    `message` is safe to show: it names the fault, never a key, a header or the prompt.
    `status` is the upstream HTTP status where there was one. `retry_after` is in seconds.

    Whoever makes it: the message is bounded and holds nothing like a key, and a status or a wait that can't be is
    none. Raises ValueError for a class that is none, TypeError for a message that is no text.
    """

    kind: FailureClass
    message: str
    status: int | None = None
    retry_after: float | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "kind", FailureClass(self.kind))
        force_setattr(self, "message", tellable(self.message))
        if type(self.status) is not int or not 0 <= self.status < 1000:
            force_setattr(self, "status", None)
        if type(self.retry_after) not in (int, float) or not 0 <= (self.retry_after or 0) <= _LONGEST_WAIT:
            force_setattr(self, "retry_after", None)


def tellable(message: str) -> str:
    """A message without anything that looks like a key, at most 300 characters of it."""
    message = _KEY.sub("***", message[: 16 * MESSAGE_LIMIT])
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


class UpstreamError(Exception):
    """An upstream call failed. Look at `failure.kind` to decide what to do next; the cause is chained.

    Raised by adapters only, in place of every error their SDK or the network may raise.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure


# Another candidate may well serve what this one could not. Absent classes are the caller's own doing (its request,
# its budget, its abort), which every candidate would refuse alike; a content filter is a matter of policy.
_TRY_ANOTHER = frozenset(
    {
        FailureClass.RATE_LIMITED,
        FailureClass.OVERLOADED,
        FailureClass.UNAVAILABLE,
        FailureClass.CONNECTION,
        FailureClass.TIMEOUT,
        FailureClass.AUTH,
        FailureClass.CONTEXT_LENGTH,
        FailureClass.MODEL_NOT_FOUND,
        FailureClass.INTERNAL,
    }
)

# The upstream is in trouble, so that calling it does harm and helps nobody. A rate limit is an upstream in good health.
_TRIPS_BREAKER = frozenset(
    {FailureClass.OVERLOADED, FailureClass.UNAVAILABLE, FailureClass.CONNECTION, FailureClass.TIMEOUT}
)

# What passes by itself, so that the same candidate may serve a little later.
_RETRY_HERE = _TRIPS_BREAKER | {FailureClass.RATE_LIMITED}

# The provider's own doing. What every provider would have done with such a request says nothing about this one.
_COUNTS_AGAINST = _RETRY_HERE | {FailureClass.AUTH, FailureClass.MODEL_NOT_FOUND, FailureClass.INTERNAL}

_ANSWERS = {
    FailureClass.RATE_LIMITED: Answer("rate_limited", 429, True),
    FailureClass.OVERLOADED: Answer("unavailable", 503, True),
    FailureClass.UNAVAILABLE: Answer("unavailable", 503, True),
    FailureClass.CONNECTION: Answer("provider_error", 502, True),
    FailureClass.TIMEOUT: Answer("timeout", 504, True),
    FailureClass.AUTH: Answer("provider_error", 502, False),
    FailureClass.INVALID_REQUEST: Answer("invalid_request", 400, False),
    FailureClass.CONTEXT_LENGTH: Answer("context_length_exceeded", 400, False),
    FailureClass.CONTENT_FILTER: Answer("content_filtered", 400, False),
    FailureClass.MODEL_NOT_FOUND: Answer("provider_error", 502, False),
    FailureClass.BUDGET: Answer("budget_exceeded", 429, False),
    FailureClass.ABORTED: Answer("aborted", 499, False),
    FailureClass.INTERNAL: Answer("provider_error", 502, True),
}


def tries_another(kind: FailureClass, content_filter_goes_on: bool = False) -> bool:
    """Whether a failure of this class, before the first chunk, sends the request on to the next candidate.

    `content_filter_goes_on` is what the routing policy says of filtered requests.
    """
    return kind in _TRY_ANOTHER or (content_filter_goes_on and kind is FailureClass.CONTENT_FILTER)


def retries_here(kind: FailureClass) -> bool:
    """Whether the candidate that failed so may be tried again, after a wait and where no other is left."""
    return kind in _RETRY_HERE


def trips_breaker(kind: FailureClass) -> bool:
    """Whether a failure of this class counts towards opening the circuit of its provider."""
    return kind in _TRIPS_BREAKER


def counts_against(kind: FailureClass) -> bool:
    """Whether a failure of this class lowers the success rate of the model and provider that failed so."""
    return kind in _COUNTS_AGAINST


def answer_for(kind: FailureClass) -> Answer:
    """What the caller is told when an attempt that failed so was the last one."""
    return _ANSWERS[kind]
