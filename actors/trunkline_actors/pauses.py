"""Pauses that an upstream's rate limits impose on one provider instance, shared by all processes that serve it.

They are told on a subject and not in the log: a pause is over before anybody would read of it.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from trunkline_events import subjects
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.registry import Provider

from trunkline_actors import limits
from trunkline_actors.dispatch import Outcome, encode
from trunkline_actors.runtime import Runtime

log = structlog.get_logger()

WORTH_TELLING = 0.05
"""Seconds that a pause must add to the one that holds."""


class Paused(Struct, frozen=True):
    """No calls until `until`, Unix time."""

    until: float


_decoder = msgspec.json.Decoder(Paused)


class Pauses:
    """Until when this process calls an instance no more."""

    def __init__(self, runtime: Runtime, provider: Provider) -> None:
        self._runtime = runtime
        self._provider = provider
        self._subject = subjects.provider_endpoint(provider.id, "paused")
        self._until = 0.0
        self._subscription: Any = None

    async def start(self) -> None:
        """Hear of pauses that others meet with."""
        self._subscription = await self._runtime.bus.nats.subscribe_raw(self._subject, self._heard)

    async def stop(self) -> None:
        """Hear no more."""
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    def problem(self) -> Failure | None:
        """Why no call may be made now, and when it may."""
        if not self._until:
            return None
        left = self._until - self._runtime.clock()
        if left <= 0:
            self._until = 0.0
            return None
        return Failure(
            kind=FailureClass.RATE_LIMITED,
            message=f"{self._provider.id!r} has used up its rate limit, which is renewed in {left:.3g} s",
            retry_after=left,
        )

    def noticed(self, headers: Mapping[str, str]) -> None:
        """An answer came with these headers. The next calls wait where they say that none is left."""
        seconds = limits.pause_of(headers, self._runtime.clock())
        if seconds:
            self._pause(seconds)

    def ended(self, outcome: Outcome) -> None:
        """A call ended: one that was refused for its rate says when to come again."""
        if outcome.failure is FailureClass.RATE_LIMITED and outcome.retry_after:
            self._pause(min(outcome.retry_after, limits.LONGEST))

    def _pause(self, seconds: float) -> None:
        until = self._runtime.clock() + seconds
        if until - self._until > WORTH_TELLING:
            self._until = until
            log.info("provider.paused", provider=self._provider.id, seconds=round(seconds, 3))
            with contextlib.suppress(nats.errors.Error):  # the others will meet with it themselves
                self._runtime.bus.nats.publish_together([(self._subject, "", {}, encode(Paused(until)))])

    def _heard(self, _subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            until = _decoder.decode(data).until
            self._until = max(self._until, min(until, self._runtime.clock() + limits.LONGEST))
