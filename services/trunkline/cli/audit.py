"""`trunkline audit`: what was, from the log alone."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from trunkline_events.times import format_time
from trunkline_projections.as_of import State, shown

from trunkline.cli.events import read_position
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, say, show, styled, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_SECTIONS = {
    "models": ("id", "provider", "upstream", "version", "status", "price", "tags"),
    "providers": ("id", "kind", "base_url", "local", "secret", "max_concurrency"),
    "policy": ("version", "rules", "override", "seq"),
    "circuits": ("provider", "state", "failures", "opened_at", "retry_at"),
    "budgets": ("scope", "limit_usd", "window", "time_zone", "settled_usd", "reserved_usd", "team", "holders", "seq"),
    "threads": ("thread_id", "limit_usd", "window", "settled_usd", "reserved_usd", "open", "tokens", "seq"),
}


def run(args: argparse.Namespace) -> int:
    """Show the state at a sequence or a time."""
    at = None if args.at is None else read_position(args.at, time.time())
    if args.at is not None and at == 0 and isinstance(at, int):
        raise UsageError("--at takes a sequence, from 1 on, or a time")
    if args.limit < 0:
        raise UsageError("--limit takes how many threads to show, 0 for none")

    async def ask(gateway: Gateway) -> int:
        state = await gateway.state_at(at, threads=args.thread or None, limit=args.limit, after=args.after)
        _print(state, as_json=args.json)
        return 0

    return with_gateway(args, ask)


def _print(state: State, *, as_json: bool) -> None:
    told = shown(state)
    when = format_time(state.time)
    if as_json:
        emit({"seq": state.sequence, "time": when, **told})
    else:
        say(f"the state after event {state.sequence:,}, at {when}")
        for name, columns in _SECTIONS.items():
            entries = [_policy(told[name])] if name == "policy" else told[name]
            _section(name, columns, [[_cell(column, entry[column]) for column in columns] for entry in entries])
        if state.more is not None:
            say(f"there are more threads; next: --after {state.more}")
    if state.unknown:
        say(f"not read, since this version doesn't know them: events {', '.join(map(str, state.unknown))}")


def _policy(told: dict[str, Any]) -> dict[str, Any]:
    """The policy on one line: its rules by name, and the model that an operator forces."""
    rules = [rule["name"] for rule in told["policy"].get("rules", [])]
    return {**told, "rules": rules, "override": (told["override"] or {}).get("model")}


def _section(name: str, columns: Sequence[str], rows: list[list[Any]]) -> None:
    """A titled table on a terminal; else lines that begin with the section's name, so that they can be told apart."""
    if not sys.stdout.isatty():
        table(("section", *columns), [[name, *row] for row in rows])
        return
    show("\n" + styled(name, "cyan", sys.stdout))
    if rows:
        table(columns, rows)
    else:
        show("none")


def _cell(column: str, value: Any) -> Any:
    match column, value:
        case "price", dict():
            return f"{value['input']}/{value['output']}"
        case "tokens", dict():
            return f"{value['input_tokens']} in, {value['output_tokens']} out"
        case (("opened_at" | "retry_at"), float()):
            return format_time(value)
    return value
