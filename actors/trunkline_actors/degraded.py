"""What one process has to do without, or is forced to do: its degraded modes, with an event as each begins and ends.

    routing-override   this process was started to send every request to one model
    no-statistics      a strategy of a policy goes by statistics, and there are none
    log-unreachable    NATS is there, and the log does not answer: chats are refused, reads answered from what is known
    registry-cached    the same at the start: what is known is what lay on disk

`enter` and `leave` may be called at every decision: they look into a dict, and only a change is told. A mode that is
left is over when nobody has entered it again for STEADY seconds, so that one which comes and goes with every request is
one mode and not a thousand events. Events are appended in order and until the log takes them: of a log that was away it
is the first of them to be stored that shows it is back.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

import structlog
from msgspec import Struct
from trunkline_events.connection import Connection
from trunkline_events.envelope import Event
from trunkline_events.gateway import GatewayDegraded, GatewayFact, GatewayRecovered
from trunkline_events.log import Log, LogError
from trunkline_events.tasks import end_task

from trunkline_actors.shell import Command, Shell

log = structlog.get_logger()

ROUTING_OVERRIDE, NO_STATISTICS = "routing-override", "no-statistics"
LOG_UNREACHABLE, REGISTRY_CACHED = "log-unreachable", "registry-cached"

STEADY = 5.0
"""Seconds after which a mode that was left is over."""
PROBE_SECONDS = 0.5
LAST_WORDS = 1.0
"""Seconds for events to be stored while the process ends."""
MOST_UNTOLD = 200
"""Events kept for a log that is away."""


class _Mode(Struct):
    """A mode that holds. Unix times, but `again` and `ends`, which are monotonic."""

    since: float
    detail: str
    again: float
    left: float | None = None
    ends: float = 0.0


class _Nothing:
    """The books of a process, of which nothing is remembered: its events depend on nothing."""

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return None

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[None, int | None, bool]:
        return None, None, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember."""


class Degraded:
    """The degraded modes of the process `process`. `told` is called at each change."""

    def __init__(
        self,
        process: str,
        log_: Log,
        connection: Connection,
        clock: Callable[[], float],
        told: Callable[[], None],
        *,
        steady: float = STEADY,
    ) -> None:
        self._process = process
        self._log = log_
        self._shell = Shell(log_, clock)
        self._connection = connection
        self._clock = clock
        self._told = told
        self._steady = steady
        self._modes: dict[str, _Mode] = {}
        self._untold: deque[GatewayFact] = deque()
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def since(self) -> dict[str, float]:
        """Every mode that holds, and since when: Unix times."""
        return {name: mode.since for name, mode in self._modes.items()}

    @property
    def log_away(self) -> bool:
        """Whether the log was away when it was last asked."""
        modes = (self._modes.get(LOG_UNREACHABLE), self._modes.get(REGISTRY_CACHED))
        return any(mode is not None and mode.left is None for mode in modes)

    def start(self) -> None:
        """Begin to tell the log."""
        self._task = asyncio.create_task(self._tell())

    def enter(self, mode: str, detail: str = "", *, since: float | None = None) -> None:
        """This mode holds, since `since` (Unix time; None: now). Told once, however often it is said."""
        held = self._modes.get(mode)
        if held is not None:
            held.again, held.left = time.monotonic(), None
            return
        began = self._clock() if since is None else since
        self._modes[mode] = _Mode(since=began, detail=detail, again=time.monotonic())
        log.warning("process.degraded", mode=mode, detail=detail)
        self._say(GatewayDegraded(mode=mode, process=self._process, since=began, detail=detail))

    def leave(self, mode: str) -> None:
        """This mode holds no longer. It is over once nobody has entered it again for a while."""
        held = self._modes.get(mode)
        if held is not None and held.left is None:
            held.left = self._clock()
            held.ends = held.again + self._steady
            self._stirred.set()

    def log_failed(self) -> None:
        """The log did not answer. While there is no connection either, that is not the log's doing."""
        if self._connection.nats.is_connected and REGISTRY_CACHED not in self._modes:
            self.enter(LOG_UNREACHABLE, "JetStream does not answer, or the log has no leader")

    def _say(self, event: GatewayFact) -> None:
        if len(self._untold) >= MOST_UNTOLD:
            log.warning("process.degraded_untold", mode=self._untold[0].mode)
            self._untold.popleft()
        self._untold.append(event)
        self._stirred.set()
        self._told()

    # -- the log -----------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            self._stirred.clear()
            while self._untold:
                await self._append(self._untold[0])
                self._untold.popleft()
                self.leave(LOG_UNREACHABLE)
            wait = self._end_modes()
            if self.log_away:  # it went again after it had taken what there was to tell
                await self._probe()
                wait = PROBE_SECONDS
            if self._untold or wait == 0:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stirred.wait()

    async def _probe(self) -> None:
        try:
            await self._log.end()
        except LogError:
            return
        self.leave(LOG_UNREACHABLE)

    def _end_modes(self, *, at_once: bool = False) -> float | None:
        """End what is over; how many seconds until there is more of that, None: nothing has been left."""
        now, soonest = time.monotonic(), None
        for name, mode in list(self._modes.items()):
            if mode.left is None:
                continue
            if at_once or mode.ends <= now:
                del self._modes[name]
                log.info("process.recovered", mode=name, seconds=round(mode.left - mode.since, 3))
                self._say(GatewayRecovered(mode=name, process=self._process, since=mode.since, until=mode.left))
            else:
                soonest = min(mode.ends - now, soonest or mode.ends - now)
        return soonest

    async def _append(self, event: GatewayFact) -> None:
        kind = "degraded" if isinstance(event, GatewayDegraded) else "recovered"
        command: Command[None] = Command(
            category="gateway",
            aggregate=self._process,
            id=f"{self._process}/{event.mode}/{event.since:.6f}/{kind}",
            decide=lambda _state, _now: event,
            actor=self._process,
            persistent=True,
        )
        await self._shell.execute(_Nothing(), command)

    async def stop(self) -> None:
        """The process ends, and its modes with it; that is told as far as the log takes it at once."""
        await end_task(self._task)
        for mode in list(self._modes):
            if mode != LOG_UNREACHABLE:
                self.leave(mode)
        self._end_modes(at_once=True)
        try:
            async with asyncio.timeout(LAST_WORDS):
                while self._untold:
                    await self._append(self._untold[0])
                    self._untold.popleft()
        except (TimeoutError, LogError) as error:
            log.warning("process.degraded_untold", events=len(self._untold), error=type(error).__name__)
