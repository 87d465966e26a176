"""API keys: what one looks like, what it is kept as, what it may do, and the decisions about it. Pure.

A key is `tl-` and 256 random bits as 43 characters of base64url. It is kept as HMAC-SHA-256 under the pepper, a secret
of 256 bits that lies outside the log.
"""

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct, field, structs
from trunkline_events.key import SCOPES, KeyIssued, KeyRevoked, KeySecret, Scope, key_id_problem
from trunkline_events.refusal import Refused
from trunkline_events.subjects import WORKFLOWS, id_problem
from trunkline_projections.keys import LOOKUP, Key, Keys

from trunkline_actors.plan import fits
from trunkline_actors.requests import AUTO, BYTES_A_TOKEN, Parsed, cache_problem

SECRET_BYTES = 32
SECONDS_A_DAY = 86_400.0
LONGEST_OVERLAP = 90 * SECONDS_A_DAY
MOST_PATTERNS = 64
MOST_A_MINUTE = 10**9

Access = Literal["open", "chat", "read", "admin"]

DEVELOPMENT = "development"
"""The id of the key that `trunkline up` makes at its first start."""
OURSELVES = "trunkline"
"""The id that processes of the gateway itself act under; no key is issued under it."""

_KEY = re.compile(r"tl-[A-Za-z0-9_-]{43}")

_READ = frozenset(
    (
        *("get", "list", "discover", "metrics", "catalogue", "check", "history", "diff", "validate", "recommend"),
        *("log", "describe", "holders"),
    )
)
"""Verbs of commands that change nothing. Any other takes `admin`."""

_OF_ITS_OWN: dict[str, Access] = {
    **{f"{WORKFLOWS}.{verb}": "open" for verb in ("get", "cancel", "signal")},
}
"""Who begins a run spends as with chats, and may look at it, tell it things and cancel it: its actor sees to that."""


def needed(subject: str) -> Access:
    """What a command takes: its last word tells. What nobody thought of takes the most."""
    if subject.startswith(f"{WORKFLOWS}.start"):
        return "chat"
    if subject in _OF_ITS_OWN:
        return _OF_ITS_OWN[subject]
    return "read" if subject.rpartition(".")[2] in _READ else "admin"


# -- what a key is ---------------------------------------------------------------------------------------------------


def made_of(draw: bytes) -> str:
    """The key that 32 random bytes make."""
    return f"tl-{base64.urlsafe_b64encode(draw).decode().rstrip('=')}"


def is_key(text: str) -> bool:
    """Whether this has the shape of a key."""
    return _KEY.fullmatch(text) is not None


def same(one: str, other: str) -> bool:
    """Whether two keys are the same, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def digest_of(pepper: bytes, text: str) -> str:
    """What a key is kept as: 64 hex digits."""
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def name_of(pepper: bytes) -> str:
    """What a pepper is called in events: 16 hex digits that say nothing of it."""
    return hashlib.sha256(b"trunkline pepper\0" + pepper).hexdigest()[:LOOKUP]


def own_key(pepper: bytes) -> str:
    """The key that processes of the gateway itself show one another: only who can read the pepper can make it."""
    return made_of(hmac.digest(pepper, b"trunkline itself", "sha256"))


# -- who may ---------------------------------------------------------------------------------------------------------

UNKNOWN = Refused(code="unauthenticated", message="this API key is not known here; `trunkline keys issue` makes one")
MISSING = Refused(
    code="unauthenticated",
    message="no API key came with the request; send one as `Authorization: Bearer tl-…`, on the bus in Trunkline-Key",
)


def find(keys: Keys, digest: str) -> tuple[Key, KeySecret] | None:
    """The key that has this hash, and its secret that does. Compared in constant time beyond the first digits."""
    key = keys.by_id.get(keys.by_hash.get(digest[:LOOKUP], ""))
    if key is None:
        return None
    for secret in key.secrets:
        if hmac.compare_digest(secret.digest, digest):
            return key, secret
    return None


def ended(key: Key, secret: KeySecret, now: float) -> Refused | None:
    """Why this key holds no more; None where it does."""
    again = "ask for a new one: `trunkline keys issue`"
    if key.revoked:
        return Refused(code="unauthenticated", message=f"API key {key.id!r} was revoked; {again}")
    if key.expires_at is not None and now >= key.expires_at:
        return Refused(code="unauthenticated", message=f"API key {key.id!r} has expired; {again}")
    if secret.until is not None and now >= secret.until:
        message = f"API key {key.id!r} was rotated, and its old secret holds no more; use the new one"
        return Refused(code="unauthenticated", message=message)
    return None


def lacks(scopes: Sequence[str], need: Access) -> bool:
    """Whether a key with these scopes may not do what takes `need`. `admin` may do whatever `read` may."""
    return not (need == "open" or need in scopes or (need == "read" and "admin" in scopes))


def forbidden(key: Key, need: Access) -> Refused | None:
    """Why a key that holds may not do this."""
    if not lacks(key.scopes, need):
        return None
    message = f"API key {key.id!r} has no scope {need!r}; use one that has, or issue one with `--scope {need}`"
    return Refused(code="permission_denied", message=message)


def may_use(models: Sequence[str], model: str) -> bool:
    """Whether a key for these models may use this one."""
    return not models or any(fits(pattern, model) for pattern in models)


def within(parsed: Parsed, key: Key) -> Parsed | Refused:
    """A request as far as a key reaches: other models are left out of routing, and one that is asked for is refused."""
    model = parsed.asked.model
    if not key.models:
        return parsed
    if model != AUTO and not may_use(key.models, model):
        message = f"API key {key.id!r} may not use model {model!r}; use one that may, or another model"
        return Refused(code="permission_denied", message=message, param="model")
    return structs.replace(parsed, asked=structs.replace(parsed.asked, allowed=list(key.models)))


def tokens_of(parsed: Parsed) -> int:
    """What a request counts as against tokens a minute: an estimate of its input, and all the output it asks for."""
    asked = parsed.asked
    return -(-asked.input_bound // BYTES_A_TOKEN) + (asked.max_tokens or 0) * asked.choices


# -- decisions -------------------------------------------------------------------------------------------------------


class Issue(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `keys.issue`. `id` is drawn where it is not given; `expires_in_s` counts from now.

    `budget` and `team` are as `budgets.set` takes them, for the scope `key:<id>`.
    """

    name: str = ""
    id: str | None = None
    scopes: list[Scope] = field(default_factory=lambda: ["chat"])
    models: list[str] = []
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_in_s: float | None = None
    cache_s: float | None = None
    budget: dict[str, object] | None = None
    team: str | None = None
    reason: str | None = None


class Rotate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `keys.rotate`: the secret so far holds for `overlap_s` more seconds."""

    id: str
    overlap_s: float = 0.0
    reason: str | None = None


class Fresh(Struct, frozen=True, kw_only=True):
    """A secret that was drawn: its hash, the pepper it is hashed under, and who asked for it."""

    digest: str
    pepper: str
    by: str = ""


def issue(keys: Keys, given: Issue, name: str, fresh: Fresh, now: float) -> KeyIssued | Refused:
    """A new key with the id `name`."""
    if problem := _issue_problem(given, name):
        return problem
    if name in keys.by_id:
        message = f"there is, or was, a key {name!r}; choose another id, or give this one a new secret with `rotate`"
        return Refused(code="conflict", message=message, param="id")
    return KeyIssued(
        id=name,
        by=fresh.by,
        reason=given.reason,
        name=given.name,
        scopes=[scope for scope in SCOPES if scope in given.scopes],
        secrets=[KeySecret(digest=fresh.digest)],
        pepper=fresh.pepper,
        models=given.models,
        requests_per_minute=given.requests_per_minute,
        tokens_per_minute=given.tokens_per_minute,
        expires_at=None if given.expires_in_s is None else now + given.expires_in_s,
        cache_s=given.cache_s,
    )


def _issue_problem(given: Issue, name: str) -> Refused | None:
    """What makes no sense about a key that is to be issued."""
    if problem := key_id_problem(name):
        return _invalid(problem, "id")
    if name == OURSELVES:
        return _invalid(f"{name!r} is what the gateway itself goes by; choose another id", "id")
    if len(given.name.encode()) > 128 or not given.name.isprintable() or "tl-" in given.name:
        return _invalid("a name is one line of at most 128 bytes, and no key", "name")
    if not given.scopes:
        return _invalid(f"a key without a scope is good for nothing; choose of {', '.join(SCOPES)}", "scopes")
    if len(given.models) > MOST_PATTERNS:
        return _invalid(f"at most {MOST_PATTERNS} models or patterns; use `*` for more", "models")
    if problem := next((problem for model in given.models if (problem := id_problem(model))), None):
        return _invalid(problem, "models")
    for param in ("requests_per_minute", "tokens_per_minute"):
        limit = getattr(given, param)
        if limit is not None and not 1 <= limit <= MOST_A_MINUTE:
            return _invalid(f"{param} must be from 1 to {MOST_A_MINUTE:,}", param)
    seconds = given.expires_in_s
    if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= 100 * 366 * SECONDS_A_DAY):
        return _invalid("expires_in_s must be more than 0 seconds, and no more than 100 years", "expires_in_s")
    if given.cache_s is not None and (told := cache_problem(given.cache_s)):
        return _invalid(f"cache_s {told}", "cache_s")
    return None


def rotate(keys: Keys, given: Rotate, fresh: Fresh, now: float) -> KeyIssued | Refused:
    """A new secret for a key. The one so far holds for the overlap, and any older one no more."""
    if not 0 <= given.overlap_s <= LONGEST_OVERLAP:
        return _invalid("overlap_s must be from 0 seconds to 90 days", "overlap_s")
    key = _holding(keys, given.id)
    if isinstance(key, Refused):
        return key
    last = [KeySecret(digest=key.secrets[0].digest, until=now + given.overlap_s)] if given.overlap_s else []
    return KeyIssued(
        id=key.id,
        by=fresh.by,
        reason=given.reason,
        name=key.name,
        scopes=key.scopes,
        secrets=[KeySecret(digest=fresh.digest), *last],
        pepper=fresh.pepper,
        models=key.models,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        expires_at=key.expires_at,
        cache_s=key.cache_s,
        rotated=True,
    )


def revoke(keys: Keys, name: str, by: str, reason: str | None) -> KeyRevoked | Refused | None:
    """The end of a key; None where it has ended already."""
    key = keys.by_id.get(name)
    if key is None:
        return _no_key(name)
    return None if key.revoked else KeyRevoked(id=name, by=by, reason=reason)


def _holding(keys: Keys, name: str) -> Key | Refused:
    key = keys.by_id.get(name)
    if key is None:
        return _no_key(name)
    if key.revoked:
        return Refused(code="conflict", message=f"key {name!r} was revoked; issue another one", param="id")
    return key


def state_of(key: Key, now: float) -> str:
    """How a key stands, in one word."""
    if key.revoked:
        return "revoked"
    if key.expires_at is not None and now >= key.expires_at:
        return "expired"
    overlaps = any(secret.until is not None and now < secret.until for secret in key.secrets)
    return "rotating" if overlaps else "active"


def _no_key(name: str) -> Refused:
    return Refused(code="not_found", message=f"there is no key {name!r}; see `trunkline keys list`", param="id")


def _invalid(message: str, param: str) -> Refused:
    return Refused(code="invalid_request", message=message, param=param)
