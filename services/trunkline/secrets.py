"""`gw.secrets`: stored secrets, set without ever being in the open on the bus.

A secret is sealed here to the vault's public key. A passphrase never leaves this process: the key is derived here and
sealed to each process that is to hold it.
"""

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg
from trunkline_actors import sealing, vault
from trunkline_actors.sealing import Algorithm, Kdf, Key, Unopened
from trunkline_events import headers, subjects

from trunkline import errors

if TYPE_CHECKING:
    from trunkline.client import Gateway

FIRST = 2.0
"""Seconds to wait for the first process that answers."""
NEXT = 0.75
"""And for each further one: nobody knows how many there are."""


_Answers = list[dict[str, Any]]


class _Vault(Struct):
    id: str
    kdf: Kdf
    change: str
    public_key: str


class Secrets:
    """Stored secrets: `set`, `rotate`, `list`, `delete`; and the vault: `unlock`, `lock`, `holders`, `change_key`."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    async def set(self, id: str, value: str, provider: str | None = None, reason: str | None = None) -> dict[str, Any]:  # noqa: A002 - the public name
        """Store a secret for a provider: the one given, or else the only one that names it. Raises TrunklineError."""
        told = await self.describe(id=id, provider=provider)
        sealed = _sealed_to(_vault(told), told, value)
        asked = {name: told[name] for name in ("id", "provider", "address", "change")}
        return await self._ask("set", {**asked, "sealed": sealed, "reason": reason})

    async def rotate(self, id: str, value: str, reason: str | None = None) -> dict[str, Any]:  # noqa: A002 - the public name
        """Give a stored secret a new value; providers call with it at once. Raises TrunklineError."""
        told = await self.describe(id=id, stored=True)
        sealed = _sealed_to(_vault(told), told, value)
        return await self._ask("rotate", {"id": id, "change": told["change"], "sealed": sealed, "reason": reason})

    async def describe(
        self,
        id: str | None = None,  # noqa: A002 - the public name
        provider: str | None = None,
        *,
        stored: bool = False,
    ) -> dict[str, Any]:
        """The vault, and what a secret of this name is bound to; with `stored`, as it is bound now."""
        return await self._ask("describe", {"id": id, "provider": provider, "stored": stored})

    async def list(self, **page: Any) -> dict[str, Any]:
        """Names, fingerprints and conditions; no secret. Raises TrunklineError."""
        return await self._ask("list", page)

    async def delete(self, id: str, *, force: bool = False, reason: str | None = None) -> dict[str, Any]:  # noqa: A002 - the public name
        """Forget a secret; refused while a provider names it, unless forced. Raises TrunklineError."""
        return await self._ask("delete", {"id": id, "force": force, "reason": reason})

    # -- the vault -------------------------------------------------------------------------------------------------

    async def unlock(
        self, passphrase: str | None = None, *, key_file: bytes | None = None, algorithm: Algorithm = "argon2id"
    ) -> dict[str, Any]:
        """Open the vault in every process that is to hold its key; make it where there is none.

        Give a passphrase, or the 32 bytes of a key file. `algorithm` is for a vault that is to be made. Answers with
        `processes`, and `created`. Raises TrunklineError: PermissionDenied where it is the wrong one.
        """
        holders = await self.holders()
        if not holders:
            raise errors.unavailable("no process holds keys; start one with `trunkline run registry provider`")
        told = await self.describe()
        created = told["vault"] is None
        if created:
            kdf = sealing.new_kdf("key-file" if key_file is not None else algorithm, secrets.token_bytes)
            identity = ""
            if problem := passphrase_problem(passphrase):
                raise _invalid(problem, "passphrase")
        else:
            found = _vault(told)
            kdf, identity = found.kdf, found.id
        key = await derived(kdf, passphrase, key_file)
        return {**await self._hand_out(key, kdf, identity, holders), "created": created}

    async def lock(self) -> dict[str, Any]:
        """Have every process forget the key. Providers that need it fail each call until the vault is unlocked."""
        answers = await self._ask_all("lock", {})
        return {"ok": True, "processes": [one["process"] for one in answers]}

    async def holders(self) -> _Answers:
        """Every process that holds keys, or would: whether it is locked, and its public key."""
        return await self._ask_all("holders", {})

    async def change_key(
        self,
        old: str | bytes,
        new: str | bytes,
        *,
        algorithm: Algorithm = "argon2id",
        reason: str | None = None,
    ) -> dict[str, Any]:
        """Seal everything anew under another passphrase (text) or key file (32 bytes), and hand the new key out.

        Raises TrunklineError, with nothing changed.
        """
        found = _vault(await self.describe())
        if isinstance(new, str) and (problem := passphrase_problem(new)):
            raise _invalid(problem, "passphrase")
        kdf = sealing.new_kdf("key-file" if isinstance(new, bytes) else algorithm, secrets.token_bytes)
        keys = [
            await derived(how, None if isinstance(given, bytes) else given, given if isinstance(given, bytes) else None)
            for how, given in ((found.kdf, old), (kdf, new))
        ]
        context = vault.rekey_context(found.id, found.change, kdf)
        sealed = _sealed(found.public_key, keys[0].reveal() + keys[1].reveal(), context)
        reply = await self._ask(
            "rotate", {"kdf": kdf, "change": found.change, "sealed": sealed, "reason": reason}, timeout=30
        )
        return {**reply, **await self._hand_out(keys[1], kdf, found.id, await self.holders())}

    async def _hand_out(self, key: Key, kdf: Kdf, identity: str, holders: _Answers) -> dict[str, Any]:
        keys = {
            one["process"]: _sealed(
                one["public_key"], key.reveal(), vault.unlock_context(identity, one["process"], kdf)
            )
            for one in holders
        }
        asked = {"vault": identity, "kdf": kdf, "keys": keys}
        answers = await self._ask_all("unlock", asked, expected=len(holders))
        opened = sorted(one["process"] for one in answers if one["state"] == "unlocked")
        return {"ok": True, "processes": opened, "locked": sorted(set(keys) - set(opened))}

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _ask(self, verb: str, arguments: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
        given = {name: value for name, value in arguments.items() if value is not None}
        return await self._gateway.command(f"{subjects.SECRETS}.{verb}", given, timeout)

    async def _ask_all(self, verb: str, arguments: dict[str, Any], expected: int | None = None) -> _Answers:
        """Ask what every process hears; the answers. Raises the first error where there is nothing else."""
        messages = await self._gateway.ask_all(
            f"{subjects.SECRETS}.{verb}",
            msgspec.json.encode(arguments),
            FIRST if expected is None else 10.0,
            NEXT,
            expected,
        )
        answers: _Answers = []
        failed: errors.TrunklineError | None = None
        for message in messages:
            try:
                answers.append(_answer(message))
            except errors.TrunklineError as error:
                failed = failed or error
        if failed is not None and not answers:
            raise failed
        return answers


def _answer(message: Msg) -> dict[str, Any]:
    fields = message.headers or {}
    if headers.ERROR_CODE in fields:
        raise errors.from_answer(fields[headers.ERROR_CODE], fields.get(headers.ERROR, ""), message.data)
    answer: dict[str, Any] = msgspec.json.decode(message.data)
    return answer


def passphrase_problem(passphrase: str | None) -> str | None:
    """Why this is no passphrase to protect a vault with."""
    if passphrase is not None and len(passphrase) < sealing.LEAST_PASSPHRASE:
        return f"a passphrase has at least {sealing.LEAST_PASSPHRASE} characters; take several words"
    return None


async def derived(kdf: Kdf, passphrase: str | None, key_file: bytes | None) -> Key:
    """The vault's key, derived in a thread. Raises InvalidRequest where the other kind of key is called for."""
    if problem := sealing.kdf_problem(kdf):
        raise _invalid(f"the gateway asks for a derivation that we refuse: {problem}", "kdf")
    if kdf.algorithm == "key-file":
        if key_file is None:
            raise _invalid("this vault opens with a key file, not with a passphrase", "key_file")
        return await asyncio.to_thread(sealing.derive, kdf, key_file)
    if passphrase is None:
        raise _invalid("this vault opens with a passphrase, not with a key file", "passphrase")
    return await asyncio.to_thread(sealing.derive, kdf, sealing.passphrase_bytes(passphrase))


def _vault(told: dict[str, Any]) -> _Vault:
    if told["vault"] is None:
        raise errors.Conflict(
            "there is no vault yet; make one with `trunkline secrets unlock`", code="conflict", status=409
        )
    return msgspec.convert(told["vault"], _Vault)


def _sealed_to(found: _Vault, told: dict[str, Any], value: str) -> str:
    if problem := sealing.secret_problem(value):
        raise _invalid(problem, "value")
    context = vault.value_context(found.id, told["id"], told["provider"], told["address"], told["change"])
    return _sealed(found.public_key, sealing.pad(value), context)


def _sealed(public: str, plain: bytes, context: tuple[Any, ...]) -> str:
    try:
        return vault.to_text(sealing.seal_to(vault.from_text(public), plain, context, secrets.token_bytes))
    except (Unopened, ValueError):
        raise errors.unavailable("the gateway gave a public key that is none; see `trunkline doctor`") from None


def _invalid(message: str, param: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(message, code="invalid_request", status=400, param=param)
