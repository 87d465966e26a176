"""Limits of API keys by the minute: one bucket a key and kind, shared by all processes. Pure.

A bucket holds at most the limit and is filled at the limit in 61 seconds. A process takes what it needs out of it, by
compare-and-set, and may use that for one second; what it has not used then is lost. So in any 60 seconds no more gets
through than what was taken within 61: at most what the bucket held, the limit, and what flowed in, the limit again.
That holds as far as the clocks of the processes agree: one that is ahead by s seconds adds what flows in s, once.
"""

import math
from collections.abc import Mapping

import msgspec
from msgspec import Struct

PERIOD = 61.0
"""Seconds in which an empty bucket is full again: a minute, and the second in which what was taken is used."""
LEASE = 1.0
"""Seconds that what was taken may be used."""


class Bucket(Struct, frozen=True, kw_only=True):
    """What was left at `at`, Unix time."""

    level: float
    at: float


class Buckets(Struct, frozen=True, kw_only=True):
    """The buckets of one key; absent: full."""

    requests: Bucket | None = None
    tokens: Bucket | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """How one limit stands, as callers are told: what is left, and in how many seconds all of it is there again."""

    limit: int
    remaining: int
    reset_s: float


def level(bucket: Bucket | None, limit: int, now: float) -> float:
    """What a bucket holds now."""
    if bucket is None:
        return float(limit)
    return min(float(limit), bucket.level + max(0.0, now - bucket.at) * limit / PERIOD)


def take(bucket: Bucket | None, limit: int, least: int, wanted: int, now: float) -> tuple[int, Bucket]:
    """How much is taken, and the bucket after it: `least` where it is there, else nothing.

    As much as is `wanted` beyond that, where the bucket stays half full: what nobody uses is lost.
    """
    held = level(bucket, limit, now)
    at = now if bucket is None else max(now, bucket.at)
    if held < least:
        return 0, Bucket(level=held, at=at)
    spare = max(0, math.floor(held - limit / 2))
    taken = max(least, min(wanted, spare))
    return taken, Bucket(level=held - taken, at=at)


def wait_for(bucket: Bucket | None, limit: int, least: int, now: float) -> float:
    """Seconds until `least` is there, if nobody takes anything."""
    behind = 0.0 if bucket is None else max(0.0, bucket.at - now)
    return behind + max(0.0, least - level(bucket, limit, now)) * PERIOD / limit


def standing(bucket: Bucket | None, limit: int, unused: int, now: float) -> Standing:
    """How a limit stands, `unused` being what this process took and still has."""
    left = min(float(limit), level(bucket, limit, now) + unused)
    return Standing(limit=limit, remaining=math.floor(left), reset_s=round((limit - left) * PERIOD / limit, 3))


_decoder = msgspec.msgpack.Decoder(Buckets)


def encode(buckets: Buckets) -> bytes:
    """As they are kept."""
    return msgspec.msgpack.encode(buckets)


def read(data: bytes | None) -> Buckets:
    """As they were kept; what can't be read counts as full."""
    try:
        return _decoder.decode(data or b"")
    except msgspec.DecodeError:
        return Buckets()


def told(standings: Mapping[str, Standing]) -> str:
    """How limits stand, as a header says it: `requests=60/59/1.0`, limit, what remains, seconds until all is there."""
    return ",".join(f"{kind}={one.limit}/{one.remaining}/{one.reset_s}" for kind, one in standings.items())


def untold(text: str) -> dict[str, Standing]:
    """What `told` made this of; what makes no sense is passed over."""
    found = {}
    for part in text.split(","):
        kind, _, numbers = part.partition("=")
        try:
            limit, remaining, reset_s = numbers.split("/")
            found[kind] = Standing(limit=int(limit), remaining=int(remaining), reset_s=float(reset_s))
        except ValueError:
            continue
    return found
