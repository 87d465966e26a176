"""What runs say and are told: definitions, inputs, outputs of steps. Outside the log, since it is text; for 30 days.

An entry is never changed. An output is written beside the event that names it: after a crash one may be there without
the other, and then the step is done again, which for a chat means that its answer is asked for again.
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


class Missing:
    """What is read where nothing lies: not null, which is a value."""


MISSING = Missing()


def or_none(value: Any) -> Any:
    """A value, null where there is none."""
    return None if value is MISSING else value


class Blobs(Protocol):
    """Where values lie, by run and name."""

    async def put(self, run: str, name: str, value: Any) -> None:
        """Keep a JSON value. Raises TooLarge, LogUnavailable."""
        ...

    def too_large(self, value: Any) -> bool:
        """Whether a value can't be kept."""
        ...

    async def get(self, run: str, name: str) -> Any:
        """A value that was kept; MISSING where it never was, or is no more. Raises LogUnavailable."""
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

    def too_large(self, value: Any) -> bool:
        return len(msgspec.json.encode(value)) > self._most

    @property
    def _most(self) -> int:
        return int(self._nats.max_payload) - 1024

    async def put(self, run: str, name: str, value: Any) -> None:
        data = msgspec.json.encode(value)
        if len(data) > self._most:
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
        return MISSING if data is None else msgspec.json.decode(data)

    async def close(self) -> None:
        """Expect nothing more."""
        await self._bucket.close()


def _key(run: str, name: str) -> str:
    return f"{name_of(run)}.{name}"


class MemoryBlobs:
    """In memory, for tests and examples; values pass through JSON, as they would on their way to a disk."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def too_large(self, value: Any) -> bool:
        return False

    async def put(self, run: str, name: str, value: Any) -> None:
        self._kept[_key(run, name)] = msgspec.json.encode(value)

    async def get(self, run: str, name: str) -> Any:
        data = self._kept.get(_key(run, name))
        return MISSING if data is None else msgspec.json.decode(data)
