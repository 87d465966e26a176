"""What the processes of the gateway say of themselves once a second, as the edge has heard it."""

import asyncio
from typing import Any

from trunkline_actors.dispatch import Pulse, read_pulse
from trunkline_actors.runtime import PULSE_SECONDS, Runtime
from trunkline_events.quick import Reply
from trunkline_events.subjects import PULSE

FORGOTTEN = 3.5 * PULSE_SECONDS
"""Seconds after which a process that is not heard of is taken for gone."""


class Pulses:
    """The last pulse of every process."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[Pulse, float]] = {}
        self._subscription: Any = None
        self._own = ""
        self._shared = float("inf")
        """When another process that routes may last have been there, by the loop's clock."""

    async def start(self, runtime: Runtime) -> None:
        """Listen on this connection, and on no other any more."""
        await self.stop()
        self._own, self._shared = runtime.name, asyncio.get_running_loop().time()  # as long as we know nothing
        self._subscription = await runtime.bus.nats.subscribe_directly(PULSE, self._arrived)
        await runtime.beat()  # of ourselves we needn't wait to hear

    def _arrived(self, _subject: str, reply: Reply) -> None:
        pulse = read_pulse(reply.data)
        if pulse is not None:
            now = asyncio.get_running_loop().time()
            self._heard[pulse.process] = (pulse, now)
            if pulse.process != self._own and "router" in pulse.roles:
                self._shared = now

    def living(self) -> list[Pulse]:
        """Those of processes that were heard of lately, by name."""
        since = asyncio.get_running_loop().time() - FORGOTTEN
        self._heard = {name: one for name, one in self._heard.items() if one[1] > since}
        return [self._heard[name][0] for name in sorted(self._heard)]

    def routes_alone(self) -> bool:
        """Whether no other process routes requests."""
        return asyncio.get_running_loop().time() - self._shared > FORGOTTEN

    async def stop(self) -> None:
        """Listen no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and not subscription._conn.is_closed:  # noqa: SLF001 - it may go before us
            await subscription.unsubscribe()
