"""A nats-server without any of our configuration, whose JetStream can be left off."""

import asyncio
import subprocess
from pathlib import Path

from trunkline.embedded.config import find_binary, pick_port
from trunkline_events.connection import Connection, Unreachable


class Nats:
    """A nats-server on one port and folder, with JetStream or without."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = pick_port("127.0.0.1")
        self.url = f"nats://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *, jetstream: bool, store: str = "store") -> None:
        """Start it anew, and return when it answers."""
        self.stop()
        flags = ["-js", "-sd", str(self._folder / store)] if jetstream else []
        with (self._folder / "nats.log").open("ab") as out:
            command = [str(find_binary()), "-a", "127.0.0.1", "-p", str(self.port), *flags]
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        async with asyncio.timeout(20):
            while True:
                try:
                    connection = await Connection.open(self.url, name="probe", timeout=1)
                except Unreachable:
                    await asyncio.sleep(0.05)
                    continue
                await connection.close()
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
