"""`trunkline bench`: what things cost, as ratios against bare nats-py measured in the same run.

Machines differ and are noisy; a ratio of CPU times taken together on one machine holds.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence

from trunkline import lifecycle, telemetry
from trunkline.benchmark import (
    adapters,
    breakers,
    chats,
    failover,
    http,
    log,
    money,
    peers,
    readmodels,
    recording,
    routing,
    workflows,
)
from trunkline.benchmark.table import Bench

EVENTS = 1_000_000
"""How long a log is joined, and rebuilt from."""

PARTS: dict[str, Callable[[Bench, int], Awaitable[None]]] = {
    "adapters": lambda bench, _events: adapters.run(bench),
    "breakers": lambda bench, _events: breakers.run(bench),
    "chats": lambda bench, _events: chats.run(bench),
    "failover": lambda bench, _events: failover.run(bench),
    "http": lambda bench, _events: http.run(bench),
    "money": money.run,
    "log": log.run,
    "peers": lambda bench, _events: peers.run(bench),
    "readmodels": readmodels.run,
    "routing": lambda bench, _events: routing.run(bench),
    "telemetry": lambda bench, _events: recording.run(bench),
    "workflows": lambda bench, _events: workflows.run(bench),
}

APART = frozenset({"peers"})
"""Parts that run only when they are named."""


def main(parts: Sequence[str], *, events: int | None = None, as_json: bool = False, quick: bool = False) -> int:
    """Run these parts, or all but those apart; `quick` does a tenth of the work; `events` is exact."""
    telemetry.configure("error")
    bench = Bench(as_json=as_json, scale=0.1 if quick else 1.0)

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        # So that servers are stopped and folders removed, as after Ctrl-C.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            for part in parts or [name for name in PARTS if name not in APART]:
                await PARTS[part](bench, int(EVENTS * bench.scale) if events is None else events)
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
        return 0

    return lifecycle.run(run)
