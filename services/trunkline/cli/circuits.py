"""`trunkline circuits`: the breakers of provider instances, how they came to be so, and closing one by hand."""

import argparse
from typing import Any

from trunkline_events.times import format_time

from trunkline.cli.output import emit, fields, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = ("provider", "state", "failures", "opened_at", "retry_at")
_TIMES = ("opened_at", "retry_at", "probe_until", "until")


def run(args: argparse.Namespace) -> int:
    """Ask one command about circuits and print its reply."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        reply = await getattr(gateway.circuits, args.verb)(**asked)
        if args.json:
            emit(reply)
        else:
            _print(args.verb, reply)
        return 0

    return with_gateway(args, ask)


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    given = {
        "list": lambda: {"limit": args.limit, "after": args.after, "state": args.state},
        "get": lambda: {"provider": args.id},
        "reset": lambda: {"provider": args.id, "reason": args.reason},
        "history": lambda: {"provider": args.id, "limit": args.limit},
    }[args.verb]()
    return {name: value for name, value in given.items() if value is not None}


def _print(verb: str, reply: dict[str, Any]) -> None:
    if verb == "list":
        table(_COLUMNS, [[_shown(column, one[column]) for column in _COLUMNS] for one in reply["circuits"]])
        if reply["after"] is not None:
            say(f"there are more; next: --after {reply['after']}")
    elif verb == "get":
        fields({name: _shown(name, value) for name, value in reply.items() if name != "ok"})
    elif verb == "history":
        table(("seq", "time", "what", "details"), [_happened(event) for event in reply["events"]])
    elif reply["changed"]:
        show(f"{reply['provider']} reset: calls flow again (event {reply['seq']})")
    else:
        show(f"{reply['provider']} is closed already: nothing changed")


def _happened(event: dict[str, Any]) -> list[Any]:
    details = {
        name: _shown(name, value)
        for name, value in event.items()
        if name not in {"seq", "time", "type", "actor"} and value is not None
    }
    what = event["type"].removeprefix("circuit.").rpartition(".v")[0]
    return [event["seq"], event["time"], what, " ".join(f"{name}={value}" for name, value in details.items())]


def _shown(name: str, value: Any) -> Any:
    return format_time(value) if name in _TIMES and value is not None else value
