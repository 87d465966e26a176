"""One attempt upstream, streamed or plain: called, answered, and recorded in exactly one way, whatever happens."""

import asyncio
import functools
import time
from typing import cast

from trunkline_events import subjects
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.registry import Provider
from trunkline_events.thread import Ending, ThreadEvent
from trunkline_events.usage import Usage
from trunkline_projections.threads import books_of

from trunkline_actors import endings
from trunkline_actors.adapters import Adapter, Call, Chunk
from trunkline_actors.answers import ChunkTooLarge
from trunkline_actors.dispatch import Outcome
from trunkline_actors.endings import Metering
from trunkline_actors.ledger import end, has_ended
from trunkline_actors.running import Running
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Decided
from trunkline_actors.spans import Context, attempted
from trunkline_actors.stalls import Patience
from trunkline_actors.tracing import Tracing


class Attempting:
    """Runs one attempt. Once it has run, `failure` says how the upstream did and `ending` what was recorded."""

    def __init__(self, runtime: Runtime, provider: Provider, adapter: Adapter, running: Running, body: bytes) -> None:
        self._runtime = runtime
        self._provider = provider
        self._adapter = adapter
        self._running = running
        self._dispatch = running.dispatch
        self._body = body
        self.failure: FailureClass | None = None
        self.ending: Ending | None = None
        self._kept_out: FailureClass | None = None
        self._recorded = 0.0
        self._allowed_s = provider.timeout_s
        self._called = False

    async def run(self) -> Outcome:
        """Call upstream and record how it ended."""
        self._called = True
        try:
            return await (self._stream() if self._dispatch.stream else self._plain())
        except UpstreamError as error:
            return await self._upstream_failed(error.failure)
        except ChunkTooLarge:
            return await self._too_large()
        except asyncio.CancelledError:
            return await self.cut()

    async def cut(self) -> Outcome:
        """Record what its task was cancelled for: nothing was used, where it comes before `run`."""
        running = self._running
        while running.work.cancelling():
            running.work.uncancel()
        if running.late is not None:
            return await self._upstream_failed(running.late)
        if running.cut is None:
            # The process is being cut while it drains: whatever was generated is settled all the same.
            running.cut = "stopping"
        running.stop()
        self.failure = FailureClass.ABORTED
        return await self._aborted()

    def trace(self, tracing: Tracing, span: Context) -> None:
        """Have its spans made, once it has run."""
        running = self._running
        end = self._recorded or time.time()
        over = end if running.over is None else span.start + running.over - running.started
        failure = self.failure or self._kept_out
        tracing.record(attempted(span, min(over, end), end, self._provider, self._dispatch, failure, self.ending))

    async def fail(self, failure: Failure) -> Outcome:
        """Record that the attempt failed before upstream was called, at no cost: another candidate may serve."""
        self._kept_out = failure.kind
        return await self._failed(failure, called=False)

    async def _failed(self, failure: Failure, *, called: bool) -> Outcome:
        decided = await self._end(endings.failed(self._attempt, failure, self._running.milliseconds()))
        if decided is None:
            return self._ended(None)
        return Outcome(
            status="failed",
            failure=failure.kind,
            message=failure.message,
            retry_after=failure.retry_after,
            called=called,
            sent=self._running.answering.sent,
            books=books_of(cast("ThreadEvent", decided.event), decided.sequence),
            books_seq=decided.sequence,
        )

    async def _upstream_failed(self, failure: Failure) -> Outcome:
        self._running.stop()
        self.failure = FailureClass.ABORTED if self._was_hasty(failure) else failure.kind
        return await (self._failed(failure, called=True) if self._running.first is None else self._broken(failure))

    def _was_hasty(self, failure: Failure) -> bool:
        """Whether the caller left the upstream much less time than it may take: that it took longer says nothing."""
        by_deadline = failure.kind is FailureClass.TIMEOUT and self._running.late is None
        return by_deadline and self._allowed_s < self._provider.timeout_s / 2

    async def _plain(self) -> Outcome:
        dispatch, running = self._dispatch, self._running
        serve = self._adapter.embed if dispatch.operation == "embeddings" else self._adapter.complete
        answer = await serve(self._call())
        running.stop()
        latency = running.milliseconds(time.monotonic())
        metering = Metering(
            rate=dispatch.rate,
            usage=answer.usage,
            charged_nanos=answer.charged_nanos,
            bound=Usage(input_tokens=dispatch.input_bound, output_tokens=len(answer.body)),
            latency_ms=latency,
            ttft_ms=latency,
            finish=answer.finish,
        )
        decided = await self._record(metering)
        if decided is not None:
            await running.answering.whole(answer.body, decided)
        return self._ended(decided)

    async def _stream(self) -> Outcome:
        running = self._running
        usage, finish, charged = None, "stop", None
        with Patience(running, self._provider):
            async for item in self._adapter.stream(self._call()):
                if isinstance(item, Chunk):
                    if running.first is None:
                        running.first = time.monotonic()
                    running.text_bytes += item.text_bytes
                    await running.answering.chunk(item.data)
                    if running.cut or running.late:  # nats-py may have swallowed the cancellation
                        raise asyncio.CancelledError
                else:
                    usage, finish, charged = item.usage, item.finish, item.charged_nanos
        running.stop()
        decided = await self._record(self._metering(usage, finish, charged_nanos=charged))
        if decided is not None:
            await running.answering.end(decided)
        return self._ended(decided)

    async def _broken(self, failure: Failure) -> Outcome:
        """The stream broke after its first chunk: what came is settled, and the caller is told."""
        decided = await self._record(self._metering(None, "error", partial=True))
        if decided is not None:
            await self._running.answering.broken(failure, decided)
        return self._ended(decided)

    async def _too_large(self) -> Outcome:
        """A chunk came that the bus does not carry, which is no fault of the upstream: what came is settled."""
        self._running.stop()
        decided = await self._record(self._metering(None, "error", partial=True))
        if decided is not None:
            await self._running.answering.too_large(decided)
        return self._ended(decided)

    async def _aborted(self) -> Outcome:
        running = self._running
        metering = self._metering(None, running.cut or "aborted", partial=True, aborted=True)
        decided = await self._record(metering)
        if decided is not None:
            await running.answering.aborted(decided)
        return self._ended(decided)

    # -- the books -------------------------------------------------------------------------------------------------

    def _metering(
        self,
        usage: Usage | None,
        finish: str,
        *,
        charged_nanos: int | None = None,
        partial: bool = False,
        aborted: bool = False,
    ) -> Metering:
        running = self._running
        sent = running.first is not None
        # Text has no more tokens than bytes, and no provider bills for what it has not begun to send.
        bound = Usage(input_tokens=self._dispatch.input_bound, output_tokens=running.text_bytes)
        return Metering(
            rate=self._dispatch.rate,
            usage=usage,
            charged_nanos=charged_nanos,
            bound=bound if self._called else Usage(),
            latency_ms=running.milliseconds(),
            ttft_ms=running.milliseconds(running.first) if sent else None,
            finish=finish,
            partial=partial,
            aborted=aborted,
        )

    async def _record(self, metering: Metering) -> Decided | None:
        return await self._end(endings.metered(self._attempt, metering))

    async def _end(self, ending: endings.Ending) -> Decided | None:
        """Append the ending; None where a keeper ended the attempt, having taken us for dead."""
        runtime, dispatch = self._runtime, self._dispatch
        # No expectation guards what belongs to no thread, and the duplicate window may be past.
        unguarded = dispatch.thread == subjects.NO_THREAD and runtime.stopped_since(self._running.started)
        if unguarded and await self.has_ended():
            return None
        runtime.ledger.adopt(dispatch.thread, dispatch.books, dispatch.books_seq)
        decided = await end(runtime.shell, runtime.ledger, self._attempt, ending, actor=runtime.name)
        self._recorded = time.time()
        if decided is not None:
            self.ending = cast("Ending", decided.event)
        return decided

    async def has_ended(self) -> bool:
        """Whether somebody else has ended this attempt, having taken us for dead."""
        runtime, dispatch = self._runtime, self._dispatch
        return await has_ended(runtime.log, runtime.ledger, dispatch.thread, dispatch.attempt_id, dispatch.books_seq)

    def _ended(self, decided: Decided | None) -> Outcome:
        """What the router is told; books only where there are any to remember."""
        if decided is None:
            return Outcome(status="ended")
        cost = endings.cost_of(cast("Ending", decided.event))
        if self._dispatch.thread == subjects.NO_THREAD:
            return Outcome(status="ended", cost_nanos=cost)
        books = books_of(cast("ThreadEvent", decided.event), decided.sequence)
        return Outcome(status="ended", cost_nanos=cost, books=books, books_seq=decided.sequence)

    @functools.cached_property
    def _attempt(self) -> endings.Attempt:
        dispatch = self._dispatch
        return endings.Attempt(
            aggregate=dispatch.thread,
            request_id=dispatch.request_id,
            attempt_id=dispatch.attempt_id,
            attempt=dispatch.attempt,
            model=dispatch.model,
            provider=self._provider.id,
            reserve_nanos=dispatch.reserve_nanos,
            books=dispatch.books,
            key=dispatch.key,
            slices=dispatch.slices,
            traceparent=dispatch.traceparent,
        )

    def _call(self) -> Call:
        dispatch = self._dispatch
        left = dispatch.deadline - self._runtime.clock()
        self._allowed_s = max(0.0, min(self._provider.timeout_s, left))
        return Call(
            body=self._body,
            model=dispatch.upstream,
            max_tokens=dispatch.max_tokens,
            include_usage=dispatch.include_usage,
            timeout=self._allowed_s,
        )
