"""Snapshots of folds in a KV bucket. One that is lost or too large is only missed: the log has it all."""

import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.connection import Connection
from trunkline_events.subjects import SNAPSHOTS_BUCKET

log = structlog.get_logger()

_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)


class KvSnapshots:
    """`Snapshots` on JetStream."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._bucket: KeyValue | None = None

    async def open(self, replicas: int = 1) -> None:
        """Make sure the bucket exists; without one, every start reads the log from its beginning."""
        config = api.KeyValueConfig(bucket=SNAPSHOTS_BUCKET, history=1, replicas=replicas)
        try:
            self._bucket = await self._nats.jetstream(timeout=5).create_key_value(config)
        except _TROUBLE as error:
            log.warning("snapshots.unavailable", error=type(error).__name__)

    async def load(self, name: str) -> bytes | None:
        if self._bucket is None:
            return None
        try:
            value: bytes | None = (await self._bucket.get(name)).value
            return value
        except nats.js.errors.KeyNotFoundError:
            return None
        except _TROUBLE as error:
            log.warning("snapshots.not_loaded", fold=name, error=type(error).__name__)
            return None

    async def save(self, name: str, data: bytes) -> None:
        if self._bucket is None:
            return
        try:
            await self._bucket.put(name, data)
        except _TROUBLE as error:
            log.warning("snapshots.not_saved", fold=name, size=len(data), error=type(error).__name__)
