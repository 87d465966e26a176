"""Cuts a stream that is too long in coming: its first chunk, or the next one."""

import asyncio
from types import TracebackType

from trunkline_events.failure import Failure, FailureClass
from trunkline_events.registry import Provider

from trunkline_actors.running import Running


class Patience:
    """While it is entered, a stream that keeps silent longer than its provider may is cut, as timed out.

    Costs nothing for each chunk: a timer looks when the last one went out.
    """

    def __init__(self, running: Running, provider: Provider) -> None:
        self._running = running
        self._first_s = provider.first_token_timeout_s or provider.timeout_s
        self._stall_s = provider.stall_timeout_s
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(min(self._first_s, self._stall_s), self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        waits_for_first = self._running.first is None
        since = self._began if waits_for_first else self._running.answering.last_chunk
        limit = self._first_s if waits_for_first else self._stall_s
        left = since + limit - self._loop.time()
        if left > 0:
            # Not later than a stall could be over by then: the first chunk may come while we wait for it.
            self._timer = self._loop.call_later(min(left, self._stall_s), self._look)
            return
        awaited = "the first chunk" if waits_for_first else "the next chunk"
        self._running.gave_up(
            Failure(kind=FailureClass.TIMEOUT, message=f"upstream kept silent for {limit:g} s before {awaited}")
        )
