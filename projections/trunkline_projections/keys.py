"""API keys as the log has them: what each may do, and the keyed hashes that it is known by."""

from typing import assert_never

from msgspec import Struct, field, structs
from trunkline_events.key import KeyFact, KeyIssued, KeyRevoked, KeySecret, Scope

CATEGORIES = ("key",)

LOOKUP = 16
"""Hex digits of a hash that a key is looked up by; the whole is compared afterwards, in constant time."""


class Key(Struct, frozen=True, kw_only=True):
    """One key. Times are Unix time; `changed_at` is that of its last event, at `sequence` of the log."""

    id: str
    name: str
    scopes: list[Scope]
    secrets: list[KeySecret]
    pepper: str
    models: list[str] = []
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: float | None = None
    cache_s: float | None = None
    revoked: bool = False
    changed_at: float = 0.0
    sequence: int = 0


class Keys(Struct, frozen=True, kw_only=True):
    """All keys by id, revoked ones too, since they are told apart from unknown ones; ids by the start of each hash."""

    by_id: dict[str, Key] = field(default_factory=dict)
    by_hash: dict[str, str] = field(default_factory=dict)


EMPTY = Keys()


def evolve(state: Keys, fact: KeyFact, sequence: int, time: float) -> Keys:
    """The keys after this event."""
    known = state.by_id.get(fact.id)
    match fact:
        case KeyIssued():
            key = Key(
                id=fact.id,
                name=fact.name,
                scopes=fact.scopes,
                secrets=fact.secrets,
                pepper=fact.pepper,
                models=fact.models,
                requests_per_minute=fact.requests_per_minute,
                tokens_per_minute=fact.tokens_per_minute,
                expires_at=fact.expires_at,
                cache_s=fact.cache_s,
                changed_at=time,
                sequence=sequence,
            )
            gone = {secret.digest[:LOOKUP] for secret in known.secrets} if known else set()
            hashes = (
                {start: name for start, name in state.by_hash.items() if start not in gone} if gone else state.by_hash
            )
            own = {secret.digest[:LOOKUP]: fact.id for secret in fact.secrets}
            return Keys(by_id={**state.by_id, fact.id: key}, by_hash={**hashes, **own})
        case KeyRevoked():
            if known is None:
                return state
            revoked = structs.replace(known, revoked=True, changed_at=time, sequence=sequence)
            return structs.replace(state, by_id={**state.by_id, fact.id: revoked})
        case _:  # pragma: no cover
            assert_never(fact)
