"""The facts of API keys: who may do what, how often, and until when. No key is in an event, nor anything of one.

What is kept of a key is HMAC-SHA-256 under a secret that lies outside the log: whoever has the log alone can neither
make a key of it nor tell whether one he has found is among them.
"""

import re
from typing import Literal

from msgspec import Struct

from trunkline_events.secret import name_problem

_ID = re.compile(r"[a-z][a-z0-9-]{0,31}")


def key_id_problem(identifier: str) -> str | None:
    """Why this can't be the id of a key, or None where it can. What looks like a key itself is refused."""
    if not _ID.fullmatch(identifier) or identifier.startswith("tl-") or name_problem(identifier):
        return "the id of a key is 1 to 32 lower-case letters, digits and dashes, begins with a letter, and is no key"
    return None


Scope = Literal["chat", "read", "admin"]
"""`chat`: chats and embeddings; `read`: look at everything; `admin`: look at and change everything."""
SCOPES: tuple[Scope, ...] = ("chat", "read", "admin")


class KeySecret(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A secret that a key is known by, as its keyed hash in hex, and the Unix time it holds until; None: no end."""

    digest: str
    until: float | None = None


class KeyEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of keys carries. `by` is the id of the key of who asked; empty: none was asked for."""

    id: str
    by: str = ""
    reason: str | None = None


class KeyIssued(KeyEvent, frozen=True, kw_only=True, tag="key.issued.v1"):
    """A key was issued, or has a new secret (`rotated`): everything about it as it is from now on.

    `models` are ids, or patterns in which `*` stands for any text; empty: all. `secrets` has the newest first;
    `pepper` tells the secret that they are hashed under from any other. `expires_at` is Unix time. `cache_s` is for how
    many seconds its answers may be given again; None: as the policy has it.
    """

    name: str
    scopes: list[Scope]
    secrets: list[KeySecret]
    pepper: str
    models: list[str] = []
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: float | None = None
    cache_s: float | None = None
    rotated: bool = False


class KeyRevoked(KeyEvent, frozen=True, kw_only=True, tag="key.revoked.v1"):
    """A key holds no more, for good: its id is never given away again."""


KeyFact = KeyIssued | KeyRevoked
