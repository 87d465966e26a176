"""NKeys, by which NATS knows a user without ever seeing its secret: Ed25519 keys in base 32, as ADR-14 writes them.

A user's public key begins with `U`, its seed with `SU`. The server holds public keys only, and has each user sign a
number that it draws anew for every connection.
"""

import base64
import binascii

_USER = 20 << 3
_SEED = 18 << 3
_PREFIX = bytes([_SEED | _USER >> 5, (_USER & 31) << 3])
"""What the seed of a user begins with: two letters of five bits each, and what is left of both bytes."""
_RAW = 32


class BadSeed(ValueError):
    """This is no seed of a user, 58 letters and digits from `SU` on. `python -m trunkline.nkeys` makes one."""

    def __init__(self) -> None:
        super().__init__("this is no seed of a NATS user; make one with `python -m trunkline.nkeys`")


def seed_of(raw: bytes) -> str:
    """The seed of a user that 32 random bytes make."""
    assert len(raw) == _RAW, "a seed is 32 bytes"
    return _encode(_PREFIX + raw)


def is_seed(text: str) -> bool:
    """Whether this is a seed of a user, its check sum included."""
    try:
        _raw(text)
    except BadSeed:
        return False
    return True


def public_key(seed: str) -> str:
    """What the server knows this user by. Raises BadSeed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # slow to load, and rarely needed

    return _encode(bytes([_USER]) + Ed25519PrivateKey.from_private_bytes(_raw(seed)).public_key().public_bytes_raw())


def sign(seed: str, nonce: str) -> bytes:
    """The signature that the server asks for, in base 64. Raises BadSeed."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return base64.b64encode(Ed25519PrivateKey.from_private_bytes(_raw(seed)).sign(nonce.encode()))


def _encode(content: bytes) -> str:
    check = binascii.crc_hqx(content, 0).to_bytes(2, "little")
    return base64.b32encode(content + check).decode().rstrip("=")


def _raw(seed: str) -> bytes:
    try:
        decoded = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raise BadSeed from None
    content = decoded[:-2]
    if len(content) != _RAW + 2 or content[:2] != _PREFIX or _encode(content) != seed:
        raise BadSeed
    return content[2:]
