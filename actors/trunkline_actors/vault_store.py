"""Where the vault lies: one key of a KV bucket, read from its leader, and replaced only as it was read."""

import json
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.codes import NO_MESSAGE, NO_STREAM
from trunkline_events.connection import Connection
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import SECRETS_BUCKET

from trunkline_actors.bucket import open_bucket
from trunkline_actors.vault import Vault, decode, encode

KEY = "vault"
SECONDS = 5.0


class Raced(Exception):
    """Somebody else has changed the vault since it was read. Read it again, and decide again."""


class VaultDamaged(Exception):
    """What lies there is no vault that this version can read. Restore it, or upgrade this process."""


class VaultStore:
    """Reads and replaces the vault. It has no history: the server keeps the last one only."""

    def __init__(self, connection: Connection, replicas: int = 1) -> None:
        self._nats = connection.nats
        self._replicas = replicas
        self._bucket: KeyValue | None = None

    async def read(self) -> tuple[Vault | None, int]:
        """The vault, None where there is none yet, and its revision. Raises LogUnavailable, VaultDamaged."""
        subject = f"$JS.API.STREAM.MSG.GET.KV_{SECRETS_BUCKET}"
        # Of the leader: what a follower has may be older than the event that told us to look.
        asked = json.dumps({"last_by_subj": f"$KV.{SECRETS_BUCKET}.{KEY}"}).encode()
        try:
            reply: dict[str, Any] = json.loads((await self._nats.request(subject, asked, timeout=SECONDS)).data)
        except (nats.errors.Error, TimeoutError) as error:
            raise LogUnavailable("the vault of secrets could not be read") from error
        if "error" in reply:
            if reply["error"].get("err_code") in (NO_MESSAGE, NO_STREAM):
                return None, 0
            raise LogUnavailable("the vault of secrets could not be read")
        message = reply["message"]
        if not message.get("data"):  # purged by hand
            return None, int(message["seq"])
        try:
            return decode(_bytes(message["data"])), int(message["seq"])
        except (msgspec.DecodeError, ValueError) as error:
            raise VaultDamaged("the vault of secrets can't be read by this version of Trunkline") from error

    async def write(self, vault: Vault, revision: int) -> int:
        """Put this one in place of that at `revision` (0: of none); its own. Raises Raced, LogUnavailable."""
        try:
            bucket = await self._open()
            written: int = await bucket.update(KEY, encode(vault), last=revision)
            return written
        except nats.js.errors.KeyWrongLastSequenceError as error:
            raise Raced("the vault was changed meanwhile") from error
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise LogUnavailable("the vault of secrets could not be written") from error

    async def _open(self) -> KeyValue:
        if self._bucket is None:
            config = api.KeyValueConfig(bucket=SECRETS_BUCKET, history=1, replicas=self._replicas)
            self._bucket = await open_bucket(self._nats.jetstream(timeout=SECONDS), config)
        return self._bucket


def _bytes(text: str) -> bytes:
    return msgspec.convert(text, bytes)
