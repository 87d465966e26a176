"""`trunkline projections`: the read models in SQL, how far they are, and building them anew."""

import argparse
import asyncio
import gc
import sqlite3
import sys
import time
from typing import Any

import msgspec
from eventsourcing.persistence import PersistenceError
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_projections.sql_view import View

from trunkline import settings, telemetry
from trunkline.cli.failures import FAILED, NOT_FOUND
from trunkline.cli.output import emit, fields, say, show, table
from trunkline.projector import end_of_log, explain, outdated, standing
from trunkline.projector.rebuild import Rebuilt, rebuild
from trunkline.projector.store import NoReadModels, ReadModelsError, Store, store_of

MISMATCH = 7

_COLUMNS = ("table", "rows", "position", "events behind")
_DIFFERENCE_COLUMNS = ("table", "rows", "missing", "extra", "different")


def run(args: argparse.Namespace) -> int:
    """One verb about the read models."""
    telemetry.configure("error")
    chosen = settings.load({"nats": args.nats, "data": args.data})
    url = chosen.nats or f"nats://127.0.0.1:{chosen.nats_port}"
    where = "the read models"
    try:
        store = store_of(chosen)
        where = store.where
        if args.verb == "rebuild":
            return _rebuild(store, url, args)
        return asyncio.run(_look(store, url, args))
    except ReadModelsError as error:
        return _failed(args, NOT_FOUND if isinstance(error, NoReadModels) else FAILED, str(error))
    except (PersistenceError, sqlite3.Error) as error:
        return _failed(args, FAILED, explain(error, where))


def _failed(args: argparse.Namespace, code: int, message: str) -> int:
    say(f"trunkline: {message}")
    if args.json:
        emit({"error": {"code": "not_found" if code == NOT_FOUND else "failed", "message": message}})
    return code


# -- list and lag ------------------------------------------------------------------------------------------------------


async def _look(store: Store, url: str, args: argparse.Namespace) -> int:
    env = store.live()
    if env is None:
        raise NoReadModels(f"there are no read models in {store.where} yet; start `trunkline run projector`")
    stands = standing(store, env)
    end = await end_of_log(url)
    view = store.open(env)
    try:
        try:
            old = outdated(stands, end, store.where)
            state = "of another shape: a projector of this version builds them anew" if old else "live"
        except ReadModelsError as error:
            state = str(error)
        lag = await _lag(view, url)
        if args.verb == "lag":
            _print_lag({**lag, "state": state, "where": store.where}, as_json=args.json)
        else:
            _print_list({"where": store.where, "state": state, **lag, "tables": _tables(view)}, as_json=args.json)
    finally:
        view.close()
    return 0


def _tables(view: View) -> list[dict[str, Any]]:
    return [{"table": name, "rows": rows} for name, rows in view.counts().items()]


async def _lag(view: View, url: str) -> dict[str, Any]:
    """Position and end in one breath; how long the oldest event that isn't in the tables has waited."""
    connection = await Connection.open(url, name="trunkline projections")
    try:
        source = JetStreamLog(connection)
        position = view.position
        end = await source.end()
        waiting = await source.get(position + 1) if position < end else None
    finally:
        await connection.close()
    seconds = max(0.0, time.time() - waiting.time) if waiting else 0.0
    return {
        "position": position,
        "end": end,
        "events_behind": max(0, end - position),
        "seconds_behind": round(seconds, 3),
    }


def _print_lag(lag: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(lag)
    else:
        fields({name.replace("_", " "): value for name, value in lag.items()})


def _print_list(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    behind = found["events_behind"]
    table(_COLUMNS, [[one["table"], one["rows"], found["position"], behind] for one in found["tables"]])
    if found["state"] != "live":
        say(f"trunkline: {found['state']}")


# -- rebuild -----------------------------------------------------------------------------------------------------------


def _rebuild(store: Store, url: str, args: argparse.Namespace) -> int:
    if sys.stderr.isatty():
        say(f"building all read models anew, beside {store.where} …")
    # Events come and go by the thousand and hold no cycles: looking for some at every turn is a sixth of the work.
    gc.freeze()
    gc.set_threshold(100_000)
    done = rebuild(store, url, force=args.force)
    if args.json:
        emit({**msgspec.to_builtins(done), "tables": [_difference(one) for one in done.tables]})
    else:
        _print_rebuilt(done)
    return 0 if done.switched else MISMATCH


def _difference(one: Any) -> dict[str, Any]:
    return {**msgspec.to_builtins(one), "same": one.same}


def _print_rebuilt(done: Rebuilt) -> None:
    if done.tables:
        table(_DIFFERENCE_COLUMNS, [[getattr(one, column) for column in _DIFFERENCE_COLUMNS] for one in done.tables])
    took = f"{done.position:,} events in {done.seconds:.1f} s, {done.events_per_second:,.0f} a second"
    verdict = {True: "the same, byte for byte", False: "they differ", None: f"not compared: {done.not_compared}"}
    show(f"rebuilt: {took}; {verdict[done.same]}")
    if done.switched:
        show(f"live now: {done.where}")
    else:
        say(
            "trunkline: the live read models stay; the rebuilt ones are kept in "
            f"{done.kept} to look at\n  next: `trunkline projections rebuild --force` puts new ones in their place"
        )
