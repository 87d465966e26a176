"""Which secrets are stored, as the log has it: names, bindings and fingerprints; never a secret."""

from typing import assert_never

from msgspec import Struct, field, structs
from trunkline_events.secret import SecretDeleted, SecretFact, SecretRotated, SecretStored, VaultRekeyed

CATEGORIES = ("secret",)


class Stored(Struct, frozen=True, kw_only=True):
    """One secret: the provider and the address it is for, and the last change to it, at this revision of its vault."""

    provider: str
    address: str
    fingerprint: str
    vault: str
    revision: int
    change: str


class Secrets(Struct, frozen=True, kw_only=True):
    """Stored secrets by name; of each vault that was rekeyed, the last change that did so; the newest revision told."""

    stored: dict[str, Stored] = field(default_factory=dict)
    rekeyed: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)


EMPTY = Secrets()


def evolve(state: Secrets, fact: SecretFact) -> Secrets:
    """The secrets after this event."""
    revision = max(fact.revision, state.revisions.get(fact.vault, 0))
    state = structs.replace(state, revisions={**state.revisions, fact.vault: revision})
    match fact:
        case SecretStored(id=name):
            stored = Stored(
                provider=fact.provider,
                address=fact.address,
                fingerprint=fact.fingerprint,
                vault=fact.vault,
                revision=fact.revision,
                change=fact.change,
            )
            return structs.replace(state, stored={**state.stored, name: stored})
        case SecretRotated(id=name):
            known = state.stored.get(name)
            if known is None:
                return state
            stored = structs.replace(
                known, fingerprint=fact.fingerprint, vault=fact.vault, revision=fact.revision, change=fact.change
            )
            return structs.replace(state, stored={**state.stored, name: stored})
        case SecretDeleted(id=name):
            return structs.replace(state, stored={one: kept for one, kept in state.stored.items() if one != name})
        case VaultRekeyed():
            return structs.replace(state, rekeyed={**state.rekeyed, fact.vault: fact.change})
        case _:  # pragma: no cover
            assert_never(fact)
