"""Idempotency: a request id that its caller chose is claimed before anything is decided, and its answer kept for a day.

Claims live in a KV bucket and not in the log, since answers hold text. A claim is created once, whoever tries: the
server compares. Losing the bucket loses the memory of answers, never money: attempts have ids of their own.
"""

import hashlib
from typing import Literal

import msgspec
import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events import headers
from trunkline_events.acks import Acks
from trunkline_events.connection import Connection
from trunkline_events.log import LogError, LogRefused, LogUnavailable
from trunkline_events.subjects import REQUESTS_BUCKET

from trunkline_actors.bucket import open_bucket

log = structlog.get_logger()

KEPT_SECONDS = 24 * 3600.0
ACK_WAIT = 2.0
MOST_TRIES = 8
MAX_ANSWER = 256 * 1024
"""Bytes of an answer that are kept; of a larger one only the receipt is."""


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a request id. `since` is Unix time; `attempts` the number of the last attempt made for it.

    `fingerprint` tells the request it was claimed for from any other. `headers` are those of the answer, its receipt
    among them; `messages` its bodies, absent where it was too large.
    """

    state: Literal["running", "answered", "failed"]
    since: float
    attempts: int = 0
    fingerprint: str = ""
    headers: dict[str, str] = {}
    messages: list[bytes] | None = None


class Taken(Struct, frozen=True):
    """The claim is ours, at this revision. `attempts` were made for it before, by a run that settled nothing."""

    revision: int
    attempts: int


class Held(Struct, frozen=True):
    """The claim is somebody's, or was."""

    claim: Claim
    revision: int


def key_id(key: str) -> str:
    """The id that an API key goes by in events and budgets: 16 hex digits of it, never the key. Empty for no key."""
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest() if key else ""


def scope_of(key: str, thread: str, request_id: str) -> str:
    """One name for a request id within its key and thread, fit for a subject and a bucket: 24 hex digits."""
    return hashlib.blake2b("\0".join((key, thread, request_id)).encode(), digest_size=12).hexdigest()


def fingerprint_of(subject: str, body: bytes) -> str:
    """One name for what was asked: 16 hex digits of the subject and the body."""
    return hashlib.blake2b(b"\0".join((subject.encode(), body)), digest_size=8).hexdigest()


class Claims:
    """The bucket of claims. Written on every chat whose caller chose its id, so without nats-py's tasks for each."""

    def __init__(self, bucket: KeyValue, acks: Acks) -> None:
        self._bucket = bucket
        self._acks = acks

    @classmethod
    async def open(cls, connection: Connection, replicas: int = 1) -> "Claims":
        """Make sure the bucket exists. Raises LogUnavailable."""
        js = connection.nats.jetstream(timeout=5)
        config = api.KeyValueConfig(bucket=REQUESTS_BUCKET, history=1, ttl=KEPT_SECONDS, replicas=replicas)
        acks = Acks(connection)
        try:
            await acks.open()
            return cls(await open_bucket(js, config), acks)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise LogUnavailable(f"JetStream does not answer ({error}); enable it on the server") from error

    async def take(self, scope: str, now: float, fingerprint: str = "") -> Taken | Held:
        """Claim a request id, or learn who has. Raises LogUnavailable."""
        for _ in range(MOST_TRIES):
            revision = await self._write(scope, Claim(state="running", since=now, fingerprint=fingerprint), expected=0)
            if revision is not None:
                return Taken(revision, 0)
            held = await self.read(scope)
            if held is None:  # it expired in between
                continue
            if held.claim.state != "failed":
                return held
            taken = await self.take_over(scope, held, now, fingerprint)
            if taken is not None:
                return taken
        raise LogUnavailable("the request's claim keeps changing, or was deleted by hand; use another request id")

    async def take_over(self, scope: str, held: Held, now: float, fingerprint: str = "") -> Taken | None:
        """Claim what a dead or failed run left; None where somebody else was quicker.

        What a dead run decided is not in its claim, and must be found by whoever comes next too, should we die as well:
        so `since` stays. What a failed one did is in `attempts`.
        """
        since = now if held.claim.state == "failed" else held.claim.since
        claim = Claim(state="running", since=since, attempts=held.claim.attempts, fingerprint=fingerprint)
        revision = await self._write(scope, claim, expected=held.revision)
        return None if revision is None else Taken(revision, held.claim.attempts)

    async def _write(self, scope: str, claim: Claim, expected: int | None) -> int | None:
        """Its revision; None where the key is not at the expected one. KV's wire format is that of NATS ADR-8."""
        fields = {} if expected is None else {headers.EXPECTED_LAST: str(expected)}
        subject = f"$KV.{REQUESTS_BUCKET}.{scope}"
        ack = await self._acks.publish(subject, msgspec.msgpack.encode(claim), fields, ACK_WAIT)
        if ack is None:
            raise LogUnavailable("the request's claim was not acknowledged; send the request again")
        if ack.conflicts:
            return None
        if ack.error is not None:
            raise LogRefused(ack.error.err_code, ack.error.description)
        return ack.seq

    async def read(self, scope: str) -> Held | None:
        """What is known of a request id. Raises LogUnavailable."""
        try:
            entry = await self._bucket.get(scope)
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            raise LogUnavailable("the request's claim could not be read") from error
        return Held(msgspec.msgpack.decode(entry.value or b"", type=Claim), entry.revision or 0)

    async def keep(self, scope: str, claim: Claim) -> None:
        """Keep how a request ended. Never raises: a repeat then finds it in the log instead."""
        if claim.messages is not None and sum(map(len, claim.messages)) > MAX_ANSWER:
            claim = msgspec.structs.replace(claim, messages=None)
        try:
            await self._write(scope, claim, expected=None)
        except LogError as error:
            log.warning("claim.not_kept", error=type(error).__name__)

    async def close(self) -> None:
        """Expect no more acknowledgements."""
        await self._acks.close()
