"""Every error of every SDK that we ship with has its class; one that nobody has thought of fails here.

To add an SDK: a table of its errors in TABLES, beside the function of its adapter that translates them.
"""

import asyncio
import importlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest
from google.genai import errors as genai_errors
from trunkline_actors.adapters.gemini_sdk import failure_of_error as of_gemini
from trunkline_actors.adapters.raw_http import failure_of_error as of_raw
from trunkline_actors.adapters.sdk_http import failure_of_error as of_sdk
from trunkline_events.failure import Failure, FailureClass

F = FailureClass
REQUEST = httpx2.Request("POST", "http://127.0.0.1:9/v1/chat/completions")

# The modules that define errors; those of them that need a package we don't have stay away.
for name in ("openai._exceptions", "openai._response", "openai.lib._old_api", "openai.lib.azure"):
    importlib.import_module(name)


Make = Callable[[Any], Exception]
"""Makes an error of a class."""


def answered(status: int) -> Make:
    """An error about an answer with this status."""
    return lambda kind: kind("m", response=httpx2.Response(status, request=REQUEST), body=None)


def caused_by(cause: Exception) -> Make:
    """An error that wraps another."""

    def make(kind: Any) -> Exception:
        error: Exception = kind(request=REQUEST)
        error.__cause__ = cause
        return error

    return make


def bare(kind: Any) -> Exception:
    """An error that no code of ours can provoke, whatever it would hold."""
    error: Exception = kind.__new__(kind)
    return error


def said(kind: Any) -> Exception:
    error: Exception = kind("m")
    return error


def failed_with(cause: OSError) -> Make:
    """An error of aiohttp about a connection that could not be made."""

    def make(kind: Any) -> Exception:
        error = bare(kind)
        error._os_error = cause  # type: ignore[attr-defined]
        return error

    return make


ERRORS_OF_OPENAI: dict[str, tuple[Make, FailureClass]] = {
    "OpenAIError": (said, F.INTERNAL),
    "APIError": (lambda kind: kind("m", REQUEST, body=None), F.INTERNAL),
    "APIStatusError": (answered(402), F.AUTH),
    "BadRequestError": (answered(400), F.INVALID_REQUEST),
    "AuthenticationError": (answered(401), F.AUTH),
    "OAuthError": (lambda kind: kind(response=httpx2.Response(401, request=REQUEST), body=None), F.AUTH),
    "PermissionDeniedError": (answered(403), F.AUTH),
    "NotFoundError": (answered(404), F.MODEL_NOT_FOUND),
    "ConflictError": (answered(409), F.UNAVAILABLE),
    "UnprocessableEntityError": (answered(422), F.INVALID_REQUEST),
    "RateLimitError": (answered(429), F.RATE_LIMITED),
    "InternalServerError": (answered(500), F.UNAVAILABLE),
    "APIConnectionError": (caused_by(httpx2.ConnectError("m")), F.CONNECTION),
    "APITimeoutError": (caused_by(httpx2.ReadTimeout("m")), F.TIMEOUT),
    "APIResponseValidationError": (lambda kind: kind(httpx2.Response(200, request=REQUEST), None), F.INTERNAL),
    # Raised by parts of the SDK that we don't use.
    "APIRemovedInV1": (bare, F.INTERNAL),
    "ContentFilterFinishReasonError": (bare, F.INTERNAL),
    "LengthFinishReasonError": (bare, F.INTERNAL),
    "MutuallyExclusiveAuthError": (bare, F.INTERNAL),
    "StreamAlreadyConsumed": (bare, F.INTERNAL),
    "SubjectTokenProviderError": (bare, F.INTERNAL),
    "WebSocketConnectionClosedError": (bare, F.INTERNAL),
    "WebSocketQueueFullError": (bare, F.INTERNAL),
    "_AmbiguousModuleClientUsageError": (bare, F.INTERNAL),
}

ERRORS_OF_HTTPX2: dict[str, tuple[Make, FailureClass]] = {
    "HTTPError": (said, F.INTERNAL),
    "RequestError": (said, F.INTERNAL),
    "HTTPStatusError": (
        lambda kind: kind("m", request=REQUEST, response=httpx2.Response(529, request=REQUEST)),
        F.OVERLOADED,
    ),
    "TransportError": (said, F.CONNECTION),
    "NetworkError": (said, F.CONNECTION),
    "ConnectError": (said, F.CONNECTION),
    "ReadError": (said, F.CONNECTION),
    "WriteError": (said, F.CONNECTION),
    "CloseError": (said, F.CONNECTION),
    "ProxyError": (said, F.CONNECTION),
    "ProtocolError": (said, F.CONNECTION),
    "RemoteProtocolError": (said, F.CONNECTION),
    "LocalProtocolError": (said, F.INTERNAL),
    "UnsupportedProtocol": (said, F.INTERNAL),
    "SSEError": (said, F.INTERNAL),
    "TimeoutException": (said, F.TIMEOUT),
    "ConnectTimeout": (said, F.TIMEOUT),
    "ReadTimeout": (said, F.TIMEOUT),
    "WriteTimeout": (said, F.TIMEOUT),
    "PoolTimeout": (said, F.TIMEOUT),
    "DecodingError": (said, F.INTERNAL),
    "TooManyRedirects": (said, F.INTERNAL),
    "InvalidURL": (said, F.INTERNAL),
    "CookieConflict": (said, F.INTERNAL),
    "StreamError": (said, F.INTERNAL),
    "StreamConsumed": (bare, F.INTERNAL),
    "StreamClosed": (bare, F.INTERNAL),
    "RequestNotRead": (bare, F.INTERNAL),
    "ResponseNotRead": (bare, F.INTERNAL),
}

# aiohttp's errors are made from what it knows of the request: only their class is looked at, and one's `os_error`.
ERRORS_OF_AIOHTTP: dict[str, tuple[Make, FailureClass]] = {
    "ClientError": (said, F.CONNECTION),
    "ClientResponseError": (bare, F.CONNECTION),  # HTTP that can't be parsed: statuses are read before
    "ContentTypeError": (bare, F.CONNECTION),
    "WSServerHandshakeError": (bare, F.CONNECTION),
    "ClientHttpProxyError": (bare, F.CONNECTION),
    "TooManyRedirects": (bare, F.CONNECTION),
    "ClientConnectionError": (said, F.CONNECTION),
    "ClientConnectionResetError": (said, F.CONNECTION),
    "ClientOSError": (said, F.CONNECTION),
    "ClientConnectorError": (failed_with(ConnectionRefusedError()), F.CONNECTION),
    "ClientConnectorDNSError": (failed_with(socket.gaierror()), F.CONNECTION),
    "ClientProxyConnectionError": (failed_with(OSError()), F.CONNECTION),
    "UnixClientConnectorError": (failed_with(OSError()), F.CONNECTION),
    "ClientSSLError": (failed_with(OSError()), F.CONNECTION),
    "ClientConnectorSSLError": (failed_with(ssl.SSLError()), F.CONNECTION),
    "ClientConnectorCertificateError": (bare, F.CONNECTION),
    "ServerConnectionError": (said, F.CONNECTION),
    "ServerDisconnectedError": (said, F.CONNECTION),
    "ServerFingerprintMismatch": (bare, F.CONNECTION),
    "ServerTimeoutError": (said, F.TIMEOUT),
    "ConnectionTimeoutError": (said, F.TIMEOUT),
    "SocketTimeoutError": (said, F.TIMEOUT),
    "ClientPayloadError": (said, F.CONNECTION),
    "UploadAbortedError": (said, F.CONNECTION),
    "InvalidURL": (bare, F.INTERNAL),
    "InvalidUrlClientError": (bare, F.INTERNAL),
    "InvalidUrlRedirectClientError": (bare, F.INTERNAL),
    "NonHttpUrlClientError": (bare, F.INTERNAL),
    "NonHttpUrlRedirectClientError": (bare, F.INTERNAL),
    "RedirectClientError": (bare, F.INTERNAL),
    # Of HTTP that can't be parsed, beneath those above; and of parts of aiohttp that we don't use.
    "HttpProcessingError": (bare, F.INTERNAL),
    "BadHttpMessage": (bare, F.INTERNAL),
    "DecompressSizeError": (bare, F.INTERNAL),
    "EofStream": (bare, F.INTERNAL),
    "LookupError": (bare, F.INTERNAL),
    "TooManyMembersError": (bare, F.INTERNAL),
    "WSHandshakeError": (bare, F.INTERNAL),
    "WSMessageTypeError": (bare, F.INTERNAL),
    "WebSocketError": (bare, F.INTERNAL),
    "BadHttpMethod": (bare, F.INTERNAL),
    "BadStatusLine": (bare, F.INTERNAL),
    "ContentEncodingError": (bare, F.INTERNAL),
    "ContentLengthError": (bare, F.INTERNAL),
    "HttpBadRequest": (bare, F.INTERNAL),
    "InvalidHeader": (bare, F.INTERNAL),
    "InvalidURLError": (bare, F.INTERNAL),
    "LineTooLong": (bare, F.INTERNAL),
    "PayloadEncodingError": (bare, F.INTERNAL),
    "TransferEncodingError": (bare, F.INTERNAL),
}

ERRORS_OF_GENAI: dict[str, tuple[Make, FailureClass]] = {
    "APIError": (lambda kind: kind(307, {}, httpx2.Response(307)), F.INTERNAL),
    "ClientError": (lambda kind: kind(429, {}, httpx2.Response(429)), F.RATE_LIMITED),
    "ServerError": (lambda kind: kind(503, {"error": {"code": 503, "status": "UNAVAILABLE"}}), F.UNAVAILABLE),
    "UnknownApiResponseError": (said, F.INTERNAL),
    # Raised by parts of the SDK that we don't use.
    "ContinuationInterruptedError": (said, F.INTERNAL),
    "FunctionInvocationError": (said, F.INTERNAL),
    "UnknownFunctionCallArgumentError": (said, F.INTERNAL),
    "UnsupportedFunctionError": (said, F.INTERNAL),
}

LEAKING: list[tuple[Exception, FailureClass]] = [
    (json.JSONDecodeError("m", "", 0), F.INTERNAL),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "m"), F.INTERNAL),
    (ValueError("m"), F.INTERNAL),
    (RuntimeError("m"), F.INTERNAL),
    (RecursionError(), F.INTERNAL),
    (ConnectionError("m"), F.CONNECTION),
    (ConnectionRefusedError(), F.CONNECTION),
    (ConnectionResetError(), F.CONNECTION),
    (ConnectionAbortedError(), F.CONNECTION),
    (BrokenPipeError(), F.CONNECTION),
    (socket.gaierror(), F.CONNECTION),
    (ssl.SSLError(), F.CONNECTION),
    (ssl.SSLCertVerificationError(), F.CONNECTION),
    (ssl.SSLEOFError(), F.CONNECTION),
    (OSError(), F.CONNECTION),
    (EOFError(), F.CONNECTION),
    (asyncio.IncompleteReadError(b"", 1), F.CONNECTION),
    (TimeoutError(), F.TIMEOUT),
]


def subclasses(kind: Any) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def errors_of(package: str, *roots: type) -> dict[str, type]:
    """The errors that a package defines, by name."""
    found: set[type] = {one for root in roots for one in (root, *subclasses(root))}
    return {
        one.__name__: one
        for one in found
        if one.__module__.partition(".")[0] == package and not issubclass(one, Warning)
        # Its server is another thing, and there only where another test has imported it.
        if not one.__module__.startswith("aiohttp.web")
    }


def errors_of_genai() -> dict[str, type]:
    """Those of the part we use: other parts have errors of their own, under the same names."""
    defined = [one for one in vars(genai_errors).values() if getattr(one, "__module__", "") == genai_errors.__name__]
    return {one.__name__: one for one in defined if issubclass(one, Exception)}


Translate = Callable[[Exception], Failure]
TABLES: list[tuple[Translate, dict[str, type], dict[str, tuple[Make, FailureClass]]]] = [
    (of_sdk, errors_of("openai", openai.OpenAIError), ERRORS_OF_OPENAI),
    (of_sdk, errors_of("httpx2", Exception), ERRORS_OF_HTTPX2),
    (of_raw, errors_of("aiohttp", Exception), ERRORS_OF_AIOHTTP),
    (of_gemini, errors_of_genai(), ERRORS_OF_GENAI),
    # The SDK of Google stands on any of these three.
    (of_gemini, errors_of("httpx", Exception), {n: row for n, row in ERRORS_OF_HTTPX2.items() if n != "SSEError"}),
    (of_gemini, errors_of("httpx2", Exception), ERRORS_OF_HTTPX2),
    (of_gemini, errors_of("aiohttp", Exception), ERRORS_OF_AIOHTTP),
]


IDS = ["openai", "httpx2", "aiohttp", "genai", "genai-httpx", "genai-httpx2", "genai-aiohttp"]


@pytest.mark.parametrize(("_translate", "found", "table"), TABLES, ids=IDS)
def test_every_error_that_an_sdk_defines_is_in_its_table(
    _translate: Translate, found: dict[str, type], table: dict[str, Any]
) -> None:
    assert set(found) == set(table), "give each error its class here, and see that its adapter knows it"


@pytest.mark.parametrize(
    ("translate", "error", "kind"),
    [
        pytest.param(translate, make(found[name]), kind, id=name)
        for translate, found, table in TABLES
        for name, (make, kind) in table.items()
        if name in found
    ],
)
def test_every_error_of_an_sdk_has_one_class(translate: Translate, error: Exception, kind: FailureClass) -> None:
    failure = translate(error)
    assert failure.kind is kind
    assert failure.message


@pytest.mark.parametrize("translate", [of_sdk, of_raw, of_gemini], ids=["sdk", "raw", "gemini"])
@pytest.mark.parametrize(("error", "kind"), LEAKING, ids=lambda value: type(value).__name__)
def test_every_error_of_python_s_own_that_leaks_has_one_class(
    translate: Translate, error: Exception, kind: FailureClass
) -> None:
    assert translate(error).kind is kind


@pytest.mark.parametrize("name", [name for name, (make, _) in ERRORS_OF_HTTPX2.items() if make is said])
def test_what_the_sdk_wraps_has_the_class_it_would_have_alone(name: str) -> None:
    alone = errors_of("httpx2", Exception)[name]("m")
    wrapped = caused_by(alone)(openai.APIConnectionError)
    expected = ERRORS_OF_HTTPX2[name][1]
    assert of_sdk(wrapped).kind is expected
    assert type(alone).__name__ in of_sdk(wrapped).message or expected is F.TIMEOUT
