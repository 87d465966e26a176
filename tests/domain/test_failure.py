"""What goes wrong upstream, sorted into classes: the whole of it as tables."""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from trunkline_actors.adapters import faults
from trunkline_actors.adapters.faults import Fault, classify, from_answer, read_fault, retry_after, safe
from trunkline_events.failure import (
    Failure,
    FailureClass,
    UpstreamError,
    answer_for,
    counts_against,
    retries_here,
    tries_another,
    trips_breaker,
)

F = FailureClass

YES, NO = True, False
# Does another candidate get it; the same one, after a wait; does it count for the breaker; against the success rate;
# code, HTTP status and retryable as the contract tells the caller.
CONSEQUENCES = {
    F.RATE_LIMITED: (YES, YES, NO, YES, "rate_limited", 429, True),
    F.OVERLOADED: (YES, YES, YES, YES, "unavailable", 503, True),
    F.UNAVAILABLE: (YES, YES, YES, YES, "unavailable", 503, True),
    F.CONNECTION: (YES, YES, YES, YES, "provider_error", 502, True),
    F.TIMEOUT: (YES, YES, YES, YES, "timeout", 504, True),
    F.AUTH: (YES, NO, NO, YES, "provider_error", 502, False),
    F.INVALID_REQUEST: (NO, NO, NO, NO, "invalid_request", 400, False),
    F.CONTEXT_LENGTH: (YES, NO, NO, NO, "context_length_exceeded", 400, False),
    F.CONTENT_FILTER: (NO, NO, NO, NO, "content_filtered", 400, False),
    F.MODEL_NOT_FOUND: (YES, NO, NO, YES, "provider_error", 502, False),
    F.BUDGET: (NO, NO, NO, NO, "budget_exceeded", 429, False),
    F.ABORTED: (NO, NO, NO, NO, "aborted", 499, False),
    F.INTERNAL: (YES, NO, NO, YES, "provider_error", 502, True),
}


@pytest.mark.parametrize("kind", list(FailureClass))
def test_each_class_has_its_consequences(kind: FailureClass) -> None:
    told = answer_for(kind)
    found = (tries_another(kind), retries_here(kind), trips_breaker(kind), counts_against(kind))
    assert (*found, told.code, told.status, told.retryable) == CONSEQUENCES[kind]


def test_a_policy_may_send_what_was_filtered_on_to_another_and_nothing_else() -> None:
    changed = [kind for kind in FailureClass if tries_another(kind, content_filter_goes_on=True) != tries_another(kind)]
    assert changed == [F.CONTENT_FILTER]


# The class of each HTTP status, where the body says nothing.
STATUSES = {
    400: F.INVALID_REQUEST,
    401: F.AUTH,
    402: F.AUTH,
    403: F.AUTH,
    404: F.MODEL_NOT_FOUND,
    405: F.MODEL_NOT_FOUND,
    406: F.INVALID_REQUEST,
    407: F.AUTH,
    408: F.TIMEOUT,
    409: F.UNAVAILABLE,
    410: F.MODEL_NOT_FOUND,
    **dict.fromkeys((411, 412), F.INVALID_REQUEST),
    413: F.CONTEXT_LENGTH,
    **dict.fromkeys(range(414, 421), F.INVALID_REQUEST),
    421: F.UNAVAILABLE,
    **dict.fromkeys((422, 423, 424), F.INVALID_REQUEST),
    425: F.UNAVAILABLE,
    **dict.fromkeys((426, 427, 428), F.INVALID_REQUEST),
    429: F.RATE_LIMITED,
    **dict.fromkeys(range(430, 499), F.INVALID_REQUEST),
    499: F.ABORTED,
    **dict.fromkeys(range(500, 504), F.UNAVAILABLE),
    504: F.TIMEOUT,
    **dict.fromkeys(range(505, 522), F.UNAVAILABLE),
    522: F.TIMEOUT,
    523: F.UNAVAILABLE,
    524: F.TIMEOUT,
    **dict.fromkeys(range(525, 529), F.UNAVAILABLE),
    529: F.OVERLOADED,
    **dict.fromkeys(range(530, 598), F.UNAVAILABLE),
    598: F.TIMEOUT,
    599: F.TIMEOUT,
}


@pytest.mark.parametrize("status", range(400, 600))
def test_every_status_of_an_error_has_its_class(status: int) -> None:
    assert classify(status, Fault()) == STATUSES[status]


# Names that decide whatever the status says, then those that are asked only where there is none.
NAMES = {
    "context_length_exceeded": F.CONTEXT_LENGTH,
    "exceed_context_size_error": F.CONTEXT_LENGTH,
    "content_filter": F.CONTENT_FILTER,
    "content_policy_violation": F.CONTENT_FILTER,
    "insufficient_quota": F.AUTH,
    "invalid_api_key": F.AUTH,
    "model_not_found": F.MODEL_NOT_FOUND,
    "rate_limit_exceeded": F.RATE_LIMITED,
    "rate_limit_error": F.RATE_LIMITED,
    "overloaded_error": F.OVERLOADED,
    "server_is_overloaded": F.OVERLOADED,
}
BROAD_TYPES = {
    "invalid_request_error": F.INVALID_REQUEST,
    "authentication_error": F.AUTH,
    "permission_error": F.AUTH,
    "not_found_error": F.MODEL_NOT_FOUND,
    "timeout_error": F.TIMEOUT,
    "server_error": F.UNAVAILABLE,
    "api_error": F.UNAVAILABLE,
}


def test_every_name_that_is_known_has_its_class() -> None:
    assert set(NAMES) == set(faults._BY_NAME)
    assert set(BROAD_TYPES) == set(faults._BY_BROAD_TYPE)
    for name, kind in NAMES.items():
        for status in (None, 400, 401, 429, 500):
            assert classify(status, Fault(code=name)) == classify(status, Fault(type=name)) == kind
    for name, kind in BROAD_TYPES.items():
        assert classify(None, Fault(type=name)) == kind
        assert classify(429, Fault(type=name)) == F.RATE_LIMITED


def test_an_upstream_error_carries_its_failure_and_names_it() -> None:
    error = UpstreamError(Failure(kind=F.TIMEOUT, message="too slow"))
    assert (error.failure.kind, str(error)) == (F.TIMEOUT, "timeout: too slow")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {}, F.INVALID_REQUEST),
        (401, {}, F.AUTH),
        (429, {}, F.RATE_LIMITED),
        (302, {}, F.INTERNAL),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, F.AUTH),
        (401, {"type": "invalid_request_error"}, F.AUTH),
        (400, {"type": "invalid_request_error", "code": "context_length_exceeded"}, F.CONTEXT_LENGTH),
        (400, {"type": "exceed_context_size_error", "code": 400}, F.CONTEXT_LENGTH),
        (400, {"code": "content_filter"}, F.CONTENT_FILTER),
        (400, {"code": "content_policy_violation"}, F.CONTENT_FILTER),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, F.AUTH),
        (503, {"type": "overloaded_error"}, F.OVERLOADED),
        (None, {"code": "502"}, F.UNAVAILABLE),
        (None, {"code": 429}, F.RATE_LIMITED),
        (None, {"code": "²²²"}, F.INTERNAL),
        (None, {"type": "server_error"}, F.UNAVAILABLE),
        (None, {"type": "invalid_request_error"}, F.INVALID_REQUEST),
        (None, {"type": "nobody_knows"}, F.INTERNAL),
        (None, {}, F.INTERNAL),
    ],
)
def test_an_error_is_sorted_by_code_then_type_then_status(
    status: int | None, error: dict[str, object], kind: FailureClass
) -> None:
    assert classify(status, read_fault(msgspec.json.encode({"error": {"message": "m", **error}}))) == kind


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"code": "c", "type": "t", "message": "m"}}',
        b'{"object": "error", "code": "c", "type": "t", "message": "m"}',
        b'[{"error": {"code": "c", "type": "t", "message": "m"}}]',
    ],
)
def test_an_error_is_found_in_every_shape_seen(body: bytes) -> None:
    fault = read_fault(body)
    assert (fault.code, fault.type, fault.message) == ("c", "t", "m")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"7", b"[]", b"null", b'{"error": 5}', b"[" * 100_000, b'{"a":"\xff"}'], ids=range(8)
)
def test_a_body_without_an_error_gives_none(body: bytes) -> None:
    assert (read_fault(body).code, read_fault(body).message) == ("", "")


def test_an_error_that_is_only_text_is_read_as_its_message() -> None:
    assert read_fault(b'{"error": "model is gone"}').message == "model is gone"


NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "30", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": format_datetime(NOW.replace(minute=2), usegmt=True)}, 120.0),
        ({"retry-after": format_datetime(NOW.replace(year=2020), usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after_is_read_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW.timestamp()) == seconds


CANARY = "canary-4f"


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-proj-{CANARY}*****ry.",
        f"bad header Authorization: Bearer {CANARY}",
        f"key tl-{CANARY} is unknown",
        f"token {CANARY}0123456789abcdef0123456789abcdef",
        f"configured secret {CANARY}-plain",
        f"Invalid value: 'Tell me everything that you know about {CANARY} and its friends'",
        "x" * 10_000 + CANARY,
        ("word " * 100) + CANARY,
    ],
)
def test_a_message_shows_no_key_no_long_quotation_and_no_more_than_300_characters(text: str) -> None:
    shown = safe(text, (f"{CANARY}-plain",))
    assert CANARY not in shown
    assert len(shown) <= 300


def test_an_invalid_request_says_what_upstream_said() -> None:
    body = b'{"error": {"message": "Unsupported parameter:\\n \'max_tokens\'.", "code": "unsupported_parameter"}}'
    failure = from_answer(400, {}, body, now=0)
    assert failure.message == "upstream answered 400 (unsupported_parameter): Unsupported parameter: 'max_tokens'."


def test_other_failures_show_names_only() -> None:
    body = b'{"error": {"message": "the prompt", "code": "the prompt", "type": "server_error"}}'
    failure = from_answer(500, {"retry-after": "2"}, body, now=0)
    assert failure == Failure(
        kind=F.UNAVAILABLE, message="upstream answered 500 (server_error)", status=500, retry_after=2.0
    )


@pytest.mark.parametrize("message", ["key sk-canary-4f0123456789", "x y " * 1_000_000, "Bearer canary-4f", "z" * 2_000])
def test_no_failure_holds_a_key_or_a_long_message_whoever_made_it(message: str) -> None:
    failure = UpstreamError(Failure(kind=F.INTERNAL, message=message)).failure
    assert "canary" not in failure.message
    assert len(failure.message) <= 300


@pytest.mark.parametrize("status", [-1, 1000, 2**70, "500", 500.0, True])
@pytest.mark.parametrize("wait", [-1.0, float("nan"), float("inf"), 10**400, "5", True])
def test_a_status_or_a_wait_that_cannot_be_is_none(status: Any, wait: Any) -> None:
    failure = Failure(kind=F.INTERNAL, message="odd", status=status, retry_after=wait)
    assert (failure.status, failure.retry_after) == (None, None)


def test_a_failure_is_of_one_of_the_classes() -> None:
    named: Any = "rate_limited"
    assert Failure(kind=named, message="slow down").kind is F.RATE_LIMITED
    with pytest.raises(ValueError, match="nonsense"):
        Failure(kind=named.replace(named, "nonsense"), message="slow down")
