"""The projector: keeps the read models up to date with the log, and builds them anew when their shape has changed.

It runs the eventsourcing library's `ProjectionRunner`, which is synchronous, in a thread. Whatever goes wrong (the bus
away, no log yet, the database locked, full or away) it says once, waits, and goes on from the position in the database:
nothing is applied twice, and nothing is left out. That it follows again it says when it really went on. Of several
projectors on one database one writes; the others stand by, and take over when it has not moved for a while.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import nats.errors
import nats.js.errors
import structlog
from eventsourcing.persistence import IntegrityError
from eventsourcing.projection import ProjectionRunner
from msgspec import Struct
from trunkline_events import subjects
from trunkline_events.connection import Connection
from trunkline_events.log import LogMissing, LogUnavailable
from trunkline_events.upstream import LogUpstream, upstream_env
from trunkline_projections.readmodels import VERSION, schema
from trunkline_projections.sql_projection import ReadModels

from trunkline.projector.store import Env, ReadModelsError, RebuildRunning, Store
from trunkline.projector.trouble import REPLACE, TROUBLE, Unreadable, explain

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""Between looks at whether the view we write is still the live one."""
STANDBY_SECONDS = 3.0
"""A projector that is behind and hasn't moved for so long is gone, or as good as gone."""
STALLED_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0


class NewerView(ReadModelsError):
    """The read models were made by a newer version. Upgrade this one, or choose another data folder."""


class OtherLog(ReadModelsError):
    """The read models were made from another log. Rebuild them with --force, or choose another data folder."""


class AheadOfLog(ReadModelsError):
    """The read models stand beyond the end of their log. Rebuild them with --force."""


class LogEnd(Struct, frozen=True):
    """Which log it is, by when it was created, and the sequence of its last event."""

    identity: str
    sequence: int


async def end_of_log(url: str) -> LogEnd:
    """Raises Unreachable, LogMissing, LogUnavailable."""
    connection = await Connection.open(url, name="trunkline projections")
    try:
        info = await connection.nats.jetstream(timeout=5).stream_info(subjects.STREAM)
    except nats.js.errors.NotFoundError as error:
        raise LogMissing from error
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
        raise LogUnavailable(f"the log does not answer ({type(error).__name__}); is the server up?") from error
    finally:
        await connection.close()
    return LogEnd(info.created.isoformat() if info.created else "", int(info.state.last_seq))


class Standing(Struct, frozen=True):
    """What a view says of itself. Ask it before the log for its end: then a position beyond that end is not a race."""

    info: dict[str, str]
    position: int


def standing(store: Store, env: Env) -> Standing:
    """Ask a view. Raises Unreadable, and what the database does."""
    view = store.open(env)
    try:
        found = Standing(view.info(), view.position)
        if found.position < 0 or not found.info.get("version", "0").isdecimal():
            raise Unreadable(f"{store.where} can't be read: its position or version makes no sense; {REPLACE}")
        return found
    except (ValueError, TypeError) as error:
        raise Unreadable(f"{store.where} can't be read: {error}; {REPLACE}") from error
    finally:
        view.close()


def check(store: Store, env: Env) -> None:
    """Raise what the database does where a view of this version lacks a table."""
    view = store.open(env)
    try:
        view.check()
    finally:
        view.close()


def outdated(view: Standing, end: LogEnd, where: str) -> bool:
    """Whether the view has to be built anew for this version. Raises NewerView, OtherLog, AheadOfLog."""
    version = int(view.info.get("version", 0))
    if version > VERSION:
        raise NewerView(
            f"{where} holds read models of version {version}, and this program knows {VERSION}; "
            "upgrade it, or choose another folder with --data"
        )
    if view.info.get("log") != end.identity:
        raise OtherLog(
            f"{where} holds read models of another log than the one on this bus; "
            "choose another folder with --data, or replace them with `trunkline projections rebuild --force`"
        )
    if view.position > end.sequence:
        raise AheadOfLog(
            f"{where} stands at event {view.position}, and its log ends at {end.sequence}: "
            f"the log lost its last events, or somebody changed the position; {REPLACE}"
        )
    return view.info.get("schema") != schema()


@contextmanager
def running(store: Store, env: Env, url: str, until: int | None = None) -> Iterator[ProjectionRunner[Any, Any]]:
    """The library's runner, at work on a view; with `until` it ends when that event is committed."""
    with ProjectionRunner(
        application_class=LogUpstream,
        projection_class=ReadModels,
        view_class=store.view_class,
        env={**env, **upstream_env(url, until), "CREATE_TABLE": "no"},
    ) as runner:
        try:
            yield runner
        finally:
            runner.stop()
            runner._processing_thread.join()  # noqa: SLF001 - it must have ended before its database is closed
            runner.view.close()


def advance(store: Store, env: Env, url: str, until: int, stop: threading.Event) -> None:
    """Bring a view up to an event, exactly; less where `stop` is set. Raises LogUnavailable where nothing moves."""
    with running(store, env, url, until) as runner:
        moved, position = time.monotonic(), -1
        projection = cast("ReadModels", runner.projection)
        while not runner.is_interrupted.wait(0.2) and not stop.is_set():
            if projection.position != position:
                moved, position = time.monotonic(), projection.position
            elif time.monotonic() - moved > STALLED_SECONDS:
                raise LogUnavailable(f"no event came for {STALLED_SECONDS:g} s; is the server up?")
        runner.run_forever(timeout=0)  # raises what ended it


def begin(store: Store, end: LogEnd) -> Env:
    """An empty view beside the live one."""
    env = store.beside()
    view = store.open(env, create=True)
    try:
        view.describe(log=end.identity)
    finally:
        view.close()
    return env


class Projector:
    """A thread that keeps the read models of a store up to date. `failed` holds what ended it, if anything did."""

    def __init__(self, url: str, store: Store) -> None:
        self._url = url
        self._store = store
        self._stop = threading.Event()
        self._runner: ProjectionRunner[Any, Any] | None = None
        self._thread = threading.Thread(target=self._serve, name="trunkline-projector", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = ""
        self._end = 0
        self.failed: asyncio.Future[Exception] | None = None

    def start(self) -> "asyncio.Future[Exception]":
        """Begin; the future is done when the projector has given up, for a reason that waiting doesn't mend."""
        self._loop = asyncio.get_running_loop()
        self.failed = self._loop.create_future()
        self._thread.start()
        return self.failed

    async def stop(self) -> None:
        """End after the transaction under way."""
        self._stop.set()
        if self._runner is not None:
            self._runner.stop()
        while self._thread.is_alive():  # noqa: ASYNC110 - a thread has no event; the loop stays free meanwhile
            await asyncio.sleep(0.01)

    # -- in the thread ---------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._once()
            except (IntegrityError, RebuildRunning) as error:
                self._stand_by(error)
            except TROUBLE as error:
                pause = FIRST_PAUSE if time.monotonic() - began > LONGEST_PAUSE else pause
                self._tell("projector.waiting", explain(error, self._store.where))
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception as error:
                if not isinstance(error, ReadModelsError):
                    log.exception("projector.failed")
                self._give_up(error)
                return

    def _once(self) -> None:
        """Follow the log until told to stop, or until the view is replaced."""
        env = self._store.live()
        if env is None or self._is_outdated(env):
            env = self._build()
        if env is None or self._stop.is_set():
            return
        with self._store.following(), running(self._store, env, self._url) as runner:
            self._runner = runner
            projection = cast("ReadModels", runner.projection)
            began = projection.position
            # After trouble it is not clear before an event is committed that it's over, unless there is none to commit.
            if not self._told or began >= self._end:
                self._tell_following(began)
            while not self._stop.is_set():
                runner.run_forever(timeout=LOOK_SECONDS)  # raises what ended it
                if self._told and projection.position > began:
                    self._tell_following(projection.position)
                if runner.is_interrupted.is_set() or self._store.superseded(env, runner.view, projection.position):
                    break

    def _is_outdated(self, env: Env) -> bool:
        view = standing(self._store, env)
        end = asyncio.run(end_of_log(self._url))
        self._end = end.sequence
        return outdated(view, end, self._store.where)

    def _build(self) -> Env | None:
        """Build the view of this version beside the old one, which is read meanwhile, and put it in its place."""
        with self._store.rebuilding():
            live = self._store.live()
            if live is not None and not self._is_outdated(live):
                return live  # somebody else was quicker
            end = asyncio.run(end_of_log(self._url))
            if not self._told:
                log.info("projector.building", until=end.sequence if live else 0, where=self._store.where)
            env = begin(self._store, end)
            if live is not None:
                advance(self._store, env, self._url, end.sequence, self._stop)
            if self._stop.is_set():
                return None
            self._store.switch()
        return self._store.live()

    def _stand_by(self, reason: Exception) -> None:
        """Wait while another projector moves, or has nothing to do."""
        self._tell("projector.standing_by", str(reason))
        position = self._position()
        while not self._stop.wait(STANDBY_SECONDS):
            with contextlib.suppress(*TROUBLE):
                end, before = asyncio.run(end_of_log(self._url)).sequence, position
                position = self._position()
                if position is None or position == before != end:
                    return

    def _position(self) -> int | None:
        with contextlib.suppress(*TROUBLE):
            env = self._store.live()
            return None if env is None else standing(self._store, env).position
        return None

    def _tell_following(self, position: int) -> None:
        self._told = ""
        log.info("projector.following", position=position, where=self._store.where)

    def _tell(self, name: str, reason: str) -> None:
        if reason != self._told:
            self._told = reason
            log.warning(name, reason=reason)

    def _give_up(self, error: Exception) -> None:
        def set_failed() -> None:
            if self.failed is not None and not self.failed.done():
                self.failed.set_result(error)

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(set_failed)
