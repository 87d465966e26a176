"""An aiohttp session kept as a gateway needs it. Imported when the first call is made."""

import asyncio
import functools
import io
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.client_proto import ResponseHandler
from msgspec import Struct
from yarl import URL

from trunkline_actors.adapters.noticing import UPSTREAM
from trunkline_actors.adapters.outbound import AddressRefused, is_public

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_CONNECT_S = 5.0
_IDLE_S = 60.0
_LARGE = 256 * 1024


class _Protocol(ResponseHandler):
    """A connection that knows how often it was used, and whether anything was answered since it was last taken."""

    uses = 0
    answered = False

    def data_received(self, data: bytes) -> None:
        self.answered = True
        super().data_received(data)


class _Attempt(Struct):
    """One request on its way: the connection it was given."""

    protocol: Any = None


_ATTEMPT: ContextVar[_Attempt] = ContextVar("attempt")


class _Resolver(aiohttp.ThreadedResolver):
    """Leaves out of what a name stands for the addresses that may not be called."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> "list[ResolveResult]":
        found = await super().resolve(host, port, family)
        allowed = [one for one in found if is_public(one["host"])]
        if found and not allowed:
            raise AddressRefused
        return allowed


class _Connector(aiohttp.TCPConnector):
    """Connections of our own kind, only to addresses that may be called."""

    def __init__(self, *, guarded: bool, ssl_context: ssl.SSLContext | bool) -> None:
        super().__init__(
            limit=0,  # how many calls run at once is the router's affair
            keepalive_timeout=_IDLE_S,
            ttl_dns_cache=10,
            ssl=ssl_context,
            resolver=_Resolver() if guarded else None,
            socket_factory=_guarded_socket if guarded else None,
        )
        self._factory: Any = functools.partial(_Protocol, loop=self._loop)

    async def connect(
        self, req: "ClientRequest", traces: "list[Trace]", timeout: aiohttp.ClientTimeout
    ) -> "Connection":
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if isinstance(protocol, _Protocol):
            protocol.uses += 1
            protocol.answered = False
        _ATTEMPT.get().protocol = protocol
        return connection


class RawSession:
    """Sends requests to one base URL."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession, options: Mapping[str, Any]) -> None:
        self._base_url = base_url
        self._session = session
        self._options = options
        # Who waits for a whole answer has one deadline for it: a timer for each wait beside that costs as much.
        self._unhurried = {**options, "timeout": _timeout(session.timeout.connect, None)}
        self._urls: dict[str, URL] = {}

    @classmethod
    async def start(cls, base_url: str, headers: Mapping[str, str], timeout: float, local: bool) -> "RawSession":
        """A session in the running loop; nothing is connected yet. `timeout` is in seconds, for each wait."""
        url = URL(base_url)
        proxy = await asyncio.to_thread(_proxy_of, url)
        if proxy is not None and not local and await _is_private_number(url.host or ""):
            raise AddressRefused  # what a name stands for is the proxy's to know
        context = await asyncio.to_thread(_tls_context) if "https" in (url.scheme, proxy and proxy.scheme) else True
        session = aiohttp.ClientSession(
            connector=_Connector(guarded=not local and proxy is None, ssl_context=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # what is packed all the same is refused
            timeout=_timeout(min(timeout, _CONNECT_S), timeout),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # answers are small, and unpacking each piece of a stream is dear
                "Content-Type": "application/json",
                "User-Agent": "trunkline",
                **headers,
            },
            # Proxies are read once, above. With trust_env aiohttp would do so for every request, in a thread, and
            # would send what it finds in ~/.netrc.
            trust_env=False,
            proxy=proxy,
        )
        session._retry_connection = False  # noqa: SLF001 - aiohttp would try a GET again, on a fresh connection too
        return cls(base_url, session, {"allow_redirects": False})

    async def send(
        self, method: str, path: str, body: bytes | None, *, has_deadline: bool = False
    ) -> aiohttp.ClientResponse:
        """Send once, and once more where a kept-alive connection turned out to be dead. Raises aiohttp's errors.

        `has_deadline`: the caller waits no longer, for all of it, than this session does for each wait.

        Servers close idle connections whenever they like, so a request may be written to one that is gone already.
        Only a connection that served before counts, and only if not a byte came back on it: one that was made for this
        very request and dies is the upstream's failure, for the router to see. Timeouts never count.
        """
        attempt = _Attempt()
        _ATTEMPT.set(attempt)
        try:
            return await self._request(method, path, body, has_deadline)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            protocol = attempt.protocol
            if protocol is None or protocol.uses < 2 or protocol.answered:
                raise
        return await self._request(method, path, body, has_deadline)

    async def close(self) -> None:
        """Close all connections, those in use too."""
        await self._session.close()

    async def _request(self, method: str, path: str, body: bytes | None, has_deadline: bool) -> aiohttp.ClientResponse:
        # Large bodies go out in pieces, so that nobody else on the loop waits for them.
        data = body if body is None or len(body) < _LARGE else io.BytesIO(body)
        context = UPSTREAM.get()
        extra = None if context is None else {"traceparent": context}
        options = self._unhurried if has_deadline else self._options
        return await self._session.request(method, self._url(path), data=data, headers=extra, **options)

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            if not path.startswith("/"):
                raise ValueError("a path must start with a slash")  # else it might become part of the host's name
            url = self._urls[path] = URL(self._base_url + path)
            if len(self._urls) > 1000:
                self._urls.clear()
        return url


def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    """Seconds for connecting, and for each wait for bytes; exact, where aiohttp would round them up."""
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read, ceil_threshold=float("inf"))


def _guarded_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket about to be connected to the address in `info`. Raises AddressRefused.

    What was looked up has passed already; what was written as a number has not.
    """
    family, kind, proto, _, address = info
    if not is_public(address[0]):
        raise AddressRefused
    return socket.socket(family=family, type=kind, proto=proto)


def _proxy_of(url: URL) -> URL | None:
    """The proxy that the environment names for requests to `url`, its credentials in it."""
    found = getproxies().get(url.scheme)
    if found is None or proxy_bypass(url.host or ""):
        return None
    return URL(found if "://" in found else f"http://{found}")


async def _is_private_number(host: str) -> bool:
    """Whether a host is written as an IP address, in whatever form, and is not a public one."""
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return not all(is_public(str(info[4][0])) for info in infos)


def _tls_context() -> ssl.SSLContext:
    """Trusts what the system trusts, as the SDK path does."""
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
