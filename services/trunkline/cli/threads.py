"""`trunkline threads`: budgets and books."""

import argparse
from typing import Any

from trunkline.cli.budgets import budget, terms
from trunkline.cli.output import emit, fields, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = ("thread_id", "limit_usd", "window", "settled_usd", "reserved_usd", "open")


def run(args: argparse.Namespace) -> int:
    """Ask one command about threads and print its reply."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        reply = await getattr(gateway.threads, args.verb)(**asked)
        _print(args.verb, reply, as_json=args.json)
        return 0

    return with_gateway(args, ask)


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    if args.verb == "list":
        given = {"limit": args.limit, "after": args.after}
        return {name: value for name, value in given.items() if value is not None}
    if args.verb == "get":
        return {"thread_id": args.id}
    return {"thread_id": args.id, "budget": budget(args), "reason": args.reason}


def _print(verb: str, reply: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(reply)
    elif verb == "list":
        table(_COLUMNS, [[thread[column] for column in _COLUMNS] for thread in reply["threads"]])
        if reply["after"] is not None:
            say(f"there are more; next: --after {reply['after']}")
    elif verb == "get":
        fields({name: _shown(name, value) for name, value in reply.items() if name != "ok"})
    else:
        show(f"{reply['thread_id']} configured: {terms(reply)} (event {reply['seq']})")


def _shown(name: str, value: Any) -> Any:
    if name == "tokens":
        return f"{value.get('input_tokens', 0)} in, {value.get('output_tokens', 0)} out"
    return value
