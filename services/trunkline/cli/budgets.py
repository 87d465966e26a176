"""`trunkline budgets`: what API keys, teams and the gateway may spend, and how their books stand."""

import argparse
import getpass
import sys
from typing import Any

from trunkline_actors.claims import key_id

from trunkline import settings
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, fields, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = ("scope", "limit_usd", "window", "settled_usd", "reserved_usd", "team")


def run(args: argparse.Namespace) -> int:
    """Ask one command about budgets and print its reply."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        reply = await getattr(gateway.budgets, args.verb)(**asked)
        _print(args.verb, reply, as_json=args.json)
        return 0

    return with_gateway(args, ask)


def budget(args: argparse.Namespace) -> dict[str, Any]:
    """The budget that the flags describe, as `budgets.set` and `threads.configure` take it."""
    return {
        "limit_usd": None if args.limit == "none" else args.limit,
        "window": args.window or "none",
        "time_zone": args.time_zone or "UTC",
        "warn_at": args.warn_at,
    }


def terms(reply: dict[str, Any]) -> str:
    """What a budget allows, for a reader: `$0.5 a day in Europe/Berlin, warning at 0.8 of it`."""
    limit = "no limit" if reply["limit_usd"] is None else f"${reply['limit_usd']}"
    zone = "" if reply["time_zone"] == "UTC" else f" in {reply['time_zone']}"
    window = "" if reply["window"] == "none" else f" a {reply['window']}{zone}"
    warning = "" if reply["warn_at"] is None else f", warning at {reply['warn_at']} of it"
    return limit + window + warning


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    if args.verb == "list":
        given = {"limit": args.limit, "after": args.after}
        return {name: value for name, value in given.items() if value is not None}
    if args.verb == "get":
        return {"scope": args.scope}
    return {"scope": args.scope, "budget": budget(args), "team": args.team, "reason": args.reason}


def _print(verb: str, reply: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(reply)
    elif verb == "list":
        table(_COLUMNS, [[one[column] for column in _COLUMNS] for one in reply["budgets"]])
        if reply["after"] is not None:
            say(f"there are more; next: --after {reply['after']}")
    elif verb == "get":
        fields({name: value for name, value in reply.items() if name != "ok"})
    else:
        team = "" if reply["team"] is None else f", of team {reply['team']}"
        show(f"{reply['scope']} set: {terms(reply)}{team} (event {reply['seq']})")


def run_key_id(args: argparse.Namespace) -> int:
    """Print what the API key in TRUNKLINE_KEY goes by in scopes and events, or that of a key on stdin. Asks nobody."""
    key = None if args.stdin else settings.client_key()
    key = _read_key() if key is None else key
    if not key:
        raise UsageError("there is no key: set TRUNKLINE_KEY, or give the key on stdin")
    found = key_id(key)
    if args.json:
        emit({"key_id": found, "scope": f"key:{found}"})
    else:
        show(found)
    return 0


def _read_key() -> str:
    """The first line of stdin; on a terminal it is asked for and not shown."""
    if sys.stdin.isatty():
        return getpass.getpass("API key: ").strip()
    # What isn't UTF-8 is reported where the key is used, as it is for other arguments.
    return sys.stdin.buffer.readline().decode(errors="surrogateescape").strip()
