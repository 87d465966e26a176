"""What the errors of the SDKs of OpenAI and Anthropic mean, which have the same names and stand on the same client."""

from typing import Any

from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters.faults import TIMED_OUT
from trunkline_actors.adapters.outbound import REFUSED, AddressRefused
from trunkline_actors.adapters.raw_http import FailureOf


def failure_of_sdk(error: Exception, sdk: Any, failure_of: FailureOf) -> Failure:
    """The one class that an error of an SDK (`sdk` is its module), of its HTTP stack or of Python's belongs to.

    `failure_of` reads an error's status, headers and body.
    """
    import httpx2

    if isinstance(error, sdk.APIStatusError | httpx2.HTTPStatusError):
        answer = error.response
        return failure_of(answer.status_code, answer.headers, answer.content)
    # The SDK wraps whatever its HTTP stack raises in one error: what it wraps says more.
    cause = (error.__cause__ or error) if isinstance(error, sdk.APIConnectionError) else error
    if isinstance(cause, UpstreamError):  # of our own, from beneath the SDK
        return cause.failure
    if isinstance(cause, AddressRefused):
        return REFUSED
    # The cause is named by its type alone: its text may hold a URL with a key, a header or a piece of the body.
    name = type(cause).__name__
    # APITimeoutError is an APIConnectionError as well: timeouts first.
    if isinstance(error, sdk.APITimeoutError) or isinstance(cause, httpx2.TimeoutException):
        return TIMED_OUT
    if isinstance(cause, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol | httpx2.SSEError):
        # Ours to mend, such as a line break in a header: waiting for it would be in vain.
        return Failure(kind=FailureClass.INTERNAL, message=f"upstream call failed ({name})")
    if isinstance(cause, sdk.APIConnectionError | httpx2.TransportError | OSError | EOFError):
        return Failure(kind=FailureClass.CONNECTION, message=f"connection to upstream failed ({name})")
    return Failure(kind=FailureClass.INTERNAL, message=f"upstream call failed ({name})")
