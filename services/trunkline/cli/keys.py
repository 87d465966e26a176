"""`trunkline keys`: who may use this gateway. A key is printed once, on stdout and nowhere else."""

import argparse
from typing import Any

from trunkline import settings
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, fields, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.errors import Unauthenticated

_COLUMNS = ("id", "state", "scopes", "models", "requests_per_minute", "tokens_per_minute", "expires_at", "name")


def run(args: argparse.Namespace) -> int:
    """Run one verb."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        command = getattr(gateway.keys, args.verb)
        try:
            reply = await command(**asked)
        except Unauthenticated:
            # The first key has to come from somebody without one: whoever may read what keys are hashed under.
            if settings.client_key() is not None or not await gateway.act_as_itself():
                raise
            reply = await command(**asked)
        _print(args, reply)
        return 0

    return with_gateway(args, ask)


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    if args.verb == "list":
        given = {"limit": args.limit, "after": args.after, "status": args.status}
        return {name: value for name, value in given.items() if value is not None}
    if args.verb == "issue":
        return _issued(args)
    overlap = {"overlap_s": args.overlap} if args.verb == "rotate" else {}
    return {"id": args.id, **overlap, **({} if args.verb == "get" else {"reason": args.reason})}


def _issued(args: argparse.Namespace) -> dict[str, Any]:
    if args.window is not None and args.budget is None:
        raise UsageError("--window is that of a budget; give --budget too")
    given = {
        "id": args.id,
        "name": args.name,
        "scopes": args.scope or ["chat"],
        "models": args.model,
        "requests_per_minute": args.requests,
        "tokens_per_minute": args.tokens,
        "expires_in_s": args.expires,
        "cache_s": args.cache,
        "budget": None if args.budget is None else {"limit_usd": args.budget, "window": args.window or "none"},
        "team": args.team,
        "reason": args.reason,
    }
    return {name: value for name, value in given.items() if value is not None}


def _print(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    if args.json:
        emit(reply)
    elif args.verb == "list":
        table(_COLUMNS, [[one[column] for column in _COLUMNS] for one in reply["keys"]])
        if reply["after"] is not None:
            say(f"there are more; next: --after {reply['after']}")
    elif args.verb == "get":
        fields({name: value for name, value in reply.items() if name not in {"ok", "seq"}})
    elif args.verb == "revoke":
        done = f"revoked, in every process (event {reply['seq']})" if reply["changed"] else "it was revoked already"
        show(f"{reply['id']}: {done}")
    else:
        show(reply["key"])
        until = f"; the old one holds until {reply['old_until']}" if reply["old_until"] else ""
        say(f"key {reply['id']!r}, shown this once: keep it where its user's TRUNKLINE_KEY comes from{until}")
