"""The provider: runs attempts upstream, streams straight to the caller, and settles each exactly once."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import structlog
from msgspec import structs
from trunkline_events import headers, subjects
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_events.secret import is_stored

from trunkline_actors.adapters import Adapter
from trunkline_actors.adapters.noticing import LISTENER
from trunkline_actors.admission import Admission
from trunkline_actors.answers import Answering
from trunkline_actors.attempting import Attempting
from trunkline_actors.breaker import Breaker
from trunkline_actors.bus import Delivery, trace_id
from trunkline_actors.dispatch import Dispatch, Outcome, encode, read_join, unpack
from trunkline_actors.inflight import ABORT_GRACE, abort_target, unknown_request
from trunkline_actors.local_models import LocalModels
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.pauses import Pauses
from trunkline_actors.plugged import Plugged
from trunkline_actors.recent import Recent, Said
from trunkline_actors.replaying import answered_before, replay
from trunkline_actors.running import Attempts, Running
from trunkline_actors.runtime import Runtime

log = structlog.get_logger()

OPERATIONS = ("chat", "embeddings")

READY_S = 1.5
"""Seconds that whoever asks is kept waiting for a plugin to become ready."""
OVERTIME_S = 1.0
"""Seconds that an adapter may take beyond a call's own time, to say so itself."""


class ProviderActor(ServiceActor):
    """Serves one provider instance: calls its upstream, one attempt at a time beside many others."""

    def __init__(self, runtime: Runtime, provider: Provider, make_adapter: Callable[[Provider], Adapter]) -> None:
        metadata = {"process": runtime.name, "instance": headers.encode_value(provider.id), "kind": provider.kind}
        super().__init__(runtime.bus, "trunkline-provider", runtime.version, metadata)
        self.provider = provider
        self._runtime = runtime
        self._make_adapter = make_adapter
        self._keyed = runtime.keyring.standing(provider)
        self._moving = asyncio.Lock()
        self._adapter = self._plug()
        self._attempts = Attempts()
        self._recent = Recent()
        self._admission = Admission(runtime, provider)
        self._pauses = Pauses(runtime, provider)
        self._breaker = Breaker(runtime, provider, self.spawn)
        self._local_models = LocalModels(runtime, provider, lambda: self._adapter, self.spawn)

    def endpoints(self) -> list[Endpoint]:
        instance = self.provider.id
        called_at = subjects.locked_endpoint if self._is_locked() else subjects.provider_endpoint
        own = [Endpoint(name=name, subject=called_at(instance, name), handler=self._serve) for name in OPERATIONS]
        return [
            *own,
            Endpoint(name="ready", subject=subjects.provider_endpoint(instance, "ready"), handler=self._ready),
            Endpoint(name="check", subject=subjects.provider_endpoint(instance, "check"), handler=self._check),
            Endpoint(name="abort", subject=subjects.ABORT, handler=self._abort, queue="", need="chat"),
            Endpoint(name="join", subject=subjects.JOIN, handler=self._join, queue=""),
            *self._local_models.endpoints(),
        ]

    def _plug(self) -> Plugged:
        runtime = self._runtime
        plugged = Plugged(self.provider, self._make_adapter, lambda: runtime.clock(), runtime.plugins.changed)
        plugged.start()
        return plugged

    async def starting(self) -> None:
        await self._admission.start()
        await self._pauses.start()
        if is_stored(self.provider.secret):
            self._runtime.keyring.on_change.append(self._keys_changed)
            self._keys_changed()
        await super().starting()
        await self._take_place()  # it may have been unlocked or locked since
        self._local_models.start()

    async def quiesce(self) -> None:
        await super().quiesce()
        await self._local_models.leave()

    def _keys_changed(self) -> None:
        """Call with the key there is now. Calls that run end with the one they began with."""
        keyed = self._runtime.keyring.standing(self.provider)
        if keyed == self._keyed:
            return
        self.spawn(self._take_place())
        self._keyed, before = keyed, self._adapter
        self._adapter = self._plug()
        running = [one.stopped for one in self._attempts]

        async def close() -> None:
            if running:
                await asyncio.wait(running)
            await before.close()

        self.spawn(close())

    def _is_locked(self) -> bool:
        """Whether other processes may be able to read this provider's secret while this one can't."""
        return is_stored(self.provider.secret) and self._runtime.keyring.state == "locked"

    async def _take_place(self) -> None:
        async with self._moving:
            await self.move()

    def _forget_keys(self) -> None:
        with contextlib.suppress(ValueError):  # it never listened
            self._runtime.keyring.on_change.remove(self._keys_changed)

    async def fallen(self) -> None:
        self._forget_keys()
        await self._local_models.leave()
        await super().fallen()

    async def stopped(self) -> None:
        self._forget_keys()
        await super().stopped()
        await self._admission.stop()
        await self._pauses.stop()
        self._runtime.plugins.gone(self._adapter)
        await self._adapter.close()

    # -- endpoints -------------------------------------------------------------------------------------------------

    async def _ready(self, delivery: Delivery) -> Refused | None:
        failure = await self._adapter.ready(READY_S)
        if failure is not None:
            return Refused(code="unavailable", message=f"{self.provider.id}: {failure.message}")
        await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    async def _check(self, delivery: Delivery) -> Refused | None:
        await self._runtime.keyring.settled()
        try:
            await self._adapter.check()
        except UpstreamError as error:
            return Refused(
                code="unavailable",
                message=f"{self.provider.id}: {error.failure.message}",
                metadata={"plugin": structs.asdict(self._adapter.standing)},
            )
        await self.bus.publish(delivery.reply, encode({"ok": True, "plugin": self._adapter.standing}))
        return None

    async def _abort(self, delivery: Delivery) -> Refused | None:
        request_id = abort_target(delivery.data)
        if isinstance(request_id, Refused):
            return request_id
        found = self._running_for(request_id)
        if not found:
            await asyncio.sleep(ABORT_GRACE)
            found = self._running_for(request_id)  # it may have overtaken the attempt that it means
        if not found:
            return unknown_request(request_id)
        for running in found:
            running.cut_short("aborted")
        await asyncio.gather(*(running.stopped for running in found))
        await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    def _running_for(self, request_id: str) -> list[Running]:
        return [one for one in self._attempts if one.dispatch.request_id == request_id]

    async def _join(self, delivery: Delivery) -> Refused | None:
        join = read_join(delivery.data)
        if join is None or not self.bus.may_reply(join.inbox):
            return None
        for running in self._attempts:
            if running.dispatch.claim == join.scope and await running.answering.add(join.inbox):
                await self.bus.publish(delivery.reply, b'{"ok":true}')
                return None
        said = self._recent.get(join.scope, asyncio.get_running_loop().time())
        if said is not None:
            await self._say_again(join.inbox, said)
            await self.bus.publish(delivery.reply, b'{"ok":true}')
        return None

    async def _say_again(self, inbox: str, said: Said) -> None:
        fields = {**said.fields, headers.REPLAYED: "true"}
        if said.messages is not None:
            await replay(self.bus, inbox, said.messages, fields)
            return
        await self.bus.refuse(inbox, answered_before(said.fields), "chat", None, fields)
        if headers.SEQ in fields:
            await self.bus.publish(inbox, b"", fields)

    # -- one attempt -----------------------------------------------------------------------------------------------

    async def _serve(self, delivery: Delivery) -> Refused | None:
        unpacked = unpack(delivery.data)
        if unpacked is None:
            return Refused(code="invalid_request", message=f"only routers send here; send chats to {subjects.CHAT}")
        dispatch, body = unpacked
        await self._runtime.keyring.settled()
        if self._attempts.knows(dispatch.attempt_id):
            return None
        listeners = [inbox for inbox in dispatch.listeners if self.bus.may_reply(inbox)]
        answering = Answering(self._runtime, dispatch, self.provider.id, listeners, self._recent)
        loop = asyncio.get_running_loop()
        work = asyncio.current_task()
        assert work is not None
        running = Running(dispatch=dispatch, answering=answering, work=work, stopped=loop.create_future())
        answering.on_abandoned = lambda: running.cut_short("abandoned")
        attempting = Attempting(self._runtime, self.provider, self._adapter, running, body)
        if self._runtime.overslept(dispatch.decided_at) and await attempting.has_ended():
            answering.close()
            await self.bus.publish(delivery.reply, encode(Outcome(status="ended")))
            return None
        self._runtime.open.add(dispatch.attempt_id)
        tracing = self._runtime.tracing
        if tracing is not None:
            running.span, _ = tracing.begin(dispatch.traceparent)
        with self._attempts.holding(running):
            try:
                outcome = await self._attempt(attempting, running)
            finally:
                answering.close()
                running.stop()
        _report(dispatch, self.provider.id, outcome, running)
        if tracing is not None and running.span is not None:
            attempting.trace(tracing, running.span)
        if outcome.status == "ended":
            outcome = structs.replace(outcome, served=answering.served)
            self._runtime.answered([dispatch.attempt_id])
        await self.bus.publish(delivery.reply, encode(outcome))
        return None

    async def _attempt(self, attempting: Attempting, running: Running) -> Outcome:
        """Call upstream when its turn has come and nothing stands in the way."""
        dispatch = running.dispatch
        try:
            kept_out = await self._adapter.ready(dispatch.deadline - self._runtime.clock()) or self._pauses.problem()
            kept_out = kept_out or await self._admission.enter(dispatch)
        except asyncio.CancelledError:  # an abort, a caller that went away, or the end of the process
            return await attempting.cut()
        if kept_out is not None:
            return await attempting.fail(kept_out)
        try:
            kept_out = self._pauses.problem() or await self._breaker.admit(dispatch)
            return await (self._call(attempting, running) if kept_out is None else attempting.fail(kept_out))
        finally:
            self._admission.left()

    async def _call(self, attempting: Attempting, running: Running) -> Outcome:
        """Call upstream, and let others know how that went."""
        dispatch = running.dispatch
        LISTENER.set(self._pauses.noticed)
        if self._runtime.tracing is not None:
            self._runtime.tracing.take_along(running.span, self.provider)
        allowed = min(self.provider.timeout_s, dispatch.deadline - self._runtime.clock()) + OVERTIME_S
        late = Failure(kind=FailureClass.TIMEOUT, message="the call went on for longer than it may")
        timer = asyncio.get_running_loop().call_later(max(0.0, allowed), running.gave_up, late)
        try:
            with self._runtime.meter.call(
                self.provider.id, dispatch.model, dispatch.version, dispatch.operation, stream=dispatch.stream
            ) as call:
                outcome = await attempting.run()
                call.ended(attempting.failure, attempting.ending)
        finally:
            timer.cancel()
        self._pauses.ended(outcome)
        self._breaker.ended(dispatch.attempt_id, attempting.failure)
        return outcome


def _report(dispatch: Dispatch, provider: str, outcome: Outcome, running: Running) -> None:
    """A line for whoever reads logs; what failed is worth one by default."""
    if outcome.status == "ended" and not log.is_enabled_for(logging.DEBUG):
        return
    write = log.debug if outcome.status == "ended" else log.warning
    write(
        "attempt.ended" if outcome.status == "ended" else "attempt.failed",
        request=dispatch.request_id,
        attempt=dispatch.attempt_id,
        thread=dispatch.thread,
        model=dispatch.model,
        provider=provider,
        trace=trace_id(dispatch.traceparent),
        code=outcome.failure,
        seconds=running.milliseconds() / 1000,
    )
