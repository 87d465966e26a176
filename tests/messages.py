"""A caller without our client library: the messages of an answer as they come, as any NATS client sees them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from nats.aio.client import Client, Msg
from trunkline.client import Gateway
from trunkline_events import headers, subjects


class Got(NamedTuple):
    """One message, with the headers it came with."""

    data: bytes
    fields: dict[str, str]

    @property
    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.json.decode(self.data)
        return body

    @property
    def error(self) -> dict[str, Any]:
        """The contract's error object; the message must be one."""
        assert headers.ERROR_CODE in self.fields, (self.fields, self.data[:300])
        error: dict[str, Any] = self.json["error"]
        return error


def got(message: Msg) -> Got:
    """A message of nats-py as ours."""
    return Got(message.data, dict(message.headers or {}))


def chat_body(model: str, prompt: str = "hello", **more: Any) -> bytes:
    """A chat request."""
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": prompt}], **more})


class Call:
    """A request that was sent, and its answer, message by message."""

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self.inbox: str = nats.new_inbox()
        self.arrived: asyncio.Queue[Got] = asyncio.Queue()
        self._subscription: Any = None

    async def send(self, subject: str, body: bytes, fields: Mapping[str, str]) -> None:
        async def arrive(message: Msg) -> None:
            self.arrived.put_nowait(got(message))

        self._subscription = await self._nats.subscribe(self.inbox, cb=arrive)
        await self._nats.publish(subject, body, reply=self.inbox, headers=dict(fields) or None)

    async def next(self, within: float = 15.0) -> Got:
        """The next message."""
        async with asyncio.timeout(within):
            return await self.arrived.get()

    async def rest(self, within: float = 15.0) -> list[Got]:
        """All messages up to the empty one, which is the last."""
        messages: list[Got] = []
        async with asyncio.timeout(within):
            while not messages or messages[-1].data:
                messages.append(await self.arrived.get())
        return messages

    async def leave(self) -> None:
        """Listen no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()


@asynccontextmanager
async def calling(
    nats: Client, body: bytes, fields: Mapping[str, str] | None = None, subject: str = subjects.CHAT
) -> AsyncIterator[Call]:
    """Send a request and look at what comes back while this lasts."""
    call = Call(nats)
    await call.send(subject, body, fields or {})
    try:
        yield call
    finally:
        await call.leave()


async def ask(
    nats: Client,
    body: bytes,
    fields: Mapping[str, str] | None = None,
    subject: str = subjects.CHAT,
    within: float = 15.0,
) -> Got:
    """Send a request; its one answer."""
    async with calling(nats, body, fields, subject) as call:
        return await call.next(within)


async def stream(nats: Client, body: bytes, fields: Mapping[str, str] | None = None, within: float = 15.0) -> list[Got]:
    """Send a chat to be streamed; all its messages, the empty one last."""
    async with calling(nats, body, fields) as call:
        return await call.rest(within)


async def register(gateway: Gateway, price: dict[str, str] | None = None, **scripts: str) -> None:
    """Models of the provider `scripted`, by name and script."""
    for name, script in scripts.items():
        await gateway.models.register(id=name, provider="scripted", upstream=script, price=price)
