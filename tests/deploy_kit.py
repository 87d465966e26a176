"""The NATS server that deploy/nats/ makes, with a user for every role. What a test needs of it, and what it refused."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from trunkline.embedded.config import find_binary, pick_port
from trunkline.nkeys import USERS, environment
from trunkline_events.connection import Connection, Unreachable

DEPLOY = Path(__file__).parents[1] / "deploy"
NATS = DEPLOY / "nats"
KEYS = environment()
"""A public key and a seed for every user, drawn anew for each run."""
PUBLIC = {name: value for name, value in KEYS.items() if name.endswith("_NKEY")}
_VIOLATION = re.compile(
    r'"v[^"]*:(?P<who>[^:"]*)" .* (?P<what>Publish|Subscription) Violation - Subject "(?P<subject>[^"]*)"'
)


def url_of(address: str, user: str) -> str:
    """Where a user connects, with its seed."""
    return f"nats://{user}:{KEYS[f'TRUNKLINE_{user.upper()}_SEED']}@{address}"


class Violation(NamedTuple):
    """What the server refused: to which connection, by its name, what it wanted, and on which subject."""

    who: str
    what: str
    subject: str


class Deployed:
    """A running server. `address` is its host and port."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{pick_port('127.0.0.1')}"
        self.log = folder / "nats.log"
        self._environ = {
            "TRUNKLINE_LISTEN": self.address,
            "TRUNKLINE_MONITOR": f"127.0.0.1:{pick_port('127.0.0.1')}",
            "TRUNKLINE_STORE": str(folder / "nats-data"),
            **PUBLIC,
        }

    def url(self, user: str) -> str:
        return url_of(self.address, user)

    def refused(self) -> list[Violation]:
        """What the server has refused to whom so far."""
        found = (_VIOLATION.search(line) for line in self.log.read_text().splitlines() if "Violation" in line)
        return [Violation(one["who"], one["what"], one["subject"]) for one in found if one is not None]

    @contextmanager
    def running(self) -> Iterator[None]:
        with self.log.open("wb") as output:
            server = subprocess.Popen(
                [find_binary(), "-c", str(NATS / "nats.conf")], env=os.environ | self._environ, stderr=output
            )
        try:
            yield
        finally:
            server.terminate()
            server.wait()


class Intruder:
    """A user who tries what it should not, and hears from the server what it refuses."""

    def __init__(self, connection: Connection) -> None:
        self.nats = connection.nats
        self._refused: list[str] = []
        setattr(connection.nats, "_process_err", self._heard)  # noqa: B010 - as it is read, and not in a task some time after

    async def _heard(self, error: str) -> None:
        self._refused.append(error.lower())

    async def _answered(self) -> None:
        # nats-py may send its ping before what was written last: only the second one surely comes after that.
        await self.nats.flush()
        await self.nats.flush()

    def _was_refused(self, what: str, subject: str) -> bool:
        return any(what in one and f'"{subject.lower()}"' in one for one in self._refused)

    async def may_publish(self, subject: str, body: bytes = b"", reply: str = "") -> bool:
        """Whether the server took a message from it."""
        await self.nats.publish(subject, body, reply=reply)
        await self._answered()
        return not self._was_refused("publish", subject)

    async def may_subscribe(self, subject: str) -> bool:
        """Whether the server let it listen."""
        await self.nats.subscribe(subject)
        await self._answered()
        return not self._was_refused("subscription", subject)


@asynccontextmanager
async def intruding(server: Deployed, user: str) -> AsyncIterator[Intruder]:
    """Somebody with the seed of this user."""
    connection = await Connection.open(server.url(user), name="intruder")
    try:
        yield Intruder(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[Deployed]:
    """A server as deploy/nats/nats.conf makes it, which answers."""
    made = Deployed(folder)
    with made.running():
        async with asyncio.timeout(10):
            while True:
                with suppress(Unreachable):
                    await (await Connection.open(made.url("operator"), name="probe", timeout=0.5)).close()
                    break
        yield made


__all__ = ["DEPLOY", "KEYS", "NATS", "PUBLIC", "USERS", "Deployed", "Intruder", "deployed", "intruding", "url_of"]
