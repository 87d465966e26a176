"""`trunkline events`: the log as it grows, and as it is."""

import argparse
import itertools
import re
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec
from trunkline_events import subjects
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.jetstream import JetStreamLog, format_time
from trunkline_events.log import Scope
from trunkline_events.money import usd_from_nanos

from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, plain, show, styled
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway

_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_TELLING = ("model", "provider", "attempt", "reserve_nanos", "cost_nanos", "finish", "failure", "code", "reason")
"""The fields of events that say most on one line."""

CLOCKS_APART = 60.0
"""Events carry the time of the process that decided them: one this much later than --until ends the search."""

PROGRESS_EVERY = 1000


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    after: int | None
    since: float | None
    until: int | float | None
    scope: Scope
    types: tuple[str, ...]

    def wants(self, event: RecordedEvent) -> bool:
        """Whether its type was asked for; a name without its version stands for all of them."""
        return not self.types or any(event.type == name or event.type.startswith(f"{name}.v") for name in self.types)

    def is_late(self, event: RecordedEvent) -> bool:
        """Whether it is after --until."""
        if self.until is None:
            return False
        return (event.sequence if isinstance(self.until, int) else event.time) > self.until

    def is_over(self, event: RecordedEvent) -> bool:
        """Whether nothing that follows can be wanted."""
        if isinstance(self.until, float):
            return event.time > self.until + CLOCKS_APART
        return self.is_late(event)


def run(args: argparse.Namespace) -> int:
    """Print events; `tail` until Ctrl-C, `replay` to the end of the log."""
    asked = _asked(args, time.time())
    write = _json_line if args.json or not sys.stdout.isatty() else _human_line

    async def read(gateway: Gateway) -> int:
        log = await gateway.log()
        progress = _progress(await log.end()) if args.verb == "replay" else _no_progress
        await _write(_events(gateway, log, args.verb, asked), asked, write, progress)
        return 0

    return with_gateway(args, read)


def _no_progress(sequence: int) -> None:
    """A tail has no end to be near to."""


def _events(gateway: Gateway, log: JetStreamLog, verb: str, asked: _Asked) -> AsyncGenerator[RecordedEvent, None]:
    events: Any  # both are generators, which is more than they promise
    if verb == "tail":
        since = asked.since if asked.after is None else asked.after
        events = gateway.events(*asked.scope.categories, id=asked.scope.aggregate, since=since)
    else:
        events = log.read(asked.after or 0, scope=asked.scope, since=asked.since)
    found: AsyncGenerator[RecordedEvent, None] = events
    return found


async def _write(
    events: AsyncGenerator[RecordedEvent, None],
    asked: _Asked,
    write: Callable[[RecordedEvent], None],
    progress: Callable[[int], None],
) -> None:
    async with aclosing(events):
        async for event in events:
            progress(event.sequence)
            if asked.is_over(event):
                return
            if asked.wants(event) and not asked.is_late(event):
                write(event)


def _progress(end: int) -> Callable[[int], None]:
    """Shows on stderr how far a replay is, where that is a terminal and the events go elsewhere."""
    shown = sys.stderr.isatty() and not sys.stdout.isatty()
    count = itertools.count(1)

    def tell(sequence: int) -> None:
        if shown and (next(count) % PROGRESS_EVERY == 0 or sequence == end):
            print(f"\r{sequence:,} of {end:,}", end="\n" if sequence == end else "", file=sys.stderr, flush=True)

    return tell


# -- one event ---------------------------------------------------------------------------------------------------------


def as_json(event: RecordedEvent) -> dict[str, Any]:
    """An event as `--json` prints it. One that this version doesn't know says so in `problem`; `data` is as stored."""
    shown = {
        "seq": event.sequence,
        "time": format_time(event.time),
        "category": event.category,
        "id": event.aggregate,
        "event_id": event.id,
        "type": event.type,
        "actor": event.actor,
        "cause": event.cause,
    }
    if not isinstance(event.body, Unknown):
        return {**shown, "data": msgspec.to_builtins(event.body)}
    try:
        data = msgspec.json.decode(event.body.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = event.body.data.decode(errors="replace")
    return {**shown, "type": event.body.name, "data": data, "problem": event.body.problem}


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
    emit(as_json(event))


def _human_line(event: RecordedEvent) -> None:
    clock = datetime.fromtimestamp(event.time).astimezone().strftime("%H:%M:%S.%f")[:-3]
    name = event.type.removeprefix(f"{event.category}.").rpartition(".")[0] or event.type
    kind = styled(f"{event.category} {name:<16}", "cyan", sys.stdout)
    told = plain(f"{event.aggregate}  {digest(event)}", sys.stdout)
    show(f"{event.sequence:>8}  {styled(clock, 'dim', sys.stdout)}  {kind}  {told}".rstrip())


# -- what was asked ----------------------------------------------------------------------------------------------------


def _asked(args: argparse.Namespace, now: float) -> _Asked:
    unknown = sorted(set(args.category) - set(subjects.CATEGORIES))
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a category; there are {', '.join(subjects.CATEGORIES)}")
    if args.start is not None and args.start < 0:
        raise UsageError("--from takes a sequence, from 1 on")
    categories = tuple(args.category) or (subjects.CATEGORIES if args.id else ())
    until = getattr(args, "until", None)
    return _Asked(
        after=None if args.start is None else max(args.start - 1, 0),
        since=None if args.since is None else read_time(args.since, now),
        until=int(until) if until is not None and until.isdecimal() else until and read_time(until, now),
        scope=Scope(categories, args.id),
        types=tuple(args.type),
    )


def read_time(text: str, now: float) -> float:
    """Unix time of RFC 3339 or of `10m`, `2h`, `1d` before now. Raises UsageError."""
    if match := _AGO.fullmatch(text):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(f"{text!r} is no time; write 2026-11-20T12:00:00Z, or 10m, 2h, 1d for so long ago")
    return moment.timestamp()
