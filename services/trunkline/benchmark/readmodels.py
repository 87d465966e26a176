"""What the read models cost: rebuilding all of them from a long log. Events a second, and memory over time.

The rebuild is `trunkline projections rebuild` itself, in a process of its own, as an operator runs it.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trunkline_events.connection import Connection

from trunkline.benchmark.history import fill, history
from trunkline.benchmark.load import embedded
from trunkline.benchmark.table import Bench, Row

SAMPLE_SECONDS = 0.25


async def rebuilt(url: str, folder: Path) -> tuple[dict[str, Any], list[float]]:
    """Run the rebuild in a process of its own: what it printed, and its memory in MB, every quarter of a second."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline", "projections", "rebuild", "--force", "--json"),
        *("--nats", url, "--data", str(folder)),
        stdout=asyncio.subprocess.PIPE,
    )
    printed = asyncio.create_task(process.communicate())
    memory: list[float] = []
    while not printed.done():
        memory.append(_megabytes(process.pid))
        await asyncio.wait([printed], timeout=SAMPLE_SECONDS)
    out, _ = await printed
    return json.loads(out), memory


def _megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


async def run(bench: Bench, events: int) -> None:
    """Fill a log of its own with so many events, and rebuild all read models from it."""
    async with embedded("process") as url:
        connection = await Connection.open(url, name="bench")
        began = time.monotonic()
        end = await fill(connection, history(events))
        bench.add(Row(name=f"filling a log with {end:,} events", rate=end / (time.monotonic() - began)))
        await connection.close()
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as folder:
            found, memory = await rebuilt(url, Path(folder))
    position, rate = found["position"], found["events_per_second"]
    assert position == end, found
    parts = [memory[len(memory) * share // 100] for share in (10, 50, 90)] if memory else [0.0] * 3
    note = f"memory {max(memory, default=0):.0f} MB at most; {', '.join(f'{part:.0f}' for part in parts)} MB on the way"
    bench.add(Row(name=f"all read models from {position:,} events", rate=rate, note=note))
