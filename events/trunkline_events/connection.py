"""One connection to NATS, as every process of ours holds it: quick to reconnect, telling those who need to know."""

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import nats.errors
import structlog
from nats.aio.client import Server

from trunkline_events import nkeys
from trunkline_events.quick import QuickClient, Reply
from trunkline_events.subjects import INBOX, encode_id

log = structlog.get_logger()

RECONNECT_WAIT = (0.1, 0.25)
"""Seconds between attempts, drawn at random so that processes don't come back all at once (nats-py's own: 2 s)."""

_jitter = random.Random()
"""Its own: who seeds the global one, for a draw that can be repeated, is not to be disturbed by a reconnect."""

Listener = Callable[[], Awaitable[None]]


class Unreachable(Exception):
    """No NATS server can be used at this address. Start one (`trunkline up`) or give its address with `--nats`.

    `reason` is what the last try came to: refused, timed out, not authorised.
    """

    def __init__(self, url: str, reason: str) -> None:
        advice = (
            "give the user and password in its address, nats://USER:PASSWORD@HOST:PORT"
            if "authorization" in reason.lower()
            else "start one with `trunkline up`, or name it with --nats"
        )
        super().__init__(f"can't connect to NATS at {without_password(url)} ({reason}); {advice}")
        self.url = url
        self.reason = reason


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error).removeprefix("nats: ") or type(error).__name__


def _credentials(url: str) -> dict[str, str]:
    """What is before the @, as options: servers that the cluster tells of come without it in their addresses."""
    for address in url.split(","):
        scheme, _, rest = address.strip().rpartition("://")
        user, at, _ = rest.rpartition("@")
        if at and scheme:
            name, colon, password = user.partition(":")
            return {"user": unquote(name), "password": unquote(password)} if colon else {"token": unquote(name)}
    return {}


def _inbox_of(user: str | None) -> str:
    """Where a user of this name is answered: below a subject of its own, which the server can keep from others."""
    return f"{INBOX}.{encode_id(user)}" if user else INBOX


def without_password(url: str) -> str:
    """The addresses without what is before their @: for messages, which others read."""
    return ",".join(_bare(address) for address in url.split(","))


def _bare(address: str) -> str:
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


class Connection:
    """A NATS client that keeps reconnecting until closed. `nats` is nats-py's client, for publish and subscribe."""

    def __init__(self, client: QuickClient) -> None:
        self.nats = client
        self._listeners: list[Listener] = []
        self.last_break = float("-inf")
        """When it last broke or was mended, by the monotonic clock."""

    @classmethod
    async def open(cls, url: str, *, name: str, timeout: float = 3.0) -> "Connection":
        """Connect, or raise Unreachable after `timeout` seconds. `url` may hold several addresses, comma-separated.

        Where the password in it is the seed of an NKey, it is not sent: what the server draws is signed with it. A user
        is answered below `_INBOX.<user>`, anybody else below `_INBOX`.
        """
        client = QuickClient()
        credentials: dict[str, Any] = _credentials(url)
        user = credentials.get("user")
        if nkeys.is_seed(seed := credentials.get("password", "")):
            client.known_by(nkeys.public_key(seed))
            # Out of the addresses too: to a server that asks for no signature nats-py would send what is in them.
            url = without_password(url)
            credentials = {"user": user or "nkey", "signature_cb": lambda nonce: nkeys.sign(seed, nonce)}
        connection = cls(client)
        turn = itertools.count()

        def next_server(servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
            return servers[next(turn) % len(servers)], _jitter.uniform(*RECONNECT_WAIT)

        async def on_error(error: Exception) -> None:
            log.debug("nats.error", error=type(error).__name__)

        async def on_disconnect() -> None:
            connection.last_break = time.monotonic()
            if not client.is_closed:
                log.warning("nats.disconnected")

        try:
            async with asyncio.timeout(timeout):
                await client.connect(
                    [part.strip() for part in url.split(",")],
                    **credentials,
                    name=name,
                    error_cb=on_error,
                    disconnected_cb=on_disconnect,
                    reconnected_cb=connection._reconnected,
                    reconnect_to_server_handler=next_server,
                    # Also between first attempts: without a pause nats-py would try without end and hear nothing else.
                    reconnect_time_wait=0.1,
                    max_reconnect_attempts=-1,
                    inbox_prefix=_inbox_of(user),
                    ping_interval=10,
                    max_outstanding_pings=2,
                    drain_timeout=10,
                    pending_size=16 * 1024 * 1024,
                )
        except (TimeoutError, OSError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await client.close()
            raise Unreachable(url, _reason(client.last_error or error)) from error
        return connection

    def on_reconnect(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` after every reconnect; returns how to stop that."""
        self._listeners.append(listener)

        def forget() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return forget

    async def _reconnected(self) -> None:
        self.last_break = time.monotonic()
        log.info("nats.reconnected")
        for listener in list(self._listeners):
            try:
                await listener()
            except Exception as error:
                log.exception("nats.reconnect_listener_failed", error=type(error).__name__)

    async def close(self) -> None:
        """Flush what is written and close."""
        if not self.nats.is_closed:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                if self.nats.is_connected:
                    await self.nats.flush(timeout=2)
            with contextlib.suppress(nats.errors.Error, OSError):  # the server may be gone already
                await self.nats.close()


class Replies:
    """An inbox shared by many outstanding requests: one subscription, one token a request, no task a request."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._prefix = f"{connection.nats.new_inbox()}."
        self._waiting: dict[str, Callable[[Reply], None]] = {}
        self._tokens = itertools.count(1)
        self._subscription: Any = None

    def __len__(self) -> int:
        return len(self._waiting)

    async def open(self) -> None:
        """Subscribe. Call once, before the first `expect`."""
        self._subscription = await self._nats.subscribe_directly(f"{self._prefix}*", self._arrived)

    def _arrived(self, subject: str, reply: Reply) -> None:
        handle = self._waiting.get(subject[len(self._prefix) :])
        if handle is not None:
            handle(reply)

    def owns(self, subject: str) -> bool:
        """Whether this subject is one of ours, that nobody else listens to."""
        return subject.startswith(self._prefix)

    def hand_over(self, subject: str, reply: Reply) -> None:
        """Take a message that this process sends to itself: it arrives as if the server had brought it, and at once."""
        try:
            self._arrived(subject, reply)
        except Exception as error:
            log.exception("replies.handler_failed", error=type(error).__name__)

    def expect(self, handle: Callable[[Reply], None]) -> str:
        """A fresh reply subject; each message on it goes to `handle` until `forget`. Late ones are dropped."""
        token = str(next(self._tokens))
        self._waiting[token] = handle
        return self._prefix + token

    def forget(self, reply: str) -> None:
        """Expect nothing more on this reply subject."""
        self._waiting.pop(reply[len(self._prefix) :], None)

    async def close(self) -> None:
        """Unsubscribe; whoever still waits is left to its own deadline."""
        if self._subscription is not None and not self._nats.is_closed:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()
