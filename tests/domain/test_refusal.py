"""The error body of the contract, for each of its codes."""

import msgspec
import pytest
from trunkline_events.failure import FailureClass, answer_for
from trunkline_events.refusal import CODES, Refused

STATUS = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "content_filtered": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "model_not_found": 404,
    "not_found": 404,
    "conflict": 409,
    "budget_exceeded": 429,
    "rate_limited": 429,
    "aborted": 499,
    "internal": 500,
    "provider_error": 502,
    "no_route": 503,
    "unavailable": 503,
    "stopping": 503,
    "timeout": 504,
}


def test_the_codes_are_those_of_the_contract() -> None:
    assert {code: Refused(code=code, message="m").status for code in CODES} == STATUS


@pytest.mark.parametrize("code", STATUS)
def test_every_code_has_the_same_body(code: str) -> None:
    refused = Refused(code=code, message="why not", param="model", metadata={"a": 1})
    body = msgspec.json.decode(refused.body("chat", "r1"))
    assert body == {
        "error": {
            "message": "why not",
            "type": CODES[code].type,
            "code": code,
            "param": "model",
            "op": "chat",
            "request_id": "r1",
            "retryable": CODES[code].retryable,
            "metadata": {"a": 1},
        }
    }


def test_what_is_not_known_is_null() -> None:
    error = msgspec.json.decode(Refused(code="internal", message="m").body("chat", None))["error"]
    assert (error["param"], error["request_id"], error["metadata"]) == (None, None, {})


@pytest.mark.parametrize(
    ("code", "given", "told"),
    [
        ("budget_exceeded", None, False),
        ("budget_exceeded", True, True),
        ("no_route", None, True),
        ("no_route", False, False),
    ],
)
def test_a_refusal_may_know_better_than_its_code_whether_a_retry_helps(
    code: str, given: bool | None, told: bool
) -> None:
    body = Refused(code=code, message="m", retryable=given).body("chat", None)
    assert msgspec.json.decode(body)["error"]["retryable"] is told


def test_no_money_is_told_apart_from_no_rate_as_openai_does() -> None:
    assert CODES["budget_exceeded"].type == "insufficient_quota"
    assert CODES["rate_limited"].type == "rate_limit_error"


@pytest.mark.parametrize("kind", list(FailureClass))
def test_every_failure_is_answered_with_a_code_of_the_contract_and_its_status(kind: FailureClass) -> None:
    answer = answer_for(kind)
    assert CODES[answer.code].status == answer.status
