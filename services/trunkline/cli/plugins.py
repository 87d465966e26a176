"""`trunkline plugins`: the kinds of providers that there are, and how each fares."""

import argparse
from typing import Any

from trunkline_events.times import format_time

from trunkline.cli.output import emit, fields, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = ("name", "state", "version", "distribution", "providers", "last_error")
_SHOWN = ("name", "state", "distribution", "version", "versions", "object", "providers", "crashes", "last_error")


def run(args: argparse.Namespace) -> int:
    """Ask one command about plugins and print its reply."""

    async def ask(gateway: Gateway) -> int:
        reply = await getattr(gateway.plugins, args.verb)(**_arguments(args))
        if args.json:
            emit(reply)
        elif args.verb == "list":
            table(_COLUMNS, [[_cell(one[column]) for column in _COLUMNS] for one in reply["plugins"]])
            if reply["after"] is not None:
                say(f"there are more; next: --after {reply['after']}")
        else:
            _print(reply["plugin"])
        return 0

    return with_gateway(args, ask)


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    if args.verb == "get":
        return {"name": args.id}
    given = {"limit": args.limit, "after": args.after, "status": args.state}
    return {name: value for name, value in given.items() if value is not None}


def _print(plugin: dict[str, Any]) -> None:
    fields({name: _cell(plugin[name]) for name in _SHOWN})
    for trouble in plugin["troubles"]:
        retry = f"; tried again at {format_time(trouble['retry_at'])}" if trouble["retry_at"] else ""
        show(f"\n{trouble['provider']} in {trouble['process']}, {trouble['failures']} times{retry}:")
        show(f"  {trouble['message']}")


def _cell(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value
