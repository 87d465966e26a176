"""Waiting for foreign code, no longer than it may take: it may hang, and may not even let itself be cancelled."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from trunkline_actors.plugin_faults import Hung, Stopped

T = TypeVar("T")


async def bounded(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What `work` comes to. Raises what it raises; Hung after so many seconds, and Stopped for what is no Exception.

    Runs in a task of its own, so that one which swallows its cancellation hangs alone.
    """

    async def run() -> tuple[T | None, Exception | None]:
        try:
            return await work(), None
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - handed to who waits
            return None, error
        except BaseException as error:  # noqa: BLE001 - left to itself it would end the loop
            stopped = Stopped(type(error).__name__)
            stopped.__cause__ = error
            return None, stopped

    task = asyncio.create_task(run())
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        raise Hung
    if task.cancelled():
        raise Stopped("CancelledError")
    result, error = task.result()
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None is what `work` gave


def in_thread(work: Callable[[], T]) -> Coroutine[Any, Any, T]:
    """What `work` comes to in a daemon thread: one that hangs keeps no process from ending, as one of a pool would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # None is what `work` gave
        else:
            done.set_exception(error if isinstance(error, Exception) else Stopped(type(error).__name__))

    def run() -> None:
        result: T | None = None
        raised: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            raised = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, raised)

    threading.Thread(target=run, name="trunkline-import", daemon=True).start()

    async def wait() -> T:
        return await done

    return wait()
