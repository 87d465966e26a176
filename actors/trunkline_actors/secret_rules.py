"""Decisions about stored secrets: what each may be bound to, which may go, what is still to be told. Pure."""

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_events.secret import SecretDeleted, SecretFact, SecretRotated, SecretStored, VaultRekeyed, name_problem
from trunkline_events.times import format_time
from trunkline_projections.models import Registry
from trunkline_projections.secrets import Secrets, Stored

from trunkline_actors.sealing import Unopened
from trunkline_actors.vault import Entry, Opened, Vault, address_of, reveal

Condition = Literal["usable", "locked", "unbound", "undecryptable", "missing"]

DELETED = "-deleted"


class Binding(Struct, frozen=True, kw_only=True):
    """What a secret is for; `change` names the last change to it, empty where there is none."""

    provider: str
    address: str
    base_url: str | None
    change: str


def binding(registry: Registry, vault: Vault | None, name: str, provider: str | None) -> Binding | Refused:
    """What a secret of this name is bound to when it is set: `provider`, else the only one that names it."""
    if problem := name_problem(name):
        return Refused(code="invalid_request", message=problem, param="id")
    entry = vault.entries.get(name) if vault else None
    if provider is None:
        named = users(registry, name)
        if len(named) > 1 or not (named or entry):
            told = f"{', '.join(named)} name it" if named else "no provider names it yet"
            message = f"say which provider secret {name!r} is for ({told}): --provider, or `provider`"
            return Refused(code="invalid_request", message=message, param="provider")
        provider = named[0] if named else entry.provider if entry else ""
    known = registry.providers.get(provider)
    if known is None:
        message = f"no provider is registered as {provider!r}; register it first, with this secret's name"
        return Refused(code="not_found", message=message, param="provider")
    return Binding(
        provider=provider,
        address=address_of(known.kind, known.base_url),
        base_url=known.base_url,
        change=entry.change if entry else "",
    )


def bound_now(registry: Registry, vault: Vault | None, name: str) -> Binding | Refused:
    """What a stored secret is bound to, where its provider is there still."""
    entry = vault.entries.get(name) if vault else None
    if entry is None:
        return no_secret(name)
    known = registry.providers.get(entry.provider)
    if known is None or entry.address != address_of(known.kind, known.base_url):
        message = f"secret {name!r} is for {entry.provider!r} at {entry.address}, which is there no more; set it anew"
        return Refused(code="conflict", message=message, param="id")
    return Binding(provider=entry.provider, address=entry.address, base_url=known.base_url, change=entry.change)


def users(registry: Registry, name: str) -> list[str]:
    """The providers that name this secret."""
    return sorted(one.id for one in registry.providers.values() if one.secret == name)


def may_delete(registry: Registry, name: str, *, force: bool) -> Refused | None:
    """Why this secret must stay: providers name it."""
    named = users(registry, name)
    if not named or force:
        return None
    message = f"secret {name!r} is what {', '.join(named[:5])} would call with; give it another one first, or force it"
    return Refused(code="conflict", message=message, metadata={"providers": named})


def no_secret(name: str) -> Refused:
    """A command about a secret that is not there."""
    return Refused(
        code="not_found", message=f"no secret is stored as {name!r}; see `trunkline secrets list`", param="id"
    )


# -- what the log has still to be told ---------------------------------------------------------------------------------


def untold(told: Secrets, vault: Vault | None, revision: int) -> Iterator[tuple[str, SecretFact]]:
    """What was written and not told, by aggregate, where a process died in between.

    `told` must have been read before the vault was. What a vault that was put back from an older copy lacks was not
    deleted: of that nothing is told.
    """
    if vault is None:
        return
    for name, entry in vault.entries.items():
        if _is_news(told.stored.get(name), entry):
            yield name, fact_of(told.stored.get(name), vault, revision, entry)
    if revision >= told.revisions.get(vault.id, 0):
        for name, known in told.stored.items():
            if known.vault == vault.id and name not in vault.entries:
                change = known.change + DELETED
                yield name, SecretDeleted(vault=vault.id, revision=revision, change=change, id=name)
    if vault.change and told.rekeyed.get(vault.id) != vault.change:
        yield (
            f"vault:{vault.id}",
            VaultRekeyed(
                vault=vault.id,
                revision=revision,
                change=vault.change,
                kdf=vault.kdf.algorithm,
                secrets=len(vault.entries),
            ),
        )


def _is_news(known: Stored | None, entry: Entry) -> bool:
    return known is None or known.change != entry.change


def fact_of(known: Stored | None, vault: Vault, revision: int, entry: Entry) -> SecretFact:
    """The event of an entry as it is now."""
    if entry.how == "rotated" and known is not None and known.vault == vault.id:
        return SecretRotated(
            vault=vault.id,
            revision=revision,
            change=entry.change,
            id=entry.id,
            fingerprint=entry.fingerprint,
            replaced=known.fingerprint,
        )
    return SecretStored(
        vault=vault.id,
        revision=revision,
        change=entry.change,
        id=entry.id,
        provider=entry.provider,
        address=entry.address,
        fingerprint=entry.fingerprint,
        kdf=vault.kdf.algorithm,
    )


def still_news(told: Secrets, fact: SecretFact) -> SecretFact | None:
    """The fact, unless the log has it by now, or what came after it."""
    match fact:
        case SecretStored() | SecretRotated():
            known = told.stored.get(fact.id)
            return None if known is not None and known.change == fact.change else fact
        case SecretDeleted():
            known = told.stored.get(fact.id)
            return fact if known is not None and known.change + DELETED == fact.change else None
        case VaultRekeyed():
            return None if told.rekeyed.get(fact.vault) == fact.change else fact


# -- what is shown -----------------------------------------------------------------------------------------------------


def shown(registry: Registry, told: Secrets, vault: Vault | None, opened: Opened | None) -> list[dict[str, Any]]:
    """All secrets by name: those stored, those that only the log knows, and those that only providers name."""
    named = {one.secret for one in registry.providers.values() if one.secret and not one.secret.startswith("env:")}
    entries = vault.entries if vault else {}
    return [
        _shown(name, registry, told.stored.get(name), vault, opened)
        for name in sorted({*named, *told.stored, *entries})
    ]


def _shown(
    name: str, registry: Registry, known: Stored | None, vault: Vault | None, opened: Opened | None
) -> dict[str, Any]:
    entry = vault.entries.get(name) if vault else None
    found = entry or known
    return {
        "id": name,
        "state": condition(registry, vault, opened, name),
        "fingerprint": found.fingerprint if found else None,
        "provider": found.provider if found else None,
        "address": found.address if found else None,
        "created_at": format_time(entry.created) if entry else None,
        "changed_at": format_time(entry.changed) if entry else None,
        "kdf": vault.kdf.algorithm if vault and entry else None,
        "used_by": users(registry, name),
    }


def condition(registry: Registry, vault: Vault | None, opened: Opened | None, name: str) -> Condition:
    """Whether its provider can be called with it, as far as this process can tell."""
    entry = vault.entries.get(name) if vault else None
    if vault is None or entry is None:
        return "missing"
    provider: Provider | None = registry.providers.get(entry.provider)
    if provider is None or entry.address != address_of(provider.kind, provider.base_url):
        return "unbound"
    if opened is None:
        return "locked"
    try:
        reveal(vault, opened.key, name, entry.provider, entry.address)
    except Unopened:
        return "undecryptable"
    return "usable"
