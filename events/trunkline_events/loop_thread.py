"""An event loop in a thread of its own, for code without asyncio that wants something which lives on one."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")


class LoopThread(Generic[R]):
    """A daemon thread with an event loop, on which one resource is open from `open` to `close`.

    resource    what is entered on the loop; it is left when the thread ends
    closed      makes the exception for those who come, or still wait, after `close`
    """

    def __init__(
        self, name: str, resource: Callable[[], AbstractAsyncContextManager[R]], closed: Callable[[], Exception]
    ) -> None:
        self._resource, self._error = resource, closed
        self._ready: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._tasks: set[asyncio.Task[Any] | None] = set()
        self._lock = threading.RLock()  # `post` may come from a finaliser, in the midst of any of this
        self.closed = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def open(self) -> R:
        """Enter the resource, once. Raises what that raises."""
        self._thread.start()
        return self._ready.result()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run on the loop and wait; interrupted, cancel it. Raises what it raises, and `closed()` once closed."""
        with self._lock:  # so that nothing is handed over after `close` has begun
            if self.closed:
                raise self._error()
            future = asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._error() from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def post(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run on the loop without waiting, from any thread, the loop's too. Does nothing once closed."""
        with self._lock:
            if not self.closed:
                asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)

    def close(self) -> None:
        """End what is under way, leave the resource, end the thread. Idempotent; from the loop's own it only begins."""
        with self._lock:
            opened = self._ready.done() and self._ready.exception() is None
            if opened and not self.closed:
                self._loop.call_soon_threadsafe(self._stop.set)
            self.closed = True
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    async def _tracked(self, work: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await work()
        finally:
            self._tasks.discard(task)

    def _serve(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._live())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._resource() as resource:
            self._ready.set_result(resource)
            await self._stop.wait()
            # While the resource is there, so that work which is left behind can end in order.
            left = [task for task in self._tasks if task is not None]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
