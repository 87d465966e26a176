"""One request and what answers it: sent again, under the same id and inbox, while nothing is heard."""

import asyncio
from typing import Any

import nats.errors
from msgspec import Struct
from nats.aio.client import Client, Msg
from trunkline_events import headers

from trunkline import errors

RESEND_AFTER = 5.0
"""Seconds of silence after which a request is sent again, with the same id and inbox: a repeat joins what runs."""
GRACE = 5.0
"""Seconds after the deadline in which the gateway still answers, whatever died."""


class Request(Struct, frozen=True, kw_only=True):
    """What is sent, and for how many seconds an answer is wanted. `lonely`: what is said where nobody hears it."""

    subject: str
    body: bytes
    fields: dict[str, str]
    request_id: str
    seconds: float
    lonely: str = "no router answers on this bus; start one with `trunkline run router`"


class Exchange:
    """One request and the messages that answer it, sent again while nothing is heard."""

    def __init__(self, client: Client, request: Request) -> None:
        self._nats = client
        self._request = request
        self._inbox = client.new_inbox()
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Any = None
        self._until = 0.0

    async def start(self) -> None:
        """Listen, then send."""

        async def arrived(message: Msg) -> None:
            self._arrived.put_nowait(message)

        self._subscription = await self._nats.subscribe(self._inbox, cb=arrived)
        self._until = asyncio.get_running_loop().time() + self._request.seconds + GRACE
        await self._send()

    async def _send(self, *, again: bool = False) -> None:
        request = self._request
        fields = headers.again(request.fields) if again else request.fields
        try:
            await self._nats.publish(request.subject, request.body, reply=self._inbox, headers=fields)
        except nats.errors.MaxPayloadError:
            raise errors.too_large(len(request.body), self._nats.max_payload) from None
        except nats.errors.Error as error:  # closed, or too long without a server
            raise errors.unavailable(f"the request can't be sent: {error}", request.request_id) from error

    async def next(self) -> Msg:
        """The next message. Raises DeadlineExceeded; Unavailable where no router is there to hear us."""
        if self._subscription is None:
            raise RuntimeError("the request isn't sent yet: use `async with gw.chat.stream(…) as s`")
        loop = asyncio.get_running_loop()
        lonely = 0
        while True:
            left = self._until - loop.time()
            if left <= 0:
                raise errors.deadline_exceeded(self._request.seconds, self._request.request_id)
            try:
                async with asyncio.timeout(min(RESEND_AFTER, left)):
                    message = await self._arrived.get()
            except TimeoutError:
                await self._send(again=True)
                continue
            if (message.headers or {}).get(headers.STATUS) != "503":
                return message
            # No router right now: one may be starting again, so ask a few times before giving up.
            lonely += 1
            if lonely > 10:
                raise errors.unavailable(self._request.lonely)
            await asyncio.sleep(0.3)
            await self._send(again=True)

    async def stop(self) -> None:
        """Listen no more."""
        if self._subscription is not None and not self._nats.is_closed:
            await self._subscription.unsubscribe()
