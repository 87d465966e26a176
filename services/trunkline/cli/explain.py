"""`trunkline audit explain`: why a request was served as it was."""

import argparse
import sys
import time
from typing import Any

from trunkline import explain
from trunkline.cli.events import read_time
from trunkline.cli.failures import MISMATCH, UsageError
from trunkline.cli.output import emit, say, show, styled, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = ("", "model", "provider", "score", "reason", "would have cost")


def run(args: argparse.Namespace) -> int:
    """Print the explanation; exit code 7 where a decision can't be made again."""
    if (args.request is None) == (args.event is None):
        raise UsageError("name one request: by its id, or by --event with the sequence of its receipt")
    since = None if args.since is None else read_time(args.since, time.time())

    async def ask(gateway: Gateway) -> int:
        log = await gateway.log()
        told = await explain.explain(log, args.request, event=args.event, thread=args.thread, since=since)
        if args.json:
            emit(told)
        else:
            _print(told)
        return MISMATCH if any(one["again"] for one in told["attempts"]) else 0

    return with_gateway(args, ask)


def _print(told: dict[str, Any]) -> None:
    asked = told["asked"]
    thread = "no thread" if told["thread"] == "-" else f"thread {told['thread']}"
    kind = "a stream" if asked["stream"] else "an answer"
    show(f"request {told['request_id']}, {thread}: {asked['operation']} for {kind}, model {asked['model']}")
    wishes = {**asked["route"], "features": asked["features"], "hints": asked["hints"]}
    show(f"asked: {_listed({name: value for name, value in wishes.items() if value}) or 'nothing special'}")
    for one in told["attempts"]:
        _attempt(one)
    if told["refused"]:
        refused = told["refused"]
        show(f"\nrefused (event {refused['seq']}): {refused['code']}: {refused['message']}")
    if told["reused"]:
        show("\n" + _reused(told["reused"]))
    show(f"\ncost: ${told['cost_usd']}")
    differing = [one for one in told["attempts"] if one["again"]]
    if told["attempts"] and not differing:
        say("decided again from the log: the same")
    for one in differing:
        say(f"decided again from the log, attempt {one['attempt']} differs in: {', '.join(one['again'])}")


def _attempt(one: dict[str, Any]) -> None:
    show("\n" + styled(f"attempt {one['attempt']}: {one['model']} at {one['provider']}", "bold", sys.stdout))
    state = one["state"]
    show(f"decided at {one['at']} (event {one['seq']}) from the registry of event {state['log_seq']}")
    by = [f"policy {state['policy_version']}" + (f", rule {state['rule']}" if state["rule"] else "")]
    by += [f"{name}: {_listed(state[name])}" for name in ("preferences", "circuits", "budgets") if state[name]]
    by += [f"forced by an operator: {state['override']}"] if state["override"] else []
    by += ["no statistics"] if not state["statistics"] else []
    by += [f"{failed['model']} failed before ({failed['failure']})" for failed in state["tried"]]
    show("; ".join(by))
    budget = state["budget"]
    if budget["limit_usd"] is not None:
        show(f"budget: ${budget['limit_usd']}, ${budget['settled_usd']} spent, ${budget['reserved_usd']} reserved")
    show(f"reserved: ${one['reserved_usd']} at price {one['price_version']}")
    table(_COLUMNS, [_row(candidate) for candidate in one["candidates"]])
    if one["left_out"]:
        show(f"and {_listed(one['left_out'])}")
    show(_ended(one["ended"]))


def _reused(reused: dict[str, Any]) -> str:
    made = f"{reused['model']} at {reused['provider']} had made it {reused['age_s']:.1f} s before"
    paid = f"for ${reused['saved_usd']} (event {reused['origin']})"
    return f"answered from the cache (event {reused['seq']}): {made}, {paid}"


def _row(candidate: dict[str, Any]) -> list[Any]:
    cost, score = candidate["would_have_cost_usd"], candidate["score"]
    return [
        "→" if candidate["chosen"] else "",
        candidate["model"],
        candidate["provider"],
        None if score is None else f"{score:.6g}",
        candidate["reason"],
        None if cost is None else f"${cost}",
    ]


def _ended(ended: dict[str, Any] | None) -> str:
    if ended is None:
        return "still running"
    if "usage" in ended:
        usage = ended["usage"]
        partial = ", cut short" if ended["partial"] else ""
        return (
            f"ended (event {ended['seq']}): {ended['finish']}{partial}, {usage['input_tokens']} tokens in, "
            f"{usage['output_tokens']} out, ${ended['cost_usd']}, {ended['latency_ms']:.0f} ms"
        )
    if "failure" in ended:
        status = f", status {ended['status']}" if ended["status"] else ""
        return f"failed (event {ended['seq']}): {ended['failure']}{status}, nothing billed"
    return f"its process was lost (event {ended['seq']}): ${ended['cost_usd']}"


def _listed(entries: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in entries.items())
