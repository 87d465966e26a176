"""What callers are told when something can't be done: the contract's codes, their HTTP status, and how to write them.

A refusal is a value. It travels as the JSON body of an error message and becomes a typed exception in the client.
"""

from typing import Any

import msgspec
from msgspec import Struct, field


class Code(Struct, frozen=True):
    """One code of the contract: its HTTP status, OpenAI's name for the kind of error, whether a retry may help."""

    status: int
    type: str
    retryable: bool = False


CODES = {
    "invalid_request": Code(400, "invalid_request_error"),
    "context_length_exceeded": Code(400, "invalid_request_error"),
    "content_filtered": Code(400, "invalid_request_error"),
    "unauthenticated": Code(401, "authentication_error"),
    "permission_denied": Code(403, "permission_error"),
    "model_not_found": Code(404, "not_found_error"),
    "not_found": Code(404, "not_found_error"),
    "conflict": Code(409, "conflict_error"),
    "budget_exceeded": Code(429, "insufficient_quota"),
    "rate_limited": Code(429, "rate_limit_error", retryable=True),
    "aborted": Code(499, "aborted"),
    "internal": Code(500, "server_error", retryable=True),
    "provider_error": Code(502, "provider_error", retryable=True),
    "no_route": Code(503, "server_error", retryable=True),
    "unavailable": Code(503, "server_error", retryable=True),
    "stopping": Code(503, "server_error", retryable=True),
    "timeout": Code(504, "timeout_error", retryable=True),
}


class Refused(Struct, frozen=True, kw_only=True):
    """Why not.

    `param` names the field at fault; `retryable` overrides what its code says; `metadata` is for programs.
    """

    code: str
    message: str
    param: str | None = None
    retryable: bool | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status of this code."""
        return CODES[self.code].status

    def body(self, op: str, request_id: str | None) -> bytes:
        """The error as JSON: `{"error": {…}}`."""
        code = CODES[self.code]
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": code.type,
                    "code": self.code,
                    "param": self.param,
                    "op": op,
                    "request_id": request_id,
                    "retryable": code.retryable if self.retryable is None else self.retryable,
                    "metadata": self.metadata,
                }
            }
        )
