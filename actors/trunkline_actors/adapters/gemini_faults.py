"""What an error of a Google API means: from status and body to one `Failure`. Pure.

`{"error": {"code", "message", "status", "details"}}`, at times inside a list: `status` is a name of google.rpc.Code,
and details hold a RetryInfo (how long to wait) and an ErrorInfo (a `reason` by name). A prompt that is too long has
neither a status nor a reason of its own (INVALID_ARGUMENT), and its message is prose that says nothing reliable.
https://ai.google.dev/gemini-api/docs/troubleshooting
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from trunkline_events.failure import Failure, FailureClass

from trunkline_actors.adapters import faults

F = FailureClass

_BY_STATUS = {
    "RESOURCE_EXHAUSTED": F.RATE_LIMITED,
    "UNAVAILABLE": F.UNAVAILABLE,
    "INTERNAL": F.UNAVAILABLE,
    "UNKNOWN": F.UNAVAILABLE,
    "DATA_LOSS": F.UNAVAILABLE,
    "ABORTED": F.UNAVAILABLE,
    "DEADLINE_EXCEEDED": F.TIMEOUT,
    "CANCELLED": F.ABORTED,
    "UNAUTHENTICATED": F.AUTH,
    "PERMISSION_DENIED": F.AUTH,
    # No billing, or a country without a free tier: the account's to mend, and another provider may serve.
    "FAILED_PRECONDITION": F.AUTH,
    "NOT_FOUND": F.MODEL_NOT_FOUND,
    "UNIMPLEMENTED": F.MODEL_NOT_FOUND,  # this model has no such method
    "INVALID_ARGUMENT": F.INVALID_REQUEST,
    "OUT_OF_RANGE": F.INVALID_REQUEST,
    "ALREADY_EXISTS": F.INVALID_REQUEST,
}
# Reasons of google.api.ErrorReason that say more than their status does. A bad key is an INVALID_ARGUMENT.
_BY_REASON = {
    "API_KEY_INVALID": F.AUTH,
    "API_KEY_SERVICE_BLOCKED": F.AUTH,
    "API_KEY_HTTP_REFERRER_BLOCKED": F.AUTH,
    "API_KEY_IP_ADDRESS_BLOCKED": F.AUTH,
    "ACCESS_TOKEN_EXPIRED": F.AUTH,
    "BILLING_DISABLED": F.AUTH,
    "CONSUMER_INVALID": F.AUTH,
    "CONSUMER_SUSPENDED": F.AUTH,
    "CREDENTIALS_MISSING": F.AUTH,
    "SERVICE_DISABLED": F.AUTH,
    "RATE_LIMIT_EXCEEDED": F.RATE_LIMITED,
    "RESOURCE_QUOTA_EXCEEDED": F.RATE_LIMITED,
}
_OVER_TOO_MUCH = 413


def failure_of(
    status: int | None, headers: Mapping[str, str], body: bytes, *, now: float, secrets: tuple[str, ...] = ()
) -> Failure:
    """The failure an error answer means; as `faults.from_answer`, which also reads what isn't shaped as Google's is."""
    error = _error(body)
    named = error.get("status")
    details = error.get("details")
    details = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    reason = next((str(one["reason"]) for one in details if one.get("reason")), "")
    if reason in _BY_REASON:
        kind = _BY_REASON[reason]
    elif status == _OVER_TOO_MUCH or not isinstance(named, str) or named not in _BY_STATUS:
        return faults.from_answer(status, headers, body, now=now, secrets=secrets)
    else:
        kind = _BY_STATUS[named]
    code = status if status is not None and status >= 300 else error.get("code")
    code = code if isinstance(code, int) else None
    message = f"upstream answered {code or 'with an error'} ({faults.safe(f'{named} {reason}'.strip(), secrets)})"
    if kind is F.INVALID_REQUEST and error.get("message"):
        message += f": {faults.safe(str(error['message']), secrets)}"
    wait = next((_seconds(one["retryDelay"]) for one in details if "retryDelay" in one), None)
    if wait is None:
        wait = faults.retry_after(headers, now)
    return Failure(kind=kind, message=message, status=code, retry_after=wait)


def _error(body: bytes) -> dict[str, Any]:
    try:
        found: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def _seconds(delay: object) -> float | None:
    """A google.protobuf.Duration as JSON has it, such as "34.4s"."""
    return faults.retry_after({"retry-after": delay.removesuffix("s")}, 0.0) if isinstance(delay, str) else None
