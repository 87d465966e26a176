"""What an OpenAI-wire error means: from status, headers and body to one `Failure`. Pure.

The body is looked at first, by `code` and then by `type`, since a status alone says too little: 400 is a bad request,
a prompt that is too long or a filtered one. Seen shapes: `{"error": {"message", "type", "code"}}` (OpenAI and most),
the same without the outer object (older vLLM), inside a list (Gemini's OpenAI endpoint), `{"error": "text"}` (Ollama).
"""

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec
from msgspec import Struct
from trunkline_events.failure import MESSAGE_LIMIT, Failure, FailureClass, UpstreamError, tellable

TIMED_OUT = Failure(kind=FailureClass.TIMEOUT, message="upstream did not answer in time")

# Codes and types that decide whatever the status is.
_BY_NAME = {
    "context_length_exceeded": FailureClass.CONTEXT_LENGTH,
    "exceed_context_size_error": FailureClass.CONTEXT_LENGTH,  # llama.cpp, as a type
    "content_filter": FailureClass.CONTENT_FILTER,
    "content_policy_violation": FailureClass.CONTENT_FILTER,
    # An account out of money: waiting doesn't help, another provider does. That is how a refused key behaves too.
    "insufficient_quota": FailureClass.AUTH,
    "invalid_api_key": FailureClass.AUTH,
    "model_not_found": FailureClass.MODEL_NOT_FOUND,
    "rate_limit_exceeded": FailureClass.RATE_LIMITED,
    "rate_limit_error": FailureClass.RATE_LIMITED,
    "overloaded_error": FailureClass.OVERLOADED,
    "server_is_overloaded": FailureClass.OVERLOADED,
}

# Types too broad to overrule a status (OpenAI sends 401 with `invalid_request_error`); asked where there is none.
_BY_BROAD_TYPE = {
    "invalid_request_error": FailureClass.INVALID_REQUEST,
    "authentication_error": FailureClass.AUTH,
    "permission_error": FailureClass.AUTH,
    "not_found_error": FailureClass.MODEL_NOT_FOUND,
    "timeout_error": FailureClass.TIMEOUT,
    "server_error": FailureClass.UNAVAILABLE,
    "api_error": FailureClass.UNAVAILABLE,
}

_BY_STATUS = {
    401: FailureClass.AUTH,
    402: FailureClass.AUTH,  # quota, see insufficient_quota
    403: FailureClass.AUTH,
    404: FailureClass.MODEL_NOT_FOUND,
    405: FailureClass.MODEL_NOT_FOUND,  # there is nothing to post to: a wrong base URL, not a wrong request
    407: FailureClass.AUTH,  # of a proxy on the way
    408: FailureClass.TIMEOUT,
    409: FailureClass.UNAVAILABLE,
    410: FailureClass.MODEL_NOT_FOUND,  # retired
    413: FailureClass.CONTEXT_LENGTH,
    421: FailureClass.UNAVAILABLE,
    425: FailureClass.UNAVAILABLE,
    429: FailureClass.RATE_LIMITED,
    499: FailureClass.ABORTED,
    504: FailureClass.TIMEOUT,
    522: FailureClass.TIMEOUT,  # Cloudflare could not connect in time
    524: FailureClass.TIMEOUT,  # Cloudflare waited in vain
    529: FailureClass.OVERLOADED,
    598: FailureClass.TIMEOUT,
    599: FailureClass.TIMEOUT,
}

# A long quotation in an error is the caller's own text, sent back.
_QUOTATION = re.compile(r"""(?<![^\s:=(\[])(["'`]).{41,}?\1""")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Fault(Struct, frozen=True):
    """An error as an upstream names it. Unsafe to show: `message` may quote the prompt or the key."""

    code: str = ""
    type: str = ""
    message: str = ""


def read_fault(body: bytes) -> Fault:
    """The error inside an answer's body; an empty Fault where there is none to be found."""
    try:
        found: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return Fault()
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict) and found.get("error"):
        found = found["error"]
    if isinstance(found, str):
        return Fault(message=found)
    if not isinstance(found, dict):
        return Fault()
    code, kind, message = (found.get(key) for key in ("code", "type", "message"))
    return Fault("" if code is None else str(code), str(kind or ""), str(message or ""))


def classify(status: int | None, fault: Fault) -> FailureClass:
    """The class of an error. `status` is the HTTP status where it was an error's (400 and up), else None."""
    for name in (fault.code, fault.type):
        if name in _BY_NAME:
            return _BY_NAME[name]
    if status is None and fault.code.isascii() and fault.code.isdecimal() and len(fault.code) == 3:
        status = int(fault.code)  # an error inside a stream has its status as its code, at times as a string
    if status is None:
        return _BY_BROAD_TYPE.get(fault.type, FailureClass.INTERNAL)
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return FailureClass.UNAVAILABLE
    return FailureClass.INVALID_REQUEST if status >= 400 else FailureClass.INTERNAL


def from_answer(
    status: int | None, headers: Mapping[str, str], body: bytes, *, now: float, secrets: tuple[str, ...] = ()
) -> Failure:
    """The failure an error answer means.

    `headers` have lower-case names or ignore case; `now` is Unix time in seconds; `secrets` never appear in the
    message.
    """
    fault = read_fault(body)
    kind = classify(status if status is None or status >= 300 else None, fault)
    named = " ".join(dict.fromkeys(name for name in (fault.code, fault.type) if _NAME.fullmatch(name)))
    message = f"upstream answered {status or 'with an error'}" + (f" ({safe(named, secrets)})" if named else "")
    if kind is FailureClass.INVALID_REQUEST and fault.message:
        message += f": {safe(fault.message, secrets)}"
    return Failure(kind=kind, message=message, status=status, retry_after=retry_after(headers, now))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, by `retry-after-ms` or `retry-after` (seconds or an HTTP date). None where there is neither."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    said = headers.get("retry-after")
    if said is None:
        return None
    if (seconds := _number(said)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def safe(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` on one line, without anything that looks like a key or quotes at length, at most 300 characters."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join(text[: 16 * MESSAGE_LIMIT].split())
    return tellable(_QUOTATION.sub("'…'", text))


def secrets_of(*values: str | None) -> tuple[str, ...]:
    """What must never appear in a message: those of `values` that are long enough to be recognised."""
    return tuple(value for value in values if value and len(value) >= 8)


def upstream_error(kind: FailureClass, message: str, status: int | None = None) -> UpstreamError:
    """The error to raise for a fault with a message of our own."""
    return UpstreamError(Failure(kind=kind, message=message, status=status))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
