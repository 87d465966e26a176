"""Where answers lie that may be given again: a KV bucket in which the oldest makes room, and each has its own time.

They lie there and not in the log, since answers hold text; losing the bucket loses no money.
"""

from collections.abc import Callable

import msgspec
import structlog
from trunkline_events.connection import Connection
from trunkline_events.subjects import CACHE_BUCKET

from trunkline_actors.answer_cache import Kept
from trunkline_actors.claims import MAX_ANSWER
from trunkline_actors.kv import TROUBLE, Bucket, config_of
from trunkline_actors.requests import LONGEST_CACHED

log = structlog.get_logger()

MOST_BYTES = 256 * 1024 * 1024
"""What all answers together may take; beyond, the oldest go."""
WAIT = 1.0
"""Seconds that the cache has to answer: after that a request is served as if there was none."""
AWAY = 10.0
"""Seconds for which nobody asks a cache again that did not answer."""

_decoder = msgspec.msgpack.Decoder(Kept)
_encode = msgspec.msgpack.Encoder().encode


class AnswerStore:
    """The bucket of answers. Whatever is wrong with it, nobody waits for it long."""

    def __init__(self, connection: Connection, replicas: int, clock: Callable[[], float]) -> None:
        config = config_of(
            CACHE_BUCKET, max_age=LONGEST_CACHED, max_bytes=MOST_BYTES, replicas=replicas, drops_oldest=True
        )
        self._bucket = Bucket(connection, config, WAIT)
        self._clock = clock
        self._away_until = 0.0

    async def find(self, name: str) -> Kept | None:
        """The answer under this name; None where there is none, or the cache is away."""
        if self._clock() < self._away_until:
            return None
        try:
            data = await self._bucket.get(name)
            return None if data is None else _decoder.decode(data)
        except (*TROUBLE, msgspec.DecodeError) as error:
            self._fell(error)
            return None

    async def keep(self, name: str, kept: Kept, seconds: float) -> None:
        """Keep an answer for so long. Never raises: without it, the next one who asks is served as this one was."""
        if self._clock() < self._away_until or sum(map(len, kept.messages)) > MAX_ANSWER:
            return
        try:
            await self._bucket.put(name, _encode(kept), seconds)
        except TROUBLE as error:
            self._fell(error)

    async def close(self) -> None:
        """Expect no more acknowledgements."""
        await self._bucket.close()

    def _fell(self, error: Exception) -> None:
        if not isinstance(error, msgspec.DecodeError):
            self._away_until = self._clock() + AWAY
        log.warning("cache.away", error=type(error).__name__, seconds=AWAY)
