"""The way to Anthropic that a provider may be told to take (`transport: sdk`): the `anthropic` SDK.

As with OpenAI's, the SDK carries the request and raises typed errors; bodies and streams pass by its models, as bytes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import faults
from trunkline_actors.adapters.faults import TIMED_OUT
from trunkline_actors.adapters.raw_http import FailureOf
from trunkline_actors.adapters.sdk_errors import failure_of_sdk
from trunkline_actors.adapters.sdk_http import SdkHttp

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic


class AnthropicSdk(SdkHttp):
    """Requests to one `base_url` (with its `/v1`), carried by the SDK. A `Transport`; arguments as of `RawHttp`.

    `headers` hold the credential and win over the SDK's own. No `ANTHROPIC_*` variable and no profile of the user's is
    read. Cheap to construct: the SDK (1.3 s to import) and its client are made at the first call, in a thread.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        timeout: float = 60.0,
        local: bool = False,
        secrets: tuple[str, ...] = (),
        failure_of: FailureOf,
    ) -> None:
        super().__init__(base_url, timeout=timeout, local=local, secrets=secrets)
        self._failure_of = failure_of
        self._make: Any = lambda: _make_client(base_url, headers, timeout, local)

    def _not_a_stream(self, body: bytes) -> UpstreamError:
        if b'"error"' in body:
            return UpstreamError(self._failure_of(200, {}, body))
        return faults.upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)

    async def _send(self, path: str, body: bytes | None, method: str | None = None) -> "httpx2.Response":
        """Send once, and once more where a kept-alive connection turned out to be dead: see `RawSession.send`."""
        client: Any = await self._client()
        import anthropic

        method = method or ("GET" if body is None else "POST")
        try:
            return await _request(client, method, path, body)
        except anthropic.APIConnectionError as error:
            if not _died_while_idle(error):
                raise
        return await _request(client, method, path, body)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever the SDK, its HTTP stack or a deadline raise into UpstreamError, the cause kept."""
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            raise UpstreamError(failure_of_error(error, self._failure_of)) from error


async def _request(client: "AsyncAnthropic", method: str, path: str, body: bytes | None) -> "httpx2.Response":
    """The response, its headers read and its body not. Raises the SDK's errors."""
    import httpx2
    from anthropic import AsyncStream
    from anthropic._models import FinalRequestOptions

    options = FinalRequestOptions.construct(method=method.lower(), url=path, content=body)
    # A class of streams is asked for by the signature, unused where the response itself is cast to.
    got: Any = await client.request(httpx2.Response, options, stream=True, stream_cls=AsyncStream[object])
    return cast("httpx2.Response", got)


def _make_client(base_url: str, headers: Mapping[str, str], timeout: float, local: bool) -> "AsyncAnthropic":
    from anthropic import AsyncAnthropic

    from trunkline_actors.adapters.sdk_client import http_client, limits

    class Client(AsyncAnthropic):
        @property
        def default_headers(self) -> dict[str, Any]:
            return {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": "trunkline",
                **headers,
            }

        @property
        def auth_headers(self) -> dict[str, str]:
            return {}  # the credential is among the headers, or there is none

        def _validate_headers(self, headers: "httpx2.Headers", omitted: frozenset[str]) -> None:
            """A server of one's own needs no credential."""

    # Whatever is left out here, the SDK looks for in the environment or in the user's profiles.
    client = Client(
        api_key="",
        webhook_key="",
        base_url=base_url,
        timeout=limits(timeout),
        max_retries=0,
        open_telemetry=False,
        http_client=http_client(base_url, timeout, local),
    )
    client._custom_headers = {}  # noqa: SLF001 - those of the environment, which nothing else keeps it from sending
    return client


def _died_while_idle(error: Any) -> bool:
    import httpx2

    lost = isinstance(error.__cause__, httpx2.RemoteProtocolError | httpx2.ReadError | httpx2.WriteError)
    return lost and not {"fresh", "answered"} & set(error.request.extensions)


def failure_of_error(error: Exception, failure_of: FailureOf) -> Failure:
    """The one class that an error of the SDK, of its HTTP stack or of Python's belongs to."""
    if isinstance(error, TimeoutError):  # our deadline's, perhaps while the SDK is still being imported
        return TIMED_OUT
    import anthropic

    return failure_of_sdk(error, anthropic, failure_of)
