"""`trunkline audit redecide`: makes recorded decisions again, from the log alone."""

import argparse
import time

import msgspec

from trunkline import explain
from trunkline.cli.events import read_position, read_time
from trunkline.cli.failures import MISMATCH
from trunkline.cli.output import emit, say, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway


def run(args: argparse.Namespace) -> int:
    """Print those that come out differently; exit code 7 where there are any."""
    now = time.time()
    since = None if args.since is None else read_time(args.since, now)
    until = None if args.until is None else read_position(args.until, now)

    async def ask(gateway: Gateway) -> int:
        log = await gateway.log()
        after = 0 if since is None else await log.position_at(since)
        last = await log.position_at(until) if isinstance(until, float) else until
        told = await explain.redecide(log, after, last)
        if args.json:
            emit(msgspec.to_builtins(told))
        else:
            table(
                ("event", "request", "differs in"),
                [[one.sequence, one.request_id, one.differences] for one in told.differing],
            )
            say(f"{told.decisions:,} decisions made again from the log, {len(told.differing):,} came out differently")
        return MISMATCH if told.differing else 0

    return with_gateway(args, ask)
