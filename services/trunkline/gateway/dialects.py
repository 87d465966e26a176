"""Errors in the shape that the client at hand understands. Pure."""

import math

import msgspec
from trunkline_events.refusal import CODES

from trunkline.errors import TrunklineError
from trunkline.gateway.limits import of_refusal
from trunkline.gateway.routes import Dialect

_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Types of errors of the Messages API, by status; any other is `api_error`."""


_RETRIED = {408, 409, 429}
"""What clients send again by themselves, beside any 5xx."""


def refusal(error: TrunklineError, dialect: Dialect) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an error. `x-should-retry: false` on what no retry helps, though its status may."""
    fields: dict[str, str] = {}
    if error.request_id:
        fields["x-request-id"] = error.request_id
    after = error.metadata.get("retry_after")
    if isinstance(after, int | float) and math.isfinite(after):
        fields["retry-after"] = str(max(0, math.ceil(after)))
    if not error.retryable and (error.status in _RETRIED or error.status >= 500):
        fields["x-should-retry"] = "false"
    if error.status == 405:
        fields["allow"] = str(error.metadata.get("allow", ""))
    if error.status == 401:
        fields["www-authenticate"] = "Bearer"
    fields |= of_refusal(error.metadata)
    if dialect == "anthropic" and error.request_id:
        fields["request-id"] = error.request_id
    return error.status, body_of(error, dialect), fields


def body_of(error: TrunklineError, dialect: Dialect) -> bytes:
    """The error as JSON."""
    if dialect == "anthropic":
        kind = _ANTHROPIC.get(error.status, "api_error")
        named = {"request_id": error.request_id} if error.request_id else {}
        detail = error.metadata.get("error_code")
        more = {"details": {"error_code": detail}} if detail else {}
        return msgspec.json.encode(
            {"type": "error", "error": {"type": kind, "message": error.message, **more}, **named}
        )
    code = CODES.get(error.code)
    told = {
        "message": error.message,
        "type": code.type if code else "server_error",
        "code": error.code,
        "param": error.param,
        "request_id": error.request_id,
        "retryable": error.retryable,
        "metadata": error.metadata,
    }
    return msgspec.json.encode({"error": told})
