"""Building the read models anew beside the live ones, comparing the two, and putting the new in the old one's place."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator

import msgspec
from eventsourcing.persistence import PersistenceError
from msgspec import Struct
from trunkline_projections.readmodels import TABLES
from trunkline_projections.sql_tables import Table, Value
from trunkline_projections.sql_view import Snapshot

from trunkline.projector import LogEnd, Standing, advance, begin, end_of_log, explain, outdated, standing
from trunkline.projector.store import Env, ReadModelsError, Store

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
    """Build, compare, switch. Where the two differ the live view stays, unless `force` replaces it.

    A projector may be at work all the while: the live view is held still for the comparison, by a snapshot, and the
    new one is brought to the very event that it stands at.
    """
    with store.rebuilding():
        began = time.monotonic()
        found, reason = _found(store)
        end = asyncio.run(end_of_log(url))  # after the view was asked where it stands
        reason = reason or _incomparable(store, found, end)
        live = None
        if reason is None and (live_env := store.live()) is not None:
            live = store.open(live_env)
        env = begin(store, end)
        try:
            until = end.sequence if live is None else live.position
            advance(store, env, url, until, threading.Event())
            seconds = time.monotonic() - began
            tables: list[TableDifference] = []
            same = None
            if live is not None:
                with live.snapshot() as held:
                    until = held.position
                    advance(store, env, url, until, threading.Event())
                    tables = _compared(store, env, held)
                same = all(table.same for table in tables)
        finally:
            if live is not None:
                live.close()
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


def _found(store: Store) -> tuple[Standing | None, str | None]:
    """What the live view says of itself, or why it says nothing."""
    env = store.live()
    if env is None:
        return None, _NONE
    try:
        return standing(store, env), None
    except PersistenceError as error:
        return None, explain(error, store.where)


def _incomparable(store: Store, found: Standing | None, end: LogEnd) -> str | None:
    """Why the live view is none to compare with, or None where it is one."""
    try:
        return _OLDER if found is not None and outdated(found, end, store.where) else None
    except ReadModelsError as error:
        return str(error)


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
    return one < other  # keys hold no NULL, and the same kinds in the same places
