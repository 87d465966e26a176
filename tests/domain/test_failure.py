"""What goes wrong upstream, sorted into classes: the whole of it as tables."""

from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest
from trunkline_actors.adapters.faults import classify, from_answer, read_fault, retry_after, safe
from trunkline_events.failure import Failure, FailureClass, UpstreamError, answer_for, tries_another

F = FailureClass

# class: does the request go on to another candidate; code, HTTP status and retryable as the contract tells the caller
CONSEQUENCES = {
    F.RATE_LIMITED: (True, "rate_limited", 429, True),
    F.OVERLOADED: (True, "unavailable", 503, True),
    F.UNAVAILABLE: (True, "unavailable", 503, True),
    F.CONNECTION: (True, "provider_error", 502, True),
    F.TIMEOUT: (True, "timeout", 504, True),
    F.AUTH: (True, "provider_error", 502, False),
    F.INVALID_REQUEST: (False, "invalid_request", 400, False),
    F.CONTEXT_LENGTH: (True, "context_length_exceeded", 400, False),
    F.CONTENT_FILTER: (False, "content_filtered", 400, False),
    F.MODEL_NOT_FOUND: (True, "provider_error", 502, False),
    F.BUDGET: (False, "budget_exceeded", 429, False),
    F.ABORTED: (False, "aborted", 499, False),
    F.INTERNAL: (True, "provider_error", 502, True),
}


@pytest.mark.parametrize("kind", list(FailureClass))
def test_each_class_has_its_consequences(kind: FailureClass) -> None:
    told = answer_for(kind)
    assert (tries_another(kind), told.code, told.status, told.retryable) == CONSEQUENCES[kind]


def test_an_upstream_error_carries_its_failure_and_names_it() -> None:
    error = UpstreamError(Failure(kind=F.TIMEOUT, message="too slow"))
    assert (error.failure.kind, str(error)) == (F.TIMEOUT, "timeout: too slow")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {}, F.INVALID_REQUEST),
        (422, {}, F.INVALID_REQUEST),
        (418, {}, F.INVALID_REQUEST),
        (401, {}, F.AUTH),
        (402, {}, F.AUTH),
        (403, {}, F.AUTH),
        (404, {}, F.MODEL_NOT_FOUND),
        (408, {}, F.TIMEOUT),
        (409, {}, F.UNAVAILABLE),
        (413, {}, F.CONTEXT_LENGTH),
        (429, {}, F.RATE_LIMITED),
        (499, {}, F.ABORTED),
        (500, {}, F.UNAVAILABLE),
        (503, {}, F.UNAVAILABLE),
        (504, {}, F.TIMEOUT),
        (529, {}, F.OVERLOADED),
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
