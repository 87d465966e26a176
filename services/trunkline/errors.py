"""What the client raises: one exception a code of the contract.

TrunklineError
├── InvalidRequest ── ContextLengthExceeded, ContentFiltered
├── Unauthenticated, PermissionDenied
├── NotFound ── ModelNotFound
├── Conflict
├── BudgetExceeded, RateLimited
├── Aborted
├── ProviderError
└── Unavailable ── NoRoute, Stopping, Internal, DeadlineExceeded, Disconnected

BadImport is no answer of a gateway: the code of workflows that a process was to import can't be used.
"""

from typing import Any

import msgspec


class TrunklineError(Exception):
    """The gateway said no. Read `code`; send it again only where `retryable` says so, with the same request id."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        request_id: str | None = None,
        retryable: bool = False,
        param: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retryable = retryable
        self.param = param
        self.metadata = metadata or {}


class BadImport(Exception):
    """A module with workflows can't be used. The message says why, and what to do."""


class InvalidRequest(TrunklineError):
    """The request makes no sense as it is. `param` names what to change."""


class ContextLengthExceeded(InvalidRequest):
    """The prompt is too long for every model that could serve it. Shorten it."""


class ContentFiltered(InvalidRequest):
    """The provider's filter refused the content."""


class Unauthenticated(TrunklineError):
    """No valid key came with the request. Pass `key=`, or set TRUNKLINE_KEY."""


class PermissionDenied(TrunklineError):
    """The key does not allow this."""


class NotFound(TrunklineError):
    """There is no such thing."""


class ModelNotFound(NotFound):
    """No model is registered under this id. List what there is with `gw.models.list()`."""


class Conflict(TrunklineError):
    """It is so already, or in use; or this request id was used and its answer not kept."""


class BudgetExceeded(TrunklineError):
    """The money is not there. `metadata` names the budget, its limit, and what is spent and reserved."""


class RateLimited(TrunklineError):
    """Too many requests for now. `metadata` may hold `retry_after` in seconds."""


class Aborted(TrunklineError):
    """The request was aborted; what was generated is settled."""


class ProviderError(TrunklineError):
    """The provider failed. The gateway has tried what else could serve the request."""


class Unavailable(TrunklineError):
    """The gateway can't serve this right now. Try again a little later."""


class NoRoute(Unavailable):
    """No enabled model can serve the request. `metadata` counts the reasons."""


class Stopping(Unavailable):
    """The process that got the request is stopping. Send it again."""


class Internal(Unavailable):
    """Something went wrong in the gateway; its log says what."""


class DeadlineExceeded(Unavailable):
    """No answer came in time."""


class Disconnected(Unavailable):
    """Part of the answer was lost on the way. Ask again with the same request id."""


_BY_CODE: dict[str, type[TrunklineError]] = {
    "invalid_request": InvalidRequest,
    "context_length_exceeded": ContextLengthExceeded,
    "content_filtered": ContentFiltered,
    "unauthenticated": Unauthenticated,
    "permission_denied": PermissionDenied,
    "model_not_found": ModelNotFound,
    "not_found": NotFound,
    "conflict": Conflict,
    "budget_exceeded": BudgetExceeded,
    "rate_limited": RateLimited,
    "aborted": Aborted,
    "internal": Internal,
    "provider_error": ProviderError,
    "no_route": NoRoute,
    "unavailable": Unavailable,
    "stopping": Stopping,
    "timeout": DeadlineExceeded,
}


class _Error(msgspec.Struct):
    message: str = ""
    code: str = "internal"
    request_id: str | None = None
    retryable: bool = False
    param: str | None = None
    metadata: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    error: _Error


def from_answer(status: str, text: str, body: bytes, request_id: str | None = None) -> TrunklineError:
    """The exception for an error message, from its two ADR-32 headers and our JSON body, where it has one."""
    try:
        error = msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error(message=text)
    return _BY_CODE.get(error.code, TrunklineError)(
        error.message or text,
        code=error.code,
        status=int(status) if status.isdigit() else 500,
        request_id=error.request_id or request_id,
        retryable=error.retryable,
        param=error.param,
        metadata=error.metadata,
    )


def unavailable(message: str, request_id: str | None = None) -> Unavailable:
    """Nobody answered."""
    return Unavailable(message, code="unavailable", status=503, request_id=request_id, retryable=True)


def too_large(size: int, most: int) -> InvalidRequest:
    """The bus carries no message of this size."""
    return InvalidRequest(
        f"the request has {size:,} bytes, more than the {most:,} that the bus carries; send less, or smaller images",
        code="invalid_request",
        status=413,
    )


def deadline_exceeded(seconds: float, request_id: str | None) -> DeadlineExceeded:
    """We waited long enough."""
    return DeadlineExceeded(
        f"no answer within {seconds:g} s", code="timeout", status=504, request_id=request_id, retryable=True
    )


def disconnected(request_id: str | None) -> Disconnected:
    """The numbers of the chunks have a gap."""
    return Disconnected(
        "part of the answer was lost on the way; ask again with the same request id",
        code="unavailable",
        status=503,
        request_id=request_id,
        retryable=True,
    )
