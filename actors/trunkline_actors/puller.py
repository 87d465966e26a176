"""The pulls of one provider instance that run in this process, and those that others run or have left.

A pull is open in the log while it goes on, so that whoever asks for the same model joins it, on whichever process: the
one that runs it is asked over the bus. Where nobody answers for an open pull, its process is gone, and another takes it
up; the upstream goes on where it was.
"""

import asyncio
from contextlib import aclosing, suppress

import msgspec
import nats.errors
import structlog
from trunkline_events import headers
from trunkline_events.failure import UpstreamError
from trunkline_events.refusal import Refused
from trunkline_events.registry import ModelPulled, PullFailed, PullStarted
from trunkline_events.tasks import end_task

from trunkline_actors import pulls
from trunkline_actors.adapters.management import Manages
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import arguments
from trunkline_actors.inflight import ABORT_GRACE
from trunkline_actors.mailbox import Spawn
from trunkline_actors.managed import Described, LocalModel
from trunkline_actors.managing import Managing
from trunkline_actors.pulling import Pulling
from trunkline_actors.pulls import Named, Pull
from trunkline_actors.shell import Decided

log = structlog.get_logger()

LOOK_EVERY = 2.0
"""Seconds between two looks for pulls whose process is gone."""
MISSED = 2
"""Looks in a row that find nobody, before a pull is taken up."""
ANSWER_WAIT = 1.0
"""Seconds that whoever runs a pull has to say so."""
MOST_TRIES = 3


class _Join(msgspec.Struct, frozen=True):
    """Whoever runs this pull is to answer; with an inbox, that one listens from here on."""

    pull: str
    inbox: str = ""


class Puller:
    """Begins pulls, joins and ends them. `spawn` lets one go on beside the mailbox of the actor."""

    def __init__(self, managing: Managing, spawn: Spawn) -> None:
        self._managing = managing
        self._bus = managing.runtime.bus
        self._spawn = spawn
        self._here: dict[str, Pulling] = {}
        self._beginning = asyncio.Lock()
        self._missed: dict[str, int] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for pulls whose process is gone, from here on."""
        self._looking = asyncio.create_task(self._look())

    async def leave(self) -> None:
        """Leave the pulls that run here to whoever takes them up."""
        await end_task(self._looking)
        for pulling in list(self._here.values()):
            if pulling.work is not None:
                pulling.work.cancel()

    # -- pull ------------------------------------------------------------------------------------------------------

    async def pull(self, delivery: Delivery) -> Refused | None:
        given = arguments(delivery, Pull)
        refused = given if isinstance(given, Refused) else await self._begin_or_join(given, delivery)
        if refused is not None:
            await self._bus.refuse(delivery.reply, refused, "models-pull", None)
            await self._bus.publish(delivery.reply)  # a stream that ends at once
        return None

    async def _begin_or_join(self, given: Pull, delivery: Delivery) -> Refused | None:
        manager = await self._managing.manager()
        if isinstance(manager, Refused):
            return manager
        async with self._beginning:  # or a second one would ask the bus for what begins just here
            for _ in range(MOST_TRIES):
                here = self._running(given.model, manager)
                if here is not None:
                    refused = pulls.other_id(here.started, given)
                    if refused is None:
                        await here.listen(delivery.reply)
                    return refused
                decided = await self._start(given, manager, delivery)
                if decided is None:
                    running = await self._open(given, manager)
                    if running is None:
                        continue
                    if await self._answers(_Join(running.pull, delivery.reply)):
                        return None
                    decided = await self._take_up(running)
                if isinstance(decided, Refused):
                    return decided
                if decided is not None and isinstance(decided.event, PullStarted):
                    await self._begin(decided.event).listen(delivery.reply)
                    return None
        return Refused(code="unavailable", message=f"the pull of {given.model!r} ended just now; ask again")

    async def _start(self, given: Pull, manager: Manages, delivery: Delivery) -> Decided | Refused | None:
        runtime, provider = self._managing.runtime, self._managing.provider.id
        name = runtime.new_id()
        return await self._managing.decide(
            given.id,
            f"{name}/1",
            lambda state, now: pulls.start(state, given, provider, name, manager.same_model, now),
            cause=delivery.header(headers.REQUEST) or "",
        )

    async def _open(self, given: Pull | Named, manager: Manages) -> PullStarted | None:
        """The pull of this model that goes on, on whichever process."""
        state = await self._managing.current()
        return pulls.open_pull(state, self._managing.provider.id, given.model, manager.same_model)

    def _running(self, model: str, manager: Manages) -> Pulling | None:
        found = (one for one in self._here.values() if manager.same_model(one.started.upstream, model))
        return next(found, None)

    def _begin(self, started: PullStarted) -> Pulling:
        pulling = self._here[started.pull] = Pulling(self._bus, started)
        pulling.work = self._spawn(self._run(pulling))
        return pulling

    async def _run(self, pulling: Pulling) -> None:
        started = pulling.started
        telling = asyncio.create_task(pulling.tell())
        sequence: int | None = None
        log.info("pull.started", provider=started.provider, model=started.upstream, attempt=started.attempt)
        try:
            sequence = await self._fetch(pulling)
        except asyncio.CancelledError:
            if pulling.aborted is None:
                log.info("pull.left", provider=started.provider, model=started.upstream)
                return
            while (task := asyncio.current_task()) is not None and task.cancelling():
                task.uncancel()
            failed = pulls.failed(started, "it was aborted", aborted=True, reason=pulling.aborted or None)
            sequence = await self._ended(pulling, failed, Refused(code="aborted", message="the pull was aborted"))
        finally:
            await end_task(telling)
            pulling.close()
            del self._here[started.pull]
            pulling.ended.set_result(sequence)

    async def _fetch(self, pulling: Pulling) -> int | None:
        """Let the upstream fetch it, register it, and record how that went: the sequence of the end."""
        started, manager = pulling.started, await self._managing.manager()
        if isinstance(manager, Refused):
            return await self._ended(pulling, pulls.failed(started, manager.message), manager)
        try:
            async with aclosing(manager.pull(started.upstream)) as progress:
                async for pulling.progress in progress:
                    pass
            local, described = await self._described(manager, started.upstream)
        except UpstreamError as error:
            refused = self._managing.told(error.failure)
            return await self._ended(pulling, pulls.failed(started, error.failure.message), refused)
        registered = await self._managing.decide(
            started.id,
            f"{started.pull}/registered/{local.digest[:12]}",
            lambda state, _now: pulls.registration(state, started, local, described),
            persistent=True,
        )
        problem = registered.message if isinstance(registered, Refused) else None
        return await self._ended(pulling, pulls.pulled(started, local, described, problem))

    async def _described(self, manager: Manages, model: str) -> tuple[LocalModel, Described]:
        found = [one for one in await manager.local_models() if manager.same_model(one.model, model)]
        return (found[0] if found else LocalModel(model=model)), await manager.describe(model)

    async def _ended(
        self, pulling: Pulling, end: ModelPulled | PullFailed, refused: Refused | None = None
    ) -> int | None:
        """Record how a pull ended, and tell who listens."""
        decided = await self._managing.decide(
            end.id, f"{end.pull}/ended", lambda state, _now: pulls.ended(state, end), persistent=True
        )
        # Not decided: others have ended it, having taken this process for gone.
        sequence = decided.sequence if isinstance(decided, Decided) else self._managing.runtime.gateway.position
        if isinstance(end, ModelPulled):
            more = {name: getattr(end, name) for name in _TOLD}
            await pulling.end("pulled", sequence, registered=end.problem is None, **more)
        else:
            await pulling.end("aborted" if end.aborted else "failed", sequence, refused=refused)
        log.info("pull.ended", provider=end.provider, model=end.upstream, pulled=isinstance(end, ModelPulled))
        return sequence

    # -- abort -----------------------------------------------------------------------------------------------------

    async def abort(self, delivery: Delivery) -> Refused | None:
        """Whoever runs the pull ends it; where nobody does, whoever hears this records that it is over."""
        given = arguments(delivery, Named)
        if isinstance(given, Refused):
            return given
        manager = await self._managing.manager()
        if isinstance(manager, Refused):
            return manager
        if (here := self._running(given.model, manager)) is not None:
            here.abort(given.reason)
            await self._done(delivery, await here.ended)
            return None
        await asyncio.sleep(ABORT_GRACE)
        running = await self._open(given, manager)
        if running is None:
            message = f"{self._managing.provider.id} pulls no model {given.model!r}; `list` shows what it does"
            return Refused(code="not_found", message=message, param="model")
        if await self._answers(_Join(running.pull)):
            return None  # and it answers the caller too
        failed = pulls.failed(running, "it was aborted", aborted=True, reason=given.reason)
        decided = await self._managing.decide(
            running.id, f"{running.pull}/ended", lambda state, _now: pulls.ended(state, failed)
        )
        await self._done(delivery, decided.sequence if isinstance(decided, Decided) else None)
        return None

    async def _done(self, delivery: Delivery, sequence: int | None) -> None:
        seq = self._managing.runtime.gateway.position if sequence is None else sequence
        await self._bus.publish(delivery.reply, msgspec.json.encode({"ok": True, "seq": seq}))

    # -- pulls of processes that are gone --------------------------------------------------------------------------

    async def join(self, delivery: Delivery) -> Refused | None:
        join = arguments(delivery, _Join)
        if isinstance(join, Refused) or (join.inbox and not self._bus.may_reply(join.inbox)):
            return None
        pulling = self._here.get(join.pull)
        if pulling is None and self._beginning.locked():
            async with self._beginning:  # it may begin just now
                pulling = self._here.get(join.pull)
        if pulling is not None:
            if join.inbox:
                await pulling.listen(join.inbox)
            await self._bus.publish(delivery.reply, b'{"ok":true}')
        return None

    async def _answers(self, join: _Join) -> bool:
        """Whether a process says that it runs a pull."""
        with suppress(nats.errors.Error, TimeoutError):
            await self._bus.nats.request(
                self._managing.subject("join-pull"), msgspec.json.encode(join), timeout=ANSWER_WAIT
            )
            return True
        return False

    async def _look(self) -> None:
        while True:
            state = self._managing.runtime.gateway.state.registry
            orphans = [one for one in state.pulls.values() if one.provider == self._managing.provider.id]
            self._missed = {one.pull: self._missed.get(one.pull, 0) for one in orphans}
            for one in orphans:
                if one.pull in self._here or await self._answers(_Join(one.pull)):
                    self._missed[one.pull] = 0
                    continue
                self._missed[one.pull] += 1
                if self._missed[one.pull] >= MISSED:
                    with suppress(Exception):  # the log is away, say: the next look tries again
                        await self._take_up_here(one)
            await asyncio.sleep(LOOK_EVERY)

    async def _take_up_here(self, seen: PullStarted) -> None:
        async with self._beginning:
            decided = await self._take_up(seen)
            if isinstance(decided, Decided) and isinstance(decided.event, PullStarted):
                self._begin(decided.event)

    async def _take_up(self, seen: PullStarted) -> Decided | Refused | None:
        identifier = f"{seen.pull}/{seen.attempt + 1}"
        return await self._managing.decide(seen.id, identifier, lambda state, now: pulls.take_up(state, seen, now))


_TOLD = ("digest", "size_bytes", "family", "parameters", "quantization", "context_window", "features", "problem")
