"""How who leads a run waits for what comes next: by the clock on the wall, unless a test has another one."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

Waiter = Callable[[asyncio.Event, float | None, int], Awaitable[None]]
"""Waits until the event is set, but no longer than so many seconds, while so many steps are under way."""


async def until(changed: asyncio.Event, seconds: float | None, busy: int) -> None:
    """A `Waiter` by the clock on the wall."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await changed.wait()
