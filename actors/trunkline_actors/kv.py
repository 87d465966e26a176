"""A key-value bucket that is made when it is first needed, written without nats-py's tasks for each message.

Wire format: NATS ADR-8; a time to live for one entry is ADR-43.
"""

import math

import nats.errors
import nats.js.errors
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.acks import Acks
from trunkline_events.codes import OTHER_CONFIGURATION
from trunkline_events.connection import Connection

TIME_TO_LIVE = "Nats-TTL"

TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)
"""What reading and writing raise where the bucket is away."""


class NotStored(nats.errors.Error):  # type: ignore[misc]  # nats-py is not typed
    """The server did not say that it has the entry. Write it again."""


class Bucket:
    """One bucket. `wait` is how many seconds the server has to answer."""

    def __init__(self, connection: Connection, config: api.StreamConfig, wait: float) -> None:
        self._connection = connection
        self._config = config
        self._name = str(config.name).removeprefix("KV_")
        self._wait = wait
        self._acks = Acks(connection)
        self._listening = False
        self._bucket: KeyValue | None = None
        """None where it is to be made, also once more: it may have been deleted."""

    async def get(self, key: str) -> bytes | None:
        """What is under this key; None where there is nothing. Raises TROUBLE."""
        bucket = await self._open()
        try:
            return (await bucket.get(key)).value or b""
        except nats.js.errors.KeyNotFoundError:
            return None
        except TROUBLE:
            self._bucket = None
            raise

    async def put(self, key: str, data: bytes, seconds: float | None = None) -> None:
        """Store this, for so many seconds where they are given. Raises TROUBLE."""
        await self._open()
        fields = {} if seconds is None else {TIME_TO_LIVE: f"{max(1, math.ceil(seconds))}s"}
        ack = await self._acks.publish(f"$KV.{self._name}.{key}", data, fields, self._wait)
        if ack is None or ack.error is not None:
            self._bucket = None
            raise NotStored(ack.error.description if ack is not None and ack.error else "the server did not answer")

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            js = self._connection.nats.jetstream(timeout=self._wait)
            try:
                await js.add_stream(self._config)
            except nats.js.errors.BadRequestError as error:
                if error.err_code != OTHER_CONFIGURATION:
                    raise
            bucket = await js.key_value(self._name)
            if not self._listening:
                self._listening = True
                await self._acks.open()
            self._bucket = bucket
        return self._bucket

    async def close(self) -> None:
        """Expect no more acknowledgements."""
        await self._acks.close()


def config_of(name: str, *, max_age: float, max_bytes: int, replicas: int, drops_oldest: bool) -> api.StreamConfig:
    """The stream of a bucket in which each entry may have its own time."""
    return api.StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        max_msgs_per_subject=1,
        max_age=max_age,
        max_bytes=max_bytes,
        max_msg_size=-1,
        discard=api.DiscardPolicy.OLD if drops_oldest else api.DiscardPolicy.NEW,
        storage=api.StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
        deny_delete=True,
    )
