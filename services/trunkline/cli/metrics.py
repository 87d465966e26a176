"""`trunkline models metrics`: what calls to a model took, cost and came to, now and over time."""

import argparse
import re
import time
from typing import Any

from trunkline_events.times import format_time

from trunkline.cli.events import read_time
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, say, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = (
    *("at", "version", "calls", "failures", "success", "p50_ms", "p95_ms", "ttft_p50_ms", "tokens_per_s", "cost_usd"),
    *("input_tokens", "output_tokens"),
)
_STEP = re.compile(r"([1-9][0-9]*)([mhd])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


def run(args: argparse.Namespace) -> int:
    """Ask for them and print them."""
    asked = _arguments(args)

    async def ask(gateway: Gateway) -> int:
        reply = await gateway.models.metrics(**asked)
        if args.json:
            emit(reply)
        else:
            _print(reply)
        return 0

    return with_gateway(args, ask)


def _arguments(args: argparse.Namespace) -> dict[str, Any]:
    now = time.time()
    step = _STEP.fullmatch(args.step)
    if step is None:
        raise UsageError(f"--step {args.step}: write minutes, hours or days, like 5m, 1h, 1d")
    return {
        "id": args.id,
        "since": format_time(read_time(args.since, now)),
        "until": format_time(now if args.until is None else read_time(args.until, now)),
        "step_s": int(step[1]) * _SECONDS[step[2]],
        "version": args.version,
    }


def _print(reply: dict[str, Any]) -> None:
    rows = [[point[column] for column in _COLUMNS] for point in reply["series"]]
    for version, measured in reply["now"].items():
        now = {"at": "last 5 min", "version": version, **measured}
        rows.append([now.get(column) for column in _COLUMNS])
    if rows:
        table(_COLUMNS, rows)
    else:
        say(f"{reply['id']} was not called between {reply['since']} and {reply['until']}")
