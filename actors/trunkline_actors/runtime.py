"""What the actors of one process share: its connection, its view of the log, its owner of the books, its pulse."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from typing import cast

import structlog
from nats.nuid import NUID
from trunkline_events.budget import BudgetSet
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.subjects import PULSE
from trunkline_events.tasks import end_task
from trunkline_projections.folds import GATEWAY, Gateway
from trunkline_projections.runner import View

from trunkline_actors.analyzers import Analyzers
from trunkline_actors.answer_store import AnswerStore
from trunkline_actors.board import Board
from trunkline_actors.bus import Bus
from trunkline_actors.claims import Claims
from trunkline_actors.configurations import Configurations
from trunkline_actors.degraded import Degraded
from trunkline_actors.dispatch import Pulse, encode
from trunkline_actors.keyring import Keyring
from trunkline_actors.keys_door import Door
from trunkline_actors.ledger import Ledger
from trunkline_actors.meter import Meter
from trunkline_actors.minutes import Minutes
from trunkline_actors.plugin_book import PluginBook
from trunkline_actors.rates import Rates
from trunkline_actors.scopes import Scopes
from trunkline_actors.shell import Shell
from trunkline_actors.snapshots import KvSnapshots
from trunkline_actors.telling import Telling
from trunkline_actors.tracing import Tracing

log = structlog.get_logger()

PULSE_SECONDS = 1.0
PULSE_PART = 2_000
"""Attempts told of in one message: some 200 KB, far below what any server carries."""
STALE = 2.0
"""Seconds that a decision may be old before anybody can have taken its process for dead."""
DEAD_AFTER = 5.0
"""Seconds without a pulse after which a keeper takes a process for dead."""
STANDSTILL = 2.5
"""Seconds without a pulse after which we must look whether we were taken for dead."""


class Runtime:
    """One process on the bus. `name` tells it apart from all others, in events and in `nats micro ls`."""

    def __init__(
        self,
        connection: Connection,
        log_: JetStreamLog,
        claims: Claims,
        *,
        name: str,
        version: str,
        rates: Rates,
        replicas: int = 1,
    ) -> None:
        self.name = name
        self.replicas = replicas
        """Copies of what is kept on the bus."""
        self.version = version
        self.rates = rates
        """What models cost."""
        self.clock: Callable[[], float] = time.time
        self.connection = connection
        self.log = log_
        self.claims = claims
        self.bus = Bus(connection)
        self.answers = AnswerStore(connection, replicas, lambda: self.clock())
        """Answers that may be given again."""
        self.snapshots = KvSnapshots(connection)
        self.gateway: View[Gateway] = View(log_, GATEWAY, self.snapshots)
        self.door = self.bus.door = Door(lambda: self.gateway.state.keys, lambda: self.clock())
        """Who may come in with which API key. It knows no key until it is opened."""
        self.ledger = Ledger(log_)
        self.scopes = Scopes(log_, self.gateway)
        self.shell = Shell(log_, self.clock)
        self.minutes = Minutes(self.bus, name, lambda: self.clock())
        self.totals = self.bus.totals
        self.meter = Meter(self.bus, name, self.minutes)
        self.telling = Telling(self)
        self.tracing: Tracing | None = None
        """Records the requests that pass here; None: nobody wants to know."""
        self.board = Board(self.bus, lambda: self.gateway.state.registry)
        """Empty until it is started, which a host does whose actors ask it."""
        self.keyring = Keyring(connection, name, replicas)
        """Knows no vault until it is started, which a host does whose actors need secrets."""
        self.configurations = Configurations(log_, self.ledger)
        self.analyzers = Analyzers()
        self.degraded = Degraded(name, log_, connection, lambda: self.clock(), lambda: self._changed.set())
        """What this process has to do without."""
        log_.on_unavailable = self.degraded.log_failed
        self.plugins = PluginBook(name, log_, self.shell, self.new_id, lambda: self._changed.set())
        """What the plugins of providers here come to."""
        self.forced: str | None = None
        """The model that this process was started to send every request to."""
        self.roles: list[str] = []
        self.open: set[str] = set()
        """Attempts that a provider here runs."""
        self.held: set[str] = set()
        """Attempts that a router here is about to send or has got back."""
        self.waiting: dict[str, str] = {}
        """Attempts that a router here waits for: attempt id → where it wants to hear how it went."""
        self._answered: list[str] = []
        self._own = NUID().next().decode()
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self._last_beat = time.monotonic()
        self._stood_still = float("-inf")
        self._pulse: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, connection: Connection, *, name: str, version: str, rates: Rates, replicas: int = 1
    ) -> "Runtime":
        """Open the log, catch up with it, and begin to tell of this process. Raises LogUnavailable."""
        log_ = await JetStreamLog.open(connection, replicas=replicas)
        claims = await Claims.open(connection, replicas)
        self = cls(connection, log_, claims, name=name, version=version, rates=rates, replicas=replicas)
        await self.snapshots.open(replicas)
        await self.door.open(connection, secrets.token_bytes, replicas)
        await self.bus.replies.open()
        await self.gateway.start()
        await self.minutes.start(replicas)
        await self.meter.start()
        self.gateway.on_change.append(self._read)
        self._pulse = asyncio.create_task(self._beat())
        self.degraded.start()
        self.plugins.start()
        await self.telling.start()
        return self

    @classmethod
    def standing_by(cls, connection: Connection, *, name: str, version: str, rates: Rates) -> "Runtime":
        """One without a log, for actors that only read what its view is given to hold. It tells of itself all the same.

        It has no claims and nothing of it is started: no request may be routed by it.
        """
        self = cls(connection, JetStreamLog(connection), cast("Claims", None), name=name, version=version, rates=rates)
        self._pulse = asyncio.create_task(self._beat())
        return self

    async def stop_standing_by(self) -> None:
        """Tell nothing more, and let go of the connection."""
        await end_task(self._pulse)
        await self.log.close()
        await self.connection.close()

    def _read(self, event: RecordedEvent) -> None:
        # What budgets are spent on changes all the time, and nobody waits until we have read it.
        if event.category != "budget" or isinstance(event.body, BudgetSet):
            self._changed.set()

    def new_id(self) -> str:
        """An id that nobody else draws: 22 letters and digits of this process, then a number."""
        return f"{self._own}{next(self._numbers)}"

    def answered(self, attempt_ids: Sequence[str]) -> None:
        """The callers of these attempts have heard how they ended; a keeper need not care for them."""
        for attempt_id in attempt_ids:
            self.open.discard(attempt_id)
            self.held.discard(attempt_id)
        self._answered.extend(attempt_ids)

    def stopped_since(self, moment: float) -> bool:
        """Whether this process stood still, since a monotonic time, for so long that others may take it for dead."""
        return self._stood_still >= moment or time.monotonic() - self._last_beat > STANDSTILL

    def overslept(self, decided: float) -> bool:
        """Whether what was decided at this Unix time may have been overtaken while this process stood still."""
        age = self.clock() - decided
        return age > STALE and self.stopped_since(time.monotonic() - age)

    def may_be_taken_for_dead(self, decided: float) -> bool:
        """Whether a keeper may have given up this process by now, or about when this was decided (Unix time)."""
        now = time.monotonic()
        age = self.clock() - decided
        cut_off = self.connection.last_break > now - age - DEAD_AFTER
        return age > STALE or cut_off or self.stopped_since(now - age - DEAD_AFTER)

    async def beat(self) -> None:
        """Tell what this process has under way, in as many messages as it takes."""
        answered, self._answered = self._answered, []
        plugins = self.plugins.used()
        attempts, waiting = [*self.held, *self.open], list(self.waiting.items())
        for start in range(0, max(len(attempts), len(waiting), len(answered), 1), PULSE_PART):
            part = slice(start, start + PULSE_PART)
            pulse = Pulse(
                process=self.name,
                roles=self.roles,
                attempts=attempts[part],
                answered=answered[part],
                position=self.gateway.position,
                waiting=dict(waiting[part]),
                degraded=self.degraded.since,
                failing=dict(self.analyzers.failed),
                plugins=plugins,
            )
            await self.bus.publish(PULSE, encode(pulse))

    async def _beat(self) -> None:
        while True:
            self._changed.clear()
            now = time.monotonic()
            if now - self._last_beat > STANDSTILL:
                self._stood_still = now
            self._last_beat = now
            await self.beat()
            # A change of the registry is told at once: whoever made it waits until all have read it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PULSE_SECONDS):
                    await self._changed.wait()

    async def stop(self) -> None:
        """Say what is left to say and let go of the connection."""
        await self.telling.stop()
        await self.plugins.stop()
        await self.degraded.stop()
        await end_task(self._pulse)
        await self.beat()
        self.analyzers.close()
        await self.keyring.stop()
        await self.meter.stop()
        await self.minutes.stop()
        await self.board.stop()
        await self.gateway.stop()
        await self.bus.replies.close()
        await self.answers.close()
        await self.claims.close()
        await self.log.close()
        await self.connection.close()
