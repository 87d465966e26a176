"""What the processes of a gateway have to do without, as they tell it in their pulses."""

import asyncio
import time
from collections.abc import Iterable, Sequence

from nats.aio.client import Msg
from trunkline_actors.degraded import LOG_UNREACHABLE, NO_STATISTICS, REGISTRY_CACHED, ROUTING_OVERRIDE
from trunkline_actors.dispatch import Pulse, read_pulse
from trunkline_events.connection import Connection
from trunkline_events.subjects import PULSE
from trunkline_events.times import format_time

from trunkline.health.check import Check
from trunkline.health.plugins import plugin_checks

LISTEN_SECONDS = 1.3
"""A pulse comes each second, and a little late from a busy process."""

NEXT = {
    ROUTING_OVERRIDE: "start it without TRUNKLINE_ROUTING_OVERRIDE (`routing_override` in the settings) to route again",
    NO_STATISTICS: "it ends by itself with calls; until then models take turns. See `trunkline models metrics`",
    LOG_UNREACHABLE: "start the NATS servers that are down, or see their logs; it ends by itself when the log answers",
    REGISTRY_CACHED: "enable JetStream on the server, or start those that are down; it then serves without a restart",
}
"""What to do about each mode."""


async def mode_checks(connection: Connection) -> list[Check]:
    """Listen for a pulse of every process, and tell what they have to do without."""
    pulses: list[Pulse] = []

    async def heard(message: Msg) -> None:
        pulse = read_pulse(message.data)
        if pulse is not None:
            pulses.append(pulse)

    subscription = await connection.nats.subscribe(PULSE, cb=heard)
    await asyncio.sleep(LISTEN_SECONDS)  # nobody knows how many will tell
    await subscription.unsubscribe()
    return checks_of(pulses, time.time())


def checks_of(pulses: Sequence[Pulse], now: float) -> list[Check]:
    """One check for each mode a process is in, each plugin and each analyzer that fails; else one that all is well."""
    processes: set[str] = set()
    modes: dict[str, dict[str, float]] = {}
    failing: dict[str, dict[str, int]] = {}
    for pulse in pulses:
        processes.add(pulse.process)
        for mode, since in pulse.degraded.items():
            modes.setdefault(mode, {})[pulse.process] = since
        for analyzer, times in pulse.failing.items():
            failing.setdefault(analyzer, {})[pulse.process] = times
    found = [
        Check(mode, "problem", _since(where, now), NEXT.get(mode, "see the log of that process"))
        for mode, where in sorted(modes.items())
    ]
    found += plugin_checks(pulses)
    found += [
        Check(
            "analyzer",
            "problem",
            f"{name} failed for {sum(where.values()):,} requests in {_names(where)}, which went without hints",
            f"see `analyzer.failed` in the log of that process, or publish a policy without {name}",
        )
        for name, where in sorted(failing.items())
    ]
    return found or [Check("modes", "ok", f"{len(processes)} processes, none of them does without anything")]


def _since(where: dict[str, float], now: float) -> str:
    began = min(where.values())
    return f"{_names(where)}, since {format_time(began)} ({max(0, round(now - began)):,} s)"


def _names(where: Iterable[str]) -> str:
    names = sorted(where)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
