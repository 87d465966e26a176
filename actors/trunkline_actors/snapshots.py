"""Snapshots of folds in a KV bucket. One that is lost or too large is only missed: the log has it all."""

import asyncio
import contextlib
import hashlib
import zlib

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from nats.js.kv import KeyValue
from nats.nuid import NUID
from trunkline_events.connection import Connection
from trunkline_events.subjects import SNAPSHOTS_BUCKET

from trunkline_actors.bucket import open_bucket

log = structlog.get_logger()

_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)

KEPT_FOR = 30 * 86_400.0
"""Seconds until a snapshot that nobody wrote again goes: those of versions that nobody runs any more."""
PART = 512 * 1024
"""Bytes of one message: half of what a server carries unless told otherwise."""
LARGEST = 64 * 1024 * 1024
"""Bytes of a snapshot, compressed; a larger one is not kept."""
LARGEST_UNPACKED = 1024 * 1024 * 1024
_MARKER_SECONDS = 60


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What lies under the name: a compressed snapshot, or where its parts are. `digest` is SHA-256 of the whole."""

    digest: bytes
    size: int
    data: bytes = b""
    batch: str = ""
    parts: int = 0


class KvSnapshots:
    """`Snapshots` on JetStream, compressed, in parts where one message can't hold them.

    Parts are written under names of their own first, then the name itself is pointed to them, and only if nobody else
    did so meanwhile. So a snapshot is there as a whole or not at all, and of two that are written at once one stays.
    """

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self._bucket: KeyValue | None = None

    async def open(self, replicas: int = 1) -> None:
        """Make sure the bucket exists; without one, every start reads the log from its beginning."""
        config = api.KeyValueConfig(bucket=SNAPSHOTS_BUCKET, history=1, replicas=replicas, ttl=KEPT_FOR)
        js = self._nats.jetstream(timeout=5)
        try:
            self._bucket = await open_bucket(js, config)
        except _TROUBLE as error:
            log.warning("snapshots.unavailable", error=type(error).__name__)

    async def load(self, name: str) -> bytes | None:
        if self._bucket is None:
            return None
        try:
            for _ in range(2):  # somebody may put another one in its place while we read
                kept, _revision = await self._kept(self._bucket, name)
                if kept is None:
                    return None
                packed = await self._packed(self._bucket, name, kept)
                if packed is not None and hashlib.sha256(packed).digest() == kept.digest:
                    return await asyncio.to_thread(_unpack, packed)
            log.warning("snapshots.damaged", fold=name)
        except (*_TROUBLE, zlib.error, ValueError) as error:
            log.warning("snapshots.not_loaded", fold=name, error=type(error).__name__)
        return None

    async def save(self, name: str, data: bytes) -> None:
        if self._bucket is None:
            return
        try:
            packed = await asyncio.to_thread(zlib.compress, data, 1)
            if len(packed) > LARGEST:
                log.warning("snapshots.too_large", fold=name, size=len(packed))
                return
            await self._save(self._bucket, name, packed)
        except _TROUBLE as error:
            log.warning("snapshots.not_saved", fold=name, size=len(data), error=type(error).__name__)

    async def _save(self, bucket: KeyValue, name: str, packed: bytes) -> None:
        before, revision = await self._kept(bucket, name)
        kept = _Kept(hashlib.sha256(packed).digest(), len(packed), packed)
        part = min(PART, self._nats.max_payload // 2)
        if len(packed) > part:
            pieces = [packed[start : start + part] for start in range(0, len(packed), part)]
            kept = _Kept(kept.digest, kept.size, b"", NUID().next().decode(), len(pieces))
            for key, piece in zip(_keys(name, kept), pieces, strict=True):
                await bucket.put(key, piece)
        try:
            await bucket.update(name, msgspec.msgpack.encode(kept), last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            await self._drop(bucket, name, kept)  # somebody else's is as good
            return
        await self._drop(bucket, name, before)

    async def _kept(self, bucket: KeyValue, name: str) -> tuple[_Kept | None, int]:
        """What is there, and the revision to be replaced; nothing readable counts as nothing."""
        try:
            entry = await bucket.get(name)
        except nats.js.errors.KeyNotFoundError as error:
            return None, getattr(error.entry, "revision", None) or 0
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.msgpack.decode(entry.value or b"", type=_Kept), entry.revision or 0
        log.warning("snapshots.damaged", fold=name)
        return None, entry.revision or 0

    async def _packed(self, bucket: KeyValue, name: str, kept: _Kept) -> bytes | None:
        if not kept.parts:
            return kept.data
        if kept.parts > LARGEST:
            return None
        pieces = []
        for key in _keys(name, kept):
            try:
                pieces.append((await bucket.get(key)).value or b"")
            except nats.js.errors.KeyNotFoundError:
                return None
        return b"".join(pieces)

    async def _drop(self, bucket: KeyValue, name: str, kept: _Kept | None) -> None:
        """Remove parts that nobody points to. The markers that take their place go by themselves."""
        for key in _keys(name, kept) if kept else ():
            await bucket.purge(key, msg_ttl=_MARKER_SECONDS)


def _keys(name: str, kept: _Kept) -> list[str]:
    return [f"{name}.{kept.batch}.{number}" for number in range(kept.parts)]


def _unpack(packed: bytes) -> bytes:
    """Raises zlib.error for what was never compressed, ValueError for what would fill the memory."""
    inflate = zlib.decompressobj()
    data = inflate.decompress(packed, LARGEST_UNPACKED)
    if not inflate.eof:
        raise ValueError("cut short, or too large")
    return data
