"""Where answers lie that may be given again: a KV bucket in which the oldest makes room, and each has its own time.

They lie there and not in the log, since answers hold text; losing the bucket loses no money. Wire format: NATS ADR-8,
with a time to live for each entry (ADR-43).
"""

import math
from collections.abc import Callable

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.acks import Acks
from trunkline_events.codes import OTHER_CONFIGURATION
from trunkline_events.connection import Connection
from trunkline_events.subjects import CACHE_BUCKET

from trunkline_actors.answer_cache import Kept
from trunkline_actors.claims import MAX_ANSWER
from trunkline_actors.requests import LONGEST_CACHED

log = structlog.get_logger()

MOST_BYTES = 256 * 1024 * 1024
"""What all answers together may take; beyond, the oldest go."""
WAIT = 1.0
"""Seconds that the cache has to answer: after that a request is served as if there was none."""
AWAY = 10.0
"""Seconds for which nobody asks a cache again that did not answer."""
TIME_TO_LIVE = "Nats-TTL"

_decoder = msgspec.msgpack.Decoder(Kept)
_encode = msgspec.msgpack.Encoder().encode


class AnswerStore:
    """The bucket of answers, made when it is first needed. Whatever is wrong with it, nobody waits for it long."""

    def __init__(self, connection: Connection, replicas: int, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._acks = Acks(connection)
        self._replicas = replicas
        self._clock = clock
        self._bucket: KeyValue | None = None
        self._away_until = 0.0

    async def find(self, name: str) -> Kept | None:
        """The answer under this name; None where there is none, or the cache is away."""
        try:
            bucket = await self._open()
            entry = await bucket.get(name) if bucket is not None else None
            return None if entry is None else _decoder.decode(entry.value or b"")
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, msgspec.DecodeError) as error:
            self._fell(error)
            return None

    async def keep(self, name: str, kept: Kept, seconds: float) -> None:
        """Keep an answer for so long. Never raises: without it, the next one who asks is served as this one was."""
        if sum(map(len, kept.messages)) > MAX_ANSWER:
            return
        try:
            if await self._open() is None:
                return
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            self._fell(error)
            return
        fields = {TIME_TO_LIVE: f"{max(1, math.ceil(seconds))}s"}
        ack = await self._acks.publish(f"$KV.{CACHE_BUCKET}.{name}", _encode(kept), fields, WAIT)
        if ack is None or ack.error is not None:
            log.warning("cache.not_kept", code=ack.error.err_code if ack is not None and ack.error else None)

    async def _open(self) -> KeyValue | None:
        if self._bucket is None and self._clock() >= self._away_until:
            js = self._connection.nats.jetstream(timeout=WAIT)
            try:
                await js.add_stream(stream_config(self._replicas))
            except nats.js.errors.BadRequestError as error:
                if error.err_code != OTHER_CONFIGURATION:
                    raise
            self._bucket = await js.key_value(CACHE_BUCKET)
            await self._acks.open()
        return self._bucket if self._clock() >= self._away_until else None

    async def close(self) -> None:
        """Expect no more acknowledgements."""
        await self._acks.close()

    def _fell(self, error: Exception) -> None:
        self._away_until = self._clock() + AWAY
        log.warning("cache.away", error=type(error).__name__, seconds=AWAY)


def stream_config(replicas: int) -> api.StreamConfig:
    """A KV bucket in which the oldest makes room, and each entry has its own time."""
    return api.StreamConfig(
        name=f"KV_{CACHE_BUCKET}",
        subjects=[f"$KV.{CACHE_BUCKET}.>"],
        max_msgs_per_subject=1,
        max_age=LONGEST_CACHED,
        max_bytes=MOST_BYTES,
        max_msg_size=-1,
        discard=api.DiscardPolicy.OLD,
        storage=api.StorageType.FILE,
        num_replicas=replicas,
        allow_direct=True,
        allow_rollup_hdrs=True,
        allow_msg_ttl=True,
        deny_delete=True,
    )
