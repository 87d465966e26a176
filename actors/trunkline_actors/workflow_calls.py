"""The chats of steps, over the bus, as any client asks: under ids that are theirs, so that none is paid for twice."""

import asyncio

import msgspec
from trunkline_events import headers, subjects
from trunkline_events.money import nanos_from_usd
from trunkline_events.quick import Reply
from trunkline_events.usage import Usage

from trunkline_actors.bus import Bus
from trunkline_actors.keys_door import NOBODY
from trunkline_actors.workflow_code import Ask, Said, StepError

AGAIN_S = 5.0
"""Seconds of silence after which a chat is asked for again: a repeat joins what runs."""
GRACE_S = 5.0
HOPELESS = frozenset(
    {
        *("invalid_request", "context_length_exceeded", "content_filtered", "unauthenticated", "permission_denied"),
        *("model_not_found", "budget_exceeded"),
    }
)
"""Codes of errors that the next attempt at a step would only meet again. Any other may go better under another id, also
where asking again under the same one can't help, as after an answer that was lost with its process.
"""
LONELY_S = 0.5
"""Seconds until somebody is asked again where no router was there."""


class _Told(msgspec.Struct):
    code: str = "internal"
    message: str = ""


class _Error(msgspec.Struct):
    error: _Told = msgspec.field(default_factory=_Told)


class _Details(msgspec.Struct):
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class BusCaller:
    """Asks routers. It acts for whoever began the run, as processes of the gateway may."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def chat(self, ask: Ask) -> Said:
        """Ask, again while nothing is heard. Raises StepError."""
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Reply] = asyncio.Queue()
        inbox = self._bus.replies.expect(arrived.put_nowait)
        body = msgspec.json.encode({**ask.body, "stream": False})
        until = loop.time() + ask.seconds + GRACE_S
        try:
            await self._send(ask, body, inbox)
            while (left := until - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(AGAIN_S, left)):
                        reply = await arrived.get()
                except TimeoutError:
                    await self._send(ask, body, inbox)
                    continue
                if (reply.headers or {}).get(headers.STATUS) != "503":
                    return _said(reply)
                await asyncio.sleep(min(LONELY_S, left))  # no router right now: one may be starting
                await self._send(ask, body, inbox)
        finally:
            self._bus.replies.forget(inbox)
        raise StepError("timeout", f"no answer came within {ask.seconds:g} s")

    async def _send(self, ask: Ask, body: bytes, inbox: str) -> None:
        fields = {
            headers.REQUEST: headers.encode_value(ask.request_id),
            headers.THREAD: headers.encode_value(ask.thread),
            **self._as_whom(ask.key),
        }
        if ask.traceparent:
            fields[headers.TRACEPARENT] = ask.traceparent
        if len(body) > self._bus.nats.max_payload:
            raise StepError(
                "invalid_request", f"a chat of {len(body):,} bytes is more than the bus carries", retryable=False
            )
        await self._bus.publish(subjects.CHAT, body, fields, inbox)

    def _as_whom(self, key: str) -> dict[str, str]:
        door = self._bus.door
        own = door.own_key if door is not None else ""
        if not own:
            return {}
        return {headers.KEY: own, headers.ON_BEHALF: headers.encode_value(key or NOBODY)}

    async def abort(self, request_id: str) -> None:
        """Nobody wants the answer any more: cut it."""
        body = msgspec.json.encode({"request_id": request_id})
        await self._bus.publish(subjects.ABORT, body, self._as_whom("") or None, self._bus.nats.new_inbox())


def _said(reply: Reply) -> Said:
    fields = reply.headers or {}
    if headers.ERROR_CODE in fields:
        try:
            told = msgspec.json.decode(reply.data, type=_Error).error
        except msgspec.DecodeError:
            told = _Told(message=fields.get(headers.ERROR, ""))
        raise StepError(told.code, told.message, retryable=told.code not in HOPELESS)
    data = msgspec.json.decode(reply.data)
    used = msgspec.convert(data.get("usage") or {}, _Usage)
    return Said(
        data=data,
        usage=Usage(
            input_tokens=used.prompt_tokens,
            cached_input_tokens=used.prompt_tokens_details.cached_tokens if used.prompt_tokens_details else 0,
            output_tokens=used.completion_tokens,
            reasoning_tokens=used.completion_tokens_details.reasoning_tokens if used.completion_tokens_details else 0,
        ),
        cost_nanos=nanos_from_usd(fields.get(headers.COST, "0")),
        event=int(fields.get(headers.EVENT, "0")),
        model=headers.decode_value(fields.get(headers.MODEL, "")),
        provider=headers.decode_value(fields.get(headers.PROVIDER, "")),
    )
