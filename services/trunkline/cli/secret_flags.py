"""The verbs about stored secrets: none of their flags takes a secret."""

import argparse
from typing import Any

from trunkline.cli.flags import Verbs, add_client, add_entry, add_group, add_page, add_reason


class _NeverGiven(argparse.Action):
    """A secret as an argument: everybody on this machine could read it, and the shell keeps it. It is not quoted."""

    def __call__(self, parser: argparse.ArgumentParser, *_given: Any) -> None:
        parser.error("a secret is never given as an argument; it is asked for, or read from stdin or from --file")


def _never_given(parser: argparse.ArgumentParser, *flags: str) -> None:
    for flag in ("--value", "--key", "--secret", "--token", "--password", *flags):
        parser.add_argument(flag, action=_NeverGiven, nargs="?", help=argparse.SUPPRESS)


def add_secrets(verbs: Verbs) -> None:
    """Add the verbs about stored secrets."""
    secrets = add_group(verbs, "secrets", "secrets", "store, rotate and list the keys of providers, encrypted")
    setting = add_entry(secrets, "set", "store a secret for one provider: it is asked for, or read from stdin")
    setting.add_argument("--provider", metavar="P", help="whose it is (default: the one that names it)")
    rotating = add_client(
        secrets.verbs, "rotate", "secrets:run", "give a secret a new value, or the vault a new passphrase"
    )
    rotating.add_argument("id", metavar="ID", nargs="?", help="the secret")
    rotating.add_argument("--passphrase", action="store_true", help="the vault's passphrase, or its key file, instead")
    rotating.add_argument("--old-key-file", metavar="FILE", help="the key file so far, where it is one")
    rotating.add_argument("--new-key-file", metavar="FILE", help="a key file from now on")
    for parser in (setting, rotating):
        parser.add_argument("--file", metavar="FILE", help="read it from this file, which only you can read")
        add_reason(parser)
    deleting = add_entry(secrets, "delete", "forget it")
    deleting.add_argument("--force", action="store_true", help="also where a provider names it")
    add_reason(deleting)
    text = "open the vault in every process, or make one: the passphrase is asked for, or read from stdin"
    unlocking = add_client(secrets.verbs, "unlock", "secrets:run", text)
    unlocking.add_argument("--file", metavar="FILE", help="read the passphrase from this file")
    unlocking.add_argument("--key-file", metavar="FILE", help="32 random bytes in base64, instead of a passphrase")
    locking = add_client(secrets.verbs, "lock", "secrets:run", "have every process forget the key")
    for parser in (unlocking, rotating):
        parser.add_argument(
            *("--kdf",),
            choices=["argon2id", "pbkdf2-sha256"],
            default="argon2id",
            help="how a new passphrase becomes a key (default argon2id)",
        )
    listing = add_page(secrets)
    for parser in (setting, rotating, unlocking):
        parser.add_argument("extra", nargs="*", action=_NoMore, help=argparse.SUPPRESS)
    for parser in (setting, rotating, deleting, unlocking, locking, listing):
        _never_given(parser, *(("--passphrase",) if parser is unlocking else ()))


class _NoMore(argparse.Action):
    """Refuses a further argument, which may well be a secret, without quoting it."""

    def __call__(self, parser: argparse.ArgumentParser, _space: argparse.Namespace, given: Any, *_more: Any) -> None:
        if given:
            parser.error("there is an argument too many, and a secret is never given as one")
