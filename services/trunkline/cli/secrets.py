"""`trunkline secrets`: the keys of providers, in the vault. A secret is asked for, or read, and never an argument."""

import argparse
import getpass
import sys
from pathlib import Path
from typing import Any

from trunkline_actors.sealing import read_key_file, secret_problem
from trunkline_actors.unlock_file import BadUnlockFile, read_private

from trunkline.cli.failures import UNAVAILABLE, UsageError
from trunkline.cli.output import emit, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.secrets import passphrase_problem

_COLUMNS = ("id", "state", "provider", "address", "fingerprint", "changed_at", "kdf", "used_by")
LARGEST = 64 * 1024


def run(args: argparse.Namespace) -> int:
    """Run one verb."""
    if args.verb == "rotate" and args.passphrase and args.id is not None:
        raise UsageError("--passphrase is that of the whole vault; name no secret beside it, and give no passphrase")
    return with_gateway(args, lambda gateway: _VERBS[args.verb](args, gateway))


async def _set(args: argparse.Namespace, gateway: Gateway) -> int:
    told = await gateway.secrets.describe(id=args.id, provider=args.provider)
    where = told["base_url"] or f"its own address, {told['address']}"
    say(f"secret {args.id!r} is for provider {told['provider']!r} at {where}, and of use nowhere else")
    reply = await gateway.secrets.set(args.id, _value(args), told["provider"], args.reason)
    return _done(args, reply, f"{args.id} stored for {told['provider']}: fingerprint {reply['fingerprint']}")


async def _rotate(args: argparse.Namespace, gateway: Gateway) -> int:
    if args.passphrase:
        return await _change_key(args, gateway)
    if args.id is None:
        raise UsageError("name a secret to rotate, or give --passphrase for that of the vault")
    await gateway.secrets.describe(id=args.id, stored=True)
    reply = await gateway.secrets.rotate(args.id, _value(args), args.reason)
    return _done(args, reply, f"{args.id} rotated: fingerprint {reply['fingerprint']}")


async def _change_key(args: argparse.Namespace, gateway: Gateway) -> int:
    if args.file is not None:
        raise UsageError("--file is for the value of a secret; passphrases are asked for, or two lines of stdin")
    asked = [name for name, file in (("old", args.old_key_file), ("new", args.new_key_file)) if file is None]
    texts = _passphrases(asked)
    old: str | bytes = _key_file(args.old_key_file) if args.old_key_file else texts["old"]
    new: str | bytes = _key_file(args.new_key_file) if args.new_key_file else texts["new"]
    reply = await gateway.secrets.change_key(old, new, algorithm=args.kdf, reason=args.reason)
    code = _done(args, reply, f"all secrets are sealed anew; open in {', '.join(reply['processes']) or 'no process'}")
    say("next: put what is new into the unlock files of processes that have one")
    return code or _all_unlocked(reply)


def _passphrases(asked: list[str]) -> dict[str, str]:
    if not asked:
        return {}
    if sys.stdin.isatty():
        given = {name: getpass.getpass(f"{name} passphrase: ") for name in asked}
        if "new" in given and getpass.getpass("new passphrase again: ") != given["new"]:
            raise UsageError("the two are not the same; nothing was changed")
    else:
        lines = _stdin().split("\n")
        if len(lines) < len(asked):
            raise UsageError(f"stdin must hold the {' and the '.join(asked)} passphrase, a line each")
        given = {name: line.removesuffix("\r") for name, line in zip(asked, lines, strict=False)}
    if "new" in given and (problem := passphrase_problem(given["new"])):
        raise UsageError(problem)
    return given


async def _delete(args: argparse.Namespace, gateway: Gateway) -> int:
    reply = await gateway.secrets.delete(args.id, force=args.force, reason=args.reason)
    return _done(args, reply, f"{args.id} deleted")


async def _list(args: argparse.Namespace, gateway: Gateway) -> int:
    page = {name: value for name in ("limit", "after") if (value := getattr(args, name)) is not None}
    reply = await gateway.secrets.list(**page)
    if args.json:
        emit(reply)
        return 0
    table(_COLUMNS, [[one[column] for column in _COLUMNS] for one in reply["secrets"]])
    if reply["after"] is not None:
        say(f"there are more; next: --after {reply['after']}")
    if reply["vault"] == "locked":
        say("the vault is locked; next: `trunkline secrets unlock`")
    return 0


async def _unlock(args: argparse.Namespace, gateway: Gateway) -> int:
    told = await gateway.secrets.describe()
    new = told["vault"] is None
    if new:
        say("there is no vault yet: this makes one. Whoever loses its passphrase loses what is in it")
    if args.key_file is not None:
        reply = await gateway.secrets.unlock(key_file=_key_file(args.key_file))
    else:
        reply = await gateway.secrets.unlock(_passphrase(args, new=new), algorithm=args.kdf)
    code = _done(args, reply, f"{'made and ' if reply['created'] else ''}unlocked in {', '.join(reply['processes'])}")
    return code or _all_unlocked(reply)


def _all_unlocked(reply: dict[str, Any]) -> int:
    if not reply["locked"]:
        return 0
    say(f"trunkline: still locked in {', '.join(reply['locked'])}\n  next: run `trunkline secrets unlock` again")
    return UNAVAILABLE


async def _lock(args: argparse.Namespace, gateway: Gateway) -> int:
    reply = await gateway.secrets.lock()
    return _done(args, reply, f"locked in {', '.join(reply['processes'])}")


_VERBS = {"set": _set, "rotate": _rotate, "delete": _delete, "list": _list, "unlock": _unlock, "lock": _lock}


def _done(args: argparse.Namespace, reply: dict[str, Any], text: str) -> int:
    if args.json:
        emit(reply)
    elif reply.get("changed") is False:
        show(f"{reply['id']}: it is so already, nothing was changed")
    else:
        show(text + (f" (event {reply['seq']})" if reply.get("changed") else ""))
    return 0


# -- where a secret comes from -----------------------------------------------------------------------------------------


def _value(args: argparse.Namespace) -> str:
    """The secret: of the file, else of stdin, else asked for. Raises UsageError, without quoting it."""
    if args.file is not None:
        value = _private(args.file)
    elif sys.stdin.isatty():
        value = getpass.getpass(f"value of {args.id}: ").strip()
    else:
        value = _stdin()
    if problem := secret_problem(value):
        raise UsageError(problem)
    return value


def _passphrase(args: argparse.Namespace, *, new: bool) -> str:
    if args.file is not None:
        value = _private(args.file)
    elif sys.stdin.isatty():
        value = getpass.getpass("passphrase: ")
        if new and getpass.getpass("the same again: ") != value:
            raise UsageError("the two are not the same; no vault was made")
    else:
        value = _stdin()
    if not value:
        raise UsageError("there is no passphrase; type one, or give it on stdin or in --file")
    if new and (problem := passphrase_problem(value)):
        raise UsageError(problem)
    return value


def _stdin() -> str:
    data = sys.stdin.buffer.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UsageError("stdin holds too much for a secret")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError("stdin holds no text; a passphrase is UTF-8, a secret ASCII") from None


def _private(name: str) -> str:
    try:
        return read_private(Path(name).expanduser())
    except BadUnlockFile as error:
        raise UsageError(str(error)) from error


def _key_file(name: str) -> bytes:
    try:
        return read_key_file(_private(name))
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
