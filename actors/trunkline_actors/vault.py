"""The vault: all stored secrets as one document, which is written as a whole or not at all. Pure.

Each secret is sealed under a data key of its own, and that under the vault's key, which comes from a passphrase or a
key file and is nowhere in the document. Names, bindings, fingerprints and times lie open; changing a byte of any of
them makes the secret unreadable. docs/secrets.md has the whole construction.
"""

import base64
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from trunkline_actors.sealing import (
    KEY_BYTES,
    Draw,
    Kdf,
    Key,
    Pair,
    Sealed,
    Unopened,
    fingerprint,
    open_sealed,
    pad,
    seal,
    unpad,
)

MOST_SECRETS = 500
How = Literal["stored", "rotated"]
LARGEST = 512 * 1024
"""Bytes of a vault: half of what one message of a server carries unless told otherwise."""


class Entry(Struct, frozen=True, kw_only=True):
    """One secret. `change` names the last change to it, and `how` it came; `created` and `changed` are Unix time."""

    id: str
    provider: str
    address: str
    fingerprint: str
    change: str
    how: How
    created: float
    changed: float
    key: Sealed
    value: Sealed

    def context(self, vault: str, what: str) -> tuple[Any, ...]:
        """What both parts are bound to: all that lies open."""
        named = (self.id, self.provider, self.address, self.fingerprint)
        return ("trunkline", 1, what, vault, *named, self.change, self.how, self.created, self.changed)


class Vault(Struct, frozen=True, kw_only=True):
    """All secrets, and what it takes to open them but the key. `change` names the last change of that key, if any.

    `public` is what secrets are sealed to on their way here; its other half, and the key of fingerprints, are sealed.
    """

    id: str
    kdf: Kdf
    change: str
    public: bytes
    private: Sealed
    hashing: Sealed
    entries: dict[str, Entry] = {}

    def context(self, what: str) -> tuple[Any, ...]:
        """What the vault's own keys are bound to."""
        kdf = (self.kdf.algorithm, self.kdf.salt, self.kdf.rounds, self.kdf.memory_kib, self.kdf.lanes)
        return ("trunkline", 1, what, self.id, self.change, *kdf, self.public)


class Opened(Struct, frozen=True):
    """The keys of an open vault: what receives, and what makes fingerprints."""

    key: Key
    pair: Pair
    hashing: Key


class Full(ValueError):
    """The vault holds no more. Delete secrets that nobody uses."""

    def __init__(self) -> None:
        super().__init__(f"the vault is full: {MOST_SECRETS} secrets, or {LARGEST:,} bytes; delete what nobody uses")


def create(key: Key, kdf: Kdf, draw: Draw) -> Vault:
    """An empty vault under this key."""
    return _headed(draw(8).hex(), "", kdf, key, Key(draw(KEY_BYTES)), draw)


def _headed(vault: str, change: str, kdf: Kdf, key: Key, hashing: Key, draw: Draw) -> Vault:
    pair = Pair(Key(draw(KEY_BYTES)))
    nothing = Sealed(b"", b"")
    bare = Vault(id=vault, kdf=kdf, change=change, public=pair.public, private=nothing, hashing=nothing)
    return structs.replace(
        bare,
        private=seal(key, pair.private.reveal(), bare.context("private"), draw),
        hashing=seal(key, hashing.reveal(), bare.context("hashing"), draw),
    )


def unlock(vault: Vault, key: Key) -> Opened:
    """Its keys. Raises Unopened: it is another vault's key, or the vault was changed by somebody without the key."""
    pair = Pair(Key(open_sealed(key, vault.private, vault.context("private"))))
    hashing = Key(open_sealed(key, vault.hashing, vault.context("hashing")))
    if pair.public != vault.public:  # pragma: no cover - it is part of the context
        raise Unopened("its public key is another one")
    return Opened(key, pair, hashing)


class Fresh(Struct, frozen=True, kw_only=True):
    """A secret to be put into the vault, for one provider at one address. Never shown."""

    id: str
    provider: str
    address: str
    secret: str
    how: How = "stored"

    def __repr__(self) -> str:
        return f"<Fresh {self.id}>"


def put(vault: Vault, opened: Opened, fresh: Fresh, now: float, draw: Draw) -> Vault:
    """The vault with this secret, in place of one of the same name. Raises Full, and ValueError for one too long."""
    before = vault.entries.get(fresh.id)
    entry = Entry(
        id=fresh.id,
        provider=fresh.provider,
        address=fresh.address,
        fingerprint=fingerprint(opened.hashing, fresh.secret),
        change=draw(8).hex(),
        how=fresh.how,
        created=now if before is None else before.created,
        changed=now,
        key=Sealed(b"", b""),
        value=Sealed(b"", b""),
    )
    entries = {**vault.entries, fresh.id: _sealed(vault.id, entry, opened.key, fresh.secret, draw)}
    after = structs.replace(vault, entries=entries)
    if len(after.entries) > MOST_SECRETS or len(encode(after)) > LARGEST:
        raise Full
    return after


def _sealed(vault: str, entry: Entry, key: Key, secret: str, draw: Draw) -> Entry:
    data_key = Key(draw(KEY_BYTES))
    return structs.replace(
        entry,
        key=seal(key, data_key.reveal(), entry.context(vault, "data key"), draw),
        value=seal(data_key, pad(secret), entry.context(vault, "value"), draw),
    )


def reveal(vault: Vault, key: Key, name: str, provider: str, address: str) -> str:
    """A secret, for this provider at this address. Raises KeyError, Unopened."""
    entry = structs.replace(vault.entries[name], id=name, provider=provider, address=address)
    data_key = Key(open_sealed(key, entry.key, entry.context(vault.id, "data key")))
    return unpad(open_sealed(data_key, entry.value, entry.context(vault.id, "value")))


def remove(vault: Vault, name: str) -> Vault:
    """The vault without this secret."""
    return structs.replace(vault, entries={one: entry for one, entry in vault.entries.items() if one != name})


def rekey(vault: Vault, opened: Opened, key: Key, kdf: Kdf, draw: Draw) -> Vault:
    """The same secrets, all sealed anew with new data keys, under another key. Raises Unopened where one can't be read.

    Fingerprints stay what they were.
    """
    after = _headed(vault.id, draw(8).hex(), kdf, key, opened.hashing, draw)
    entries = {
        name: _sealed(vault.id, entry, key, reveal(vault, opened.key, name, entry.provider, entry.address), draw)
        for name, entry in vault.entries.items()
    }
    return structs.replace(after, entries=entries)


def encode(vault: Vault) -> bytes:
    """The document as it is stored."""
    return msgspec.msgpack.encode(vault)


def decode(data: bytes) -> Vault:
    """The vault that was stored so. Raises msgspec.DecodeError for anything else."""
    return msgspec.msgpack.decode(data, type=Vault)


def address_of(kind: str, base_url: str | None) -> str:
    """What a secret is bound to beside its provider: the base URL, or the kind whose own address is called."""
    return base_url.rstrip("/") if base_url else f"kind:{kind}"


# -- what travels ------------------------------------------------------------------------------------------------------


def to_text(data: bytes) -> str:
    """Bytes as JSON carries them: base64."""
    return base64.b64encode(data).decode()


def from_text(text: str) -> bytes:
    """The bytes of `to_text`. Raises ValueError."""
    return base64.b64decode(text, validate=True)


def value_context(vault: Vault | str, name: str, provider: str, address: str, change: str) -> tuple[Any, ...]:
    """What a secret on its way is bound to: with `change`, the last one to it, it is of use once."""
    identity = vault if isinstance(vault, str) else vault.id
    return ("trunkline", 1, "set", identity, name, provider, address, change)


def unlock_context(vault: str, holder: str, kdf: Kdf) -> tuple[Any, ...]:
    """What the vault's key on its way to one process is bound to. `vault` empty: one that is to be made."""
    return ("trunkline", 1, "unlock", vault, holder, msgspec.msgpack.encode(kdf))


def rekey_context(vault: str, change: str, kdf: Kdf) -> tuple[Any, ...]:
    """What the old and the new key on their way are bound to."""
    return ("trunkline", 1, "rekey", vault, change, msgspec.msgpack.encode(kdf))
