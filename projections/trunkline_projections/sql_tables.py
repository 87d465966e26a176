"""What a read model is to a database: a table whose rows merge column by column. Pure; SQL as text, for any store.

A change is a row with a key. A column either *adds up* or *keeps the last*: so changes of one key merge, in memory or
in the table, and it doesn't matter how events are grouped into transactions. That is what makes a rebuilt view the
same as the live one. A row may also go: what came before for its key counts no more, in memory or in the table. There
are whole numbers and text only: sums of floats depend on their order.
"""

from collections.abc import Iterable
from operator import add
from typing import Literal

from msgspec import Struct

Value = int | str | None
Key = tuple[int | str, ...]

Kind = Literal["whole", "text"]


class Column(Struct, frozen=True):
    """A column of a key, or one that keeps the last value."""

    name: str
    kind: Kind


def texts(*names: str) -> tuple[Column, ...]:
    """Columns of text."""
    return tuple(Column(name, "text") for name in names)


def wholes(*names: str) -> tuple[Column, ...]:
    """Columns of whole numbers."""
    return tuple(Column(name, "whole") for name in names)


class Table(Struct, frozen=True, kw_only=True):
    """A read model: its name, its key, what adds up for each key, and what keeps the last value."""

    name: str
    key: tuple[Column, ...]
    sums: tuple[str, ...] = ()
    lasts: tuple[Column, ...] = ()

    @property
    def column_names(self) -> list[str]:
        """All columns in the order of a row: the key, the sums, the last values."""
        return [*(column.name for column in self.key), *self.sums, *(column.name for column in self.lasts)]

    def create(self, types: dict[Kind, str], prefix: str = "") -> str:
        """The statement that makes it where it isn't there yet. `prefix` goes before the name, such as `schema.`."""
        fields = [f"{column.name} {types[column.kind]} NOT NULL" for column in self.key]
        fields += [f"{name} {types['whole']} NOT NULL" for name in self.sums]
        fields += [f"{column.name} {types[column.kind]}" for column in self.lasts]
        return f"CREATE TABLE IF NOT EXISTS {prefix}{self.name} ({', '.join(fields)}, PRIMARY KEY ({self._key}))"

    @property
    def _key(self) -> str:
        return ", ".join(column.name for column in self.key)

    def upsert(self, mark: str, prefix: str = "") -> str:
        """The statement that merges a row into the table; `mark` stands for a parameter (`?` or `%s`)."""
        names = self.column_names
        merged = [f"{name} = {self.name}.{name} + excluded.{name}" for name in self.sums]
        merged += [f"{column.name} = excluded.{column.name}" for column in self.lasts]
        return (
            f"INSERT INTO {prefix}{self.name} AS {self.name} ({', '.join(names)}) "  # noqa: S608 - names of ours
            f"VALUES ({', '.join([mark] * len(names))}) ON CONFLICT ({self._key}) DO UPDATE SET {', '.join(merged)}"
        )

    def delete(self, mark: str, prefix: str = "") -> str:
        """The statement that takes the row of a key out of the table, where there is one."""
        at = " AND ".join(f"{column.name} = {mark}" for column in self.key)
        return f"DELETE FROM {prefix}{self.name} WHERE {at}"  # noqa: S608 - names of ours

    def select(self, prefix: str = "") -> str:
        """All rows in the order of their keys: the view as it is compared, byte for byte."""
        names = ", ".join(self.column_names)
        return f"SELECT {names} FROM {prefix}{self.name} ORDER BY {self._key}"  # noqa: S608 - names of ours

    def count(self, prefix: str = "") -> str:
        """How many rows it holds."""
        return f"SELECT COUNT(*) AS rows_in_all FROM {prefix}{self.name}"  # noqa: S608


class Change(Struct, frozen=True):
    """A row to merge into a table: one value for each of its columns, in their order."""

    table: Table
    key: Key
    sums: tuple[int, ...] = ()
    lasts: tuple[Value, ...] = ()


class Gone(Struct, frozen=True):
    """A row to take out. It was put in by one change since it was last out: so it is in the batch, or in the table."""

    table: Table
    key: Key


_Row = tuple[tuple[int, ...], tuple[Value, ...]]


class Batch:
    """Changes on their way into one transaction, merged by key: a thousand chats with a model are one row of it.

    `gone` goes first, then `rows`: a row that goes and comes again is in both.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        self._rows: dict[str, dict[Key, _Row]] = {table.name: {} for table in tables}
        self._gone: dict[str, set[Key]] = {name: set() for name in self._rows}

    def add(self, changes: Iterable[Change | Gone]) -> None:
        """Merge these in."""
        for change in changes:
            rows, key = self._rows[change.table.name], change.key
            if isinstance(change, Gone):
                if rows.pop(key, None) is None:
                    self._gone[change.table.name].add(key)
                continue
            sums, before = change.sums, rows.get(key)
            if before is not None:
                sums = tuple(map(add, before[0], sums))
            rows[key] = (sums, change.lasts)

    def gone(self, table: Table) -> list[Key]:
        """The keys of what is to be taken out of this table, in their order."""
        return sorted(self._gone[table.name])

    def rows(self, table: Table) -> list[tuple[Value, ...]]:
        """What is to be merged into this table, in the order of its keys."""
        return [(*key, *sums, *lasts) for key, (sums, lasts) in sorted(self._rows[table.name].items())]

    def clear(self) -> None:
        """Start anew."""
        for rows in self._rows.values():
            rows.clear()
        for keys in self._gone.values():
            keys.clear()
