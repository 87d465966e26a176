"""Waiting for a follower to come to a sequence, the same for every log."""

import asyncio
import heapq
import itertools

from trunkline_events.log import LogUnavailable


class FollowerStopped(LogUnavailable):
    """The follower was stopped before it handled what was waited for. Follow the log anew, from `position`."""

    def __init__(self, position: int, awaited: int) -> None:
        super().__init__(f"the follower was stopped at {position}, before {awaited}; follow the log anew")
        self.position = position


class Progress:
    """How far a follower has come, and who waits for it to come further."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._stopped = False

    def advance(self, position: int) -> None:
        """All up to here is handled: wake who waited for that."""
        self.position = position
        while self._waiting and self._waiting[0][0] <= position:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    async def reached(self, sequence: int) -> None:
        """Return when all up to `sequence` is handled; raises FollowerStopped where that will not be."""
        if self.position >= sequence:
            return
        if self._stopped:
            raise FollowerStopped(self.position, sequence)
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (sequence, next(self._order), future))
        await future

    def stop(self) -> None:
        """Nothing more will be handled: whoever waits is told so."""
        self._stopped = True
        waiting, self._waiting = self._waiting, []
        for sequence, _, future in waiting:
            if not future.done():
                future.set_exception(FollowerStopped(self.position, sequence))
