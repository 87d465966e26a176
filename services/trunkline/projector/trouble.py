"""What may go wrong with read models: what passes, what is broken for good, and what to do about it."""

import sqlite3

from eventsourcing.persistence import (
    InterfaceError,
    InternalError,
    OperationalError,
    PersistenceError,
    ProgrammingError,
)
from trunkline_events.connection import Unreachable
from trunkline_events.log import LogError

from trunkline.projector.store import ReadModelsError

REPLACE = "`trunkline projections rebuild --force` builds new ones and puts them in their place"

_SQLITE_ADVICE = {
    sqlite3.SQLITE_FULL: "free space on that disk",
    sqlite3.SQLITE_BUSY: "end the program that holds it locked",
    sqlite3.SQLITE_LOCKED: "end the program that holds it locked",
    sqlite3.SQLITE_READONLY: "make it writable",
    sqlite3.SQLITE_CANTOPEN: "see that its folder exists and is writable",
    sqlite3.SQLITE_IOERR: "look at that disk",
}
_BROKEN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB)
"""SQLITE_ERROR is what a table or column that isn't there comes to."""
_NOT_ALLOWED = "42501"


class Unreadable(ReadModelsError):
    """The live read models are broken. Replace them with `trunkline projections rebuild --force`."""


TROUBLE = (PersistenceError, sqlite3.Error, Unreachable, LogError, OSError, TimeoutError, Unreadable)
"""What may pass, or be mended by somebody: wait, and try again."""


def _cause(error: BaseException) -> object:
    # The library's runner drops the causes of what it raises; its errors still hold SQLite's own as their argument.
    return error.args[0] if isinstance(error, PersistenceError) and error.args else error


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def is_broken(error: BaseException) -> bool:
    """Whether the view can't be read however long one waits: no database any more, or without one of its tables."""
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return _code(cause) in _BROKEN
    if getattr(error.__cause__, "sqlstate", None) == _NOT_ALLOWED:
        return False
    return isinstance(error, (ProgrammingError, InternalError, Unreadable))


def is_away(error: BaseException) -> bool:
    """Whether the database doesn't answer, or is held locked."""
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return _code(cause) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return isinstance(error, (OperationalError, InterfaceError))


def what(error: BaseException) -> str:
    """What the database says, on one line."""
    return " ".join(str(_cause(error)).split()) or type(error).__name__


def explain(error: BaseException, where: str) -> str:
    """What went wrong with the read models, and what to do about it; the database's errors by code."""
    if isinstance(error, Unreadable):
        return str(error)
    if is_broken(error):
        return f"{where} can't be read: {what(error)}; {REPLACE}"
    cause = _cause(error)
    if isinstance(cause, sqlite3.Error):
        return f"{where}: {cause}; {_SQLITE_ADVICE.get(_code(cause), 'see docs/projections.md')}"
    if isinstance(error, PersistenceError):
        return f"{where}: {what(error)}; see that the database is up, and POSTGRES_… in the environment"
    return str(error) or type(error).__name__
