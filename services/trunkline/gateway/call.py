"""One request on the bus and the messages that answer it, for a caller who may read them slowly, or go away."""

import asyncio
from collections import deque

import msgspec
from trunkline_actors.bus import Bus
from trunkline_events import headers, subjects
from trunkline_events.quick import Reply

from trunkline import errors
from trunkline.exchange import GRACE, RESEND_AFTER, Request

MOST_WAITING = 2 * 1024 * 1024
"""Bytes that may wait for one reader. One who is further behind is cut off: nobody else must wait for their sake."""
EACH = 512
"""Bytes that a waiting message takes beside its body."""
LONELY = 10
LONELY_SECONDS = 0.3


class TooSlow(Exception):
    """The reader is too far behind; the request was aborted, and what was generated is settled."""


class ClientGone(Exception):
    """Nobody waits for the answer any more; the request is to be aborted, and what was generated is settled."""


class Call:
    """Sends a request, and again under the same id and inbox while nothing is heard: a repeat joins what runs.

    `alone`: no other process could take it, so the router of this one is given it without the server, and so is what is
    sent again. While the server is away it waits in the connection's buffer all the same, as long as the caller does.
    """

    def __init__(self, bus: Bus, request: Request, *, alone: bool = False) -> None:
        self._bus = bus
        self._near = alone and bus.nats.is_connected
        self._request = request
        self._arrived: deque[Reply] = deque()
        self._waiting_bytes = 0
        self._wakes: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + request.seconds + GRACE
        self._lonely = 0
        self.overrun = False
        self.gone = False
        self._inbox = bus.replies.expect(self._heard)

    @property
    def request_id(self) -> str:
        """As it goes in a header."""
        return self._request.fields[headers.REQUEST]

    def _heard(self, reply: Reply) -> None:
        self._waiting_bytes += len(reply.data) + EACH
        if self._waiting_bytes > MOST_WAITING and len(self._arrived) > 1:
            self.overrun = True
            self._arrived.clear()
        elif not self.overrun:
            self._arrived.append(reply)
        self._wake()

    def _wake(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_result(None)

    def give_up(self) -> None:
        """The client has gone: whoever waits for the answer hears so."""
        self.gone = True
        self._wake()

    async def send(self, *, again: bool = False) -> None:
        """Send it, or send it again. Raises InvalidRequest (413) where the bus carries no message of this size."""
        request = self._request
        if len(request.body) > self._bus.nats.max_payload:
            raise errors.too_large(len(request.body), self._bus.nats.max_payload)
        fields = headers.again(request.fields) if again else request.fields
        send = self._bus.send if self._near else self._bus.publish
        await send(request.subject, request.body, fields, self._inbox)

    async def some(self) -> list[Reply]:
        """The messages that are there: waits for one, and gives none where there was silence for a while.

        Raises DeadlineExceeded; Unavailable where no router is there to hear us; TooSlow; ClientGone.
        """
        if not self._arrived and not self.overrun and not self.gone and not await self._wait():
            return []
        if self.gone:
            raise ClientGone
        if self.overrun:
            raise TooSlow
        found = list(self._arrived)
        self._arrived.clear()
        self._waiting_bytes = 0
        if len(found) == 1 and (found[0].headers or {}).get(headers.STATUS) == "503":
            await self._nobody()
            return await self.some()
        return found

    async def one(self) -> Reply:
        """The message that answers where there is but one. Raises as `some` does."""
        while not (found := await self.some()):
            pass
        return found[0]

    async def _wait(self) -> bool:
        """Whether something was heard, or there is nobody to hear it; if not, the request was sent again."""
        left = self._until - self._loop.time()
        if left <= 0:
            raise errors.deadline_exceeded(self._request.seconds, self._request.request_id)
        self._wakes = self._loop.create_future()
        timer = self._loop.call_later(min(RESEND_AFTER, left), self._nothing_heard)
        try:
            await self._wakes
        except TimeoutError:
            await self.send(again=True)
            return False
        finally:
            timer.cancel()
            self._wakes = None
        return True

    def _nothing_heard(self) -> None:
        if self._wakes is not None and not self._wakes.done():
            self._wakes.set_exception(TimeoutError())

    async def _nobody(self) -> None:
        """No router right now: one may be starting again, so ask a few times before giving up."""
        self._lonely += 1
        if self._lonely > LONELY:
            raise errors.unavailable("no router answers on this bus; start one with `trunkline run router`")
        await asyncio.sleep(LONELY_SECONDS)
        await self.send(again=True)

    async def abort(self) -> None:
        """Nobody wants the answer any more: cut the upstream call. What was generated is settled."""
        body = msgspec.json.encode({"request_id": self._request.request_id})
        key = self._request.fields.get(headers.KEY)
        fields = {headers.KEY: key} if key else None
        await self._bus.publish(subjects.ABORT, body, fields, self._bus.nats.new_inbox())

    def close(self) -> None:
        """Hear nothing more."""
        self._bus.replies.forget(self._inbox)
