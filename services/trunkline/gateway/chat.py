"""`/v1/chat/completions` and `/v1/embeddings`: OpenAI's requests as they come, sent on to the bus, and back."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from trunkline_events import headers, subjects
from trunkline_events.quick import Reply

from trunkline import errors
from trunkline.errors import TrunklineError
from trunkline.exchange import Request
from trunkline.gateway.call import Call, ClientGone, TooSlow
from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.limits import of_answer
from trunkline.gateway.voices import OPENAI, Voice

SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
DEADLINE = 60.0
HEAD_BY = 15.0
"""Seconds of silence after which the head goes out all the same: who is between us and the client gives up sooner or
later."""


class _Route(Struct):
    deadline_ms: float = DEADLINE * 1000


class _Asked(Struct):
    """All that the edge needs to know of a body. What is wrong with the rest the router says."""

    stream: bool | None = None
    route: _Route | None = None


_decoder = msgspec.json.Decoder(_Asked)

# Header of the bus → header of the answer.
_RECEIPT = {
    headers.REQUEST: "x-request-id",
    headers.MODEL: "x-trunkline-model",
    headers.PROVIDER: "x-trunkline-provider",
    headers.ATTEMPTS: "x-trunkline-attempts",
    headers.COST: "x-trunkline-cost-usd",
    headers.EVENT: "x-trunkline-event",
    headers.REPLAYED: "x-trunkline-replayed",
    headers.CACHE: "x-trunkline-cache",
}


async def completions(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """One chat, plain or streamed."""
    await answer(edge, request, who, await request.body(), OPENAI)


async def answer(edge: Edge, request: HttpRequest, who: Principal, body: bytes, voice: Voice) -> None:
    """Send a Chat Completions request, and tell the answer in this voice."""
    asked = _read(body)
    call = _call(edge, _request(edge, subjects.CHAT, request, who, body, asked))
    await _serve(edge, request, call, voice, stream=bool(asked.stream))


async def embeddings(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """Embeddings, which are never streamed."""
    body = await request.body()
    call = _call(edge, _request(edge, subjects.EMBEDDINGS, request, who, body, _read(body)))
    await _serve(edge, request, call, OPENAI, stream=False)


def _call(edge: Edge, request: Request) -> Call:
    return Call(edge.bus, request, alone=edge.pulses.routes_alone())


async def _serve(edge: Edge, request: HttpRequest, call: Call, voice: Voice, *, stream: bool) -> None:
    """Answer, unless the client goes away first: then the upstream call is cut, and what it generated is settled."""
    request.when_left(call.give_up)
    try:
        await (_streamed(request, call, voice) if stream else _plain(request, call, voice))
    except ClientGone:
        await call.abort()
    except TooSlow:
        await call.abort()
        raise errors.disconnected(None) from None
    finally:
        call.close()


async def _plain(request: HttpRequest, call: Call, voice: Voice) -> None:
    await call.send()
    reply = await call.one()
    if headers.ERROR_CODE in (reply.headers or {}):
        raise error_of(reply)
    await request.reply(200, voice.whole(reply.data), voice.head(_receipt(reply.headers or {})))


async def _streamed(request: HttpRequest, call: Call, voice: Voice) -> None:
    """Chunks as server-sent events: what arrived together goes out together, and nothing waits for more."""
    stream = Stream(call.request_id, voice)
    head_by = asyncio.get_running_loop().time() + HEAD_BY
    try:
        await call.send()
        while not stream.ended:
            replies = await call.some()
            out = stream.events(replies, late=asyncio.get_running_loop().time() >= head_by)
            if not out:
                continue
            if not request.started:
                await request.start(200, {**SSE, **voice.head(stream.receipt)})
            await (request.end(out) if stream.ended else request.piece(out))
    except TrunklineError as error:
        if not request.started:
            raise
        await request.end(voice.failure(error))


class Stream:
    """A stream of the bus as server-sent events. `receipt` are the headers of its head; `ended`: it is over."""

    def __init__(self, request_id: str, voice: Voice = OPENAI) -> None:
        self._voice = voice
        self.receipt = {"x-request-id": request_id}
        self.ended = False
        self._expected = 1
        self._began = False
        self._failed = False

    def events(self, replies: Sequence[Reply], *, late: bool) -> bytes:
        """What to send for these messages; raises the error that is all there is to tell.

        While nothing was said an error can still have a status of its own, so the head waits until something is said,
        unless it is `late`.
        """
        if not replies:
            self._began = self._began or late
            return self._voice.alive() if self._began else b""
        out: list[bytes] = []
        for reply in replies:
            fields = reply.headers or {}
            if headers.ERROR_CODE in fields:
                self._fail(error_of(reply), out)
                continue
            number = int(fields.get(headers.SEQ, self._expected))
            if number < self._expected:
                continue  # a repeat that joined is told from the start what we have already
            if number > self._expected and not self._failed:
                self._fail(errors.disconnected(fields.get(headers.REQUEST)), out)
                self.ended = True
                break
            self._expected = number + 1
            self._tell(reply.data, fields, out, late=late)
            if self.ended:
                break
        return b"".join(out)

    def _tell(self, data: bytes, fields: Mapping[str, str], out: list[bytes], *, late: bool) -> None:
        silent = headers.SILENT in fields
        if not self._began and not (silent and not late):
            self._began = True
            self.receipt |= _receipt(fields)
        if not self._began:
            return
        if data:
            out.append(self._voice.alive() if silent else self._voice.chunk(data))
            return
        self.ended = True
        if not self._failed:
            out += [_closing(fields), self._voice.end(fields)]

    def _fail(self, error: TrunklineError, out: list[bytes]) -> None:
        if not self._began and not out:
            raise error
        self._failed = True
        out.append(self._voice.failure(error))


def _closing(fields: Mapping[str, str]) -> bytes:
    """The receipt, as a comment: who reads events passes it over, who wants it finds it before `[DONE]`."""
    return b": trunkline %b\n\n" % msgspec.json.encode(_receipt(fields))


def error_of(reply: Reply) -> TrunklineError:
    """The error that this message tells of."""
    fields = reply.headers or {}
    return errors.from_answer(
        fields[headers.ERROR_CODE], fields.get(headers.ERROR, ""), reply.data, fields.get(headers.REQUEST)
    )


def _receipt(fields: Mapping[str, str]) -> dict[str, str]:
    found = {ours: fields[theirs] for theirs, ours in _RECEIPT.items() if theirs in fields}
    return found | of_answer(fields[headers.LIMITS]) if headers.LIMITS in fields else found


def _read(body: bytes) -> _Asked:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Asked()  # the router says what is wrong with it, and where


def _request(edge: Edge, subject: str, request: HttpRequest, who: Principal, body: bytes, asked: _Asked) -> Request:
    given = request.headers
    chosen = given.get("idempotency-key")
    request_id = chosen or edge.new_id()
    fields = {headers.REQUEST: headers.encode_value(request_id)}
    if not chosen:
        fields[headers.DRAWN] = f"{time.time():.3f}"
    if who.key:
        fields[headers.KEY] = who.key
    if thread := given.get("x-trunkline-thread"):
        fields[headers.THREAD] = headers.encode_value(thread)
    if trace := request.traceparent or given.get("traceparent"):
        fields[headers.TRACEPARENT] = trace
    deadline_ms = asked.route.deadline_ms if asked.route else DEADLINE * 1000
    return Request(subject=subject, body=body, fields=fields, request_id=request_id, seconds=deadline_ms / 1000)
