"""Every error of Anthropic's SDK has its class, as those of other SDKs do (see test_sdk_errors.py)."""

import importlib
import pkgutil
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from trunkline_actors.adapters import anthropic_faults
from trunkline_actors.adapters.anthropic_sdk import failure_of_error
from trunkline_events.failure import Failure, FailureClass

F = FailureClass
REQUEST = httpx2.Request("POST", "http://127.0.0.1:9/v1/messages")

# Errors about an answer: the SDK has one for each status, and below it one for each code of what went wrong.
OF_STATUS: dict[str, tuple[int, FailureClass]] = {
    "BadRequestError": (400, F.INVALID_REQUEST),
    "AuthenticationError": (401, F.AUTH),
    "PaymentRequiredError": (402, F.AUTH),
    "PermissionDeniedError": (403, F.AUTH),
    "NotFoundError": (404, F.MODEL_NOT_FOUND),
    "RequestTimeoutError": (408, F.TIMEOUT),
    "ConflictError": (409, F.UNAVAILABLE),
    "PreconditionFailedError": (412, F.INVALID_REQUEST),
    "ContentTooLargeError": (413, F.CONTEXT_LENGTH),
    "UnprocessableEntityError": (422, F.INVALID_REQUEST),
    "RateLimitError": (429, F.RATE_LIMITED),
    "RequestHeaderFieldsTooLargeError": (431, F.INVALID_REQUEST),
    "ClientClosedRequestError": (499, F.ABORTED),
    "InternalServerError": (500, F.UNAVAILABLE),
    "HTTPNotImplementedError": (501, F.UNAVAILABLE),
    "ServiceUnavailableError": (503, F.UNAVAILABLE),
    "GatewayTimeoutError": (504, F.TIMEOUT),
    "OverloadedError": (529, F.OVERLOADED),
}
# Raised by parts of the SDK that we don't use, or that no code of ours can provoke.
UNUSED = {
    "APIResponseValidationError",
    "APIWebhookValidationError",
    "CredentialsError",
    "IdentityTokenFileError",
    "RetryableError",
    "StreamAlreadyConsumed",
}


def subclasses(kind: Any) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


for name in ("anthropic._exceptions", "anthropic._error_classes", "anthropic._response", "anthropic._streaming"):
    importlib.import_module(name)
for module in pkgutil.walk_packages(anthropic.types.__path__, "anthropic.types."):
    if module.name.endswith("_error"):
        importlib.import_module(module.name)

ERRORS = {one.__name__: one for one in (anthropic.AnthropicError, *subclasses(anthropic.AnthropicError))}
ANSWERED = {name: one for name, one in ERRORS.items() if issubclass(one, anthropic.APIStatusError)}


def classified(error: Exception) -> Failure:
    return failure_of_error(error, lambda *answer: anthropic_faults.failure_of(*answer, now=time.time()))


def status_class(kind: type) -> str:
    return next(one.__name__ for one in kind.__mro__ if one.__name__ in OF_STATUS)


def test_every_status_of_the_sdk_has_its_class_here() -> None:
    own = {one.__name__ for one in anthropic.APIStatusError.__subclasses__()}
    assert own <= set(OF_STATUS)
    assert len(ANSWERED) > len(OF_STATUS)


@pytest.mark.parametrize("name", [name for name in ANSWERED if name != "APIStatusError"])
def test_an_error_about_an_answer_has_the_class_of_its_status(name: str) -> None:
    status, kind = OF_STATUS[status_class(ANSWERED[name])]
    error: Any = ANSWERED[name]
    raised = error("m", response=httpx2.Response(status, request=REQUEST), body=None)
    assert classified(raised).kind is kind


def test_every_other_error_of_the_sdk_is_thought_of() -> None:
    # Tools that run here, and credentials of other clouds, have errors of their own; they are loaded by who uses them.
    others = {name for name in set(ERRORS) - set(ANSWERED) if not ERRORS[name].__module__.startswith("anthropic.lib.")}
    assert others == UNUSED | {"AnthropicError", "APIError", "APIConnectionError", "APITimeoutError"}


@pytest.mark.parametrize("name", sorted(UNUSED))
def test_what_none_of_our_calls_provokes_is_internal(name: str) -> None:
    kind: Any = ERRORS[name]
    assert classified(kind.__new__(kind)).kind is F.INTERNAL


def wrapped(cause: Exception) -> Exception:
    error = anthropic.APIConnectionError(request=REQUEST)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (anthropic.AnthropicError("m"), F.INTERNAL),
        (anthropic.APIError("m", REQUEST, body=None), F.INTERNAL),
        (anthropic.APITimeoutError(request=REQUEST), F.TIMEOUT),
        (anthropic.APIConnectionError(request=REQUEST), F.CONNECTION),
        (wrapped(httpx2.ConnectError("m")), F.CONNECTION),
        (wrapped(httpx2.ReadTimeout("m")), F.TIMEOUT),
        (wrapped(httpx2.LocalProtocolError("m")), F.INTERNAL),
        # Leaking from beneath the SDK, in the middle of a stream above all.
        (httpx2.RemoteProtocolError("m"), F.CONNECTION),
        (httpx2.ReadTimeout("m"), F.TIMEOUT),
        (httpx2.DecodingError("m"), F.INTERNAL),
        (ConnectionResetError(), F.CONNECTION),
        (TimeoutError(), F.TIMEOUT),
        (ValueError("m"), F.INTERNAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_without_an_answer_has_its_class(error: Exception, kind: FailureClass) -> None:
    failure = classified(error)
    assert failure.kind is kind
    assert failure.message
