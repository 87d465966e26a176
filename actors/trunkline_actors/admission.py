"""Lets the attempts of one provider instance call upstream: no more at once than it allows, each caller in turn.

Slots are shared with the other processes that serve the instance: leased in JetStream KV, in memory and not in the log,
kept for a moment after use, so that a busy process asks seldom, and given back to whoever has calls waiting.
"""

import asyncio
import contextlib
import time
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
import structlog
from msgspec import Struct
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events import subjects
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.registry import Provider
from trunkline_events.tasks import end_task

from trunkline_actors import slots
from trunkline_actors.bucket import open_bucket
from trunkline_actors.dispatch import Dispatch, encode
from trunkline_actors.line import Line
from trunkline_actors.runtime import Runtime
from trunkline_actors.slots import Standing

log = structlog.get_logger()

MOST_WAITING = 1_000
"""Attempts that wait in one process for one instance; what comes then fails over at once."""
LEASE = 8.0
"""Seconds that slots are leased for."""
RENEW = 2.0
SOONEST = 0.3
"""Seconds that anybody waits, since a slot that is free must be asked for."""
IDLE = 2.0
"""Seconds that a slot is kept that nobody needs."""
CLAIM = 0.2
"""Seconds after which a process whose calls wait says so again."""
CLAIM_HOLDS = 0.7
YIELD = 0.05
"""Seconds in which who gave a slot up leaves it to the others."""
MOST_TRIES = 8

_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)


class Claim(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process has so many calls waiting for a slot; `freed`: it has just given some back."""

    holder: str
    waiting: int = 0
    freed: bool = False


_claim_decoder = msgspec.json.Decoder(Claim)


class Admission:
    """The line before one provider instance, in one process. Without `max_concurrency` nobody waits."""

    def __init__(self, runtime: Runtime, provider: Provider) -> None:
        self._runtime = runtime
        self._provider = provider
        self._limit = provider.max_concurrency
        self._name = f"{runtime.name}/{runtime.new_id()}"
        self._key = subjects.encode_id(provider.id)
        self._subject = subjects.provider_endpoint(provider.id, "slots")
        self._line: Line[asyncio.Future[None]] = Line(0, MOST_WAITING)
        self._bucket: KeyValue | None = None
        self._leases = slots.Leases()
        self._revision = 0
        self._held = 0
        self._until = self._renewed = self._used = self._yields_until = self._claimed_at = float("-inf")
        self._claimed = False
        self._claims: dict[str, float] = {}
        self._stirred = asyncio.Event()
        self._subscription: Any = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take part in sharing the slots, where there is a limit."""
        if self._limit is not None:
            self._subscription = await self._runtime.bus.nats.subscribe_raw(self._subject, self._heard)
            self._task = asyncio.create_task(self._share())

    async def stop(self) -> None:
        """Give all slots back."""
        if self._task is None:
            return
        await end_task(self._task)
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()
        if self._held:
            with contextlib.suppress(*_TROUBLE):
                await self._lease(0)

    # -- attempts --------------------------------------------------------------------------------------------------

    async def enter(self, dispatch: Dispatch) -> Failure | None:
        """Wait for this attempt's turn: None when it has come, and `left` is due when it has ended; else why not.

        Cancelled, it has left the line.
        """
        if self._limit is None:
            return None
        key = dispatch.key or dispatch.thread
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._used = time.monotonic()
        entered = self._line.enter(key, turn)
        if entered == "in":
            return None
        if entered == "full":
            return self._overloaded(f"{MOST_WAITING:,} calls wait for their turn already")
        self._stirred.set()
        left = min(max(self._provider.queue_timeout_s, SOONEST), dispatch.deadline - self._runtime.clock())
        try:
            async with asyncio.timeout(left):
                await turn
        except TimeoutError:
            if self._abandon(key, turn):
                return self._overloaded(f"no turn came within {max(0.0, left):.3g} s")
        except BaseException:
            if not self._abandon(key, turn):
                self.left()  # its turn had come, and nobody takes it
            raise
        return None

    def _abandon(self, key: str, turn: asyncio.Future[None]) -> bool:
        waited = self._line.give_up(key, turn)
        self._stirred.set()
        return waited

    def left(self) -> None:
        """An attempt that was let in has ended."""
        if self._limit is None:
            return
        now = self._used = time.monotonic()
        self._line.leave()
        if slots.gives_up(self._standing(now), self._limit):
            self._yields_until = now + YIELD
        self._admit(now)
        self._stirred.set()

    def _overloaded(self, why: str) -> Failure:
        limit = f"{self._limit} calls at once are its max_concurrency"
        return Failure(kind=FailureClass.OVERLOADED, message=f"{limit}, and {why}")

    def _standing(self, now: float) -> Standing:
        claimants = sum(now - heard < CLAIM_HOLDS for heard in self._claims.values())
        return Standing(
            running=self._line.inside,
            waiting=self._line.waiting,
            held=self._held,
            claimants=claimants,
            yielding=now < self._yields_until,
            idle=now - self._used >= IDLE,
        )

    def _admit(self, now: float) -> None:
        assert self._limit is not None
        usable = self._held if now < self._until else 0
        self._line.capacity = min(usable, slots.wanted(self._standing(now), self._limit))
        for turn in self._line.admit():
            if turn.done():  # cancelled, and on its way to say so
                self._line.leave()
                self._stirred.set()
            else:
                turn.set_result(None)

    # -- slots -----------------------------------------------------------------------------------------------------

    def _heard(self, _subject: bytes, _reply: bytes, data: bytes, _headers: bytes | None) -> None:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            claim = _claim_decoder.decode(data)
            if claim.holder == self._name:
                return
            if claim.waiting:
                self._claims[claim.holder] = time.monotonic()
            else:
                self._claims.pop(claim.holder, None)
            if claim.freed:
                self._yields_until = float("-inf")
            self._stirred.set()

    async def _share(self) -> None:
        while True:
            self._stirred.clear()
            try:
                pause = await self._settle()
            except _TROUBLE as error:
                log.warning("admission.no_slots", provider=self._provider.id, error=type(error).__name__)
                self._bucket, self._revision = None, 0
                pause = CLAIM
                await asyncio.sleep(CLAIM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stirred.wait()

    async def _settle(self) -> float | None:
        """Hold what is wanted, as far as it is there; seconds until this is to be looked at again."""
        assert self._limit is not None
        now = time.monotonic()
        self._claims = {who: heard for who, heard in self._claims.items() if now - heard < CLAIM_HOLDS}
        wanted = slots.wanted(self._standing(now), self._limit)
        before = self._held
        if wanted != self._held or (self._held and now - self._renewed >= RENEW):
            await self._lease(wanted)
            now = time.monotonic()
        self._admit(now)
        starving = self._line.waiting > 0
        freed = self._held < before
        if freed or starving != self._claimed or (starving and now - self._claimed_at >= CLAIM):
            self._claimed, self._claimed_at = starving, now
            claim = Claim(holder=self._name, waiting=self._line.waiting, freed=freed)
            await self._runtime.bus.publish(self._subject, encode(claim))
        if starving:
            return YIELD if now < self._yields_until else CLAIM
        return min(RENEW, IDLE) if self._held else None

    async def _lease(self, wanted: int) -> None:
        """Ask for so many slots in all, and know how many it are. Raises what JetStream does."""
        assert self._limit is not None
        # What is given up may be somebody else's as soon as it is written, whether or not we hear of that.
        self._held = min(self._held, max(wanted, self._line.inside))
        bucket = self._bucket = self._bucket or await self._open()
        for _ in range(MOST_TRIES):
            asked = time.monotonic()
            now = self._runtime.clock()
            leases = slots.leased(self._leases, self._name, wanted, self._line.inside, self._limit, now, now + LEASE)
            if not self._revision and slots.held(leases, self._name) == 0 and wanted == 0:
                break
            try:
                if self._revision:
                    self._revision = await bucket.update(self._key, slots.encode(leases), last=self._revision)
                else:
                    self._revision = await bucket.create(self._key, slots.encode(leases))
            except nats.js.errors.KeyWrongLastSequenceError:
                await self._read(bucket)
                continue
            self._leases = leases
            self._renewed, self._until = asked, asked + LEASE * 0.9
            break
        self._held = slots.held(self._leases, self._name)

    async def _read(self, bucket: KeyValue) -> None:
        try:
            entry = await bucket.get(self._key)
            self._leases, self._revision = slots.read(entry.value), entry.revision or 0
        except nats.js.errors.KeyNotFoundError:
            self._leases, self._revision = slots.Leases(), 0

    async def _open(self) -> KeyValue:
        js = self._runtime.bus.nats.jetstream(timeout=1.0)
        config = api.KeyValueConfig(
            bucket=subjects.SLOTS_BUCKET,
            history=1,
            ttl=10 * LEASE,
            storage=api.StorageType.MEMORY,
            replicas=self._runtime.replicas,
        )
        return await open_bucket(js, config)
