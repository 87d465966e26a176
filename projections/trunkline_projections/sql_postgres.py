"""The read models in PostgreSQL: a schema of their own. Needs psycopg, so import it only where that is chosen."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from psycopg import Cursor
from psycopg.rows import DictRow, tuple_row
from psycopg.sql import SQL, Identifier

from trunkline_projections.sql_tables import Value
from trunkline_projections.sql_view import View

FETCH = 2000
"""Rows a round trip."""

_names = count(1)


class PostgresView(View, PostgresTrackingRecorder):
    """The read models in a schema of PostgreSQL. A crash may cost the last commits, which are then made again."""

    mark = "%s"
    types = {"whole": "bigint", "text": 'text COLLATE "C"'}  # noqa: RUF012 - "C": bytes decide the order, as in SQLite

    def __init__(self, datastore: PostgresDatastore, *, tracking_table_name: str) -> None:
        super().__init__(datastore, tracking_table_name=tracking_table_name)
        schema = datastore.schema
        self.prefix = f"{_quoted(schema)}."
        self.tracking = f"{self.prefix}{tracking_table_name}"
        self.sql_create_statements.insert(0, SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
        # Those of ours are text already; psycopg composes of literals only, or of what is made like this.
        self.sql_create_statements += [SQL(text).format() for text in self.create_statements()]

    def _create_table(self, curs: Cursor[DictRow]) -> None:
        super()._create_table(curs)
        self.fill(curs)

    @contextmanager
    def writing(self) -> Iterator[Cursor[DictRow]]:
        with self.datastore.transaction(commit=True) as cursor:
            # The log has everything: what is lost in a crash is built again from there. It stays whole.
            cursor.execute("SET LOCAL synchronous_commit = off")
            yield cursor

    @contextmanager
    def reading(self) -> Iterator[Cursor[DictRow]]:
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            yield cursor

    def run(self, cursor: Cursor[DictRow], statement: str, parameters: Sequence[Value] = ()) -> int:
        return cursor.execute(statement.encode(), parameters).rowcount

    def run_many(self, cursor: Cursor[DictRow], statement: str, rows: Sequence[Sequence[Value]]) -> None:
        cursor.executemany(statement.encode(), rows)

    def stream(self, cursor: Cursor[DictRow], statement: str) -> Iterator[tuple[Value, ...]]:
        with cursor.connection.cursor(f"rows_{next(_names)}", row_factory=tuple_row) as found:
            found.itersize = FETCH
            found.execute(statement.encode())
            yield from found

    def record_position(self, cursor: Cursor[DictRow], tracking: Tracking) -> None:
        self._insert_tracking(cursor, tracking)

    def close(self) -> None:
        self.datastore.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def swap(datastore: PostgresDatastore, live: str, beside: str, tracking: str) -> None:
    """Put the schema `beside` in the place of `live`, and drop what was there. All of it, or nothing.

    The lock waits for the transaction of a projector that is at work, and makes its next one wait: that finds the
    position moved, and opens the view again.
    """
    old = Identifier(f"{live}_old")
    with datastore.transaction(commit=True) as cursor:
        found = cursor.execute("SELECT to_regclass(%s) AS live", (f"{_quoted(live)}.{tracking}",)).fetchone()
        cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(old))
        if found is not None and found["live"] is not None:
            lock = SQL("LOCK TABLE {}.{} IN ACCESS EXCLUSIVE MODE")
            cursor.execute(lock.format(Identifier(live), Identifier(tracking)))
        there = cursor.execute("SELECT to_regnamespace(%s) AS live", (_quoted(live),)).fetchone()
        if there is not None and there["live"] is not None:  # with or without its tracking: it may be broken
            cursor.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(live), old))
        cursor.execute(SQL("ALTER SCHEMA {} RENAME TO {}").format(Identifier(beside), Identifier(live)))
        cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(old))


def drop(datastore: PostgresDatastore, schema: str) -> None:
    """Drop a schema, where it is there."""
    with datastore.transaction(commit=True) as cursor:
        cursor.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))


def exists(datastore: PostgresDatastore, schema: str, table: str) -> bool:
    """Whether there is such a table."""
    with datastore.transaction(commit=False) as cursor:
        cursor.execute(
            "SELECT 1 AS found FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
            (schema, table),
        )
        return cursor.fetchone() is not None


def try_lock(datastore: PostgresDatastore, name: str, *, shared: bool = False) -> Any:
    """A context that yields whether we hold the advisory lock of this name, until its end."""
    return _locked(datastore, name, "_shared" if shared else "")


@contextmanager
def _locked(datastore: PostgresDatastore, name: str, kind: str) -> Iterator[bool]:
    lock, unlock = Identifier(f"pg_try_advisory_lock{kind}"), Identifier(f"pg_advisory_unlock{kind}")
    with datastore.get_connection() as connection:
        found = connection.execute(SQL("SELECT {}(hashtext(%s)) AS held").format(lock), (name,)).fetchone()
        held = found is not None and bool(found["held"])
        try:
            yield held
        finally:
            if held and not connection.broken:
                connection.execute(SQL("SELECT {}(hashtext(%s))").format(unlock), (name,))
