"""One pull that runs in this process, and who listens: progress as numbered messages, and an empty one at the end.

Listeners come and go, the pull goes on. What they hear is thinned; at least once a second they hear something, so that
silence means that the process is gone, and are asked whether they are there.
"""

import asyncio
from typing import Any

import msgspec
from trunkline_events import headers
from trunkline_events.quick import Reply
from trunkline_events.refusal import Refused
from trunkline_events.registry import PullStarted

from trunkline_actors.adapters.management import PullProgress
from trunkline_actors.bus import Bus

TOLD_EVERY = 0.25
"""Seconds between two messages to a listener, at least."""
SILENCE = 1.0
"""Seconds after which a listener hears the same again."""


class Pulling:
    """A pull under way. `ended` resolves to the log sequence of its end, once that is recorded; None: it was left."""

    def __init__(self, bus: Bus, started: PullStarted) -> None:
        self._bus = bus
        self.started = started
        self.progress = PullProgress(status="starting")
        self.aborted: str | None = None
        """Why it was aborted; None where it was not."""
        self.ended: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.work: asyncio.Task[None] | None = None
        self._listeners: dict[str, int] = {}
        self._probes: dict[str, str] = {}

    async def listen(self, inbox: str) -> None:
        """One more listener; it hears at once how far the pull is. One that listens already hears it once more."""
        self._listeners.setdefault(inbox, 0)
        await self._tell(inbox, self._shown())

    def abort(self, reason: str | None) -> None:
        """End it, on somebody's wish."""
        if self.aborted is None and self.work is not None and not self.ended.done():
            self.aborted = reason or ""
            self.work.cancel()

    async def tell(self) -> None:
        """Tell listeners how far it is, until cancelled."""
        loop = asyncio.get_running_loop()
        told, at = self.progress, loop.time()
        while True:
            await asyncio.sleep(TOLD_EVERY)
            silent = loop.time() - at >= SILENCE
            if self.progress != told or silent:
                told, at = self.progress, loop.time()
                shown = self._shown()
                for inbox in list(self._listeners):
                    await self._tell(inbox, shown, ask=silent or inbox not in self._probes)

    async def end(self, finish: str, sequence: int, *, refused: Refused | None = None, **more: Any) -> None:
        """Tell listeners how it ended: what is known of the model now, or an error, and the empty message."""
        fields = {
            headers.MODEL: headers.encode_value(self.started.id),
            headers.PROVIDER: headers.encode_value(self.started.provider),
            headers.EVENT: str(sequence),
            headers.FINISH: finish,
        }
        for inbox in list(self._listeners):
            if refused is None:
                await self._tell(inbox, msgspec.json.encode({**self._facts(), "status": "success", **more}))
            numbered = {**fields, headers.SEQ: str(self._listeners[inbox] + 1)}
            if refused is not None:
                await self._bus.refuse(inbox, refused, "models-pull", None, numbered)
            await self._bus.publish(inbox, b"", numbered)
        self.close()

    def close(self) -> None:
        """Expect nothing more of listeners."""
        for reply in self._probes.values():
            self._bus.replies.forget(reply)
        self._probes.clear()
        self._listeners.clear()

    def _facts(self) -> dict[str, Any]:
        pull = self.started
        shown = {"object": "model.pull", "id": pull.id, "model": pull.upstream, "provider": pull.provider}
        return {**shown, **msgspec.structs.asdict(self.progress)}

    def _shown(self) -> bytes:
        return msgspec.json.encode(self._facts())

    async def _tell(self, inbox: str, data: bytes, *, ask: bool = False) -> None:
        self._listeners[inbox] += 1
        reply = self._probe(inbox) if ask else ""
        await self._bus.publish(inbox, data, {headers.SEQ: str(self._listeners[inbox])}, reply)

    def _probe(self, inbox: str) -> str:
        """A reply subject where the server says if nobody hears this inbox any more."""
        if inbox not in self._probes:

            def heard(message: Reply) -> None:
                if (message.headers or {}).get(headers.STATUS) == "503":
                    self._listeners.pop(inbox, None)
                    self._bus.replies.forget(self._probes.pop(inbox, ""))

            self._probes[inbox] = self._bus.replies.expect(heard)
        return self._probes[inbox]
