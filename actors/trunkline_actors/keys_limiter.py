"""Keeps API keys to their limits by the minute, together with the routers of all other processes.

The buckets lie in JetStream KV, in memory. A process takes out what its requests need, and some more where there is
plenty, so that a busy key costs some messages a second and not one a request; an empty bucket is not asked again before
it can have filled.
"""

import asyncio
import time
from collections.abc import Callable

import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct, field
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.refusal import Refused
from trunkline_events.subjects import RATES_BUCKET, encode_id
from trunkline_projections.keys import Key

from trunkline_actors import keys_rates
from trunkline_actors.bucket import open_bucket
from trunkline_actors.bus import Bus
from trunkline_actors.keys_rates import LEASE, PERIOD, Bucket, Buckets, Standing

log = structlog.get_logger()

MOST_TRIES = 16
LASTING = 0.3
"""Seconds that a share must last for a request to be counted on it that has to wait for the rest."""
_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)
NOT_COUNTED = Refused(
    code="unavailable", message="the limits of this API key can't be counted right now; send the request again"
)


class _Share(Struct):
    """What this process took of one bucket: so much is left until then, by the monotonic clock.

    `used` counts what was used since `since`, and `waiting` what requests wait for.
    """

    left: int = 0
    until: float = 0.0
    used: int = 0
    since: float = 0.0
    waiting: int = 0


class _Of(Struct):
    """One key in this process: its buckets as they were last seen, and our share of each."""

    buckets: Buckets = Buckets()
    revision: int = 0
    shares: dict[str, _Share] = field(default_factory=lambda: {"requests": _Share(), "tokens": _Share()})
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Limiter:
    """Lets requests of keys with limits through, or says when to come again."""

    def __init__(self, bus: Bus, clock: Callable[[], float], replicas: int = 1) -> None:
        self._bus = bus
        self._clock = clock
        self._replicas = replicas
        self._bucket: KeyValue | None = None
        self._known: dict[str, _Of] = {}

    async def take(self, key: Key, tokens: int) -> Refused | None:
        """Count one request with so many tokens, or say why it may not go on, and when it may."""
        needs = _needs(key, tokens)
        if not needs:
            return None
        if problem := next((_too_large(key, kind, *one) for kind, one in needs.items() if one[1] > one[0]), None):
            return problem
        of = self._known.setdefault(key.id, _Of())
        if _pays(of, needs):
            return None
        for kind, (_, least) in needs.items():
            of.shares[kind].waiting += least
        try:
            async with of.lock:  # whoever is first takes for all who wait
                return None if _pays(of, needs) else await self._lease(key, of, needs)
        except _TROUBLE as error:
            log.warning("keys.not_counted", key=key.id, error=type(error).__name__)
            self._bucket, of.revision = None, 0
            return NOT_COUNTED
        finally:
            for kind, (_, least) in needs.items():
                of.shares[kind].waiting -= least

    def standing(self, key: Key) -> dict[str, Standing]:
        """How the limits of a key stand, as far as this process knows."""
        of, now = self._known.get(key.id) or _Of(), self._clock()
        told = {}
        for kind, (limit, _) in _needs(key, 0).items():
            share = of.shares[kind]
            unused = share.left if time.monotonic() < share.until else 0
            told[kind] = keys_rates.standing(_bucket(of.buckets, kind), limit, unused, now)
        return told

    def told(self, key: Key) -> str:
        """The same as answers say it; empty for a key without limits."""
        return keys_rates.told(self.standing(key)) if _needs(key, 0) else ""

    async def _lease(self, key: Key, of: _Of, needs: "_Needs") -> Refused | None:
        bucket = self._bucket = self._bucket or await self._open()
        name = encode_id(key.id).replace("=", "/")  # what a key of a bucket may hold
        for _ in range(MOST_TRIES):
            now, asked = self._clock(), time.monotonic()
            if problem := self._empty(key, of, needs, now, asked):
                return problem
            after, taken = _taken(of, needs, now, asked)
            try:
                if of.revision:
                    of.revision = await bucket.update(name, keys_rates.encode(after), last=of.revision)
                else:
                    of.revision = await bucket.create(name, keys_rates.encode(after))
            except nats.js.errors.KeyWrongLastSequenceError:
                await _read(bucket, name, of)
                continue
            of.buckets = after
            for kind, more in taken.items():
                _add(of.shares[kind], more, asked)
            if _pays(of, needs):
                return None  # if not, another request has used what we counted on, or the answer took a second
        return NOT_COUNTED

    def _empty(self, key: Key, of: _Of, needs: "_Needs", now: float, asked: float) -> Refused | None:
        """Why it must wait: by what was last seen of the buckets, from which others can only have taken more."""
        short = {}
        for kind, (limit, least) in needs.items():
            missing = least - _lasting(of.shares[kind], asked)
            wait = keys_rates.wait_for(_bucket(of.buckets, kind), limit, missing, now)
            if wait > 0:
                short[kind] = wait
        if not short:
            return None
        kind = max(short, key=lambda one: short[one])
        return _over(key, kind, short[kind], self.standing(key))

    async def _open(self) -> KeyValue:
        config = api.KeyValueConfig(
            bucket=RATES_BUCKET,
            history=1,
            ttl=2 * PERIOD,
            storage=api.StorageType.MEMORY,
            replicas=self._replicas,
        )
        return await open_bucket(self._bus.nats.jetstream(timeout=1.0), config)


_Needs = dict[str, tuple[int, int]]
"""By kind: the limit, and what a request needs of it."""


def _needs(key: Key, tokens: int) -> _Needs:
    needs: _Needs = {}
    if key.requests_per_minute is not None:
        needs["requests"] = (key.requests_per_minute, 1)
    if key.tokens_per_minute is not None:
        needs["tokens"] = (key.tokens_per_minute, tokens)
    return needs


def _bucket(buckets: Buckets, kind: str) -> Bucket | None:
    return buckets.requests if kind == "requests" else buckets.tokens


def _left(share: _Share) -> int:
    return share.left if time.monotonic() < share.until else 0


def _pays(of: _Of, needs: _Needs) -> bool:
    """Use what we have, where it is enough of everything."""
    if any(_left(of.shares[kind]) < least for kind, (_, least) in needs.items()):
        return False
    for kind, (_, least) in needs.items():
        of.shares[kind].left -= least
        of.shares[kind].used += least
    return True


def _taken(of: _Of, needs: _Needs, now: float, asked: float) -> tuple[Buckets, dict[str, int]]:
    """The buckets when we have taken what is missing, and how much that is of each."""
    buckets, taken = {"requests": of.buckets.requests, "tokens": of.buckets.tokens}, {}
    for kind, (limit, least) in needs.items():
        share = of.shares[kind]
        left = _lasting(share, asked)
        recent = share.used if asked - share.since <= 2 * LEASE else 0
        taken[kind], buckets[kind] = keys_rates.take(
            buckets[kind], limit, max(0, least - left), max(least, share.waiting) - left + recent, now
        )
    return Buckets(**buckets), taken


def _lasting(share: _Share, asked: float) -> int:
    """What is left of a share, where it may be used for long enough yet to be worth counting on."""
    return share.left if share.until - asked > LASTING else 0


def _add(share: _Share, taken: int, asked: float) -> None:
    left = _lasting(share, asked)
    share.left, share.until = left + taken, min(share.until, asked + LEASE) if left else asked + LEASE
    share.used, share.since = 0, asked


async def _read(bucket: KeyValue, name: str, of: _Of) -> None:
    try:
        entry = await bucket.get(name)
        of.buckets, of.revision = keys_rates.read(entry.value), entry.revision or 0
    except nats.js.errors.KeyNotFoundError:
        of.buckets, of.revision = Buckets(), 0


def _over(key: Key, kind: str, wait: float, standings: dict[str, Standing]) -> Refused:
    told = {name: {"limit": s.limit, "remaining": s.remaining, "reset_s": s.reset_s} for name, s in standings.items()}
    message = (
        f"API key {key.id!r} may have {standings[kind].limit:,} {kind} a minute and has had them; "
        f"try again in {wait:.1f} s"
    )
    return Refused(
        code="rate_limited",
        message=message,
        retryable=True,
        metadata={"limit": f"{kind}_per_minute", "retry_after": round(wait, 3), "limits": told},
    )


def _too_large(key: Key, kind: str, limit: int, least: int) -> Refused:
    message = (
        f"the request counts as {least:,} {kind}, more than the {limit:,} a minute of API key {key.id!r}; "
        "send a shorter one, or ask for fewer max_tokens"
    )
    return Refused(code="rate_limited", message=message, retryable=False, metadata={"limit": f"{kind}_per_minute"})
