"""`trunkline workflows`: runs listed, shown, cancelled, and told what they wait for."""

import argparse
import sys
from typing import Any

import msgspec

from trunkline.cli.output import emit, fields, plain, say, show, table
from trunkline.cli.session import with_gateway
from trunkline.cli.workflow_run import read_json
from trunkline.client import Gateway

_COLUMNS = ("id", "workflow", "status", "at", "by", "duration_ms", "cost_usd")
_STEPS = ("step", "kind", "status", "attempts", "busy_ms", "tokens", "cost_usd", "by", "code")
_SHOWN = ("id", "workflow", "version", "status", "thread", "key", "began_at", "ended_at", "deadline")
_VERBS = {"show": "get"}


def run(args: argparse.Namespace) -> int:
    """Ask one command about runs and print its reply."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        reply = await getattr(gateway.workflows, _VERBS.get(args.verb, args.verb))(**asked)
        if args.json:
            emit(reply)
        else:
            _print(args, reply)
        return 0

    return with_gateway(args, ask)


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    match args.verb:
        case "list":
            given = {"limit": args.limit, "after": args.after, "workflow": args.workflow, "status": args.status}
            return {name: value for name, value in given.items() if value is not None}
        case "cancel":
            return {"id": args.id, "reason": args.reason}
        case "signal":
            value = None if args.value is None else read_json(args.value.encode(), "--value")
            return {"id": args.id, "name": args.name, "value": value}
        case _:
            return {"id": args.id}


def _print(args: argparse.Namespace, reply: dict[str, Any]) -> None:
    match args.verb:
        case "list":
            _print_list(reply)
        case "show":
            _print_run(reply)
        case "cancel":
            show(
                f"{args.id}: "
                + (f"cancelled (event {reply['seq']})" if reply["changed"] else "it was cancelled already")
            )
        case "signal":
            done = f"signal {args.name} sent (event {reply['seq']})" if reply["changed"] else "it was told that already"
            show(f"{args.id}: {done}")


def _print_list(reply: dict[str, Any]) -> None:
    table(_COLUMNS, [[one[column] for column in _COLUMNS] for one in reply["runs"]])
    for one in reply["runs"]:
        if one["waits_for"]:
            what = ", ".join(one["waits_for"])
            say(f"{one['id']} waits for a process that knows {what}: `trunkline run workflow --import`")
    if reply["after"] is not None:
        say(f"there are more; next: --after {reply['after']}")


def _print_run(told: dict[str, Any]) -> None:
    metrics = told["metrics"]
    known = {name: told[name] for name in _SHOWN if told[name] is not None}
    spent = {name: metrics[name] for name in ("duration_ms", "cost_usd", "chats", "retries")}
    led = {"led by": ", then ".join(one["by"] for one in told["led"])}
    fields({**known, **spent, "tokens": _tokens(metrics["usage"]), **led})
    if told["steps"]:
        show("")
        rows = [{**one, "tokens": _tokens(one["usage"])} for one in told["steps"]]
        table(_STEPS, [[row[column] for column in _STEPS] for row in rows])
    if told["status"] == "completed":
        output = told["output"]
        text = output if isinstance(output, str) else msgspec.json.encode(output).decode()
        show(f"\n{plain(text, sys.stdout)}")
    elif told["status"] == "failed":
        place = f" at {told['failed_step']}" if told["failed_step"] else ""
        show(f"\nfailed{place} ({told['code']}): {plain(told['message'] or 'nothing more is known', sys.stdout)}")


def _tokens(usage: dict[str, int]) -> str:
    counts = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
    return f"{counts[0]} in, {counts[1]} out" if any(counts) else ""
