"""Cryptography for stored secrets, and nothing else: keys from passphrases, sealing, opening, fingerprints. Pure.

Built on `cryptography`: AES-256-GCM, Argon2id (RFC 9106), PBKDF2-HMAC-SHA256, HKDF-SHA256, X25519. Everything random is
drawn by whoever calls. What is sealed is bound to a context; another context opens nothing.
"""

import base64
import binascii
import hmac
import unicodedata
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

Draw = Callable[[int], bytes]
"""So many random bytes, fit for keys: `secrets.token_bytes`."""

KEY_BYTES = 32
NONCE_BYTES = 12
SALT_BYTES = 16
SIZES = (512, 4096)
"""What a secret is padded to, so that its sealed size doesn't tell its length."""
MAX_SECRET = SIZES[-1] - 2
LEAST_PASSPHRASE = 12
"""Characters of a passphrase, at least."""

Algorithm = Literal["argon2id", "pbkdf2-sha256", "key-file"]


class Unopened(Exception):
    """This does not open: another key, another context, or bytes that somebody changed. Nothing tells which."""


class BadKdf(ValueError):
    """These parameters can't be used to derive a key. The message says why."""


class Key:
    """A key in memory. It is never shown, compared in the open, copied into another process or written down by us."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._value = value

    def reveal(self) -> bytes:
        """Its bytes."""
        return self._value

    def same(self, other: "Key") -> bool:
        """Whether both are the same key, in a time that doesn't tell how alike they are."""
        return hmac.compare_digest(self._value, other.reveal())

    def __repr__(self) -> str:
        return "<Key>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not to be pickled")


class Kdf(Struct, frozen=True, kw_only=True):
    """How a key is derived: `rounds` of Argon2id with so much memory and so many lanes, or of PBKDF2."""

    algorithm: Algorithm
    salt: bytes
    rounds: int = 0
    memory_kib: int = 0
    lanes: int = 0


class Sealed(Struct, frozen=True, array_like=True):
    """AES-256-GCM: a nonce, and what it sealed with its tag at the end."""

    nonce: bytes
    data: bytes


# At least: OWASP's figures for passwords; below them a stolen vault is cheap to try. At most: what a vault that
# somebody tampered with may make a process spend.
_LEAST = {"argon2id": (2, 19 * 1024, 1), "pbkdf2-sha256": (600_000, 0, 0), "key-file": (0, 0, 0)}
_MOST = {"argon2id": (64, 1024 * 1024, 16), "pbkdf2-sha256": (10_000_000, 0, 0), "key-file": (0, 0, 0)}


def new_kdf(algorithm: Algorithm, draw: Draw) -> Kdf:
    """Our choice of parameters, with a salt of its own: for Argon2id the second of RFC 9106, some 0.2 s."""
    salt = draw(SALT_BYTES)
    match algorithm:
        case "argon2id":
            return Kdf(algorithm=algorithm, salt=salt, rounds=3, memory_kib=64 * 1024, lanes=4)
        case "pbkdf2-sha256":
            return Kdf(algorithm=algorithm, salt=salt, rounds=600_000)
        case "key-file":
            return Kdf(algorithm=algorithm, salt=salt)


def kdf_problem(kdf: Kdf, *, strict: bool = True) -> str | None:
    """Why a key must not be derived so. `strict`: also where it would be too cheap to try passphrases."""
    given = (kdf.rounds, kdf.memory_kib, kdf.lanes)
    if any(value > most for value, most in zip(given, _MOST[kdf.algorithm], strict=True)):
        return f"{kdf.algorithm} with these parameters takes more time or memory than we spend"
    if strict and any(value < least for value, least in zip(given, _LEAST[kdf.algorithm], strict=True)):
        return f"{kdf.algorithm} with these parameters is too weak; take its defaults"
    if not 8 <= len(kdf.salt) <= 64:
        return "a salt has 8 to 64 bytes"
    return None


def derive(kdf: Kdf, given: bytes) -> Key:
    """The key of a passphrase (UTF-8), or of the 32 bytes of a key file. Takes its time: call it in a thread.

    Raises BadKdf.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    if problem := kdf_problem(kdf, strict=False):
        raise BadKdf(problem)
    try:
        match kdf.algorithm:
            case "argon2id":
                return Key(
                    Argon2id(
                        salt=kdf.salt,
                        length=KEY_BYTES,
                        iterations=kdf.rounds,
                        lanes=kdf.lanes,
                        memory_cost=kdf.memory_kib,
                    ).derive(given)
                )
            case "pbkdf2-sha256":
                return Key(PBKDF2HMAC(hashes.SHA256(), KEY_BYTES, kdf.salt, kdf.rounds).derive(given))
            case "key-file":
                return _subkey(Key(given), kdf.salt, "key file")
    except (ValueError, OverflowError) as error:
        raise BadKdf(f"{kdf.algorithm} can't be used so: {error}") from error


def passphrase_bytes(text: str) -> bytes:
    """A passphrase as it goes into the derivation: the same whatever keyboard composed its accents (NFC)."""
    return unicodedata.normalize("NFC", text).encode()


def read_key_file(text: str) -> bytes:
    """The 32 bytes that a key file holds as base64. Raises ValueError, without quoting it."""
    try:
        found = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a key file holds 32 random bytes in base64, and nothing else") from None
    if len(found) != KEY_BYTES:
        raise ValueError(f"a key file holds 32 random bytes in base64; this one has {len(found)}")
    return found


# -- sealing -----------------------------------------------------------------------------------------------------------


def seal(key: Key, plain: bytes, context: tuple[Any, ...], draw: Draw) -> Sealed:
    """Seal under a key, bound to a context."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = draw(NONCE_BYTES)
    return Sealed(nonce, AESGCM(key.reveal()).encrypt(nonce, plain, _context(context)))


def open_sealed(key: Key, sealed: Sealed, context: tuple[Any, ...]) -> bytes:
    """What was sealed. Raises Unopened."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key.reveal()).decrypt(sealed.nonce, sealed.data, _context(context))
    except (InvalidTag, ValueError):
        raise Unopened("it does not open with this key") from None


def _context(context: tuple[Any, ...]) -> bytes:
    return msgspec.msgpack.encode(context)  # unambiguous: each part tells its type and length


def pad(secret: str) -> bytes:
    """A secret, padded to one of few sizes. Raises ValueError for one that is too long, without quoting it."""
    plain = secret.encode()
    size = next((size for size in SIZES if len(plain) + 2 <= size), None)
    if size is None:
        raise ValueError(f"a secret has at most {MAX_SECRET:,} bytes, this one has {len(plain):,}")
    return len(plain).to_bytes(2, "big") + plain + bytes(size - 2 - len(plain))


def unpad(padded: bytes) -> str:
    """The secret that was padded. Raises Unopened."""
    length = int.from_bytes(padded[:2], "big")
    if len(padded) not in SIZES or length > len(padded) - 2:
        raise Unopened("it is no secret")
    try:
        return padded[2 : 2 + length].decode()
    except UnicodeDecodeError:
        raise Unopened("it is no secret") from None


def secret_problem(secret: str) -> str | None:
    """Why this can't be a secret: it goes into an HTTP header as it is."""
    if not secret:
        return "a secret must not be empty"
    if not (secret.isascii() and secret.isprintable()) or secret != secret.strip():
        return "a secret is one line of printable ASCII, without spaces around it"
    if len(secret) > MAX_SECRET:
        return f"a secret has at most {MAX_SECRET:,} bytes, this one has {len(secret):,}"
    return None


def fingerprint(key: Key, secret: str) -> str:
    """16 hex digits that are the same for the same secret, and tell nothing to who hasn't the key."""
    return hmac.digest(key.reveal(), b"trunkline fingerprint\0" + secret.encode(), "sha256")[:8].hex()


# -- sealed on the way -------------------------------------------------------------------------------------------------


class Pair:
    """A key pair to receive with. What is sealed to `public` opens here and nowhere else."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Key) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._private = private
        self.public = X25519PrivateKey.from_private_bytes(private.reveal()).public_key().public_bytes_raw()

    @property
    def private(self) -> Key:
        """The half that is kept."""
        return self._private

    def __repr__(self) -> str:
        return f"<Pair {self.public.hex()[:16]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not to be pickled")

    def open(self, box: bytes, context: tuple[Any, ...]) -> bytes:
        """What was sealed to us in this context. Raises Unopened."""
        theirs, data = box[:KEY_BYTES], box[KEY_BYTES:]
        key = _agreed(self._private, theirs, theirs + self.public)
        return open_sealed(key, Sealed(bytes(NONCE_BYTES), data), context)


def seal_to(public: bytes, plain: bytes, context: tuple[Any, ...], draw: Draw) -> bytes:
    """Seal to somebody's public key. Raises Unopened for what is no public key."""
    ours = Pair(Key(draw(KEY_BYTES)))
    key = _agreed(ours.private, public, ours.public + public)
    # The key is used for this one message, so its nonce may be fixed.
    return ours.public + seal(key, plain, context, bytes).data


def _agreed(private: Key, public: bytes, both: bytes) -> Key:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        shared = X25519PrivateKey.from_private_bytes(private.reveal()).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise Unopened("this is no public key") from None
    return _subkey(Key(shared), both, "sealed box")


def _subkey(key: Key, salt: bytes, purpose: str) -> Key:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return Key(HKDF(hashes.SHA256(), KEY_BYTES, salt, b"trunkline " + purpose.encode()).derive(key.reveal()))
