"""The facts of stored secrets, by names and fingerprints, and what their names may look like. None is in an event."""

import re

from msgspec import Struct

from trunkline_events.subjects import id_problem

ENVIRONMENT = "env:"
"""What a reference to an environment variable begins with; any other reference names a stored secret."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What well-known keys begin with, and a run of letters and digits that nobody would take for a name.
_KEY = re.compile(r"^\s*((sk|rk|gsk|ghp|Bearer)[-_ ]|((hf|xai|tl|pplx|nvapi|glpat)[-_]|AKIA|AIza|eyJ)[A-Za-z0-9]{12,})")
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_NOT_A_KEY = (
    "it looks like a key itself, and names are kept in the log; name it like openai-main, or env:OPENAI_API_KEY"
)


def name_problem(name: str) -> str | None:
    """Why this can't be the name of a stored secret, or None where it can. What looks like a key is refused."""
    if problem := id_problem(name):
        return problem
    if _KEY.search(name) or any(_mixed(run) for run in _RUN.findall(name)):
        return _NOT_A_KEY
    if ":" in name:
        return "the name of a secret has no colon; only env:NAME, for an environment variable, does"
    return None


def reference_problem(reference: str) -> str | None:
    """Why this names no secret, or None where it does: `env:NAME`, or the name of a stored one."""
    if not reference.startswith(ENVIRONMENT):
        return name_problem(reference)
    if not _VARIABLE.fullmatch(reference.removeprefix(ENVIRONMENT)):
        return "after env: comes the name of an environment variable, such as env:OPENAI_API_KEY; never the key itself"
    return None


def is_stored(reference: str | None) -> bool:
    """Whether a provider's `secret` names one that is stored, rather than an environment variable."""
    return reference is not None and not reference.startswith(ENVIRONMENT)


def _mixed(text: str) -> bool:
    return bool(re.search(r"\d", text) and re.search(r"[A-Za-z]", text))


class SecretEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of secrets carries.

    `vault` identifies the vault it lies in, `revision` is that of the vault which has the change, and `change` names
    the change, so that what was written and not told is told once. `reason` is why, where the caller said so.
    """

    vault: str
    revision: int
    change: str
    reason: str | None = None


class SecretStored(SecretEvent, frozen=True, kw_only=True, tag="secret.stored.v1"):
    """A secret was stored, or stored anew: for one provider at one address, and of use nowhere else.

    `address` is the provider's base URL, or `kind:<kind>` where it is that of its kind. `fingerprint` is a keyed hash:
    equal ones are the same secret, and nobody can try out guesses without the vault's key. `kdf` says what the key
    that protects the vault is derived with.
    """

    id: str
    provider: str
    address: str
    fingerprint: str
    kdf: str


class SecretRotated(SecretEvent, frozen=True, kw_only=True, tag="secret.rotated.v1"):
    """A secret has a new value; `replaced` is the fingerprint of the one before."""

    id: str
    fingerprint: str
    replaced: str


class SecretDeleted(SecretEvent, frozen=True, kw_only=True, tag="secret.deleted.v1"):
    """A secret is no longer stored; its name is free."""

    id: str


class VaultRekeyed(SecretEvent, frozen=True, kw_only=True, tag="secret.rekeyed.v1"):
    """All secrets of a vault are sealed anew, under another passphrase or key file."""

    kdf: str
    secrets: int


SecretFact = SecretStored | SecretRotated | SecretDeleted | VaultRekeyed
