"""`/v1/chat/completions` and `/v1/embeddings`: OpenAI's requests as they come, sent on to the bus, and back."""

import asyncio
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from trunkline_events import headers, subjects
from trunkline_events.quick import Reply

from trunkline import errors
from trunkline.errors import TrunklineError
from trunkline.exchange import Request
from trunkline.gateway import dialects
from trunkline.gateway.call import Call, TooSlow
from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest

SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
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
}


async def completions(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """One chat, plain or streamed."""
    body = await request.body()
    asked = _read(body)
    call = Call(edge.bus, _request(edge, subjects.CHAT, request, who, body, asked))
    await _serve(edge, request, call, stream=bool(asked.stream))


async def embeddings(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """Embeddings, which are never streamed."""
    body = await request.body()
    call = Call(edge.bus, _request(edge, subjects.EMBEDDINGS, request, who, body, _read(body)))
    await _serve(edge, request, call, stream=False)


async def _serve(edge: Edge, request: HttpRequest, call: Call, *, stream: bool) -> None:
    """Answer, unless the client goes away first: then the upstream call is cut, and what it generated is settled."""
    answering = asyncio.ensure_future(_streamed(request, call) if stream else _plain(request, call))
    gone = asyncio.ensure_future(request.left())
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            await call.abort()
            return
        await answering
    except TooSlow:
        await call.abort()
        raise errors.disconnected(None) from None
    finally:
        answering.cancel()
        gone.cancel()
        await asyncio.gather(answering, gone, return_exceptions=True)
        call.close()


async def _plain(request: HttpRequest, call: Call) -> None:
    await call.send()
    reply = (await call.some())[0]
    error = _error(reply)
    if error is not None:
        raise error
    await request.reply(200, reply.data, _receipt(reply.headers or {}))


async def _streamed(request: HttpRequest, call: Call) -> None:
    """Chunks as server-sent events: what arrived together goes out together, and nothing waits for more."""
    await call.send()
    failed: TrunklineError | None = None
    expected, head_by = 1, asyncio.get_running_loop().time() + HEAD_BY
    while True:
        out: list[bytes] = []
        for reply in await call.some():
            fields = reply.headers or {}
            error = _error(reply)
            if error is not None:
                if not request.started and not out:
                    raise error
                failed = error
                out.append(_event(dialects.body_of(error, "openai")))
                continue
            number = int(fields.get(headers.SEQ, expected))
            if number < expected:
                continue  # a repeat that joined is told from the start what we have already
            if number > expected and failed is None:
                raise errors.disconnected(fields.get(headers.REQUEST))
            expected = number + 1
            if not request.started:
                if headers.SILENT in fields and asyncio.get_running_loop().time() < head_by:
                    continue  # until something is said, an error can still have a status of its own
                await request.start(200, {**SSE, **_receipt(fields)})
            if reply.data:
                out.append(KEEP_ALIVE if headers.SILENT in fields else _event(reply.data))
                continue
            if failed is None:
                out += [_closing(fields), DONE]
            await request.piece(b"".join(out))
            await request.end()
            return
        if out:
            await request.piece(b"".join(out))


def _event(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


def _closing(fields: Mapping[str, str]) -> bytes:
    """The receipt, as a comment: who reads events passes it over, who wants it finds it before `[DONE]`."""
    return b": trunkline %b\n\n" % msgspec.json.encode(_receipt(fields))


def _error(reply: Reply) -> TrunklineError | None:
    fields = reply.headers or {}
    if headers.ERROR_CODE not in fields:
        return None
    return errors.from_answer(fields[headers.ERROR_CODE], fields.get(headers.ERROR, ""), reply.data)


def _receipt(fields: Mapping[str, str]) -> dict[str, str]:
    return {ours: fields[theirs] for theirs, ours in _RECEIPT.items() if theirs in fields}


def _read(body: bytes) -> _Asked:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Asked()  # the router says what is wrong with it, and where


def _request(edge: Edge, subject: str, request: HttpRequest, who: Principal, body: bytes, asked: _Asked) -> Request:
    given = request.headers
    request_id = given.get("idempotency-key") or edge.new_id()
    fields = {headers.REQUEST: headers.encode_value(request_id)}
    if who.key:
        fields[headers.KEY] = who.key
    if thread := given.get("x-trunkline-thread"):
        fields[headers.THREAD] = headers.encode_value(thread)
    if trace := given.get("traceparent"):
        fields[headers.TRACEPARENT] = trace
    deadline_ms = asked.route.deadline_ms if asked.route else DEADLINE * 1000
    return Request(subject=subject, body=body, fields=fields, request_id=request_id, seconds=deadline_ms / 1000)
