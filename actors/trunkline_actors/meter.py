"""What the calls of this process's providers took and cost, told to all routers and kept by the minute."""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Any

import nats.errors
import structlog
from trunkline_events.failure import FailureClass
from trunkline_events.subjects import STATISTICS, STATISTICS_WANTED
from trunkline_events.tasks import end_task
from trunkline_events.thread import AttemptFailed, Ending, Metered

from trunkline_actors.bus import Bus
from trunkline_actors.minutes import Minutes
from trunkline_actors.standings import Told, parts
from trunkline_actors.tallies import SLOT_SECONDS, Line, Tally, Window

log = structlog.get_logger()

PAUSE = 0.5
"""Seconds between two messages of what changed."""
REFRESH = 4.5
"""Seconds after which everything is told again: twice before it is forgotten."""
PART_BYTES = 64 * 1024
MOST_LINES = 5_000
"""Versions of models, each at a provider, that are measured at once. One goes five minutes after its last call."""


class _Lane:
    """One line as it stands. `fresh` are calls that ended since somebody looked."""

    __slots__ = ("fresh", "in_flight", "line", "window")

    def __init__(self, line: Line) -> None:
        self.line = line
        self.in_flight = 0
        self.fresh = Tally()
        self.window = Window()

    def told(self) -> Told:
        provider, model, version = self.line
        return Told(provider=provider, model=model, version=version, in_flight=self.in_flight, tally=self.window.total)

    @property
    def empty(self) -> bool:
        return not self.in_flight and not self.window.total.calls


class MeteredCall:
    """One call under way, while this is entered."""

    __slots__ = ("_began", "_lane", "_meter", "_operation", "_stream")

    def __init__(self, meter: "Meter", lane: _Lane, operation: str, stream: bool) -> None:
        self._meter = meter
        self._lane = lane
        self._operation = operation
        self._stream = stream

    def __enter__(self) -> "MeteredCall":
        self._began = time.monotonic()
        self._lane.in_flight += 1
        self._meter._touch(self._lane)  # noqa: SLF001 - the two are one
        return self

    def __exit__(self, *_error: object) -> None:
        self._lane.in_flight -= 1
        self._meter._touch(self._lane)  # noqa: SLF001 - see above

    def ended(self, failure: FailureClass | None, ending: Ending | None) -> None:
        """How it ended: well where `failure` is None; `ending` is what was recorded, where we recorded it."""
        self._lane.fresh.ended(failure, ending)
        took = (
            ending.latency_ms / 1000 if isinstance(ending, Metered | AttemptFailed) else time.monotonic() - self._began
        )
        self._meter.totals.call(self._lane.line, self._operation, failure, ending, took, stream=self._stream)


class Meter:
    """Measures the calls of one process. On a call's path it only counts; all else is done twice a second at most."""

    def __init__(self, bus: Bus, process: str, minutes: Minutes) -> None:
        self._bus = bus
        self._process = process
        self._minutes = minutes
        self.totals = bus.totals
        self._lanes: dict[Line, _Lane] = {}
        self._touched: set[_Lane] = set()
        self._changed = asyncio.Event()
        self._wanted = True
        self._refreshed = float("-inf")
        self._subscription: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Tell of calls from here on."""
        self._subscription = await self._bus.nats.subscribe_raw(STATISTICS_WANTED, self._asked)
        self._task = asyncio.create_task(self._telling())

    async def stop(self) -> None:
        """Tell what is left to tell, and keep the minute that runs."""
        await end_task(self._task)
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()
        await self._tell()

    def call(
        self, provider: str, model: str, version: str, operation: str = "chat", *, stream: bool = False
    ) -> MeteredCall:
        """Measure one call: it is in flight while this lasts, and counts once it was told how it ended."""
        line = Line(provider, model, version)
        lane = self._lanes.get(line)
        if lane is None:
            lane = _Lane(line)
            if len(self._lanes) < MOST_LINES:
                self._lanes[line] = lane
        return MeteredCall(self, lane, operation, stream)

    def in_flight(self) -> list[tuple[Line, int]]:
        """The calls that run, by line."""
        return [(lane.line, lane.in_flight) for lane in self._lanes.values() if lane.in_flight]

    def _touch(self, lane: _Lane) -> None:
        self._touched.add(lane)
        self._changed.set()

    def _asked(self, *_message: object) -> None:
        self._wanted = True
        self._changed.set()

    # -- beside the calls ------------------------------------------------------------------------------------------

    async def _telling(self) -> None:
        while True:
            now = time.monotonic()
            next_slot = SLOT_SECONDS - now % SLOT_SECONDS
            try:
                async with asyncio.timeout(min(REFRESH - (now - self._refreshed), next_slot)):
                    await self._changed.wait()
            except TimeoutError:
                pass
            try:
                await self._tell()
            except Exception as error:  # whatever it was: the next calls are told all the same
                log.exception("meter.not_told", error=type(error).__name__)
            await asyncio.sleep(PAUSE)

    async def _tell(self) -> None:
        """Count what ended, and tell what changed: everything where that is due or somebody asked for it."""
        self._changed.clear()
        changed, self._touched = self._touched, set()
        now = time.monotonic()
        for lane in changed:
            self._count(lane, now)
        changed.update([lane for lane in self._lanes.values() if lane.window.slide(now)])
        if self._wanted or now - self._refreshed >= REFRESH:
            self._wanted, self._refreshed = False, now
            changed.update(self._lanes.values())
        for lane in changed:
            if lane.empty:
                self._lanes.pop(lane.line, None)
        await self._publish([lane.told() for lane in changed if lane.line in self._lanes or lane.empty])

    def _count(self, lane: _Lane, now: float) -> None:
        if lane.fresh.calls:
            fresh, lane.fresh = lane.fresh, Tally()
            lane.window.add(fresh, now)
            self._minutes.add(lane.line, fresh)

    async def _publish(self, told: Iterable[Told]) -> None:
        most = min(PART_BYTES, self._bus.nats.max_payload // 4)
        for part in parts(self._process, told, most):
            await self._bus.publish(STATISTICS, part)
