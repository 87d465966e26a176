"""The verbs about API keys. None of their flags takes a key."""

import argparse
import re

from trunkline.cli.flags import Verbs, add_client, add_entry, add_group, add_many, add_page, add_reason

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_keys(verbs: Verbs) -> None:
    """Add the verbs about API keys."""
    keys = add_group(verbs, "keys", "keys", "issue, rotate, revoke and list API keys")
    issuing = add_client(keys.verbs, "issue", "keys:run", "make a key, and show it this once: alone on stdout")
    issuing.add_argument("id", metavar="ID", nargs="?", help="what it goes by in events and budgets (default: drawn)")
    issuing.add_argument("--name", metavar="TEXT", default="", help="for people to know it by")
    add_many(issuing, "--scope", "SCOPE", "chat, read or admin: what it may do (default: chat)")
    add_many(issuing, "--model", "MODEL", "a model it may use, or a pattern like gpt-* (default: all)")
    issuing.add_argument("--requests", metavar="N", type=int, help="requests a minute")
    issuing.add_argument("--tokens", metavar="N", type=int, help="tokens a minute: input, and the output asked for")
    issuing.add_argument("--expires", metavar="TIME", type=span, help="how long it holds, like 90d (default: for ever)")
    issuing.add_argument(
        "--cache", metavar="TIME", type=span, help="give an answer again to the very same request, that long after"
    )
    issuing.add_argument("--budget", metavar="USD", help="what it may cost in each window")
    issuing.add_argument(
        "--window", choices=["none", "day", "month"], help="when spending starts anew (default: never)"
    )
    issuing.add_argument("--team", metavar="T", help="whose budget its requests must fit too")
    add_reason(issuing)
    rotating = add_entry(keys, "rotate", "give a key a new secret, and show it this once: alone on stdout")
    rotating.add_argument(
        "--overlap", metavar="TIME", type=span, default=0.0, help="how long the old one holds too, like 1h (default: 0)"
    )
    add_reason(rotating)
    add_reason(add_entry(keys, "revoke", "end a key, for good"))
    add_entry(keys, "get", "show one, but for the key itself")
    listing = add_page(keys)
    listing.add_argument("--status", choices=["active", "rotating", "expired", "revoked"], help="only those")


def span(text: str) -> float:
    """Seconds of a span of time as flags have it: 30s, 10m, 2h, 90d."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no span of time; write it like 30s, 10m, 2h or 90d")
    return float(found[1]) * _UNITS[found[2]]
