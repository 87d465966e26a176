"""What the callers of one attempt hear: its chunks, its end with the receipt, or what went wrong."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

import msgspec
import nats.errors
from trunkline_events import headers
from trunkline_events.failure import Failure, answer_for
from trunkline_events.money import usd_from_nanos
from trunkline_events.quick import Reply
from trunkline_events.refusal import Refused
from trunkline_events.thread import Metered

from trunkline_actors.answer_cache import REUSABLE, Kept
from trunkline_actors.claims import MAX_ANSWER, Claim
from trunkline_actors.dispatch import Dispatch
from trunkline_actors.recent import Recent
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Decided

HEADERS_ROOM = 4096
"""Bytes of a message that are left to its headers."""
PROBE_SECONDS = 1.0
"""How often a stream asks to be told if nobody listens."""


class ChunkTooLarge(Exception):
    """A chunk is larger than the bus carries. End the stream with `too_large`."""


class Answering:
    """Publishes one attempt's answer to all who wait for it, numbered; calls `on_abandoned` when none is left."""

    def __init__(
        self, runtime: Runtime, dispatch: Dispatch, provider: str, listeners: list[str], recent: Recent
    ) -> None:
        self._runtime = runtime
        self._bus = runtime.bus
        self._dispatch = dispatch
        self._provider = provider
        self._listeners = listeners
        self._recent = recent
        self.served: list[str] = []
        """The inboxes that have heard the end."""
        self._seq = dispatch.sent
        # What an earlier attempt sent was silence, or it would have been the last.
        self._sent: list[bytes] | None = [self._silence()] * dispatch.sent if dispatch.claim or dispatch.cache else None
        self._sent_bytes = 0
        self._probes: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._next_probe = self._last + PROBE_SECONDS
        self._reconnects = self._bus.nats.stats["reconnects"]
        self._timer = self._loop.call_at(self._next_probe, self._tick) if dispatch.stream else None
        self.on_abandoned: Callable[[], None] = _nothing

    @property
    def sent(self) -> int:
        """How many chunks every caller has been sent, by this attempt and those before it."""
        return self._seq

    @property
    def last_chunk(self) -> float:
        """When the last chunk of the upstream went out, by the loop's clock."""
        return self._last

    async def add(self, inbox: str) -> bool:
        """One more caller: it gets what was sent so far, then the rest like everybody.

        False where it would get half an answer: what was sent is no longer remembered, or the end is out already.
        """
        if inbox in self._listeners:
            return True
        given = 0
        while self._sent is not None and given < len(self._sent):
            given += 1
            await self._bus.publish(inbox, self._sent[given - 1], {headers.SEQ: str(given)})
        if self._sent is None or self.served:
            return False
        self._listeners.append(inbox)
        return True

    async def chunk(self, data: bytes) -> None:
        """Send one chunk. Raises ChunkTooLarge, and nothing is sent."""
        if not self._carries(data):
            raise ChunkTooLarge
        self._seq += 1
        self._remember(data)
        fields = {headers.SEQ: str(self._seq)}
        if self._seq == 1:
            fields.update(self._served_by())
        now = self._last = self._loop.time()
        probing = now >= self._next_probe
        if probing:
            self._next_probe = now + PROBE_SECONDS
        for inbox in self._listeners:
            await self._bus.publish(inbox, data, fields, self._probe(inbox) if probing else "")

    async def whole(self, body: bytes, decided: Decided) -> None:
        """Send a plain answer with its receipt."""
        if not self._carries(body):
            await self.too_large(decided)
            return
        fields = self._receipt(decided)
        await self._cache(decided, fields, [body])
        for inbox in self._everybody():
            await self._bus.publish(inbox, body, fields)
        await self._keep(fields, [body])

    async def end(self, decided: Decided) -> None:
        """Send the empty message that ends a stream."""
        fields = self._receipt(decided, stream=True)
        await self._cache(decided, fields, self._sent)
        for inbox in self._everybody():
            await self._bus.publish(inbox, b"", fields)
        await self._keep(fields, self._sent)

    async def broken(self, failure: Failure, decided: Decided) -> None:
        """The stream broke: an error, then the empty message."""
        answer = answer_for(failure.kind)
        code = "provider_error" if answer.code == "invalid_request" else answer.code
        refused = Refused(
            code=code,
            message=f"{self._dispatch.model}: the answer broke off: {failure.message}",
            retryable=answer.retryable,
            metadata={"failure": failure.kind},
        )
        await self._refuse(refused, self._receipt(decided, stream=True))

    async def aborted(self, decided: Decided) -> None:
        """The attempt was cut on somebody's wish."""
        refused = Refused(code="aborted", message="the request was aborted; what was generated is settled")
        await self._refuse(refused, self._receipt(decided, stream=self._dispatch.stream))

    async def too_large(self, decided: Decided) -> None:
        """The answer, or a chunk of it, is larger than the bus carries."""
        streamed = self._dispatch.stream
        what = "a chunk of the answer" if streamed else "the answer"
        message = f"{what} is larger than the bus carries; raise max_payload{'' if streamed else ' or stream it'}"
        refused = Refused(code="internal", message=message, retryable=False)
        await self._refuse(refused, self._receipt(decided, stream=streamed))

    def _carries(self, data: bytes) -> bool:
        most: int = self._bus.nats.max_payload - HEADERS_ROOM
        return len(data) <= most

    async def _refuse(self, refused: Refused, fields: dict[str, str]) -> None:
        dispatch = self._dispatch
        for inbox in self._everybody():
            await self._bus.refuse(inbox, refused, dispatch.operation, dispatch.request_id, fields)
            if dispatch.stream:
                await self._bus.publish(inbox, b"", fields)
        await self._keep(fields, None)

    def _everybody(self) -> list[str]:
        """All who wait, as of now: whoever asks later is not one of them."""
        self.served = list(self._listeners)
        return self.served

    # -- receipts and memory ---------------------------------------------------------------------------------------

    def _receipt(self, decided: Decided, *, stream: bool = False) -> dict[str, str]:
        event = cast("Metered", decided.event)
        fields = {
            **self._served_by(),
            headers.COST: usd_from_nanos(event.cost_nanos),
            headers.EVENT: str(decided.sequence),
            headers.FINISH: getattr(event, "finish", "error"),
        }
        if stream:
            fields[headers.SEQ] = str(self._seq + 1)
            fields[headers.USAGE] = msgspec.json.encode(getattr(event, "usage", None)).decode()
        return fields

    def _served_by(self) -> dict[str, str]:
        """Who answers: on the first chunk of a stream, and on the end of everything."""
        dispatch = self._dispatch
        told = {headers.LIMITS: dispatch.limits} if dispatch.limits else {}
        if dispatch.cache:
            told[headers.CACHE] = "miss"
        return {
            **told,
            headers.REQUEST: headers.encode_value(dispatch.request_id),
            headers.MODEL: headers.encode_value(dispatch.model),
            headers.PROVIDER: headers.encode_value(self._provider),
            headers.ATTEMPTS: str(dispatch.attempts),
        }

    def _remember(self, data: bytes) -> None:
        if self._sent is None:
            return
        self._sent_bytes += len(data)
        if self._sent_bytes > MAX_ANSWER:
            self._sent = None
        else:
            self._sent.append(data)

    async def _keep(self, fields: dict[str, str], messages: list[bytes] | None) -> None:
        if self._dispatch.claim is None:
            return
        if self._dispatch.unclaimed:
            self._recent.add(self._dispatch.claim, fields, messages, self._loop.time())
            return
        claim = Claim(
            state="answered",
            since=self._runtime.clock(),
            attempts=int(self._dispatch.attempt_id.rpartition("-")[2]),
            fingerprint=self._dispatch.fingerprint,
            headers=fields,
            messages=messages,
        )
        await self._runtime.claims.keep(self._dispatch.claim, claim)

    async def _cache(self, decided: Decided, fields: dict[str, str], messages: list[bytes] | None) -> None:
        """Keep the answer for who asks the very same, where that is wanted and it came to a good end.

        Before it is told: who has heard it and asks again is to have it again.
        """
        dispatch, event = self._dispatch, cast("Metered", decided.event)
        if not dispatch.cache or messages is None or event.partial or event.finish not in REUSABLE:
            return
        if dispatch.clamped and event.finish == "length":  # who has the money is to have all of it
            return
        kept = Kept(
            at=self._runtime.clock(),
            model=dispatch.model,
            provider=self._provider,
            version=dispatch.version,
            origin=decided.sequence,
            cost_nanos=event.cost_nanos,
            fields={name: fields[name] for name in (headers.FINISH, headers.SEQ, headers.USAGE) if name in fields},
            messages=messages,
        )
        await self._runtime.answers.keep(dispatch.cache, kept, dispatch.cache_s)

    # -- callers that went away ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """While there is no chunk to ask with, ask with one that says nothing, numbered like any."""
        now, reconnects = self._loop.time(), self._bus.nats.stats["reconnects"]
        silent = now - self._last >= PROBE_SECONDS
        self._timer = self._loop.call_at((now if silent else self._last) + PROBE_SECONDS, self._tick)
        # A caller that lost the server when we did may be back a moment later than we are: it is asked next time.
        if silent and not self.served and self._bus.nats.is_connected and reconnects == self._reconnects:
            silence = self._silence()
            self._seq += 1
            self._remember(silence)
            fields = {headers.SEQ: str(self._seq), headers.SILENT: "true"}
            with contextlib.suppress(nats.errors.Error):
                self._bus.publish_together([(inbox, self._probe(inbox), fields, silence) for inbox in self._listeners])
        self._reconnects = reconnects

    def _silence(self) -> bytes:
        """A chunk that says nothing."""
        chunk = {
            "id": self._dispatch.request_id,
            "object": "chat.completion.chunk",
            "created": int(self._dispatch.decided_at),
            "model": self._dispatch.model,
            "choices": [{"index": 0, "delta": {}, "finish_reason": None}],
        }
        return msgspec.json.encode(chunk)

    def _probe(self, inbox: str) -> str:
        def heard(message: Reply) -> None:
            if (message.headers or {}).get(headers.STATUS) == "503" and inbox in self._listeners:
                self._listeners.remove(inbox)
                if not self._listeners:
                    self.on_abandoned()

        reply = self._bus.replies.expect(heard)
        self._probes.append(reply)
        return reply

    def close(self) -> None:
        """Expect no more signs of callers that went away."""
        self.on_abandoned = _nothing  # it holds on to what holds on to us
        if self._timer is not None:
            self._timer.cancel()
        for reply in self._probes:
            self._bus.replies.forget(reply)


def _nothing() -> None:
    """Where nobody wants to know."""
