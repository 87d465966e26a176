"""What an error of Anthropic's Messages API means. Pure. https://platform.claude.com/docs/en/api/errors"""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct, structs
from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import faults

# Anthropic has no code for these, and without their class such a request would go to no other model. Beginnings of its
# messages, in lower case.
_BY_MESSAGE = {
    "prompt is too long": FailureClass.CONTEXT_LENGTH,
    "input length and `max_tokens` exceed context limit": FailureClass.CONTEXT_LENGTH,
    "your credit balance is too low": FailureClass.AUTH,
}
_BY_TYPE = {
    "request_too_large": FailureClass.CONTEXT_LENGTH,
    "billing_error": FailureClass.AUTH,
    "conflict_error": FailureClass.UNAVAILABLE,
}
# `error.details.error_code`: an account that can't be served, whatever the status. Waiting doesn't help, another
# provider does, as with a refused key.
_BY_CODE = dict.fromkeys(
    (
        "cmek_key_disabled",
        "cmek_key_network_blocked",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
    ),
    FailureClass.AUTH,
)
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")


class _Details(Struct):
    error_code: str = ""


class _Error(Struct):
    details: _Details = msgspec.field(default_factory=_Details)


class _Body(Struct):
    error: _Error = msgspec.field(default_factory=_Error)


_decode = msgspec.json.Decoder(_Body).decode


def failure_of(
    status: int | None, headers: Mapping[str, str], body: bytes, *, now: float, secrets: tuple[str, ...] = ()
) -> Failure:
    """The failure that an error answer means; arguments as of `faults.from_answer`.

    Where a rate limit names no time to wait, it is the time until the last exhausted limit is reset.
    """
    failure = faults.from_answer(status, headers, body, now=now, secrets=secrets)
    fault, code = faults.read_fault(body), _code(body)
    if named := _BY_CODE.get(code) or _BY_TYPE.get(fault.type):
        failure = structs.replace(failure, kind=named)
    elif failure.kind is FailureClass.INVALID_REQUEST:
        said = fault.message.lower()
        kind = next((kind for start, kind in _BY_MESSAGE.items() if said.startswith(start)), failure.kind)
        failure = structs.replace(failure, kind=kind)
    if failure.kind is FailureClass.RATE_LIMITED and failure.retry_after is None:
        failure = structs.replace(failure, retry_after=_until_reset(headers, now))
    return failure


def _code(body: bytes) -> str:
    try:
        return _decode(body).error.details.error_code
    except (ValueError, RecursionError):
        return ""


def _until_reset(headers: Mapping[str, str], now: float) -> float | None:
    waits = []
    for limit in _LIMITS:
        name = f"anthropic-ratelimit-{limit}"
        if headers.get(f"{name}-remaining") == "0" and (reset := headers.get(f"{name}-reset")):
            try:
                waits.append(datetime.fromisoformat(reset).timestamp() - now)
            except (ValueError, OverflowError):
                continue
    return max(0.0, *waits) if waits else None


def not_a(body: bytes, wanted: str, secrets: tuple[str, ...]) -> UpstreamError:
    """The error for what came with status 200 and is none of what was `wanted`: it may hold an error's own object."""
    if body.lstrip()[:1] in (b"{", b"[") and b'"error"' in body:
        return UpstreamError(failure_of(200, {}, body, now=0.0, secrets=secrets))
    return faults.upstream_error(FailureClass.INTERNAL, f"upstream sent no {wanted}", 200)
