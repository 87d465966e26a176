"""Read models in a database: tables and the position they stand at, in one transaction.

A view is a tracking recorder of the eventsourcing library with our tables beside its tracking. `apply` is the only
way in: it takes the position it starts from and refuses where the view is not there, so that no event is ever applied
twice or left out, however many projectors try, and whatever kills them.
"""

import sqlite3
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from eventsourcing.persistence import IntegrityError, Tracking, TrackingRecorder
from eventsourcing.sqlite import SQLiteCursor, SQLiteDatastore, SQLiteTrackingRecorder
from trunkline_events.upstream import LogUpstream

from trunkline_projections.readmodels import TABLES, VERSION, schema
from trunkline_projections.sql_tables import Batch, Kind, Table, Value

SOURCE = LogUpstream.name
"""What positions are tracked under."""


class Overtaken(IntegrityError):
    """The view is not where we left it: another projector is at work, or it was replaced. Open it again."""


class Snapshot:
    """A view as it stood at one moment, for as long as its context lasts, whatever is written meanwhile."""

    def __init__(self, view: "View", cursor: Any) -> None:
        self._view = view
        self._cursor = cursor
        self.position = view.position_in(cursor)

    def rows(self, table: Table) -> Iterator[tuple[Value, ...]]:
        """All rows of a table in the order of their keys, without holding them all."""
        return self._view.rows_in(self._cursor, table)


class View(TrackingRecorder):
    """What projectors and readers need of a database. One subclass for each kind; the tables are the same in all."""

    mark: str
    types: dict[Kind, str]
    prefix: str
    tracking: str
    info_table = "view_info"

    # -- what a subclass brings ------------------------------------------------------------------------------------

    @abstractmethod
    def writing(self) -> Any:
        """A context with a cursor whose work is committed at its end, or not at all."""

    @abstractmethod
    def reading(self) -> Any:
        """A context with a cursor that sees the database as it is when first used."""

    @abstractmethod
    def run(self, cursor: Any, statement: str, parameters: Sequence[Value] = ()) -> int:
        """Execute; how many rows were changed."""

    @abstractmethod
    def run_many(self, cursor: Any, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        """Execute once for each row."""

    @abstractmethod
    def stream(self, cursor: Any, statement: str) -> Iterator[tuple[Value, ...]]:
        """The rows of a query, fetched as they are needed."""

    @abstractmethod
    def record_position(self, cursor: Any, tracking: Tracking) -> None:
        """Insert the tracking, as the library does."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    # -- writing ---------------------------------------------------------------------------------------------------

    def apply(self, batch: Batch, tracking: Tracking, before: int) -> None:
        """Merge a batch and move the position from `before`, in one transaction. Raises Overtaken."""
        at = f"WHERE application_name = {self.mark} AND notification_id = {self.mark}"
        hold = f"UPDATE {self.tracking} SET notification_id = notification_id {at}"  # noqa: S608 - names of ours
        with self.writing() as cursor:
            # First, so that it takes the lock: whoever is second waits here, and then finds the position moved.
            if self.run(cursor, hold, (tracking.application_name, before)) != 1:
                raise Overtaken(f"the read models are not at sequence {before} any more; another projector is at work")
            for table in TABLES:
                if gone := batch.gone(table):
                    self.run_many(cursor, table.delete(self.mark, self.prefix), gone)
                if rows := batch.rows(table):
                    self.run_many(cursor, table.upsert(self.mark, self.prefix), rows)
            self.record_position(cursor, tracking)

    def create_statements(self) -> list[str]:
        """Our tables, beside the library's own."""
        statements = [table.create(self.types, self.prefix) for table in TABLES]
        text = self.types["text"]
        info = f"{self.prefix}{self.info_table}"
        statements.append(f"CREATE TABLE IF NOT EXISTS {info} (name {text} PRIMARY KEY, value {text} NOT NULL)")
        return statements

    def fill(self, cursor: Any) -> None:
        """What a new view starts with: position 0, and by which rules it is made."""
        start = f"INSERT INTO {self.tracking} VALUES ({self.mark}, {self.mark}) ON CONFLICT DO NOTHING"  # noqa: S608
        self.run(cursor, start, (SOURCE, 0))
        self._describe(cursor, {"version": str(VERSION), "schema": schema()}, "NOTHING")

    def describe(self, **facts: str) -> None:
        """Note facts about this view."""
        with self.writing() as cursor:
            self._describe(cursor, facts, "UPDATE SET value = excluded.value")

    def _describe(self, cursor: Any, facts: dict[str, str], then: str) -> None:
        target = "" if then == "NOTHING" else "(name) "
        for pair in facts.items():
            statement = f"INSERT INTO {self.prefix}{self.info_table} VALUES ({self.mark}, {self.mark})"  # noqa: S608
            self.run(cursor, f"{statement} ON CONFLICT {target}DO {then}", pair)

    # -- reading ---------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, str]:
        """The facts noted about this view: `version` and `schema` of its tables, `log` it is made of."""
        statement = f"SELECT name, value FROM {self.prefix}{self.info_table}"  # noqa: S608 - a name of ours
        with self.reading() as cursor:
            return {str(name): str(value) for name, value in self.stream(cursor, statement)}

    @property
    def position(self) -> int:
        """The sequence of the last event in the tables."""
        with self.reading() as cursor:
            return self.position_in(cursor)

    def position_in(self, cursor: Any) -> int:
        """The position as this cursor sees it."""
        statement = f"SELECT notification_id FROM {self.tracking} WHERE application_name = '{SOURCE}'"  # noqa: S608
        return max((int(row[0] or 0) for row in self.stream(cursor, statement)), default=0)

    def rows_in(self, cursor: Any, table: Table) -> Iterator[tuple[Value, ...]]:
        """The rows of a table as this cursor sees them, in the order of their keys."""
        return self.stream(cursor, table.select(self.prefix))

    def counts(self) -> dict[str, int]:
        """How many rows each table holds."""
        with self.reading() as cursor:
            return {table.name: int(next(self.stream(cursor, table.count(self.prefix)))[0] or 0) for table in TABLES}

    def check(self) -> None:
        """Raise what the database does where a table or a column of this version is not there."""
        with self.reading() as cursor:
            for table in TABLES:
                next(self.stream(cursor, f"{table.select(self.prefix)} LIMIT 1"), None)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The view as it stands now, held still."""
        with self.reading() as cursor:
            yield Snapshot(self, cursor)


class SQLiteView(View, SQLiteTrackingRecorder):
    """The read models in an SQLite file. A power cut may cost the last commits, which are then made again."""

    mark = "?"
    types = {"whole": "INTEGER", "text": "TEXT"}  # noqa: RUF012 - a constant
    prefix = ""
    tracking = "tracking"
    datastore: SQLiteDatastore

    def construct_create_table_statements(self) -> list[str]:
        return [*super().construct_create_table_statements(), *self.create_statements()]

    def _create_table(self, c: SQLiteCursor) -> None:
        super()._create_table(c)
        self.fill(c)

    @contextmanager
    def writing(self) -> Iterator[SQLiteCursor]:
        with self.datastore.get_connection(commit=True) as connection:
            with connection.cursor() as cursor:
                # The log has everything: what is lost in a power cut is built again from there. It stays whole.
                cursor.execute("PRAGMA synchronous = NORMAL")
                cursor.execute("PRAGMA cache_size = -16384")
                cursor.execute("PRAGMA wal_autocheckpoint = 4000")
            with connection.transaction(commit=True) as cursor:
                yield cursor

    @contextmanager
    def reading(self) -> Iterator[SQLiteCursor]:
        with self.datastore.transaction(commit=False) as cursor:
            yield cursor

    def run(self, cursor: SQLiteCursor, statement: str, parameters: Sequence[Value] = ()) -> int:
        cursor.execute(statement, parameters)
        return cursor.sqlite_cursor.rowcount

    def run_many(self, cursor: SQLiteCursor, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        cursor.executemany(statement, rows)

    def stream(self, cursor: SQLiteCursor, statement: str) -> Iterator[tuple[Value, ...]]:
        found: sqlite3.Cursor = cursor.sqlite_cursor.connection.cursor()
        try:
            found.row_factory = None
            yield from found.execute(statement)
        finally:
            found.close()

    def record_position(self, cursor: SQLiteCursor, tracking: Tracking) -> None:
        self._insert_tracking(cursor, tracking)

    def close(self) -> None:
        self.datastore.close()
