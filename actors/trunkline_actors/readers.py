"""Who reads the registry, and how far: a change is answered when every process that decides by it has read it.

A process says so in its pulse, and beats at once when it has read something. One that starts later catches up with
the log before it serves, and one that has not been heard of for three pulses is taken for dead.
"""

import asyncio
from typing import Any

from nats.aio.client import Msg
from trunkline_events.subjects import PULSE

from trunkline_actors.dispatch import read_pulse
from trunkline_actors.micro import ServiceActor
from trunkline_actors.runtime import PULSE_SECONDS, Runtime

FORGOTTEN = 3 * PULSE_SECONDS
LONGEST_WAIT = 2.0


class Readers:
    """Positions of all processes, from their pulses."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._positions: dict[str, tuple[int, float]] = {}
        self._moved = asyncio.Event()
        self._subscription: Any = None

    async def start(self) -> None:
        """Listen to pulses."""
        self._subscription = await self._runtime.bus.nats.subscribe(PULSE, cb=self._heard)

    async def stop(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _heard(self, message: Msg) -> None:
        pulse = read_pulse(message.data)
        if pulse is None:
            return
        self._positions[pulse.process] = (pulse.position, asyncio.get_running_loop().time())
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def reached(self, sequence: int) -> None:
        """Return when every living process has read up to `sequence`; at the latest after two seconds."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                while self._behind(sequence, loop.time()):
                    await self._moved.wait()
        except TimeoutError:
            return

    def _behind(self, sequence: int, now: float) -> bool:
        self._positions = {name: one for name, one in self._positions.items() if now - one[1] < FORGOTTEN}
        return any(position < sequence for position, _ in self._positions.values())


class ChangeActor(ServiceActor):
    """An actor that changes what all processes decide by, and answers when all of them have read the change."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        super().__init__(runtime.bus, name, runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._readers = Readers(runtime)

    async def starting(self) -> None:
        await self._readers.start()
        await super().starting()

    async def stopped(self) -> None:
        await super().stopped()
        await self._readers.stop()

    async def fallen(self) -> None:
        await super().fallen()
        await self._readers.stop()

    async def read_by_all(self, sequence: int) -> None:
        """Return when this process and every other living one has read the event at this sequence."""
        await self._runtime.gateway.reached(sequence)
        await self._readers.reached(sequence)
