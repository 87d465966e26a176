"""Where read models are kept: which view is the live one, what is built beside it, and how the one replaces the other.

SQLite: each view is a file of its own; `readmodels.sqlite` is a link to the live one, replaced atomically. (A file in
use can't be replaced under its own name: SQLite would take the old file's write-ahead log for the new one's.)
PostgreSQL: each view is a schema; a rebuild renames them in one transaction.
"""

import fcntl
import os
import secrets
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from eventsourcing.persistence import InfrastructureFactory
from eventsourcing.utils import Environment
from trunkline_projections.sql_projection import ReadModels
from trunkline_projections.sql_view import SQLiteView, View

from trunkline import settings
from trunkline.settings import Settings

if TYPE_CHECKING:
    from eventsourcing.postgres import PostgresDatastore

LINK = "readmodels.sqlite"
BESIDE = "readmodels-next.sqlite"
LOCK = "rebuild.lock"
FOLLOWING = "projector.lock"
LOCK_SECONDS = "30"
"""How long a statement waits for another program's lock on an SQLite file."""


class ReadModelsError(Exception):
    """The read models can't be used. The message says why and what to do."""


class NoReadModels(ReadModelsError):
    """There are none yet. Start a projector."""


class RebuildRunning(ReadModelsError):
    """Somebody else is rebuilding these read models. Wait for it to end."""


class NoDriver(ReadModelsError):
    """PostgreSQL was chosen without its driver. Install it with `pip install 'trunkline[postgres]'`."""


Env = dict[str, str]


class Store(ABC):
    """The live view and the one beside it. An `env` is what the eventsourcing library constructs a view from."""

    view_class: type[View]

    @property
    @abstractmethod
    def where(self) -> str:
        """For messages: the file, or the database and schema."""

    @abstractmethod
    def live(self) -> Env | None:
        """The live view, None where there is none yet."""

    @abstractmethod
    def beside(self) -> Env:
        """The view that is being built beside, made anew and empty when it is first opened."""

    @abstractmethod
    def kept(self) -> str:
        """For messages: where the view beside is."""

    @abstractmethod
    def switch(self) -> None:
        """Make the view beside the live one, at once for everybody, and drop the old one."""

    @abstractmethod
    def rebuilding(self) -> Any:
        """A context in which nobody else rebuilds. Raises RebuildRunning."""

    @abstractmethod
    def following(self) -> Any:
        """A context in which a projector keeps the live view up: what `followed` asks, and gone with its process."""

    @abstractmethod
    def followed(self) -> bool:
        """Whether a projector keeps the live view up now."""

    def superseded(self, env: Env, view: View, position: int) -> bool:
        """Whether the view we write, and know to be at `position`, is the live one no more."""
        return self.live() != env or view.position < position

    def open(self, env: Env, *, create: bool = False) -> View:
        """The view itself; close it."""
        made = {**env, "CREATE_TABLE": "yes" if create else "no"}
        factory: InfrastructureFactory[View] = InfrastructureFactory.construct(Environment(ReadModels.name, made))
        return factory.tracking_recorder(self.view_class)


class SQLiteStore(Store):
    """Files in a folder."""

    view_class = SQLiteView

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, env: Env, *, create: bool = False) -> View:
        # The library sets this mode on a connection that nobody closes where that fails. So we set it, and tell it so.
        with closing(sqlite3.connect(env["SQLITE_DBNAME"], uri=True)) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        view = super().open(env, create=create)
        assert isinstance(view, SQLiteView)
        view.datastore.pool.is_journal_mode_wal = True
        return view

    @property
    def where(self) -> str:
        return str(self._folder / LINK)

    def live(self) -> Env | None:
        return _env_of(self._folder / LINK)

    def beside(self) -> Env:
        self._folder.mkdir(parents=True, exist_ok=True)
        link, live = self._folder / BESIDE, (self._folder / LINK).resolve()
        for left in self._folder.glob("readmodels-????????.sqlite"):  # of rebuilds that were refused, or killed
            if left.resolve() != live:
                _remove(left)
        file = self._folder / f"readmodels-{secrets.token_hex(4)}.sqlite"
        file.touch(mode=0o600)
        _point(link, file)
        env = _env_of(link)
        assert env is not None
        return env

    def kept(self) -> str:
        return str(self._folder / BESIDE)

    def switch(self) -> None:
        live, beside = self._folder.resolve() / LINK, self._folder / BESIDE
        old = live.resolve() if live.exists() else None
        _point(live, beside.resolve())
        beside.unlink()
        if old == live:  # no link: somebody put a file in its place, which is gone, unlike what SQLite left beside
            _remove(live, ends=_BESIDE_IT)
        elif old is not None and old != live.resolve():
            _remove(old)  # a projector that still has it open writes to a file without a name, until it notices

    @contextmanager
    def rebuilding(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RebuildRunning(_RUNNING.format(self.where)) from error
            yield

    @contextmanager
    def following(self) -> Iterator[None]:
        with (self._folder / FOLLOWING).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_SH)  # several may try; nobody holds it exclusively but to look
            yield

    def followed(self) -> bool:
        try:
            with (self._folder / FOLLOWING).open() as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # nobody ever was
        return False


_BESIDE_IT = ("-wal", "-shm")
_RUNNING = "somebody else is rebuilding {}; wait for it to end, then look with `trunkline projections list`"


def _env_of(path: Path) -> Env | None:
    """Opened under its own name, not that of a link; and never made by opening it."""
    if not path.exists():
        return None
    uri = f"file:{quote(str(path.resolve()))}?mode=rw"
    return {
        "PERSISTENCE_MODULE": settings.SQLITE,
        "SQLITE_DBNAME": uri,
        "SQLITE_LOCK_TIMEOUT": LOCK_SECONDS,
    }


def _point(link: Path, file: Path) -> None:
    new = link.with_name(f".{link.name}.{os.getpid()}.{secrets.token_hex(2)}")
    new.symlink_to(file.name)
    new.replace(link)


def _remove(file: Path, ends: tuple[str, ...] = ("", *_BESIDE_IT)) -> None:
    for end in ends:
        file.with_name(file.name + end).unlink(missing_ok=True)


class PostgresStore(Store):
    """Schemas of a database."""

    def __init__(self, env: Mapping[str, str]) -> None:
        try:
            from trunkline_projections import sql_postgres
        except ImportError as error:
            raise NoDriver(
                "PERSISTENCE_MODULE chooses PostgreSQL, and its driver psycopg is not here; "
                "install it with `pip install 'trunkline[postgres]'`"
            ) from error
        self._sql = sql_postgres
        self.view_class = sql_postgres.PostgresView
        small = {"POSTGRES_POOL_SIZE": "1", "POSTGRES_MAX_OVERFLOW": "4", "POSTGRES_CONNECT_TIMEOUT": "5"}
        self._env = {**small, **env}
        self._schema = env["POSTGRES_SCHEMA"]
        self._next = f"{self._schema}_next"

    @property
    def where(self) -> str:
        return f"schema {self._schema} of database {self._env['POSTGRES_DBNAME']} at {self._env['POSTGRES_HOST']}"

    def live(self) -> Env | None:
        with self._datastore() as datastore:
            there = self._sql.exists(datastore, self._schema, View.info_table)
        return self._env if there else None

    def superseded(self, env: Env, view: View, position: int) -> bool:
        return view.position < position  # the name stays; a view built beside stands at an earlier event, or the same

    def beside(self) -> Env:
        with self._datastore() as datastore:
            self._sql.drop(datastore, self._next)
        return {**self._env, "POSTGRES_SCHEMA": self._next}

    def kept(self) -> str:
        return f"schema {self._next}"

    def switch(self) -> None:
        with self._datastore() as datastore:
            self._sql.swap(datastore, self._schema, self._next, f"{ReadModels.name}_tracking")

    @contextmanager
    def rebuilding(self) -> Iterator[None]:
        with self._datastore() as datastore, self._sql.try_lock(datastore, f"{self._schema} rebuild") as held:
            if not held:
                raise RebuildRunning(_RUNNING.format(self.where))
            yield

    @contextmanager
    def following(self) -> Iterator[None]:
        with self._datastore() as datastore, self._sql.try_lock(datastore, self._following, shared=True):
            yield

    def followed(self) -> bool:
        with self._datastore() as datastore, self._sql.try_lock(datastore, self._following) as held:
            return not held

    @property
    def _following(self) -> str:
        return f"{self._schema} following"

    @contextmanager
    def _datastore(self) -> Iterator["PostgresDatastore"]:
        from eventsourcing.postgres import PostgresFactory

        factory = PostgresFactory(Environment(ReadModels.name, self._env))
        try:
            yield factory.datastore
        finally:
            factory.close()


def store_of(chosen: Settings) -> Store:
    """Where the settings say: SQLite in the data folder, or the database of PERSISTENCE_MODULE. Raises BadSettings."""
    env = settings.persistence()
    if env["PERSISTENCE_MODULE"] == settings.POSTGRES:
        return PostgresStore(env)
    return SQLiteStore(chosen.data / "projections")
