"""Calls functions that block, each in a thread of its own."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

AT_ONCE = 64
"""Functions that are waited for at the same time in one process."""

_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def in_thread(function: Callable[..., Any], **given: Any) -> Any:
    """Call it, and return what it returns. Raises what it raises.

    Cancelled, it leaves the thread to itself. One that never returns is a thread that is lost, but keeps nobody
    waiting: neither who is called next, nor a process that wants to end. `asyncio.to_thread` has both wait.
    """
    loop = asyncio.get_running_loop()
    async with _slots.setdefault(loop, asyncio.Semaphore(AT_ONCE)):
        done: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def tell(output: Any, error: BaseException | None) -> None:
            if done.done():
                return
            if error is None:
                done.set_result(output)
            else:
                passed_on = isinstance(error, Exception | SystemExit) and not isinstance(error, StopIteration)
                done.set_exception(error if passed_on else RuntimeError(repr(error)))  # others would end the loop

        def call() -> None:
            output, raised = None, None
            try:
                output = context.run(function, **given)
            except BaseException as error:  # noqa: BLE001 - whatever it is, somebody waits for it
                raised = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, output, raised)

        threading.Thread(target=call, name=f"step {function.__qualname__}", daemon=True).start()
        return await done
