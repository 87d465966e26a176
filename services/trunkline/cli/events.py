"""`trunkline events`: the log as it grows, and as it is."""

import argparse
import re
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

import msgspec
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.money import usd_from_nanos

from trunkline.cli.failures import UsageError
from trunkline.cli.output import plain, printable, styled
from trunkline.cli.progress import Progress
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.event_json import as_json

_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_TELLING = ("model", "provider", "attempt", "reserve_nanos", "cost_nanos", "finish", "failure", "code", "reason")
"""The fields of events that say most on one line."""

_NUMBER = re.compile(r"-?[0-9]{1,30}")

MOST = 2**63 - 1
"""No log gets as far."""


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    after: int | None
    since: float | None
    until: int | float | None
    scope: Scope
    types: tuple[str, ...]

    def wants(self, event: RecordedEvent) -> bool:
        """Whether its type was asked for; a name without its version stands for all of them."""
        return not self.types or any(event.type == name or event.type.startswith(f"{name}.v") for name in self.types)


Write = Callable[[RecordedEvent], None]


def run(args: argparse.Namespace) -> int:
    """Print events; `tail` until Ctrl-C, `replay` to the end of the log."""
    asked = _asked(args, time.time())
    write = _json_line if args.json or not sys.stdout.isatty() else _human_line

    async def read(gateway: Gateway) -> int:
        await (_tail if args.verb == "tail" else _replay)(gateway, asked, write)
        return 0

    return with_gateway(args, read)


async def _tail(gateway: Gateway, asked: _Asked, write: Write) -> None:
    since = asked.since if asked.after is None else asked.after
    async with aclosing(gateway.events(*asked.scope.categories, id=asked.scope.aggregate, since=since)) as events:
        async for event in events:
            if asked.wants(event):
                write(event)
                sys.stdout.flush()


async def _replay(gateway: Gateway, asked: _Asked, write: Write) -> None:
    log = await gateway.log()
    start = asked.after or 0
    if asked.since is not None:
        start = await log.position_at(asked.since - 0.000_001)
    last = await _last(log, asked.until)
    with Progress.on_terminal(start, last) as progress:
        async with aclosing(log.read(start, scope=asked.scope)) as events:
            async for event in events:
                if event.sequence > last:
                    break
                if asked.wants(event):
                    write(event)
                progress.reached(event.sequence)
        progress.finish()


async def _last(log: JetStreamLog, until: int | float | None) -> int:
    if isinstance(until, float):
        return await log.position_at(until)
    end = await log.end()
    return end if until is None else min(until, end)


# -- one event ---------------------------------------------------------------------------------------------------------


def digest(event: RecordedEvent) -> str:
    """What an event says, in a few words."""
    if isinstance(event.body, Unknown):
        return f"unknown to this version: {event.body.problem}"
    data = msgspec.to_builtins(event.body)
    words = []
    for name in _TELLING:
        value = data.get(name)
        if name.endswith("_nanos") and isinstance(value, int):
            words.append(f"{name.removesuffix('_nanos')}=${usd_from_nanos(value)}")
        elif isinstance(value, str | int):
            words.append(f"{name}={value}")
    return " ".join(words)


def _json_line(event: RecordedEvent) -> None:
    # Not flushed: a replay is many lines, and `tail` flushes each itself.
    sys.stdout.write(f"{msgspec.json.encode(as_json(event)).decode()}\n")


def _human_line(event: RecordedEvent) -> None:
    clock = datetime.fromtimestamp(event.time).astimezone().strftime("%H:%M:%S.%f")[:-3]
    name = event.type.removeprefix(f"{event.category}.").rpartition(".")[0] or event.type
    kind = styled(f"{event.category} {name:<16}", "cyan", sys.stdout)
    told = plain(f"{event.aggregate}  {digest(event)}", sys.stdout)
    line = f"{event.sequence:>8}  {styled(clock, 'dim', sys.stdout)}  {kind}  {told}".rstrip()
    sys.stdout.write(f"{printable(line, sys.stdout)}\n")


# -- what was asked ----------------------------------------------------------------------------------------------------


def _asked(args: argparse.Namespace, now: float) -> _Asked:
    unknown = sorted(set(args.category) - set(subjects.CATEGORIES))
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a category; there are {', '.join(subjects.CATEGORIES)}")
    if args.start is not None and not 0 <= args.start <= MOST:
        raise UsageError("--from takes a sequence, from 1 on")
    if args.id == "":
        raise UsageError("--id takes the id of a model, provider or thread, and it must not be empty")
    until = getattr(args, "until", None)
    return _Asked(
        after=None if args.start is None else max(args.start - 1, 0),
        since=None if args.since is None else read_time(args.since, now),
        until=None if until is None else read_position(until, now),
        scope=Scope(tuple(args.category), args.id),
        types=tuple(args.type),
    )


def read_position(text: str, now: float) -> int | float:
    """A sequence as an int, or a time as `read_time` has it. Raises UsageError."""
    if not _NUMBER.fullmatch(text):
        return read_time(text, now)
    if text.startswith("-"):
        raise UsageError(f"{text} is no sequence: they count from 1")
    return int(text)


def read_time(text: str, now: float) -> float:
    """Unix time of RFC 3339 or of `10m`, `2h`, `1d` before now, 1970 at the earliest. Raises UsageError."""
    if match := _AGO.fullmatch(text):
        return max(now - int(match[1]) * _UNITS[match[2]], 0.0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(f"{text!r} is no time; write 2026-11-20T12:00:00Z, or 10m, 2h, 1d for so long ago")
    return max(moment.timestamp(), 0.0)
