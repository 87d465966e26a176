"""`trunkline projections`: the read models in SQL, how far they are, and building them anew."""

import argparse
import asyncio
import contextlib
import errno
import gc
import sqlite3
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from eventsourcing.persistence import PersistenceError
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_projections.sql_view import View

from trunkline import settings, telemetry
from trunkline.cli.failures import FAILED, MISMATCH, NOT_FOUND, UNAVAILABLE
from trunkline.cli.output import emit, fields, say, show, table
from trunkline.projector import OtherLog, end_of_log, outdated, standing
from trunkline.projector.rebuild import Rebuilt, rebuild
from trunkline.projector.store import NoReadModels, ReadModelsError, SQLiteStore, Store, store_of
from trunkline.projector.trouble import explain, is_away

LOOKS = 3

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
        if isinstance(store, SQLiteStore) and chosen.data.exists() and not chosen.data.is_dir():
            return _failed(args, FAILED, f"{chosen.data} is not a folder; name the gateway's data folder with --data")
        if args.verb == "rebuild":
            return _rebuild(store, url, args)
        return asyncio.run(_look(store, url, args))
    except ReadModelsError as error:
        return _failed(args, NOT_FOUND if isinstance(error, NoReadModels) else FAILED, str(error))
    except (PersistenceError, sqlite3.Error) as error:
        return _failed(args, UNAVAILABLE if is_away(error) else FAILED, explain(error, where))
    except OSError as error:
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _failed(args, FAILED, f"{error.filename}: {error.strerror}; {_FOLDER_ADVICE}")


_FOLDER_ADVICE = "name a data folder that you may write to with --data"
_NAMES = {NOT_FOUND: "not_found", UNAVAILABLE: "unavailable", MISMATCH: "mismatch"}


def _failed(args: argparse.Namespace, code: int, message: str) -> int:
    say(f"trunkline: {message}")
    if args.json:
        emit(_error(code, message))
    return code


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": _NAMES.get(code, "failed"), "message": message}}


# -- list and lag ------------------------------------------------------------------------------------------------------

_NOBODY = "kept up by nobody: no projector is at work on them; start `trunkline up` or `trunkline run projector`"
_OLD = "of another shape: a projector of this version builds them anew"


async def _look(store: Store, url: str, args: argparse.Namespace) -> int:
    env = store.live()
    if env is None:
        raise NoReadModels(f"there are no read models in {store.where} yet; start `trunkline run projector`")
    stands = standing(store, env)
    end = await end_of_log(url)
    try:
        old = outdated(stands, end, store.where)
    except ReadModelsError as error:
        code = MISMATCH if isinstance(error, OtherLog) else FAILED
        nothing = {"position": stands.position, "end": end.sequence, "events_behind": None, "seconds_behind": None}
        _print({**nothing, "projector": False, "state": str(error), "where": store.where}, code, args)
        return code
    view = store.open(env)
    try:
        if not old:
            view.check()
        found = await _lag(view, url)
        followed = await _is_followed(store)
        state = _OLD if old else "live" if followed else _NOBODY
        tables = []
        if args.verb == "list":
            with contextlib.suppress(*((PersistenceError, sqlite3.Error) if old else ())):  # it may have other tables
                tables = _tables(view)
        _print({**found, "projector": followed, "state": state, "where": store.where}, 0, args, tables)
    finally:
        view.close()
    return 0


async def _is_followed(store: Store) -> bool:
    """Asked more than once: whoever else looks at the same moment may be mistaken for a projector."""
    for _ in range(LOOKS):
        if not await asyncio.to_thread(store.followed):
            return False
        await asyncio.sleep(0.01)
    return True


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


def _print(found: dict[str, Any], code: int, args: argparse.Namespace, tables: Sequence[dict[str, Any]] = ()) -> None:
    """The tables or the lag; what is wrong, if anything is, on stderr as well."""
    state = found["state"]
    if args.json:
        listed = {"tables": tables} if args.verb == "list" else {}
        emit({**found, **listed, **(_error(code, state) if code else {})})
    elif args.verb == "lag":
        fields({name.replace("_", " "): value for name, value in found.items() if name != "state" or not code})
    elif tables:
        behind = found["events_behind"]
        table(_COLUMNS, [[one["table"], one["rows"], found["position"], behind] for one in tables])
    if code or (args.verb == "list" and state != "live" and not args.json):
        say(f"trunkline: {state}")


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
