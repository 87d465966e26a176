"""Ending tasks for good."""

import asyncio
from typing import Any


async def end_task(task: "asyncio.Task[Any] | None") -> None:
    """Cancel a task and return when it has ended; what it raised is dropped.

    One cancellation is not enough: nats-py swallows it where it comes while a message is being written.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)
    if task is not None and not task.cancelled():
        task.exception()
