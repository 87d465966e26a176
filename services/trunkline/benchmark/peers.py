"""Gateways side by side on one upstream, in turns, in one run: ours with its durable log, others without a database.

Each gateway has one core, for itself and all that it starts, the NATS server in our case; who asks and the upstream
have another one. `two_cores` says where that can be.
"""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from msgspec import Struct, field

from trunkline.benchmark import served, standings
from trunkline.benchmark.asker import Asker, BadAnswer
from trunkline.benchmark.contestants import BARE, OURS, found
from trunkline.benchmark.door import Door, Start, check
from trunkline.benchmark.foreign import DidNotStart
from trunkline.benchmark.load import CHUNKS, SLICES, load, load_for, load_steadily
from trunkline.benchmark.placing import on_core, two_cores
from trunkline.benchmark.standings import Absent, Standing
from trunkline.benchmark.table import Bench
from trunkline.proc import family_cpu_seconds, family_resident_bytes

DIRECT = "the upstream itself"
FIRST_S = 0.05
"""Seconds until the upstream's first chunk, where the time to the first token is measured."""
SLICE_S = 2.0
PACE = 50
"""Requests a second where what a gateway adds is measured."""
PACED = 250
"""Requests of a slice at that pace."""
SETTLE_S = 0.1
"""How long a gateway may go on after its last answer with what it owes to those before."""


class Measured(Struct):
    """What was measured of one gateway so far, an item a slice; seconds of each request, where they are named so."""

    rates: dict[int, list[float]] = field(default_factory=dict)
    cpu_us: dict[int, list[float]] = field(default_factory=dict)
    nats_us: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)
    chunk_us: list[float] = field(default_factory=list)
    nats_chunk_us: list[float] = field(default_factory=list)
    paced_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    resident: int | None = None
    nats_resident: int | None = None
    failed: str | None = None


class Turn(NamedTuple):
    """One slice of load on one gateway; microseconds are None where CPU times can't be read."""

    rate: float
    cpu_us: float | None
    nats_us: float | None


class Run:
    """What all that is measured in one run has in common."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.cores = two_cores()
        self.here, absent = found()
        self.absent = [Absent(name=name, skipped=f"not here: {advice}") for name, advice in absent.items()]
        self.measured: dict[str, Measured] = {name: Measured() for name in (DIRECT, *self.here)}

    @property
    def slice_s(self) -> float:
        """Seconds of a slice."""
        return max(0.3, SLICE_S * self.bench.scale)

    @asynccontextmanager
    async def doors(self, first: float) -> AsyncIterator[dict[str, Door]]:
        """All that start and answer whole, before an upstream whose first chunk comes after so many seconds."""
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(served.upstream(first=first))
            doors = {DIRECT: Door(upstream.port, upstream.pid)}
            for name, start in list(self.here.items()):
                try:
                    doors[name] = await self._enter(stack, start, upstream.origin)
                except (DidNotStart, BadAnswer) as error:
                    if name in (BARE, OURS):
                        raise
                    self.absent.append(Absent(name=name, skipped=str(error)))
                    del self.here[name]
                    self.measured.pop(name)
            yield doors

    async def _enter(self, stack: AsyncExitStack, start: Start, origin: str) -> Door:
        async with AsyncExitStack() as own:
            with on_core(self.cores and self.cores.gateways):
                door = await own.enter_async_context(start(origin))
            await check(door)
            stack.push_async_exit(own.pop_all())
            return door

    async def in_turns(
        self, doors: Mapping[str, Door], take: Callable[[str, Asker], Awaitable[None]], *, stream: bool
    ) -> None:
        """Let all take a turn for each slice, who was first being last in the next. One that fails takes no more."""
        for number in range(SLICES):
            names = [name for name in doors if self.measured[name].failed is None]
            for name in names if number % 2 else reversed(names):
                asker = doors[name].asker(stream=stream)
                try:
                    await take(name, asker)
                except* (BadAnswer, OSError, asyncio.IncompleteReadError) as errors:
                    if name in (BARE, OURS):
                        raise
                    self.measured[name].failed = repr(errors.exceptions[0])
                asker.hang_up()


async def run(bench: Bench) -> None:
    """The table of all that are here, and what is asked of ours."""
    this = Run(bench)
    _say_where(this)
    with on_core(this.cores and this.cores.others):
        async with this.doors(0.0) as doors:
            await _plain(this, doors)
            await _paced(this, doors)
            await _streams(this, doors)
            _resident(this, doors)
        async with this.doors(FIRST_S) as doors:
            await _firsts(this, doors)
    _tell(this)


def _say_where(this: Run) -> None:
    loads = os.getloadavg()
    where = (
        f"each gateway on core {this.cores.gateways}, who asks and the upstream on core {this.cores.others}"
        if this.cores
        else "no process is kept to a core: this system does not let us, or has one only"
    )
    this.bench.say(f"{where}; load of the machine before: {loads[0]:.1f} on {os.cpu_count()} cores")
    this.bench.say(f"measuring in turns, {SLICES} slices each: {', '.join(this.measured)}")


async def _plain(this: Run, doors: Mapping[str, Door]) -> None:
    for at_once in (32, 128):

        async def take(name: str, asker: Asker, at_once: int = at_once) -> None:
            turn, of = await _turn(this, doors[name], asker, at_once), this.measured[name]
            of.rates.setdefault(at_once, []).append(turn.rate)
            _append(of.cpu_us.setdefault(at_once, []), turn.cpu_us)
            if at_once == 32:
                _append(of.nats_us, turn.nats_us)

        await this.in_turns(doors, take, stream=False)


async def _streams(this: Run, doors: Mapping[str, Door]) -> None:
    async def take(name: str, asker: Asker) -> None:
        turn, of = await _turn(this, doors[name], asker, 32), this.measured[name]
        of.streams.append(turn.rate)
        _append(of.chunk_us, turn.cpu_us and turn.cpu_us / CHUNKS)
        _append(of.nats_chunk_us, turn.nats_us and turn.nats_us / CHUNKS)

    await this.in_turns(doors, take, stream=True)


async def _paced(this: Run, doors: Mapping[str, Door]) -> None:
    count = max(50, int(PACED * this.bench.scale))

    async def take(name: str, asker: Asker) -> None:
        await load_for(asker.ask, 0.2, 2)
        this.measured[name].paced_s += await load_steadily(asker.ask, PACE, count)

    await this.in_turns(doors, take, stream=False)


async def _firsts(this: Run, doors: Mapping[str, Door]) -> None:
    count = max(5, int(20 * this.bench.scale))

    async def take(name: str, asker: Asker) -> None:
        await load(asker.ask, 2, 1)
        asker.first.clear()
        await load(asker.ask, count, 1)
        this.measured[name].first_s += asker.first

    await this.in_turns(doors, take, stream=True)


def _resident(this: Run, doors: Mapping[str, Door]) -> None:
    for name, door in doors.items():
        of = this.measured[name]
        of.resident = family_resident_bytes(door.pid)
        of.nats_resident = door.nats_pid and family_resident_bytes(door.nats_pid)


async def _turn(this: Run, door: Door, asker: Asker, at_once: int) -> Turn:
    await load_for(asker.ask, this.slice_s / 4, at_once)
    await asyncio.sleep(SETTLE_S)
    pids = [door.pid] if door.nats_pid is None else [door.pid, door.nats_pid]
    before = [family_cpu_seconds(pid) for pid in pids]
    count, took = await load_for(asker.ask, this.slice_s, at_once)
    await asyncio.sleep(SETTLE_S)
    after = [family_cpu_seconds(pid) for pid in pids]
    each = [None if a is None or b is None else (a - b) / count * 1e6 for a, b in zip(after, before, strict=True)]
    return Turn(count / took, each[0], each[1] if len(each) > 1 else None)


def _append(to: list[float], figure: float | None) -> None:
    if figure is not None:
        to.append(figure)


def _median(figures: list[float]) -> float | None:
    return statistics.median(figures) if figures else None


def _tell(this: Run) -> None:
    for absent in this.absent:
        this.bench.tell(absent, f"skipped {absent.name}: {absent.skipped}")
    this.bench.say("\n" + standings.heading())
    told = {name: _standing(this, name) for name in this.measured}
    for standing in told.values():
        this.bench.tell(standing, standings.line(standing))
    ours = told[OURS]
    if ours.nats_us is not None and ours.nats_chunk_us is not None and ours.nats_mb is not None:
        this.bench.say(
            f"{OURS}'s NATS server, on the same core and in no figure above: {ours.nats_us:.0f} µs a request, "
            f"{ours.nats_chunk_us:.1f} µs a chunk, {ours.nats_mb:.0f} MB"
        )
    this.bench.say("")
    for goal in standings.goals(told):
        this.bench.tell(goal, standings.goal_line(goal))


def _standing(this: Run, name: str) -> Standing:
    of, direct, bare = this.measured[name], this.measured[DIRECT], this.measured[BARE]
    gateway = name != DIRECT
    p50, p99 = _added(of.paced_s, direct.paced_s) if gateway and of.paced_s else (None, None)
    cpu = of.cpu_us if gateway else {}
    ratios = {
        at_once: [ours / base for ours, base in zip(figures, bare.cpu_us[at_once], strict=False)]
        for at_once, figures in cpu.items()
    }
    first = _median(of.first_s)
    return Standing(
        name=name,
        rate_32=_median(of.rates.get(32, [])),
        rate_128=_median(of.rates.get(128, [])),
        added_p50_ms=p50,
        added_p99_ms=p99,
        cpu_us_32=_median(cpu.get(32, [])),
        cpu_us_128=_median(cpu.get(128, [])),
        ratio_32=_median(ratios.get(32, [])),
        ratio_128=_median(ratios.get(128, [])),
        chunk_us=_median(of.chunk_us) if gateway else None,
        streams=_median(of.streams),
        first_ms=first and first * 1000,
        resident_mb=of.resident / 1e6 if of.resident and gateway else None,
        nats_us=_median(of.nats_us),
        nats_chunk_us=_median(of.nats_chunk_us),
        nats_mb=of.nats_resident / 1e6 if of.nats_resident else None,
        failed=of.failed,
    )


def _added(seconds: list[float], direct: list[float]) -> tuple[float, float]:
    ours, base = statistics.quantiles(seconds, n=100), statistics.quantiles(direct, n=100)
    return (ours[49] - base[49]) * 1000, (ours[98] - base[98]) * 1000
