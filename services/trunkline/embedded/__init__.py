"""The nats-server that `trunkline up` carries with it: started, watched, started again, ended with its owner.

async with EmbeddedServer(store=data, port=4222, durability="always") as server:
    await nats.connect(server.url)
"""

import asyncio
import inspect
import os
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
from trunkline_events.tasks import end_task

from trunkline.embedded.config import (
    CONFIG_FILE,
    LOG_FILE,
    MAX_PAYLOAD,
    MAX_STORE,
    SERVER_PREFIX,
    Durability,
    check_port,
    find_binary,
    pick_port,
    render_config,
)
from trunkline.embedded.disk import DiskWatch, is_full
from trunkline.embedded.errors import (
    DiskFullError,
    EmbeddedServerError,
    GaveUpError,
    PortTakenError,
    ServerExitedError,
    StartTimeoutError,
    diagnose,
    store_error,
)
from trunkline.embedded.process import POLL_SECONDS, StoreLock, end, exited, read_log, serves, spawn

log = structlog.get_logger()

GIVE_UP_AFTER: Final = 5  # quick deaths in a row
QUICK_SECONDS: Final = 2.0  # a server that served for longer starts the count anew
BACK_OFF: Final = (0.0, 0.05, 0.2, 0.5)  # before the 1st, 2nd, … start after a quick death
OWN_PORT_TRIES: Final = 5
STOP_GRACE: Final = 5.0

RestartCallback = Callable[[], Awaitable[None] | None]


class EmbeddedServer:
    """One supervised nats-server with JetStream in the folder `store`, which it locks against a second owner.

    On a full disk it refuses appends and goes on by itself when there is room: see `disk`.

    port            0 picks a free one, and keeps it for every restart
    durability      "always": acknowledged means on disk; "process": a power failure may lose up to two minutes
    host            loopback only unless told otherwise; `url` is for clients on this machine
    monitor_port    nats-server's HTTP monitoring on loopback, off unless given
    memory_limit    GOMEMLIMIT of the server: a soft limit, above which Go collects harder instead of growing. 1 GiB
                    leaves room for a laptop; a log with millions of subjects wants more
    on_restart      called, or awaited, each time when the server died and serves again on the same port
    start_timeout   how long a start may take; recovering a large log after a crash is the slow case
    """

    def __init__(
        self,
        *,
        store: Path,
        port: int,
        durability: Durability = "always",
        host: str = "127.0.0.1",
        max_payload: int = MAX_PAYLOAD,
        monitor_port: int | None = None,
        memory_limit: str = "1GiB",
        on_restart: RestartCallback | None = None,
        start_timeout: float = 60.0,
        binary: Path | None = None,
    ) -> None:
        self.store = store.expanduser().absolute()
        self.host, self.durability = host, durability
        self._asked_port = self._port = port
        self._max_payload = max_payload
        self._monitor_port = monitor_port
        self._memory_limit = memory_limit
        self.on_restart = on_restart
        self._start_timeout = start_timeout
        self._binary = binary
        self._name = f"{SERVER_PREFIX}{secrets.token_hex(4)}"  # tells our server from another one on the same port
        self._disk = DiskWatch(self.store, self.log_file)
        self._lock: StoreLock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0
        self._supervisor: asyncio.Task[None] | None = None
        self._callbacks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[EmbeddedServerError] | None = None

    @property
    def port(self) -> int:
        """Where clients connect; 0 until `start` has picked one."""
        return self._port

    @property
    def url(self) -> str:
        """For clients on this machine."""
        host = f"[{self._dial}]" if ":" in self._dial else self._dial
        return f"nats://{host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the process that was started last; None before the first start and after `stop`."""
        return None if self._process is None else self._process.pid

    @property
    def log_file(self) -> Path:
        return self.store / LOG_FILE

    @property
    def failed(self) -> asyncio.Future[EmbeddedServerError]:
        """Resolves to the error if supervision gives up: the server is gone for good, the owner should end.

        Cancelled by `stop`. Wait for it with `asyncio.wait`, or shield it: cancelling it hides a failure.
        """
        if self._failed is None:
            raise RuntimeError("the embedded server isn't started: await start() first")
        return self._failed

    async def start(self) -> None:
        """Returns when the server serves with its streams recovered. On any error nothing of it is left behind."""
        if self._lock is not None:
            raise RuntimeError("the embedded server is started already: await stop() first")
        binary = self._binary or find_binary()
        began = time.monotonic()
        self._lock = await StoreLock.acquire(self.store)
        try:
            await self._start_on_free_port(binary)
        except BaseException:
            await self._end_process()
            raise
        self._failed = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(binary), name="nats-supervisor")
        log.info(
            "nats.started",
            url=self.url,
            pid=self.pid,
            store=str(self.store),
            durability=self.durability,
            seconds=round(time.monotonic() - began, 3),
        )

    async def stop(self) -> None:
        """Ends the server: SIGTERM, then SIGKILL after a few seconds. Idempotent; it isn't started again."""
        tasks = [task for task in (self._supervisor, *self._callbacks) if task is not None]
        tasks = [task for task in tasks if task is not asyncio.current_task()]  # a callback may stop us
        self._supervisor = None
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            if self._failed is not None:
                self._failed.cancel()
            await self._end_process()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start_on_free_port(self, binary: Path) -> None:
        """A port that we picked may be taken before the server listens: then pick again."""
        for tries_left in reversed(range(OWN_PORT_TRIES)):
            self._port = self._asked_port or pick_port(self.host)
            check_port(self.host, self._port)
            try:
                self._write_config()
                await self._launch(binary)
            except PortTakenError:
                if self._asked_port or not tries_left:
                    raise
            else:
                return

    def _write_config(self) -> None:
        """The file alone tells the server what to do. Raises if the folder can't take it, or has no room for a log."""
        text = render_config(
            server_name=self._name,
            host=self.host,
            port=self._port,
            store=self.store,
            durability=self.durability,
            max_payload=self._max_payload,
            monitor_port=self._monitor_port,
        )
        try:
            (self.store / CONFIG_FILE).write_bytes(os.fsencode(text))
        except OSError as error:
            raise store_error(error, self.store) from error
        if is_full(self.store):
            raise DiskFullError(self.store)

    async def _launch(self, binary: Path) -> None:
        """Starts a process and returns when it serves. Raises what kept it from that, with the process ended."""
        assert self._lock is not None
        try:
            self._log_from = self.log_file.stat().st_size if self.log_file.exists() else 0
            self._process = process = spawn(
                (str(binary), "-c", str(self.store / CONFIG_FILE)),
                # And nothing else: our environment holds provider keys.
                env={"GOMEMLIMIT": self._memory_limit, MAX_STORE: self._disk.limit()},
                output=self.log_file,
                lock=self._lock,
            )
        except OSError as error:
            raise store_error(error, self.store) from error
        deadline = time.monotonic() + self._start_timeout
        while not await serves(self._dial, self._port, self._name):
            if process.poll() is not None:
                raise self._diagnosis(process.returncode)
            if time.monotonic() > deadline:
                await end(process, grace=STOP_GRACE)
                raise StartTimeoutError(self._start_timeout, self.log_file)
            await asyncio.sleep(POLL_SECONDS)

    async def _supervise(self, binary: Path) -> None:
        """Starts the server again whenever it dies, until it dies quickly too many times in a row.

        Ending it because the disk has got full, or has room again, is no death.
        """
        last, deaths = await self._death(), 0
        while last is None or (deaths := deaths + 1) < GIVE_UP_AFTER:
            died_at = time.monotonic()
            await asyncio.sleep(0 if last is None else BACK_OFF[min(deaths, len(BACK_OFF)) - 1])
            try:
                await self._launch(binary)
            except EmbeddedServerError as error:
                last = error
                log.warning("nats.restart_failed", deaths=deaths + 1, error=str(error))
                continue
            served_at = time.monotonic()
            log.info("nats.restarted", url=self.url, pid=self.pid, seconds=round(served_at - died_at, 3))
            self._announce_restart()
            last = await self._death()
            deaths = deaths if time.monotonic() - served_at < QUICK_SECONDS else 0
        gave_up = GaveUpError(deaths, last)
        log.error("nats.gave_up", deaths=deaths, error=str(gave_up))
        if not self.failed.done():  # a waiter may have cancelled it
            self.failed.set_result(gave_up)

    async def _death(self) -> EmbeddedServerError | None:
        """Why the server died; None if we have ended it, since what it may store has changed."""
        process = self._process
        assert process is not None
        dead, turned = asyncio.create_task(exited(process)), asyncio.create_task(self._disk.turned())
        try:
            await asyncio.wait((dead, turned), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await asyncio.gather(end_task(dead), end_task(turned))
        if process.poll() is None:
            log.warning("nats.disk_has_room" if self._disk.full else "nats.disk_full", store=str(self.store))
            await end(process, grace=STOP_GRACE)
            return None
        code = int(process.returncode)
        error = self._diagnosis(code)
        log.warning("nats.died", pid=process.pid, code=code, error=str(error))
        return error

    def _diagnosis(self, code: int) -> EmbeddedServerError:
        if code < 0:
            return ServerExitedError(code, f"killed by signal {-code}", self.log_file)
        if is_full(self.store):  # then its log lacks the reason: it couldn't be written either
            return DiskFullError(self.store)
        return diagnose(
            read_log(self.log_file, self._log_from),
            code=code,
            host=self.host,
            port=self._port,
            store=self.store,
            log_file=self.log_file,
        )

    def _announce_restart(self) -> None:
        """In a task of its own: a slow callback must not keep the next death from being seen."""
        task = asyncio.create_task(self._call_back(), name="nats-on-restart")
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)

    async def _call_back(self) -> None:
        try:
            result = self.on_restart() if self.on_restart is not None else None
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("nats.on_restart_failed", url=self.url)

    async def _end_process(self) -> None:
        """Leaves neither process nor lock, even when cancelled."""
        process, self._process = self._process, None
        lock, self._lock = self._lock, None
        try:
            if process is not None and process.poll() is None:
                gently = await end(process, grace=STOP_GRACE)
                log.info("nats.stopped", pid=process.pid, gently=gently)
        finally:
            if lock is not None:
                lock.release()

    @property
    def _dial(self) -> str:
        """A wildcard is no address to connect to."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 not bound here
