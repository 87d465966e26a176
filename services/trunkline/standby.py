"""A process that starts while the log does not answer: it tells what it knew last, and serves in full once it does.

What it knew last lies on disk. Without that a process that can't have the log does not start.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence

import nats.errors
import nats.js.errors
import structlog
from trunkline_actors import catalogue
from trunkline_actors.adapters.factory import kinds
from trunkline_actors.bus import Delivery
from trunkline_actors.circuits import CircuitsActor
from trunkline_actors.degraded import REGISTRY_CACHED
from trunkline_actors.known_models import Catalogue, shipped
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.rates import Rates
from trunkline_actors.registrar import RegistryActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.supervisor import Supervised
from trunkline_events import subjects
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.log import LogError, LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.tasks import end_task

from trunkline import __version__
from trunkline.cache import Cached, Keeping, RegistryCache
from trunkline.host import GATEWAY, Host, process_name

log = structlog.get_logger()

LOOK_EVERY = 0.5
"""Seconds between looks whether the log answers."""
DRAIN_SECONDS = 2.0

StartHost = Callable[[str], Awaitable[Host]]
"""Starts the host of this process, under this name. Raises Unreachable, LogError."""

_STREAM = re.compile(rb'"stream"\s*:\s*true')


class Serving:
    """A process that serves: in full from the start, or from what it knew last until the log answers."""

    def __init__(self, start_host: StartHost, cache: RegistryCache | None) -> None:
        self._start_host = start_host
        self._cache = cache
        self._name = process_name()
        self._host: Host | None = None
        self._keeping: Keeping | None = None
        self._standby: Standby | None = None
        self._task: asyncio.Task[None] | None = None
        self.on_take_up: list[Callable[[Runtime], None]] = []
        """Called when it serves in full after having stood by, with what it stands on from then on."""

    @classmethod
    async def start(
        cls,
        url: str,
        roles: Sequence[str],
        start_host: StartHost,
        cache: RegistryCache | None,
        known: Callable[[], Catalogue] = shipped,
        *,
        require_keys: bool = False,
    ) -> "Serving":
        """Serve. Raises Unreachable, and LogError where the log does not answer and nothing is known of it either."""
        self = cls(start_host, cache)
        try:
            await self._begin()
        except LogUnavailable as error:
            cached = cache.read() if cache else None
            if cached is None:
                raise
            log.warning("process.standing_by", position=cached.snapshot.position, reason=str(error))
            self._standby = await Standby.start(url, roles, self._name, cached, known, require_keys=require_keys)
            self._task = asyncio.create_task(self._take_up(self._standby))
        return self

    @property
    def position(self) -> int:
        """How far this process has read the log, or had."""
        if self._host is not None:
            return self._host.position
        return self._standby.position if self._standby else 0

    @property
    def runtime(self) -> Runtime:
        """What this process stands on, for now where it stands by."""
        if self._host is not None:
            return self._host.runtime
        assert self._standby is not None, "not started"
        return self._standby.runtime

    async def _begin(self) -> Host:
        host = self._host = await self._start_host(self._name)
        if self._cache is not None:
            self._keeping = Keeping(self._cache, host.runtime)
            self._keeping.start()
        return host

    async def _take_up(self, standby: "Standby") -> None:
        """Serve in full as soon as the log answers; who stood by goes when that is so, so nothing falls between."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if not await standby.log_answers():
                continue
            try:
                host = await self._begin()
            except (LogError, Unreachable) as error:
                log.warning("process.stands_by_on", reason=str(error))
                continue
            break
        modes = host.runtime.degraded
        modes.enter(REGISTRY_CACHED, standby.detail, since=standby.since)
        modes.leave(REGISTRY_CACHED)
        for take_up in self.on_take_up:
            take_up(host.runtime)
        self._standby = None
        await standby.stop()
        log.info("process.took_up_service", position=host.position)

    async def stop(self) -> None:
        """Let everything end, and go."""
        await end_task(self._task)
        if self._standby is not None:
            await self._standby.stop()
        if self._keeping is not None:
            await self._keeping.stop()
        if self._host is not None:
            await self._host.stop()


class Standby:
    """Answers what can be read from the registry as it lay on disk, and refuses chats."""

    def __init__(self, runtime: Runtime, roles: Sequence[str], cached: Cached, known: Callable[[], Catalogue]) -> None:
        self.runtime = runtime
        self.since = time.time()
        self.position = cached.snapshot.position
        age = max(0, round(self.since - cached.written))
        self.detail = f"the log does not answer; the registry is that of position {self.position}, {age} s old"
        runtime.roles = list(roles)
        self._actors: list[Supervised] = []
        if "registry" in roles:
            self._actors += [
                Supervised(lambda: RegistryActor(runtime, frozenset(kinds()), known)),
                Supervised(lambda: CircuitsActor(runtime)),
            ]
        if "router" in roles:
            refused = Refused(
                code="unavailable",
                message=f"{self.detail}; chats are refused until it does: see `trunkline doctor`",
                metadata={"position": self.position, "age_s": age},
            )
            self._actors.append(Supervised(lambda: RefusingRouter(runtime, refused)))

    @classmethod
    async def start(
        cls,
        url: str,
        roles: Sequence[str],
        name: str,
        cached: Cached,
        known: Callable[[], Catalogue],
        *,
        require_keys: bool = False,
    ) -> "Standby":
        """Connect and answer. Raises Unreachable."""
        connection = await Connection.open(url, name=f"trunkline standby {name}")
        runtime = Runtime.standing_by(connection, name=name, version=__version__, rates=Rates(catalogue.listed))
        runtime.door.required = require_keys
        runtime.gateway.hold(cached.snapshot, cached.state)
        self = cls(runtime, roles, cached, known)
        runtime.degraded.enter(REGISTRY_CACHED, self.detail, since=self.since)
        for actor in self._actors:
            await actor.start()
        if GATEWAY in roles:
            await runtime.bus.replies.open()
        return self

    async def log_answers(self) -> bool:
        """Whether it is worth a try."""
        try:
            await self.runtime.connection.nats.jetstream(timeout=LOOK_EVERY).account_info()
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
            return False
        return True

    async def stop(self) -> None:
        """Answer nothing more."""
        for actor in self._actors:
            await actor.stop(DRAIN_SECONDS)
        await self.runtime.stop_standing_by()


class RefusingRouter(ServiceActor):
    """Stands where a router will be, and refuses every request, saying why."""

    def __init__(self, runtime: Runtime, refused: Refused) -> None:
        super().__init__(runtime.bus, "trunkline-router", runtime.version, {"process": runtime.name})
        self._refused = refused

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(name="chat", subject=subjects.CHAT, handler=self._refuse),
            Endpoint(name="embeddings", subject=subjects.EMBEDDINGS, handler=self._refuse),
        ]

    async def _refuse(self, delivery: Delivery) -> Refused:
        return self._refused

    async def refused(self, delivery: Delivery) -> None:
        if _STREAM.search(delivery.data):  # who waits for the empty message must get one
            await self.bus.publish(delivery.reply)
