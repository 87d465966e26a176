"""The actor for stored secrets: takes them sealed, keeps them in the vault, and tells the log names and fingerprints.

The vault is written first and told second. What was written and not told, since a process died in between, is told by
whoever looks next.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from trunkline_events import headers, subjects
from trunkline_events.envelope import Event
from trunkline_events.log import LogRefused, LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.secret import SecretFact
from trunkline_projections.secrets import Secrets

from trunkline_actors import secret_rules, staleness, vault
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Page, Reply, endpoint
from trunkline_actors.micro import Endpoint
from trunkline_actors.readers import ChangeActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.sealing import KEY_BYTES, Kdf, Key, Unopened, kdf_problem, secret_problem, unpad
from trunkline_actors.secret_rules import no_secret
from trunkline_actors.shell import Command
from trunkline_actors.vault import Fresh, Full, Opened, Vault
from trunkline_actors.vault_store import Raced, VaultDamaged

log = structlog.get_logger()

MOST_TRIES = 16
LOCKED = "the vault is locked here; next: `trunkline secrets unlock`"
SEALED = "a secret comes sealed: use `trunkline secrets set`, or gw.secrets.set(id=…, value=…)"


class Describe(msgspec.Struct, frozen=True, kw_only=True):
    """What a secret of this name, for this provider, would be bound to; `stored`: what it is bound to now.

    Without a name: the vault alone.
    """

    id: str | None = None
    provider: str | None = None
    stored: bool = False


class Set(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret, sealed to the vault for what `describe` said of it."""

    id: str
    provider: str
    address: str
    sealed: str
    change: str = ""
    reason: str | None = None


class Rotate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new value for a secret; or, with `kdf` and without `id`, the vault's old and new key, sealed to the vault."""

    sealed: str
    id: str | None = None
    kdf: Kdf | None = None
    change: str = ""
    reason: str | None = None


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """A secret to forget. `force`: also where a provider names it."""

    id: str
    force: bool = False
    reason: str | None = None


class _Told:
    """What the log knows of secrets, and the sequence of the last event about one."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return None  # the actor's own, around all of it

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Secrets, int | None, bool]:
        last = await self._runtime.log.last("secret", aggregate)
        await self._runtime.gateway.catch_up()
        return self._runtime.gateway.state.secrets, last.sequence if last else 0, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember: the view follows the log."""


Change = Callable[[Vault, Opened], Vault | Refused | None]
"""The vault after a change, a refusal, or None where it is so already."""


class SecretsActor(ChangeActor):
    """Stores, lists, rotates and deletes the secrets that providers are called with."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "trunkline-secrets")
        self._keyring = runtime.keyring
        self._told = _Told(runtime)
        self._turn = asyncio.Lock()

    def endpoints(self) -> list[Endpoint]:
        of = subjects.SECRETS
        return [
            endpoint(self.bus, "describe", f"{of}.describe", Describe, self._describe),
            endpoint(self.bus, "set", f"{of}.set", Set, self._set),
            endpoint(self.bus, "rotate", f"{of}.rotate", Rotate, self._rotate),
            endpoint(self.bus, "delete", f"{of}.delete", Delete, self._delete),
            endpoint(self.bus, "list", f"{of}.list", Page, self._list),
        ]

    async def starting(self) -> None:
        await super().starting()
        try:
            async with self._turn:
                await self.tell()
        except (LogUnavailable, LogRefused, VaultDamaged) as error:
            log.warning("secrets.not_told", reason=type(error).__name__)

    # -- questions -------------------------------------------------------------------------------------------------

    async def _describe(self, given: Describe, delivery: Delivery) -> Reply:
        registry = (await staleness.current(self._runtime)).registry
        if problem := await self._loaded():
            return problem
        keyring = self._keyring
        told: dict[str, Any] = {"state": keyring.state, "vault": None}
        if keyring.vault is not None:
            found = keyring.vault
            told["vault"] = {
                "id": found.id,
                "kdf": found.kdf,
                "change": found.change,
                "public_key": vault.to_text(found.public),
            }
        if given.id is None:
            return told
        if given.stored:
            bound = secret_rules.bound_now(registry, keyring.vault, given.id)
        else:
            bound = secret_rules.binding(registry, keyring.vault, given.id, given.provider)
        return bound if isinstance(bound, Refused) else {**told, "id": given.id, **msgspec.structs.asdict(bound)}

    async def _list(self, given: Page, delivery: Delivery) -> Reply:
        if problem := given.problem():
            return problem
        state = await staleness.current(self._runtime)
        if problem := await self._loaded():
            return problem
        keyring = self._keyring
        every = secret_rules.shown(state.registry, state.secrets, keyring.vault, keyring.opened)
        behind = [one for one in every if one["id"] > given.after]
        chosen = behind[: given.limit]
        after = chosen[-1]["id"] if len(behind) > len(chosen) else None
        seq = self._runtime.gateway.position
        return {"seq": seq, "vault": keyring.state, "secrets": chosen, "after": after}

    async def _loaded(self) -> Refused | None:
        """Read the vault as it is now, or say why that can't be."""
        try:
            await self._keyring.load()
        except VaultDamaged as error:
            return Refused(code="unavailable", message=str(error), retryable=False)
        except LogUnavailable as error:
            return Refused(code="unavailable", message=f"{error}; try again in a moment")
        return None

    # -- changes ---------------------------------------------------------------------------------------------------

    async def _set(self, given: Set, delivery: Delivery) -> Reply:
        def change(found: Vault, opened: Opened) -> Vault | Refused | None:
            registry = self._runtime.gateway.state.registry
            bound = secret_rules.binding(registry, found, given.id, given.provider)
            if isinstance(bound, Refused):
                return bound
            if bound.address != given.address:
                message = (
                    f"provider {given.provider!r} is at {bound.address} now, not at {given.address}; look, and set it"
                )
                return Refused(code="conflict", message=message, param="address")
            fresh = Fresh(id=given.id, provider=given.provider, address=given.address, secret="")
            return self._put(found, opened, fresh, given.sealed, given.change)

        return await self._change(given.id, delivery, given.reason, change)

    async def _rotate(self, given: Rotate, delivery: Delivery) -> Reply:
        if (given.id is None) == (given.kdf is None):
            return Refused(code="invalid_request", message="rotate takes either `id` or `kdf`", param="id")
        if given.kdf is not None:
            return await self._rekey(given, given.kdf, delivery)
        name = given.id or ""

        def change(found: Vault, opened: Opened) -> Vault | Refused | None:
            bound = secret_rules.bound_now(self._runtime.gateway.state.registry, found, name)
            if isinstance(bound, Refused):
                return bound
            fresh = Fresh(id=name, provider=bound.provider, address=bound.address, secret="", how="rotated")
            return self._put(found, opened, fresh, given.sealed, given.change)

        return await self._change(name, delivery, given.reason, change)

    def _put(self, found: Vault, opened: Opened, fresh: Fresh, sealed: str, seen: str) -> Vault | Refused | None:
        """The vault with the secret that came sealed; None where this very secret lies there already."""
        entry = found.entries.get(fresh.id)
        if seen != (entry.change if entry else ""):
            message = f"secret {fresh.id!r} was changed meanwhile; look at it, and try again"
            return Refused(code="conflict", message=message, param="change")
        context = vault.value_context(found, fresh.id, fresh.provider, fresh.address, seen)
        try:
            secret = unpad(opened.pair.open(vault.from_text(sealed), context))
        except (Unopened, ValueError):
            return Refused(code="invalid_request", message=f"it does not open: {SEALED}", param="sealed")
        if problem := secret_problem(secret):
            return Refused(code="invalid_request", message=problem, param="value")
        if entry is not None and _holds(found, opened, fresh, secret):
            return None
        fresh = msgspec.structs.replace(fresh, secret=secret)
        return vault.put(found, opened, fresh, self._runtime.clock(), secrets.token_bytes)

    async def _delete(self, given: Delete, delivery: Delivery) -> Reply:
        def change(found: Vault) -> Vault | Refused | None:
            if given.id not in found.entries:
                return no_secret(given.id)
            registry = self._runtime.gateway.state.registry
            return secret_rules.may_delete(registry, given.id, force=given.force) or vault.remove(found, given.id)

        # Forgetting takes no key.
        return await self._change(given.id, delivery, given.reason, lambda found, _opened: change(found), locked=True)

    async def _rekey(self, given: Rotate, kdf: Kdf, delivery: Delivery) -> Reply:
        if problem := kdf_problem(kdf):
            return Refused(code="invalid_request", message=problem, param="kdf")

        def change(found: Vault, opened: Opened) -> Vault | Refused | None:
            if given.change != found.change:
                message = "the passphrase was changed meanwhile; look who did, and try again"
                return Refused(code="conflict", message=message, param="change")
            try:
                both = opened.pair.open(vault.from_text(given.sealed), vault.rekey_context(found.id, found.change, kdf))
                old, new = Key(both[:KEY_BYTES]), Key(both[KEY_BYTES:])
            except (Unopened, ValueError):
                return Refused(code="invalid_request", message="it does not open: see docs/secrets.md", param="sealed")
            if not old.same(opened.key):
                message = "the passphrase or key file so far is another one; nothing was changed"
                return Refused(code="permission_denied", message=message)
            try:
                return vault.rekey(found, opened, new, kdf, secrets.token_bytes)
            except Unopened:
                message = "a secret can't be decrypted; see `trunkline secrets list`, and set or delete it first"
                return Refused(code="conflict", message=message)

        return await self._change(None, delivery, given.reason, change)

    # -- both ------------------------------------------------------------------------------------------------------

    async def _change(
        self, name: str | None, delivery: Delivery, reason: str | None, change: Change, *, locked: bool = False
    ) -> Reply:
        """Write the vault, tell the log, and answer when every process has read it."""
        async with self._turn:
            await self._runtime.gateway.catch_up()
            written = await self._write(change, locked=locked)
            if isinstance(written, Refused):
                return written
            sequences = await self.tell(delivery, reason)
        found = self._keyring.vault
        aggregate = name if name is not None else f"vault:{found.id if found else ''}"
        sequence = sequences.get(aggregate)
        if sequence is not None:
            await self.read_by_all(sequence)
        entry = found.entries.get(name) if found and name else None
        told = {} if entry is None else {
            "provider": entry.provider, "address": entry.address, "fingerprint": entry.fingerprint
        }  # fmt: skip
        seq = sequence or self._runtime.gateway.position
        return {"seq": seq, "id": name, **told, "changed": written}

    async def _write(self, change: Change, *, locked: bool) -> bool | Refused:
        """Whether anything was changed."""
        keyring = self._keyring
        for _ in range(MOST_TRIES):
            if problem := await self._loaded():
                return problem
            found, opened, revision = keyring.vault, keyring.opened, keyring.revision
            if found is None:
                message = "there is no vault yet; make one with `trunkline secrets unlock`"
                return Refused(code="conflict", message=message)
            if opened is None and not locked:
                return Refused(code="unavailable", message=LOCKED, retryable=False)
            try:
                after = change(found, opened)  # type: ignore[arg-type]  # only what takes no key is called without
                if after is None:
                    return False
                if isinstance(after, Refused):
                    return after
                await keyring.write(after, revision)
            except Full as error:
                return Refused(code="conflict", message=str(error))
            except Raced:
                continue
            return True
        return Refused(code="unavailable", message="the vault is changed all the time; try again")

    async def tell(self, delivery: Delivery | None = None, reason: str | None = None) -> dict[str, int]:
        """Tell the log what was written and not told yet; the sequences of the events, by aggregate.

        Raises LogUnavailable, LogRefused.
        """
        runtime, keyring = self._runtime, self._keyring
        await runtime.gateway.catch_up()
        told = runtime.gateway.state.secrets
        await keyring.load()
        sequences: dict[str, int] = {}
        for aggregate, fact in list(secret_rules.untold(told, keyring.vault, keyring.revision)):
            named = msgspec.structs.replace(fact, reason=reason)
            request_id = (delivery.header(headers.REQUEST) if delivery else None) or runtime.new_id()
            command: Command[Secrets] = Command(
                category="secret",
                aggregate=aggregate,
                id=f"{subjects.SECRETS}/{subjects.encode_id(aggregate)}/{fact.change}",
                decide=_decider(named),
                actor=runtime.name,
                cause=request_id,
                traceparent=delivery.traceparent if delivery else None,
            )
            decided = await runtime.shell.execute(self._told, command)
            if decided is not None and not isinstance(decided, Refused):
                sequences[aggregate] = decided.sequence
        return sequences


def _decider(fact: SecretFact) -> Callable[[Secrets, float], Event | Refused | None]:
    return lambda told, _now: secret_rules.still_news(told, fact)


def _holds(found: Vault, opened: Opened, fresh: Fresh, secret: str) -> bool:
    """Whether the vault has this very secret, for the same provider and address."""
    try:
        return vault.reveal(found, opened.key, fresh.id, fresh.provider, fresh.address) == secret
    except Unopened:
        return False
