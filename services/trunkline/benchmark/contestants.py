"""Who is measured side by side: bare aiohttp and ours always, the gateways of others where they are found.

They are found on PATH, or by TRUNKLINE_BENCH_<NAME>: a command, with arguments if need be.
"""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from trunkline import settings
from trunkline.benchmark import served
from trunkline.benchmark.door import Door, Start
from trunkline.benchmark.others import OTHERS, Other

BARE: Final = "bare aiohttp proxy"
OURS: Final = "Trunkline"


def found() -> tuple[dict[str, Start], dict[str, str]]:
    """The gateways that are here, the yardstick and ours first; and how to get those that aren't."""
    here: dict[str, Start] = {BARE: _bare, OURS: _ours}
    absent: dict[str, str] = {}
    for name, other in OTHERS.items():
        command = settings.peer_command(name) or other.on_path()
        if command:
            here[name] = _started_by(command, other)
        else:
            absent[name] = f"{other.advice}; TRUNKLINE_BENCH_{name.upper()}=COMMAND (docs/benchmarks.md)"
    return here, absent


def _started_by(command: Sequence[str], other: Other) -> Start:
    first = shutil.which(command[0]) or command[0]
    absolute = [str(Path(first).absolute()), *command[1:]]  # it is started in a folder of its own
    return lambda origin: other.start(absolute, origin)


@asynccontextmanager
async def _bare(origin: str) -> AsyncIterator[Door]:
    async with served.bare(origin) as listening:
        yield Door(listening.port, listening.pid)


@asynccontextmanager
async def _ours(origin: str) -> AsyncIterator[Door]:
    async with served.ours(origin) as ours:
        yield Door(ours.port, ours.pid, {"authorization": f"Bearer {ours.key}"}, nats_pid=ours.nats_pid)
