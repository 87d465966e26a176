"""`trunkline threads orphans`: attempts whose process was lost, and what they were settled at. From the log alone."""

import argparse
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.money import usd_from_nanos
from trunkline_events.thread import Orphaned
from trunkline_events.times import format_time

from trunkline.cli.events import read_time
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, say, table
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_COLUMNS = ("time", "thread_id", "request_id", "attempt_id", "model", "provider", "cost_usd", "key", "seq")


def run(args: argparse.Namespace) -> int:
    """List them, oldest first."""
    since = read_time(args.since, time.time())
    if args.thread == "":
        raise UsageError("--thread takes the id of a thread, or - for requests without one, and it must not be empty")

    async def ask(gateway: Gateway) -> int:
        found = []
        async with aclosing(_read(await gateway.log(), since, args.thread)) as orphans:
            async for orphan in orphans:
                if args.json:
                    emit(orphan)
                found.append([orphan[column] for column in _COLUMNS])
        if not found:
            whose = "" if args.thread is None else f" of thread {args.thread}"
            say(f"no attempt{whose} was orphaned since {format_time(since)}")
        elif not args.json:
            table(_COLUMNS, found)
        return 0

    return with_gateway(args, ask)


async def _read(log: JetStreamLog, since: float, thread: str | None) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(log.read(scope=Scope(("thread",), thread), since=since)) as events:
        async for event in events:
            if isinstance(event.body, Orphaned):
                yield _shown(event, event.body)


def _shown(event: RecordedEvent, fact: Orphaned) -> dict[str, Any]:
    """As `--json` prints it: `thread_id` is `-` for a request without a thread, `key` null for one without a key."""
    return {
        "seq": event.sequence,
        "time": format_time(event.time),
        "thread_id": event.aggregate,
        "request_id": fact.request_id,
        "attempt_id": fact.attempt_id,
        "model": fact.model,
        "provider": fact.provider,
        "cost_usd": usd_from_nanos(fact.cost_nanos),
        "key": fact.key or None,
    }
