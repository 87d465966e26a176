"""`trunkline up` and `trunkline run`: composition roots. Settings, connect, run, drain."""

import asyncio
import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from msgspec import Struct
from trunkline_actors.workflow_code import CodeBook
from trunkline_events.connection import Unreachable
from trunkline_events.log import LogError

from trunkline import bootstrap, client, development, lifecycle, telemetry
from trunkline.banner import banner
from trunkline.cache import RegistryCache
from trunkline.embedded import EmbeddedServer
from trunkline.embedded.errors import EmbeddedServerError
from trunkline.gateway.server import PortTaken, bound
from trunkline.host import ACTORS, GATEWAY, PROJECTOR, Host, make_rates
from trunkline.known import known_models
from trunkline.proc import age_seconds
from trunkline.projector.child import ProjectorChild
from trunkline.ready import ReadyFile
from trunkline.settings import BadSettings, Settings, keeps_data
from trunkline.standby import Serving
from trunkline.telemetry import config
from trunkline.workers import WorkerNotServing, Workers

log = structlog.get_logger()

UNAVAILABLE = 6
FAILED = 1
USAGE = 2
NOT_ALLOWED = 4


class CannotStart(Exception):
    """The process can't serve. The message says why and what to do; `code` is the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Up(Struct, frozen=True, kw_only=True):
    """What `trunkline up` was asked for beyond the settings."""

    ephemeral: bool = False
    ready_file: Path | None = None
    config: str | None = None
    """The file of settings that --config named; workers read it too."""
    code: CodeBook | None = None
    """What the modules have that are to be imported; workers import them themselves."""


def up(settings: Settings, asked: Up) -> int:
    """Run the whole gateway until a signal; the exit code."""
    telemetry.configure(settings.log_level)
    return lifecycle.run(lambda: _up(settings, asked))


def run_roles(
    settings: Settings,
    roles: Sequence[str],
    only: frozenset[str] | None,
    ready_file: Path | None,
    data: Path | None = None,
    code: CodeBook | None = None,
) -> int:
    """Run some roles on a bus that is there already, until a signal; the exit code. `data` is the registry's folder."""
    telemetry.configure(settings.log_level)
    return lifecycle.run(lambda: _run_roles(settings, roles, only, ready_file, data, code))


async def _up(settings: Settings, asked: Up) -> int:
    began = time.monotonic()
    with lifecycle.stop_on_signals() as stop:
        try:
            async with (
                _socket(settings) as sock,
                _bus(settings, asked) as (url, server),
                _promised(url, settings, asked, server) as warning,
                _actors(url, settings, asked) as (host, workers),
                _edge(host, sock, settings) as http,
            ):
                async with client.connect(url, host.runtime.door.own_key or None) as gateway:
                    found = await bootstrap.first_models(gateway)
                    key = await development.development_key(gateway)
                seconds = age_seconds() or time.monotonic() - began
                for line in banner(settings, asked.ephemeral, server, url, http, key, host, seconds, found, warning):
                    print(line, flush=True)  # noqa: T201 - the banner is what the command is asked for
                ready = ReadyFile(asked.ready_file)

                def announce() -> None:
                    ready.write(url, http, server.pid if server else None, workers.pids)

                workers.on_restart = announce
                if server is not None:
                    server.on_restart = announce
                announce()
                async with _projector_beside(settings, asked, url):
                    code = await _until_stopped(stop, server.failed if server else None)
                ready.remove()
                return code
        except (CannotStart, EmbeddedServerError, WorkerNotServing) as error:
            return _say(error)


async def _run_roles(
    settings: Settings,
    roles: Sequence[str],
    only: frozenset[str] | None,
    ready_file: Path | None,
    data: Path | None,
    code: CodeBook | None,
) -> int:
    with lifecycle.stop_on_signals() as stop:
        url = settings.nats or f"nats://127.0.0.1:{settings.nats_port}"
        actors = [role for role in roles if role != PROJECTOR]
        try:
            async with contextlib.AsyncExitStack() as serving:
                http = None
                sock = await serving.enter_async_context(_socket(settings)) if GATEWAY in roles else None
                if actors:
                    await bootstrap.promised_log(url, settings.durability, replicas=settings.replicas)
                    host = await _host(url, actors, settings, only, data, code)
                    serving.push_async_callback(host.stop)
                    if sock is not None:
                        http = await serving.enter_async_context(_edge(host, sock, settings))
                failed = await serving.enter_async_context(_projector(url, settings)) if PROJECTOR in roles else None
                ready = ReadyFile(ready_file, roles)
                ready.write(url, http, None, {})
                ended = await _until_stopped(stop, failed)
                ready.remove()
                return ended
        except CannotStart as error:
            return _say(error)


@asynccontextmanager
async def _socket(settings: Settings) -> AsyncIterator[socket.socket]:
    """The port for HTTP, taken before anything starts that would have to be stopped again."""
    try:
        sock = bound(settings.http_host, settings.http_port)
    except PortTaken as error:
        raise CannotStart(str(error), FAILED) from error
    with sock:
        yield sock


@asynccontextmanager
async def _edge(process: Serving, sock: socket.socket, settings: Settings) -> AsyncIterator[str]:
    """The HTTP edge of this process; its address. It ends first: what its callers wait for needs all the rest."""
    keys = process.runtime.gateway.state.keys
    if problem := development.binding_problem(settings.http_host, settings.require_keys, keys):
        raise CannotStart(problem, NOT_ALLOWED)
    from trunkline.gateway.process import http_edge  # here, since only who serves HTTP needs a server for it

    async with http_edge(process, sock) as listening:
        yield listening.url


@asynccontextmanager
async def _projector(url: str, settings: Settings) -> "AsyncIterator[asyncio.Future[Exception]]":
    """The projector, in a thread of this process; the future is done when it has given up."""
    # Here, since nothing else needs the eventsourcing library, and loading it takes a while.
    from trunkline.projector import Projector
    from trunkline.projector.store import ReadModelsError, store_of

    try:
        projector = Projector(url, store_of(settings))
    except (BadSettings, ReadModelsError) as error:
        raise CannotStart(str(error), FAILED) from error
    try:
        yield projector.start()
    finally:
        await projector.stop()


@asynccontextmanager
async def _projector_beside(settings: Settings, asked: Up, url: str) -> AsyncIterator[None]:
    """A process for the projector, where the log is our own and stays: elsewhere whoever runs the bus decides."""
    if not settings.projector or asked.ephemeral or settings.nats is not None:
        yield
        return
    child = ProjectorChild(url, settings.data)
    child.start()
    try:
        yield
    finally:
        await child.stop()


@asynccontextmanager
async def _bus(settings: Settings, asked: Up) -> AsyncIterator[tuple[str, EmbeddedServer | None]]:
    """The address of the bus: an outside one, or an embedded server that lives as long as this context."""
    if settings.nats is not None:
        yield settings.nats, None
        return
    with contextlib.ExitStack() as stack:
        store = settings.data
        if asked.ephemeral:
            store = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-")))
        server = EmbeddedServer(store=store, port=settings.nats_port, durability=settings.durability)
        async with server:
            yield server.url, server


@asynccontextmanager
async def _promised(
    url: str, settings: Settings, asked: Up, server: EmbeddedServer | None
) -> AsyncIterator[str | None]:
    """A log with its promise; what to warn of. What an outside server keeps is not ours to judge by our own setting."""
    warning = await bootstrap.promised_log(
        url, settings.durability, replicas=settings.replicas, ephemeral=asked.ephemeral and server is not None
    )
    yield warning if server is not None else None


@asynccontextmanager
async def _actors(url: str, settings: Settings, asked: Up) -> AsyncIterator[tuple[Serving, Workers]]:
    """The actors in this process and the workers, all serving. The workers end first: they lean on the others."""
    kept = not asked.ephemeral and (settings.nats is None or keeps_data(settings))
    data = settings.data if kept else None
    roles = (*ACTORS, GATEWAY) if not settings.workers else ("registry", "keeper", GATEWAY)
    host = await _host(url, roles, settings, None, data, asked.code)
    try:
        workers = Workers(url, settings.workers, asked.config, data, _worker_flags(settings))
        await workers.start()
        try:
            yield host, workers
        finally:
            await workers.stop()
    finally:
        await host.stop()


async def _host(
    url: str,
    roles: Sequence[str],
    settings: Settings,
    only: frozenset[str] | None,
    data: Path | None,
    code: CodeBook | None,
) -> Serving:
    """Actors, with the registry kept in the folder `data`."""
    rates = make_rates(settings.prices, settings.price_ceiling)
    try:
        known = known_models(settings)
        observed = config.observed(settings)
    except BadSettings as error:
        raise CannotStart(str(error), USAGE) from error

    require_keys = development.asks_for_keys(settings.require_keys, url)

    async def start(name: str) -> Host:
        return await Host.start(
            url,
            roles,
            only=only,
            replicas=settings.replicas,
            rates=rates,
            known=known,
            forced=settings.routing_override,
            name=name,
            unlock_file=settings.unlock_file,
            require_keys=require_keys,
            code=code,
            observed=observed,
        )

    try:
        return await Serving.start(
            url, roles, start, RegistryCache(data) if data else None, known, require_keys=require_keys
        )
    except (Unreachable, LogError) as error:
        raise CannotStart(str(error), UNAVAILABLE) from error


def _worker_flags(settings: Settings) -> tuple[str, ...]:
    """What tells a worker whether the bus asks for keys, and what to import."""
    imports = tuple(f"--import={source}" for source in settings.imports)
    if settings.require_keys is None:
        return imports
    return ("--require-keys" if settings.require_keys else "--no-require-keys", *imports)


async def _until_stopped(stop: lifecycle.Stop, failed: "asyncio.Future[Any] | None") -> int:
    """Wait for a signal, or for the embedded server or the projector to be given up; the exit code."""
    waiting = asyncio.create_task(stop.wait())
    ends: list[asyncio.Future[Any]] = [waiting] if failed is None else [waiting, failed]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if failed is not None and failed.done() and not failed.cancelled():
        waiting.cancel()
        return _say(failed.result())
    return 0


def _say(error: Exception) -> int:
    print(f"trunkline: {error}", file=sys.stderr, flush=True)  # noqa: T201 - a message for whoever started us
    return error.code if isinstance(error, CannotStart) else FAILED
