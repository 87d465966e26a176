"""`trunkline audit rerate`: what a model's usage would have cost at another price. Reads the log, changes nothing."""

import argparse
import contextlib
import sys
import time
from contextlib import aclosing
from typing import Any

from trunkline_actors.pricing import rate_of, version_of
from trunkline_actors.rerate import GROUPINGS, Grouping, Rerating, shown
from trunkline_events import subjects
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.rate import Rate

from trunkline import errors
from trunkline.cli.events import read_position, read_time
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, say, show, styled, table
from trunkline.cli.progress import Progress
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.prices import BadPrice, price_of

_COLUMNS = ("events", "booked_usd", "rerated_usd", "difference_usd", "input", "cached", "output", "estimated")


def run(args: argparse.Namespace) -> int:
    """Print both figures: in all, and by thread, key and day."""
    rate = _rate(args.price)
    now = time.time()
    since = None if args.since is None else read_time(args.since, now)
    until = None if args.until is None else read_position(args.until, now)
    by: tuple[Grouping, ...] = tuple(dict.fromkeys(args.by)) or GROUPINGS

    async def ask(gateway: Gateway) -> int:
        log = await gateway.log()
        await _known(log, args.model)
        after, last = await _range(log, since, until)
        rerating = await _read(log, Rerating(args.model, rate), after, last)
        told = {"model": args.model, "price": rate.version.partition("@")[2], "from": after + 1, "to": last}
        if args.json:
            emit({**told, **shown(rerating, by)})
        else:
            say(f"model {args.model} at ${told['price']} a million tokens, events {after + 1:,} to {last:,}")
            _print(shown(rerating, by), by)
        _tell(rerating)
        return 0

    return with_gateway(args, ask)


def _rate(text: str) -> Rate:
    try:
        price = price_of(text)
    except BadPrice as error:
        raise UsageError(f"--price: {error}") from error
    return rate_of(price, version_of("rerate", price))


async def _known(log: JetStreamLog, model: str) -> None:
    """Raises NotFound for a model that was never registered: nothing can have been routed to it."""
    if subjects.id_problem(model) or await log.last("model", model) is None:
        raise errors.NotFound(
            f"no model {model!r} was ever registered; see `trunkline models list`, or "
            "`trunkline events replay --type model.registered` for those that were",
            code="model_not_found",
            status=404,
        )


async def _range(log: JetStreamLog, since: float | None, until: int | float | None) -> tuple[int, int]:
    """The sequence to read after, and the last one to read."""
    after = 0 if since is None else await log.position_at(since - 0.000_001)
    if isinstance(until, float):
        return after, await log.position_at(until)
    end = await log.end()
    return after, end if until is None else min(until, end)


async def _read(log: JetStreamLog, rerating: Rerating, after: int, last: int) -> Rerating:
    with contextlib.closing(Progress(after, last, sys.stderr if sys.stderr.isatty() else None)) as progress:
        async with aclosing(log.read(after, scope=Scope(("thread",)))) as events:
            async for event in events:
                if event.sequence > last:
                    break
                rerating.happened(event)
                progress.reached(event.sequence)
        progress.finish()
    return rerating


# -- for readers -------------------------------------------------------------------------------------------------------


def _print(told: dict[str, Any], by: tuple[Grouping, ...]) -> None:
    """Titled tables on a terminal; else lines that begin with what they are by, so that they can be told apart."""
    sections = {"total": [["", *_row(told["total"])]]}
    sections |= {name: [[entry[name], *_row(entry)] for entry in told[f"by_{name}"]] for name in by}
    for name, rows in sections.items():
        if not sys.stdout.isatty():
            table(("by", name, *_COLUMNS), [[name, *row] for row in rows])
            continue
        show("\n" + styled(name if name == "total" else f"by {name}", "cyan", sys.stdout))
        if name == "total":
            table(_COLUMNS, [row[1:] for row in rows])
        elif rows:
            table((name, *_COLUMNS), rows)
        else:
            show("none")


def _row(entry: dict[str, Any]) -> list[Any]:
    tokens = entry["tokens"]
    counts = [tokens[name] for name in ("input_tokens", "cached_input_tokens", "output_tokens")]
    return [entry["events"], *(entry[name] for name in _COLUMNS[1:4]), *counts, entry["estimated"]["events"]]


def _tell(rerating: Rerating) -> None:
    """What the figures leave open."""
    told = shown(rerating, ())
    if rerating.total.estimated.events:
        bounds = told["total"]["estimated"]
        say(
            f"estimated: {bounds['events']:,} ended without final usage; of the sums, ${bounds['booked_usd']} booked "
            f"and ${bounds['rerated_usd']} re-rated are bounds"
        )
    if rerating.orphans.events:
        orphans = told["orphans"]
        say(
            f"not re-rated: {orphans['events']:,} orphaned, booked at their reservation, ${orphans['booked_usd']} in "
            "all, and in no sum above: no usage of them is known"
        )
    if rerating.unknown:
        say(f"not read, since this version doesn't know them: events {', '.join(map(str, rerating.unknown))}")
