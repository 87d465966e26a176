"""`trunkline threads`: budgets, settings and books."""

import argparse
import json
from typing import Any

from trunkline.cli.budgets import budget, terms
from trunkline.cli.failures import UsageError
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
    return {"thread_id": args.id, **_changes(args), "reason": args.reason}


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags change: what none of them is about stays."""
    changes: dict[str, Any] = {}
    if any(value is not None for value in (args.limit, args.window, args.time_zone, args.warn_at)):
        changes["budget"] = budget(args)
    if args.model is not None:
        changes["model"] = args.model or None
    for name, given, none in (
        ("parameters", args.parameter, args.no_parameters),
        ("preferences", args.preference, args.no_preferences),
    ):
        if given and none:
            raise UsageError(f"--no-{name} takes away what --{name[:-1]} sets; give one of them")
        if given or none:
            changes[name] = dict(_pair(f"--{name[:-1]}", text) for text in given)
    if not changes:
        raise UsageError("say what to change, like --limit, --model, --parameter or --preference")
    return changes


def _pair(flag: str, text: str) -> tuple[str, Any]:
    """A name and its value: JSON, or plain text where it is none."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"{flag} takes NAME=JSON, like temperature=0.2; not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


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
        show(f"{reply['thread_id']} configured: {terms(reply)}{_settings(reply)} (event {reply['seq']})")


def _settings(reply: dict[str, Any]) -> str:
    """What a thread's requests are like, for a reader: `; model m; temperature=0.2; prefers optimize="cost"`."""
    parts = [] if reply["model"] is None else [f"model {reply['model']}"]
    parts += [_pairs(reply["parameters"])] if reply["parameters"] else []
    parts += [f"prefers {_pairs(reply['preferences'])}"] if reply["preferences"] else []
    return "".join(f"; {part}" for part in parts)


def _pairs(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items())


def _shown(name: str, value: Any) -> Any:
    if name == "tokens":
        return f"{value.get('input_tokens', 0)} in, {value.get('output_tokens', 0)} out"
    if name in {"parameters", "preferences"} and value:
        return _pairs(value)
    return value
