"""A clock for tests: it stands still while anything is done, and goes straight to what is next when nothing is."""

import asyncio
from collections.abc import Awaitable

BEGINNING = 1_767_225_600.0
"""2026-01-01 00:00 UTC."""
SETTLE = 10
"""Turns of the event loop after which what was about to be recorded has been."""


class VirtualTime:
    """Unix time that nobody waits for. Called, it tells the time; `sleep` and `wait` take none of the real one.

    Time goes on only when all steps under way sleep by this clock. What takes real time, such as a function in a
    thread, is waited for.
    """

    def __init__(self, now: float = BEGINNING) -> None:
        self.now = now
        self.idle = asyncio.Event()
        """Nothing is under way, and nothing will be by itself."""
        self.horizon: float | None = None
        """Nobody waits for this moment alone: the deadline of a run that waits for a signal."""
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._stirred = asyncio.Event()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Until it is so much later."""
        sleeper = (self.now + seconds, asyncio.Event())
        self._sleepers.append(sleeper)
        self._stirred.set()
        try:
            await sleeper[1].wait()
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    async def wait(self, changed: asyncio.Event, seconds: float | None, busy: int) -> None:
        """A `Waiter` for the runner: `busy` steps are under way, of which those that sleep are known here."""
        until = None if seconds is None else self.now + seconds
        for _ in range(SETTLE):
            await asyncio.sleep(0)
        while not changed.is_set() and (until is None or self.now < until):
            self._stirred.clear()
            if len(self._sleepers) < busy:
                await self._something(changed, until)
                continue
            if not self._sleepers and (until is None or (self.horizon is not None and until >= self.horizon - 0.001)):
                self.idle.set()
                await changed.wait()
            else:
                self._jump(until)
                await asyncio.sleep(0)

    async def _something(self, changed: asyncio.Event, until: float | None) -> None:
        """Work that takes real time is going on: wait for it, and no longer than by this clock there is time."""
        left = None if until is None else until - self.now
        if not await first_of(changed.wait(), self._stirred.wait(), seconds=left) and until is not None:
            self.now = until

    def _jump(self, until: float | None) -> None:
        """To the soonest of what is waited for, and wake who sleeps until then."""
        soonest = min(at for at in (until, *(at for at, _ in self._sleepers)) if at is not None)
        self.now = max(self.now, soonest)
        for sleeper in [one for one in self._sleepers if one[0] <= self.now]:
            self._sleepers.remove(sleeper)
            sleeper[1].set()


async def first_of(*work: Awaitable[object], seconds: float | None = None) -> bool:
    """Until one of these is done, the others cut; False: none was in time."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
