"""The HTTP client beneath the SDK, kept as a gateway needs it. Imported when the first call is made, in a thread."""

import socket
from collections.abc import AsyncIterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from trunkline_actors.adapters.guarded import Guarded
from trunkline_actors.adapters.noticing import UPSTREAM, noticed
from trunkline_actors.adapters.outbound import AddressRefused, is_public
from trunkline_actors.adapters.transport import ERROR_LIMIT, is_packed, packed, within

_CONNECT_S = 5.0


def limits(timeout: float) -> httpx2.Timeout:
    """`timeout` seconds for each wait on the network, and 5 at most for the connection."""
    return httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_S))


def http_client(base_url: str, timeout: float, local: bool) -> httpx2.AsyncClient:
    """A client that follows no redirect, and connects to public addresses only, unless `local`."""
    url = httpx2.URL(base_url)
    pool = httpx2.Limits(max_connections=None, max_keepalive_connections=100)  # how many at once is the router's affair
    proxied = url.scheme in getproxies() and not proxy_bypass(url.host)
    transport = None
    if not proxied:
        transport = httpx2.AsyncHTTPTransport(limits=pool)
        if not local:
            network: Any = Guarded(httpcore2.AnyIOBackend(), httpcore2.ConnectError)
            transport._pool._network_backend = network  # noqa: SLF001 - there is no other way in
    elif not local and _is_private_number(url.host):
        raise AddressRefused  # what a name stands for is the proxy's to know
    return httpx2.AsyncClient(
        timeout=limits(timeout),
        limits=pool,
        transport=transport,
        trust_env=proxied,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # takes none
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,  # a redirect would carry the prompt to a host nobody configured
        event_hooks={"request": [_note_new_connections], "response": [_tell_of_headers, _bound]},
    )


def _is_private_number(host: str) -> bool:
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return not all(is_public(str(info[4][0])) for info in infos)


async def _tell_of_headers(response: httpx2.Response) -> None:
    noticed(response.headers)


async def _bound(response: httpx2.Response) -> None:
    """Let nobody read an error without end: SDKs read those by themselves. Raises UpstreamError for packed answers."""
    unreadable = is_packed(response.headers.get("content-encoding", ""))
    if response.status_code < 300:
        if unreadable:
            raise packed(response.status_code)
        return
    response.headers.pop("content-encoding", None)
    bound(response, 0 if unreadable else ERROR_LIMIT, cut=True)


def bound(response: httpx2.Response, limit: int, *, cut: bool) -> None:
    """Let only so many bytes of a body be read. Who reads on finds its end with `cut`, or UpstreamError is raised."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, limit, response.status_code, cut=cut)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, limit: int, status: int, *, cut: bool) -> None:
        self._stream = stream
        self._pieces = within(stream, limit, status, cut=cut)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _note_new_connections(request: httpx2.Request) -> None:
    if (context := UPSTREAM.get()) is not None:
        request.headers["traceparent"] = context

    async def trace(event: str, _info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            request.extensions["fresh"] = True

    request.extensions["trace"] = trace
