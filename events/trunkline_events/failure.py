"""Everything we know about what can go wrong with an attempt, sorted into classes.

A failure class decides what happens next: whether another candidate may serve the request, and what the caller
is told. Adapters translate a foreign error into a `Failure` once, by code and never by prose; everything else in
the project reasons about the class alone.
"""

from enum import StrEnum

from msgspec import Struct


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
    """

    kind: FailureClass
    message: str
    status: int | None = None
    retry_after: float | None = None


class UpstreamError(Exception):
    """An upstream call failed. Look at `failure.kind` to decide what to do next; the cause is chained.

    Raised by adapters only, in place of every error their SDK or the network may raise.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure


# Another candidate may well serve what this one could not. Absent classes are the caller's own doing (its request,
# its budget, its abort), which every candidate would refuse alike.
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


def tries_another(kind: FailureClass) -> bool:
    """Whether a failure of this class, before the first chunk, sends the request on to the next candidate."""
    return kind in _TRY_ANOTHER


def answer_for(kind: FailureClass) -> Answer:
    """What the caller is told when an attempt that failed so was the last one."""
    return _ANSWERS[kind]
