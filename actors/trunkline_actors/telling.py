"""Tells the figures of this process to whoever asks, and asks all processes for theirs."""

import asyncio
import contextlib
import resource
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors
import structlog
from nats.aio.client import Msg
from trunkline_events.quick import Reply
from trunkline_events.subjects import FIGURES

from trunkline_actors.bus import Bus
from trunkline_actors.figures import Figures, InFlight, encode, read

if TYPE_CHECKING:
    from trunkline_actors.runtime import Runtime

log = structlog.get_logger()

WITHIN = 0.5
"""Seconds that the processes have to answer; who is slower is left out."""
_PAGE = resource.getpagesize()


class Telling:
    """The figures of one process. On the path of a request it does nothing."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._subscription: Any = None
        self._began = time.time()
        self.not_exported = 0
        """Spans that no collector took."""

    async def start(self) -> None:
        """Answer from here on."""
        self._subscription = await self._runtime.bus.nats.subscribe(FIGURES, cb=self._asked)

    async def stop(self) -> None:
        """Answer no more."""
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    async def _asked(self, message: Msg) -> None:
        if self._runtime.bus.may_reply(message.reply):
            await self._runtime.bus.publish(message.reply, encode(self.now()))

    def now(self) -> Figures:
        """The figures as they stand."""
        runtime = self._runtime
        totals, tracing = runtime.totals, runtime.tracing
        used = resource.getrusage(resource.RUSAGE_SELF)
        spans = {} if tracing is None else {"recorded": tracing.recorded, "dropped": tracing.dropped}
        if tracing is not None:
            spans["not-exported"] = self.not_exported
        return Figures(
            process=runtime.name,
            version=runtime.version,
            roles=runtime.roles,
            began=self._began,
            at=time.time(),
            calls=list(totals.calls.values()),
            served=list(totals.served.values()),
            paths=list(totals.paths.values()),
            refusals=list(totals.refusals.values()),
            in_flight=[
                InFlight(provider=line.provider, model=line.model, version=line.version, calls=calls)
                for line, calls in runtime.meter.in_flight()
            ],
            lookups=totals.lookups,
            running=totals.running,
            open=len(runtime.open),
            backlog=runtime.log.backlog,
            position=runtime.gateway.position,
            degraded=runtime.degraded.since,
            cpu_s=used.ru_utime + used.ru_stime,
            memory=_memory(used.ru_maxrss),
            descriptors=_descriptors(),
            replies_dropped=runtime.bus.dropped,
            spans=spans,
        )


async def collect(bus: Bus, expected: Collection[str], within: float = WITHIN) -> list[Figures]:
    """The figures of all processes that answer in time, by name; done early once all `expected` have."""
    found: dict[str, Figures] = {}
    missing = set(expected)
    done = asyncio.Event()

    def heard(reply: Reply) -> None:
        told = read(reply.data)
        if told is None:
            log.debug("figures.unreadable", size=len(reply.data))
            return
        found[told.process] = told
        missing.discard(told.process)
        if not missing:
            done.set()

    inbox = bus.replies.expect(heard)
    try:
        await bus.publish(FIGURES, reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await done.wait()
    finally:
        bus.replies.forget(inbox)
    return [found[name] for name in sorted(found)]


def _memory(most_kib: int) -> int:
    """Resident bytes; where there is no /proc, the most there ever were."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return most_kib * 1024


def _descriptors() -> int:
    """Open file descriptors; 0 where there is no /proc."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0
