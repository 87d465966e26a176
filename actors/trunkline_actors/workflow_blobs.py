"""What runs say and are told: definitions, inputs, outputs of steps. Outside the log, since it is text; for 30 days.

An entry is written before the event that names it, and never changed: one who finds the name finds the entry.
"""

import hashlib
from typing import Any, Protocol

import msgspec
from trunkline_events.connection import Connection
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import WORKFLOWS_BUCKET

from trunkline_actors.kv import TROUBLE, Bucket, config_of

KEPT_S = 30 * 86_400.0
MOST_BYTES = 4 * 1024 * 1024 * 1024
WAIT = 5.0


class TooLarge(Exception):
    """A value is larger than the bus carries. Keep it elsewhere, and pass on where."""


class Blobs(Protocol):
    """Where values lie, by run and name."""

    async def put(self, run: str, name: str, value: Any) -> None:
        """Keep a JSON value. Raises TooLarge, LogUnavailable."""
        ...

    async def get(self, run: str, name: str) -> Any:
        """A value that was kept; None where it is there no more. Raises LogUnavailable."""
        ...


def name_of(*parts: object) -> str:
    """A name for a value, fit for events and keys: 16 hex digits."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).hexdigest()


class BucketBlobs:
    """In a KV bucket."""

    def __init__(self, connection: Connection, replicas: int) -> None:
        config = config_of(
            WORKFLOWS_BUCKET, max_age=KEPT_S, max_bytes=MOST_BYTES, replicas=replicas, drops_oldest=False
        )
        self._bucket = Bucket(connection, config, WAIT)
        self._nats = connection.nats

    async def put(self, run: str, name: str, value: Any) -> None:
        data = msgspec.json.encode(value)
        if len(data) > self._nats.max_payload - 1024:
            raise TooLarge(f"{len(data):,} bytes are more than the bus carries ({self._nats.max_payload:,})")
        try:
            await self._bucket.put(_key(run, name), data)
        except TROUBLE as error:
            raise LogUnavailable(f"what a run says could not be kept ({type(error).__name__})") from error

    async def get(self, run: str, name: str) -> Any:
        try:
            data = await self._bucket.get(_key(run, name))
        except TROUBLE as error:
            raise LogUnavailable(f"what a run said could not be read ({type(error).__name__})") from error
        return None if data is None else msgspec.json.decode(data)

    async def close(self) -> None:
        """Expect nothing more."""
        await self._bucket.close()


def _key(run: str, name: str) -> str:
    return f"{name_of(run)}.{name}"


class MemoryBlobs:
    """In memory, for tests and examples; values pass through JSON, as they would on their way to a disk."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def put(self, run: str, name: str, value: Any) -> None:
        self._kept[_key(run, name)] = msgspec.json.encode(value)

    async def get(self, run: str, name: str) -> Any:
        data = self._kept.get(_key(run, name))
        return None if data is None else msgspec.json.decode(data)
