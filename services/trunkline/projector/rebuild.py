"""Building the read models anew beside the live ones, comparing the two, and putting the new in the old one's place."""

import asyncio
import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
from eventsourcing.persistence import PersistenceError
from msgspec import Struct
from trunkline_projections.readmodels import TABLES
from trunkline_projections.sql_tables import Table, Value
from trunkline_projections.sql_view import Snapshot

from trunkline.projector import LogEnd, Standing, advance, begin, check, end_of_log, outdated, standing
from trunkline.projector.store import Env, ReadModelsError, Store
from trunkline.projector.trouble import REPLACE, Unreadable, is_broken, what

Row = tuple[Value, ...]


class TableDifference(Struct, frozen=True, kw_only=True):
    """One table, live and rebuilt: the digests are of all rows in the order of their keys, as bytes."""

    table: str
    rows: int
    missing: int
    extra: int
    different: int
    digest_live: str
    digest_rebuilt: str

    @property
    def same(self) -> bool:
        """Byte for byte."""
        return self.digest_live == self.digest_rebuilt


class Rebuilt(Struct, frozen=True, kw_only=True):
    """What a rebuild came to. `same` None: there was nothing to compare with, for the reason in `not_compared`."""

    position: int
    seconds: float
    events_per_second: float
    same: bool | None
    switched: bool
    where: str
    kept: str | None
    not_compared: str | None
    tables: list[TableDifference]


def rebuild(store: Store, url: str, *, force: bool) -> Rebuilt:
    """Build, compare, switch. Where the two differ the live view stays, unless `force` replaces it; likewise where
    it can't be read, which raises Unreadable without `force`.

    A projector may be at work all the while: the live view is held still for the comparison, by a snapshot, and the
    new one is brought to the very event that it stands at.
    """
    with store.rebuilding():
        began = time.monotonic()
        found, reason = _found(store, force=force)
        end = asyncio.run(end_of_log(url))  # after the view was asked where it stands
        reason = reason or _incomparable(store, found, end, force=force)
        env = begin(store, end)
        until = end.sequence if found is None or reason is not None else found.position
        advance(store, env, url, until, threading.Event())
        seconds = time.monotonic() - began
        tables: list[TableDifference] = []
        if reason is None:
            try:
                until, tables = _beside_live(store, env, url)
            except _BREAKS as error:
                reason = _replaced(error, store, force=force)
        same = all(table.same for table in tables) if reason is None else None
        switched = force or same is True or (same is None and reason in (_NONE, _OLDER))
        kept = None if switched else store.kept()
        if switched:
            store.switch()
    return Rebuilt(
        position=until,
        seconds=seconds,
        events_per_second=until / seconds if seconds else 0.0,
        same=same,
        switched=switched,
        where=store.where,
        kept=kept,
        not_compared=reason,
        tables=tables,
    )


_NONE = "there were none before"
_OLDER = "those there were had another shape"


_BREAKS = (PersistenceError, sqlite3.Error, Unreadable, ValueError, TypeError)
"""What reading a broken view may raise; the last two where it holds rows that make no sense."""


def _found(store: Store, *, force: bool) -> tuple[Standing | None, str | None]:
    """What the live view says of itself, or why it says nothing."""
    env = store.live()
    if env is None:
        return None, _NONE
    try:
        return standing(store, env), None
    except _BREAKS as error:
        return None, _replaced(error, store, force=force)


def _incomparable(store: Store, found: Standing | None, end: LogEnd, *, force: bool) -> str | None:
    """Why the live view is none to compare with, or None where it is one."""
    env = store.live()
    if found is None or env is None:
        return _NONE
    try:
        if outdated(found, end, store.where):
            return _OLDER
    except ReadModelsError as error:
        return str(error)
    try:
        check(store, env)
    except _BREAKS as error:
        return _replaced(error, store, force=force)
    return None


def _replaced(error: Exception, store: Store, *, force: bool) -> str:
    """What is said of a live view that is broken and gets replaced. Raises Unreadable where it may not be."""
    if not is_broken(error) and not isinstance(error, (ValueError, TypeError)):
        raise error
    if not force:
        told = error if isinstance(error, Unreadable) else f"{store.where} can't be read: {what(error)}; {REPLACE}"
        raise Unreadable(str(told)) from error
    return f"{_BROKEN} ({what(error)}), and were replaced"


_BROKEN = "those there were could not be read"


def _beside_live(store: Store, env: Env, url: str) -> tuple[int, list[TableDifference]]:
    """Bring the new view to where the live one stands, and compare the two."""
    live_env = store.live()
    assert live_env is not None
    live = store.open(live_env)
    try:
        with live.snapshot() as held:
            advance(store, env, url, held.position, threading.Event())
            return held.position, _compared(store, env, held)
    finally:
        live.close()


def _compared(store: Store, env: Env, held: Snapshot) -> list[TableDifference]:
    rebuilt = store.open(env)
    try:
        with rebuilt.snapshot() as ours:
            if ours.position != held.position:
                raise ReadModelsError("the rebuilt view did not get where the live one is; try again")
            return [difference(table, held.rows(table), ours.rows(table)) for table in TABLES]
    finally:
        rebuilt.close()


def difference(table: Table, live: Iterator[Row], rebuilt: Iterator[Row]) -> TableDifference:
    """Both in the order of their keys, walked side by side: two rows in memory, however many there are."""
    width = len(table.key)
    digests = hashlib.sha256(), hashlib.sha256()
    encode = msgspec.json.encode
    counts = {"rows": 0, "missing": 0, "extra": 0, "different": 0}

    def following(rows: Iterator[Row], which: int) -> Row | None:
        row = next(rows, None)
        if row is not None:
            digests[which].update(encode(row) + b"\n")
        return row

    ours, theirs = following(live, 0), following(rebuilt, 1)
    while ours is not None or theirs is not None:
        if theirs is None or (ours is not None and _before(ours[:width], theirs[:width])):
            counts["missing"] += 1  # live, not rebuilt
            counts["rows"] += 1
            ours = following(live, 0)
        elif ours is None or ours[:width] != theirs[:width]:
            counts["extra"] += 1
            theirs = following(rebuilt, 1)
        else:
            counts["rows"] += 1
            counts["different"] += ours != theirs
            ours, theirs = following(live, 0), following(rebuilt, 1)
    return TableDifference(
        table=table.name, digest_live=digests[0].hexdigest(), digest_rebuilt=digests[1].hexdigest(), **counts
    )


def _before(one: Row, other: Row) -> bool:
    """Keys hold no NULL, and the same kinds in the same places, unless somebody meddled: then as SQLite orders them."""
    try:
        return one < other
    except TypeError:
        return [_ranked(value) for value in one] < [_ranked(value) for value in other]


def _ranked(value: object) -> tuple[int, Any]:
    return (0 if isinstance(value, (int, float)) else 1 if isinstance(value, str) else 2, value)
