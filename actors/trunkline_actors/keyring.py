"""The keys that this process holds: the vault as it is stored, and what opens it, from the unlock file or over the bus.

A process that starts is locked unless its unlock file opens the vault. Locked, it serves all the same: providers whose
key lies in the vault fail each attempt, saying so.
"""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import LogUnavailable
from trunkline_events.registry import Provider
from trunkline_events.secret import SecretFact, is_stored
from trunkline_events.tasks import end_task

from trunkline_actors import vault
from trunkline_actors.sealing import LEAST_PASSPHRASE, BadKdf, Kdf, Key, Pair, Unopened, new_kdf
from trunkline_actors.unlock_file import BadUnlockFile, algorithm_of, key_of, read_private
from trunkline_actors.vault import Opened, Vault, address_of
from trunkline_actors.vault_store import Raced, VaultDamaged, VaultStore

log = structlog.get_logger()

State = Literal["absent", "locked", "unlocked"]

LOOK_AGAIN = 0.2
"""Seconds until a vault that could not be read is read again, at first."""
SELDOM = 5.0
LOADED_WITHIN = 5.0
"""Seconds that a call waits for a change of the vault to be read, at most."""


class NoSecret(Exception):
    """This provider has no key to call with. The message says why and what to do."""


class Keyring:
    """What one process knows of the vault. `on_change` is called whenever a provider's key may be another one.

    `problem` says why it is locked, where there is more to say than that nobody unlocked it.
    """

    def __init__(self, connection: Connection, holder: str, replicas: int = 1) -> None:
        self.holder = holder
        self.store = VaultStore(connection, replicas)
        self.vault: Vault | None = None
        self.revision = 0
        self.opened: Opened | None = None
        self.problem = ""
        self.on_change: list[Callable[[], None]] = []
        self._key: Key | None = None
        self._pair: Pair | None = None
        self._wanted = 0
        self._known = asyncio.Event()
        self._known.set()
        self._loading: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def state(self) -> State:
        """Whether there is a vault, and whether it is open here."""
        if self.vault is None:
            return "absent"
        return "locked" if self.opened is None else "unlocked"

    @property
    def pair(self) -> Pair:
        """This process's own, for as long as it lives: what the vault's key is sealed to on its way here."""
        if self._pair is None:
            self._pair = Pair(Key(secrets.token_bytes(32)))
        return self._pair

    async def start(self, unlock_file: Path | None = None, *, creates: bool = False) -> None:
        """Read the vault, and open it with the unlock file where there is one. `creates`: make one where there is none.

        Never raises: what does not go is said in the log, and by `state` and `problem`.
        """
        try:
            await self.load()
            if unlock_file is not None:
                await self._unlock_by(unlock_file, creates=creates)
        except (LogUnavailable, VaultDamaged) as error:
            self.problem = str(error)
            log.warning("secrets.vault_unreadable", reason=str(error))
            self._load_later()
        except (BadUnlockFile, BadKdf, Unopened) as error:
            self.problem = f"its unlock file is of no use: {error}"
            log.error("secrets.unlock_file_refused", reason=str(error))  # noqa: TRY400 - it says it all

    async def _unlock_by(self, path: Path, *, creates: bool) -> None:
        if self.vault is None:
            if not creates:
                return
            algorithm = algorithm_of(path)
            if algorithm == "argon2id" and len(read_private(path)) < LEAST_PASSPHRASE:
                raise BadUnlockFile(f"the passphrase in {path} is shorter than {LEAST_PASSPHRASE} characters")
            kdf = new_kdf(algorithm, secrets.token_bytes)
            await self.create(await key_of(path, kdf), kdf)
            return
        try:
            self.unlock(await key_of(path, self.vault.kdf))
        except Unopened:
            raise BadUnlockFile(f"what is in {path} does not open this vault; write the right one into it") from None

    async def create(self, key: Key, kdf: Kdf) -> None:
        """Make a vault under this key; where somebody was quicker, open theirs. Raises Unopened, LogUnavailable, …"""
        if self.vault is None:
            made = vault.create(key, kdf, secrets.token_bytes)
            try:
                await self.write(made, self.revision)
            except Raced:
                await self.load()
        self.unlock(key)

    def unlock(self, key: Key) -> None:
        """Open the vault. Raises Unopened where it is another one's key."""
        if self.vault is None:
            raise Unopened("there is no vault")
        self.opened = vault.unlock(self.vault, key)
        self._key, self.problem = key, ""
        log.info("secrets.unlocked")
        self._tell()

    def lock(self) -> None:
        """Forget the key, and whatever was opened with it."""
        self.opened = self._key = None
        self.problem = ""
        log.info("secrets.locked")
        self._tell()

    # -- the vault as it is stored ---------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the vault as it is now. Raises LogUnavailable, VaultDamaged."""
        async with self._turn:
            self._took(*await self.store.read())

    async def write(self, changed: Vault, revision: int) -> None:
        """Put this vault in place of that at `revision`. Raises Raced, LogUnavailable."""
        async with self._turn:
            self._took(changed, await self.store.write(changed, revision))

    def _took(self, found: Vault | None, revision: int) -> None:
        """This is the vault now."""
        if revision == self.revision and found == self.vault:
            return
        self.vault, self.revision = found, revision
        if found is not None and self._key is not None:
            try:
                self.opened = vault.unlock(found, self._key)
            except Unopened:
                # Whoever changed the passphrase is about to hand us the new key: what was opened serves until then.
                self.opened, self.problem = None, "the vault is under another passphrase now"
                log.warning("secrets.locked_out", reason=self.problem)
                return
        else:
            self.opened = None
        self._tell()

    def happened(self, event: RecordedEvent) -> None:
        """An event of the log: where it is about secrets, calls wait until its change of the vault is read."""
        if event.category == "secret":
            revision = getattr(event.body, "revision", 0)
            if isinstance(event.body, SecretFact) and revision > self.revision:
                self._wanted = max(self._wanted, revision)
                self._known.clear()
                self._load_later()

    def _load_later(self) -> None:
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load_until_read())

    async def _load_until_read(self) -> None:
        pause = LOOK_AGAIN
        try:
            while True:
                try:
                    await self.load()
                    # A vault that is older than its events was put back from a copy, or is another one.
                    if self.revision < self._wanted:
                        log.warning("secrets.vault_is_older", position=self.revision)
                    return
                except (LogUnavailable, VaultDamaged) as error:
                    log.warning("secrets.vault_unreadable", reason=str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, SELDOM)
        finally:
            self._known.set()

    async def settled(self) -> None:
        """Return when no change of the vault that this process has heard of is still to be read; soon in any case."""
        if not self._known.is_set():
            try:
                async with asyncio.timeout(LOADED_WITHIN):
                    await self._known.wait()
            except TimeoutError:
                return

    # -- what it is for --------------------------------------------------------------------------------------------

    def secret_of(self, provider: Provider) -> str:
        """The stored secret that a provider names. Raises NoSecret, with what to do."""
        name = provider.secret
        if name is None or not is_stored(name):
            raise NoSecret(f"provider {provider.id!r} names no stored secret")
        entry = self.vault.entries.get(name) if self.vault else None
        again = f"`trunkline secrets set {name} --provider {provider.id}`"
        if self.vault is None or entry is None:
            raise NoSecret(f"secret {name!r} is not stored; next: {again}")
        address = address_of(provider.kind, provider.base_url)
        if (entry.provider, entry.address) != (provider.id, address):
            raise NoSecret(
                f"secret {name!r} was set for {entry.provider!r} at {entry.address}, not here; next: {again}"
            )
        if self.opened is None:
            raise NoSecret(f"secret {name!r} is locked; next: `trunkline secrets unlock`")
        try:
            return vault.reveal(self.vault, self.opened.key, name, provider.id, address)
        except Unopened:
            raise NoSecret(f"secret {name!r} can't be decrypted, it was tampered with; next: {again}") from None

    def standing(self, provider: Provider) -> tuple[object, ...]:
        """Something that differs whenever what `secret_of` gives or says may differ."""
        entry = self.vault.entries.get(provider.secret or "") if self.vault else None
        return (self.state, entry.change if entry else None)

    def _tell(self) -> None:
        for listener in list(self.on_change):
            listener()

    async def stop(self) -> None:
        """Forget everything."""
        await end_task(self._loading)
        self.opened = self._key = self._pair = None
