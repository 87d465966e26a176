"""Chat and embeddings over the bus: a whole answer, or a stream of chunks with a receipt at its end."""

import os
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

import msgspec
import nats.errors
from msgspec import Struct
from nats.aio.client import Client, Msg
from nats.nuid import NUID
from trunkline_events import headers, subjects
from trunkline_events.usage import Usage

from trunkline import errors
from trunkline.exchange import Exchange, Request

DEADLINE = 60.0

Messages = str | list[dict[str, Any]]


class Receipt(Struct, frozen=True, kw_only=True):
    """What a request came to: who served it, what it cost in US dollars, and the log sequence that settles it.

    `replayed`: it was asked for again under its id. `cached`: it is the answer of an earlier request, at no cost.
    """

    request_id: str
    model: str
    provider: str
    attempts: int
    cost: str
    event: int
    finish: str
    replayed: bool = False
    cached: bool = False


class Completion(Struct, frozen=True, kw_only=True):
    """A whole answer. `data` is the OpenAI `chat.completion`, as a dict."""

    data: dict[str, Any]
    receipt: Receipt

    @property
    def text(self) -> str:
        """The content of the first choice."""
        return self._message.get("content") or ""

    @property
    def reasoning(self) -> str:
        """The thinking that came before it."""
        return self._message.get("reasoning_content") or ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools it wants called."""
        return self._message.get("tool_calls") or []

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts as OpenAI names them."""
        return self.data.get("usage") or {}

    @property
    def cost(self) -> str:
        """US dollars."""
        return self.receipt.cost

    @property
    def _message(self) -> dict[str, Any]:
        choices = self.data.get("choices") or [{}]
        return choices[0].get("message") or {}


class Chunk(Struct, frozen=True):
    """One `chat.completion.chunk`, as a dict."""

    data: dict[str, Any]

    @property
    def text(self) -> str:
        """What this chunk adds to the first choice's content."""
        return self._delta.get("content") or ""

    @property
    def reasoning(self) -> str:
        """What it adds to the thinking."""
        return self._delta.get("reasoning_content") or ""

    @property
    def _delta(self) -> dict[str, Any]:
        choices = self.data.get("choices") or [{}]
        return choices[0].get("delta") or {}


class Stream:
    """An answer as it is generated: iterate for chunks; afterwards `receipt`, `usage` and `cost` are there.

    Leaving the `async with` early aborts the request; what was generated until then is settled.
    """

    def __init__(self, client: Client, request: Request) -> None:
        self._nats = client
        self._exchange = Exchange(client, request)
        self.request_id = request.request_id
        self._key = {headers.KEY: key} if (key := request.fields.get(headers.KEY)) else None
        self._next = 1
        self._done = False
        self._failed: errors.TrunklineError | None = None
        self.receipt: Receipt | None = None
        self.usage: Usage | None = None

    @property
    def cost(self) -> str | None:
        """US dollars, once the stream has ended."""
        return self.receipt.cost if self.receipt else None

    async def __aenter__(self) -> "Stream":
        await self._exchange.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exchange.stop()
        if not self._done and not self._nats.is_closed:
            body = msgspec.json.encode({"request_id": self.request_id})
            await self._nats.publish(subjects.ABORT, body, reply=self._nats.new_inbox(), headers=self._key)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        while not self._done:
            message = await self._exchange.next()
            fields = message.headers or {}
            if headers.ERROR_CODE in fields and message.data:
                self._failed = _error(message, self.request_id)
                if headers.SEQ not in fields:  # nothing was sent, so the error is the end
                    self._done = True
                continue
            seq = int(fields.get(headers.SEQ, self._next))
            if seq < self._next:
                continue  # a repeat that joined gets from the start what we have already
            if not message.data:
                self._end(fields)
            if seq > self._next and self._failed is None:
                self._done = True
                raise errors.disconnected(self.request_id)
            self._next = seq + 1
            if message.data:
                return Chunk(msgspec.json.decode(message.data))
        if self._failed is not None:
            raise self._failed
        raise StopAsyncIteration

    def _end(self, fields: Mapping[str, str]) -> None:
        self._done = True
        if headers.EVENT in fields:
            self.receipt = _receipt(fields)
        if fields.get(headers.USAGE, "null") != "null":
            self.usage = msgspec.json.decode(fields[headers.USAGE], type=Usage)


class Chat:
    """`gw.chat`: chat requests."""

    def __init__(self, client: Client, key: str | None) -> None:
        self._nats = client
        self._key = key

    async def create(
        self,
        model: str,
        messages: Messages,
        *,
        thread: str | None = None,
        request_id: str | None = None,
        route: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Completion:
        """Ask, and return the whole answer. `parameters` are OpenAI's; `route` is our extension.

        Raises TrunklineError. The same `request_id` again gives the same answer, without a second call.
        """
        body = _body(model, messages, route, {**parameters, "stream": False})
        message = await _ask(self._nats, _request(subjects.CHAT, body, route, self._key, thread, request_id))
        return Completion(data=msgspec.json.decode(message.data), receipt=_receipt(message.headers or {}))

    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        thread: str | None = None,
        request_id: str | None = None,
        route: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Stream:
        """Ask, and iterate over the answer: `async with gw.chat.stream(…) as s: async for chunk in s: …`."""
        body = _body(model, messages, route, {**parameters, "stream": True})
        return Stream(self._nats, _request(subjects.CHAT, body, route, self._key, thread, request_id))

    async def abort(self, request_id: str) -> None:
        """Cut a running request short; returns when its upstream call is cut. Raises NotFound."""
        body = msgspec.json.encode({"request_id": request_id})
        fields = {headers.KEY: self._key} if self._key else None
        try:
            message = await self._nats.request(subjects.ABORT, body, timeout=30, headers=fields)
        except nats.errors.NoRespondersError:
            raise errors.unavailable("no router answers on this bus; start one with `trunkline run router`") from None
        except (nats.errors.Error, TimeoutError) as error:
            raise errors.unavailable(f"the abort was not answered: {error}", request_id) from error
        if headers.ERROR_CODE in (message.headers or {}):
            raise _error(message, request_id)


class Embeddings:
    """`gw.embeddings`: embeddings requests."""

    def __init__(self, client: Client, key: str | None) -> None:
        self._nats = client
        self._key = key

    async def create(
        self,
        model: str,
        input: str | list[str],  # noqa: A002 - OpenAI's name
        *,
        thread: str | None = None,
        request_id: str | None = None,
        route: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Completion:
        """Embed. `data` of the answer is OpenAI's list of embeddings. Raises TrunklineError."""
        body = {"model": model, "input": input, **parameters}
        if route:
            body["route"] = route
        request = _request(subjects.EMBEDDINGS, body, route, self._key, thread, request_id)
        message = await _ask(self._nats, request)
        return Completion(data=msgspec.json.decode(message.data), receipt=_receipt(message.headers or {}))


async def _ask(client: Client, request: Request) -> Msg:
    exchange = Exchange(client, request)
    await exchange.start()
    try:
        message = await exchange.next()
    finally:
        await exchange.stop()
    if headers.ERROR_CODE in (message.headers or {}):
        raise _error(message, request.request_id)
    return message


def _body(model: str, messages: Messages, route: dict[str, Any] | None, parameters: dict[str, Any]) -> dict[str, Any]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    body = {"model": model, "messages": messages, **parameters}
    if route:
        body["route"] = route
    return body


def _request(
    subject: str,
    body: dict[str, Any],
    route: dict[str, Any] | None,
    key: str | None,
    thread: str | None,
    request_id: str | None,
) -> Request:
    fields = {} if request_id else {headers.DRAWN: f"{time.time():.3f}"}
    request_id = request_id or _ids.next()
    fields[headers.REQUEST] = headers.encode_value(request_id)
    if thread is not None:
        fields[headers.THREAD] = headers.encode_value(thread)
    if key is not None:
        fields[headers.KEY] = key
    deadline_ms = (route or {}).get("deadline_ms")
    seconds = deadline_ms / 1000 if isinstance(deadline_ms, int | float) else DEADLINE
    return Request(
        subject=subject, body=msgspec.json.encode(body), fields=fields, request_id=request_id, seconds=seconds
    )


def _error(message: Msg, request_id: str | None) -> errors.TrunklineError:
    fields = message.headers or {}
    return errors.from_answer(
        fields.get(headers.ERROR_CODE, "500"), fields.get(headers.ERROR, ""), message.data, request_id
    )


def _receipt(fields: Mapping[str, str]) -> Receipt:
    return Receipt(
        request_id=headers.decode_value(fields.get(headers.REQUEST, "")),
        model=headers.decode_value(fields.get(headers.MODEL, "")),
        provider=headers.decode_value(fields.get(headers.PROVIDER, "")),
        attempts=int(fields.get(headers.ATTEMPTS, "0")),
        cost=fields.get(headers.COST, "0"),
        event=int(fields.get(headers.EVENT, "0")),
        finish=fields.get(headers.FINISH, ""),
        replayed=fields.get(headers.REPLAYED) == "true",
        cached=fields.get(headers.CACHE) == "hit",
    )


class _Ids:
    """Ids that nobody else draws: not even a process that was forked from this one."""

    def __init__(self) -> None:
        self._pid = 0
        self._nuid = NUID()

    def next(self) -> str:
        """The next one."""
        if self._pid != os.getpid():
            self._pid, self._nuid = os.getpid(), NUID()
        return str(self._nuid.next(), "ascii")


_ids = _Ids()
