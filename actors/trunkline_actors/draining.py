"""Waiting until nothing runs any more at a model that no new request is routed to."""

import asyncio
from collections.abc import Callable

QUIET = 2.5
"""Seconds without a call before it is over: processes tell of their calls once a second, and some may be on the way."""
LOOK_AGAIN = 0.1
LONGEST = 300.0


async def drained(in_flight: Callable[[], int], seconds: float) -> tuple[bool, int]:
    """Whether no call ran throughout `QUIET` seconds, as soon as that is so; else how many run after so many seconds.

    Less time than `QUIET` is never enough to know: some calls may run that nobody has told of yet.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    quiet_since: float | None = None
    while True:
        running, now = in_flight(), loop.time()
        quiet_since = None if running else now if quiet_since is None else quiet_since
        if quiet_since is not None and now - quiet_since >= QUIET:
            return True, 0
        if now >= until:
            return False, running
        await asyncio.sleep(min(LOOK_AGAIN, until - now))
