"""From start to exit of a process: signals, drain, and who must end before whom."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()

DRAIN_SECONDS = 25.0
"""How long running streams may take to end after the first signal."""


class Stop:
    """Set by the first SIGTERM or SIGINT; the second exits at once."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def request(self, name: str) -> None:
        """Stop, or exit at once where stopping has begun."""
        if self._event.is_set():
            os._exit(1)
        log.info("process.stopping", signal=name)
        self._event.set()

    async def wait(self) -> None:
        """Return when it is time to stop."""
        await self._event.wait()


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within this, SIGTERM and SIGINT ask for an orderly stop."""
    loop = asyncio.get_running_loop()
    stop = Stop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.request, signal.Signals(number).name)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run a process's main coroutine, on uvloop where it is installed, and give its exit code."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_as_coroutine(main))


async def _as_coroutine(main: Callable[[], Awaitable[int]]) -> int:
    _collect_by_the_clock()
    return await main()


def _collect_by_the_clock(turn: int = 0) -> None:
    """Look for cycles of what is new each second, and of everything each minute, instead of by allocations.

    A chat allocates much and leaves next to nothing behind: counting allocations made collections a tenth of its CPU.
    """
    if turn == 0:
        gc.freeze()  # what is there after start-up stays
        gc.disable()
    else:
        gc.collect(2 if turn % 60 == 0 else 1)
    asyncio.get_running_loop().call_later(1.0, _collect_by_the_clock, turn + 1)
