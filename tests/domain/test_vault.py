"""The vault: what is sealed opens for whom it was sealed, and for nobody else; no byte can be changed unnoticed."""

import pickle
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from trunkline_actors import vault
from trunkline_actors.sealing import (
    MAX_SECRET,
    BadKdf,
    Kdf,
    Key,
    Pair,
    Sealed,
    Unopened,
    derive,
    kdf_problem,
    new_kdf,
    pad,
    passphrase_bytes,
    read_key_file,
    seal_to,
    secret_problem,
    unpad,
)
from trunkline_actors.vault import Entry, Fresh, Full, Opened, Vault

DRAW = random.Random(6).randbytes
SALT = b"0123456789abcdef"
SMALL = {
    "argon2id": Kdf(algorithm="argon2id", salt=SALT, rounds=1, memory_kib=8, lanes=1),
    "pbkdf2-sha256": Kdf(algorithm="pbkdf2-sha256", salt=SALT, rounds=2),
    "key-file": Kdf(algorithm="key-file", salt=SALT),
}
GIVEN = {"argon2id": b"a passphrase", "pbkdf2-sha256": b"a passphrase", "key-file": bytes(range(32))}
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=600)
NAME, PROVIDER, ADDRESS = "main", "far", "https://api.example.com/v1"


def made(algorithm: str = "argon2id") -> tuple[Vault, Opened]:
    """An empty vault under a small key, and what opens it."""
    key = derive(SMALL[algorithm], GIVEN[algorithm])
    found = vault.create(key, SMALL[algorithm], DRAW)
    return found, vault.unlock(found, key)


def holding(secret: str, algorithm: str = "argon2id") -> tuple[Vault, Opened]:
    found, opened = made(algorithm)
    fresh = Fresh(id=NAME, provider=PROVIDER, address=ADDRESS, secret=secret)
    return vault.put(found, opened, fresh, 1_795_262_400.5, DRAW), opened


HELD, OPENED = holding("sk-a-secret")


@pytest.mark.parametrize("algorithm", list(SMALL))
def test_a_secret_comes_back_under_each_kind_of_key(algorithm: str) -> None:
    held, _ = holding("sk-a-secret", algorithm)
    read = vault.decode(vault.encode(held))
    key = derive(read.kdf, GIVEN[algorithm])
    assert vault.reveal(read, vault.unlock(read, key).key, NAME, PROVIDER, ADDRESS) == "sk-a-secret"


@given(SECRETS)
def test_any_secret_comes_back_and_is_not_in_what_is_stored(secret: str) -> None:
    held, opened = holding(secret)
    assert vault.reveal(held, opened.key, NAME, PROVIDER, ADDRESS) == secret
    sealed = held.entries[NAME]
    assert len(secret) < 8 or secret.encode() not in sealed.key.data + sealed.value.data


@pytest.mark.parametrize("algorithm", list(SMALL))
def test_another_passphrase_or_key_opens_nothing(algorithm: str) -> None:
    held, _ = holding("sk-a-secret", algorithm)
    other = derive(SMALL[algorithm], GIVEN[algorithm][:-1] + b"!")
    with pytest.raises(Unopened):
        vault.unlock(held, other)
    with pytest.raises(Unopened):
        vault.reveal(held, other, NAME, PROVIDER, ADDRESS)


@pytest.mark.parametrize(
    ("provider", "address"),
    [("other", ADDRESS), (PROVIDER, "https://evil.example.com/v1"), (PROVIDER, ADDRESS + "/"), ("", "")],
)
def test_a_secret_is_of_no_use_to_another_provider_or_address(provider: str, address: str) -> None:
    with pytest.raises(Unopened):
        vault.reveal(HELD, OPENED.key, NAME, provider, address)


def test_an_entry_that_was_moved_to_another_name_or_vault_opens_nothing() -> None:
    entry = HELD.entries[NAME]
    moved = structs.replace(HELD, entries={"other": entry})
    with pytest.raises(Unopened):
        vault.reveal(moved, OPENED.key, "other", PROVIDER, ADDRESS)
    with pytest.raises(Unopened):
        vault.reveal(structs.replace(HELD, id="0" * 16), OPENED.key, NAME, PROVIDER, ADDRESS)


def flipped(data: bytes, draw: Any) -> bytes:
    place = draw(st.integers(0, len(data) - 1))
    bit = draw(st.integers(0, 7))
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def changed(value: Any, draw: Any) -> Any:
    """The value, a little different."""
    match value:
        case Sealed(nonce=nonce, data=data):
            return Sealed(flipped(nonce, draw), data) if draw(st.booleans()) else Sealed(nonce, flipped(data, draw))
        case bytes():
            return flipped(value, draw)
        case str():
            return value + "x" if not value else value[:-1] + chr(ord(value[-1]) ^ 1)
        case float():
            return value + 0.5
        case Kdf():
            name = draw(st.sampled_from(["salt", "rounds", "memory_kib", "lanes"]))
            old = getattr(value, name)
            return structs.replace(value, **{name: flipped(old, draw) if name == "salt" else old + 1})
    raise AssertionError(value)


@given(st.data(), st.sampled_from([name for name in Entry.__struct_fields__ if name != "how"]))
def test_a_changed_byte_in_any_field_of_a_secret_is_noticed(data: st.DataObject, name: str) -> None:
    entry = HELD.entries[NAME]
    other = structs.replace(entry, **{name: changed(getattr(entry, name), data.draw)})
    asked = (other.id, other.provider, other.address)
    tampered = structs.replace(HELD, entries={other.id: other})
    with pytest.raises(Unopened):
        vault.reveal(tampered, OPENED.key, *asked)


def test_how_a_secret_came_is_bound_to_it_too() -> None:
    other = structs.replace(HELD.entries[NAME], how="rotated")
    with pytest.raises(Unopened):
        vault.reveal(structs.replace(HELD, entries={NAME: other}), OPENED.key, NAME, PROVIDER, ADDRESS)


@given(st.data(), st.sampled_from([name for name in Vault.__struct_fields__ if name != "entries"]))
def test_a_changed_byte_in_any_field_of_the_vault_is_noticed(data: st.DataObject, name: str) -> None:
    tampered = structs.replace(HELD, **{name: changed(getattr(HELD, name), data.draw)})
    with pytest.raises(Unopened):
        vault.unlock(tampered, OPENED.key)


def test_a_new_passphrase_seals_everything_anew_and_fingerprints_stay() -> None:
    kdf = structs.replace(SMALL["argon2id"], salt=b"another salt....")
    key = derive(kdf, b"another passphrase")
    after = vault.rekey(HELD, OPENED, key, kdf, DRAW)
    assert vault.reveal(after, vault.unlock(after, key).key, NAME, PROVIDER, ADDRESS) == "sk-a-secret"
    assert after.entries[NAME].fingerprint == HELD.entries[NAME].fingerprint
    assert after.entries[NAME].value.data != HELD.entries[NAME].value.data
    assert after.public != HELD.public
    with pytest.raises(Unopened):
        vault.unlock(after, OPENED.key)


def test_fingerprints_are_equal_for_equal_secrets_in_one_vault_and_in_no_other() -> None:
    again = vault.put(HELD, OPENED, Fresh(id="b", provider="p", address="u", secret="sk-a-secret"), 1.0, DRAW)
    assert again.entries["b"].fingerprint == HELD.entries[NAME].fingerprint
    other, _ = holding("sk-a-secret")
    assert other.entries[NAME].fingerprint != HELD.entries[NAME].fingerprint


@given(SECRETS, SECRETS)
def test_the_size_of_what_is_stored_tells_next_to_nothing_of_the_length(one: str, other: str) -> None:
    sizes = {len(pad(one)), len(pad(other))}
    assert sizes <= {512, 4096}
    assert len(sizes) == 1 or max(len(one), len(other)) > 510
    assert unpad(pad(one)) == one


def test_a_secret_that_is_too_long_is_refused_without_being_quoted() -> None:
    with pytest.raises(ValueError, match="at most") as refused:
        pad("k" * (MAX_SECRET + 1))
    assert "kkk" not in str(refused.value)
    for bad in ("", "two\nlines", "ümlaut", " spaced ", "k" * (MAX_SECRET + 1)):
        assert secret_problem(bad)
        assert len(bad) < 2 or bad not in str(secret_problem(bad))
    assert secret_problem("sk-fine") is None


def test_a_vault_that_is_full_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "MOST_SECRETS", 1)
    with pytest.raises(Full):
        vault.put(HELD, OPENED, Fresh(id="b", provider="p", address="u", secret="s"), 1.0, DRAW)
    assert vault.remove(HELD, NAME).entries == {}


@given(st.binary(max_size=600), st.data())
@settings(max_examples=50)
def test_what_is_sealed_on_its_way_opens_for_whom_and_for_what_it_was_sealed(plain: bytes, data: st.DataObject) -> None:
    pair, other = Pair(Key(DRAW(32))), Pair(Key(DRAW(32)))
    box = seal_to(pair.public, plain, ("set", "a"), DRAW)
    assert pair.open(box, ("set", "a")) == plain
    for opener, sealed, context in (
        (other, box, ("set", "a")),
        (pair, box, ("set", "b")),
        (pair, flipped(box, data.draw), ("set", "a")),
        (pair, box[:31], ("set", "a")),
    ):
        with pytest.raises(Unopened):
            opener.open(sealed, context)


@pytest.mark.parametrize("algorithm", list(SMALL))
def test_the_parameters_that_we_choose_are_those_that_we_accept(algorithm: Any) -> None:
    assert kdf_problem(new_kdf(algorithm, DRAW)) is None


@pytest.mark.parametrize(
    ("kdf", "strict", "loose"),
    [
        (SMALL["argon2id"], "too weak", None),
        (SMALL["pbkdf2-sha256"], "too weak", None),
        (structs.replace(SMALL["argon2id"], memory_kib=1 << 30), "more time or memory", "more time or memory"),
        (structs.replace(SMALL["pbkdf2-sha256"], rounds=1 << 40), "more time or memory", "more time or memory"),
        (structs.replace(new_kdf("argon2id", DRAW), salt=b""), "salt", "salt"),
    ],
)
def test_parameters_that_are_too_cheap_or_too_dear_are_refused(kdf: Kdf, strict: str, loose: str | None) -> None:
    assert strict in str(kdf_problem(kdf))
    assert (kdf_problem(kdf, strict=False) is None) == (loose is None)
    if loose is not None:
        with pytest.raises(BadKdf):
            derive(kdf, b"x")


def test_parameters_that_the_library_refuses_are_told_as_such() -> None:
    with pytest.raises(BadKdf):
        derive(structs.replace(SMALL["argon2id"], lanes=4), b"x")
    with pytest.raises(BadKdf):
        derive(SMALL["key-file"], b"too short")


def test_a_key_file_holds_32_bytes_in_base64() -> None:
    assert read_key_file("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n") == bytes(range(32))
    for text in ("", "AAEC", "not base64!", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=="):
        with pytest.raises(ValueError, match="32 random bytes"):
            read_key_file(text)


def test_no_key_is_shown_or_pickled() -> None:
    key = Key(b"canary-canary-canary-canary-123!")
    fresh = Fresh(id="a", provider="p", address="u", secret="canary")
    for one in (key, Pair(key), Opened(key, Pair(key), key), fresh):
        assert "canary" not in repr(one)
        assert "canary" not in f"{one}"
    for one in (key, Pair(key)):
        with pytest.raises(TypeError):
            pickle.dumps(one)
    with pytest.raises(TypeError):
        msgspec.json.encode(key)


def test_a_passphrase_is_the_same_whatever_keyboard_composed_it() -> None:
    assert passphrase_bytes("gru\u0308ner Tee am Morgen") == passphrase_bytes("gr\u00fcner Tee am Morgen")
    assert passphrase_bytes("Gruener Tee") != passphrase_bytes("gruener Tee")


def test_keys_are_compared_by_what_they_are() -> None:
    assert Key(b"k" * 32).same(Key(b"k" * 32))
    assert not Key(b"k" * 32).same(Key(b"k" * 31 + b"l"))
    with pytest.raises(ValueError, match="32 bytes"):
        Key(b"short")


@pytest.mark.parametrize("padded", [b"", bytes(7), b"\xff\xff" + bytes(510), b"\x00\x01\xff" + bytes(509)])
def test_what_was_never_padded_is_no_secret(padded: bytes) -> None:
    with pytest.raises(Unopened):
        unpad(padded)


def test_what_travels_is_bound_to_whom_and_what_it_is_for() -> None:
    contexts = {
        vault.value_context(HELD, NAME, PROVIDER, ADDRESS, ""),
        vault.value_context(HELD, NAME, PROVIDER, ADDRESS, "later"),
        vault.value_context("another", NAME, PROVIDER, ADDRESS, ""),
        vault.unlock_context(HELD.id, "host-1", HELD.kdf),
        vault.unlock_context(HELD.id, "host-2", HELD.kdf),
        vault.unlock_context(HELD.id, "host-2", SMALL["key-file"]),
        vault.rekey_context(HELD.id, "", HELD.kdf),
    }
    assert len(contexts) == 7
    assert vault.from_text(vault.to_text(b"\x00\xff")) == b"\x00\xff"
    assert vault.address_of("openai", None) == "kind:openai"


def test_no_public_key_takes_nothing() -> None:
    for public in (b"", bytes(32), b"short"):
        with pytest.raises(Unopened):
            seal_to(public, b"x", (), DRAW)
