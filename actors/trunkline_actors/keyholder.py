"""The actor that unlocks and locks one process. Every process that holds keys has one, and hears every message.

The vault's key comes sealed to this process's own public key, so nobody else on the bus can read it; and it goes to
whom the caller asked for, never to whoever asks for it.
"""

from typing import Any

import msgspec
from trunkline_events import subjects
from trunkline_events.log import LogUnavailable
from trunkline_events.refusal import Refused

from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Reply, endpoint
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.sealing import Kdf, Key, Unopened, kdf_problem
from trunkline_actors.vault import from_text, to_text, unlock_context
from trunkline_actors.vault_store import VaultDamaged

HOW = "use `trunkline secrets unlock`, or gw.secrets.unlock(passphrase=…), which seal the key on its way"


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Unlock(msgspec.Struct, frozen=True, kw_only=True):
    """The vault's key for some processes, by their names, each sealed to that one, and how it was derived.

    `vault` is the vault that is meant; empty: one is to be made, where there is none.
    """

    vault: str
    kdf: Kdf
    keys: dict[str, str]


class KeyholderActor(ServiceActor):
    """Holds the key of the vault for this process: takes it, forgets it, and says whether it has it."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-keyholder", runtime.version, {"process": runtime.name})
        self._keyring = runtime.keyring

    def endpoints(self) -> list[Endpoint]:
        of = subjects.SECRETS
        heard_by_all = [
            endpoint(self.bus, "holders", f"{of}.holders", Nothing, self._describe),
            endpoint(self.bus, "unlock", f"{of}.unlock", Unlock, self._unlock),
            endpoint(self.bus, "lock", f"{of}.lock", Nothing, self._lock),
        ]
        return [msgspec.structs.replace(one, queue="") for one in heard_by_all]

    async def _describe(self, given: Nothing, delivery: Delivery) -> Reply:
        return self._told()

    def _told(self) -> dict[str, Any]:
        held = self._keyring
        return {
            "process": held.holder,
            "state": held.state,
            "problem": held.problem or None,
            "vault": held.vault.id if held.vault else None,
            "kdf": held.vault.kdf if held.vault else None,
            "public_key": to_text(held.pair.public),
        }

    async def _unlock(self, given: Unlock, delivery: Delivery) -> Reply:
        keyring = self._keyring
        sealed = given.keys.get(keyring.holder)
        if sealed is None:
            return Refused(
                code="invalid_request", message=f"there is no key for this process in it; {HOW}", param="keys"
            )
        if problem := kdf_problem(given.kdf):
            return Refused(code="invalid_request", message=problem, param="kdf")
        context = unlock_context(given.vault, keyring.holder, given.kdf)
        try:
            key = Key(keyring.pair.open(from_text(sealed), context))
        except (Unopened, ValueError):
            message = f"the key was not sealed to this process as it runs now; {HOW}"
            return Refused(code="invalid_request", message=message, param="keys")
        return await self._opened(given, key) or self._told()

    async def _opened(self, given: Unlock, key: Key) -> Refused | None:
        keyring = self._keyring
        try:
            await keyring.load()
            if keyring.vault is None and not given.vault:
                await keyring.create(key, given.kdf)
            else:
                keyring.unlock(key)
        except Unopened:
            message = (
                "this passphrase or key file does not open the vault; give the right one: `trunkline secrets unlock`"
            )
            return Refused(code="permission_denied", message=message)
        except VaultDamaged as error:
            return Refused(code="unavailable", message=str(error), retryable=False)
        except LogUnavailable as error:
            return Refused(code="unavailable", message=f"{error}; unlock it again in a moment")
        return None

    async def _lock(self, given: Nothing, delivery: Delivery) -> Reply:
        self._keyring.lock()
        return self._told()
