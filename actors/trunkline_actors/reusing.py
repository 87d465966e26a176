"""Answers the requests of a router from the cache: looks there first, where that is wanted, and records each hit."""

from trunkline_events import headers
from trunkline_events.money import usd_from_nanos
from trunkline_events.policy import Policy
from trunkline_events.refusal import Refused
from trunkline_events.thread import AnswerReused, Books

from trunkline_actors import money
from trunkline_actors.answer_cache import Kept, Same, caches, fits, name_of, seconds_of
from trunkline_actors.claims import Claim
from trunkline_actors.idempotency import Idempotency
from trunkline_actors.inflight import Run
from trunkline_actors.moment import Request
from trunkline_actors.plan import Given, rule_for
from trunkline_actors.preparing import Prepared, Preparing
from trunkline_actors.replaying import replay
from trunkline_actors.routing import RECONFIGURED, Reconfigured
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided

MAX_RECONFIGURED = 4
"""Times a thread may be configured anew while an answer for it is being recorded."""


class Reusing:
    """Looks for answers of one router's requests."""

    def __init__(self, runtime: Runtime, idempotency: Idempotency) -> None:
        self._runtime = runtime
        self._idempotency = idempotency
        self._preparing = Preparing(runtime)
        self._policy: Policy | None = None
        self._policy_caches = False

    async def reuse(self, run: Run, request: Request, body: bytes) -> bool:
        """Whether the request has its answer now; if not, `run` says how old one may be, so that its own can be kept.

        Raises LogUnavailable, LogRefused: a hit is told only once the log has it.
        """
        if not self._may_be_wanted(request):
            return False
        config_seq: int | None = None
        for _ in range(MAX_RECONFIGURED):
            prepared = await self._preparing.of(request, body, config_seq)
            if isinstance(prepared, Refused):  # which the decision will find again
                return False
            kept = await self._find(run, prepared)
            if kept is None:
                return False
            reused = await self._record(run, prepared.request, kept)
            if isinstance(reused, Decided):
                await self._tell(run, kept, reused.sequence)
                return True
            if not isinstance(reused, Reconfigured):
                return False
            config_seq = reused.sequence
        return False

    def _may_be_wanted(self, request: Request) -> bool:
        """Whether anybody has said a word about it, without looking what: most requests are done with here."""
        if request.parsed.route.cache_s is not None:
            return True
        key = self._runtime.door.of_id(request.key) if request.key else None
        if key is not None and key.cache_s is not None:
            return True
        policy = self._runtime.gateway.state.routing.policy
        if policy is not self._policy:
            self._policy, self._policy_caches = policy, caches(policy)
        return self._policy_caches or self._runtime.ledger.config_seq(request.thread) > 0

    async def _find(self, run: Run, prepared: Prepared) -> Kept | None:
        runtime, request = self._runtime, prepared.request
        state, now = runtime.gateway.state, runtime.clock()
        given = Given(
            parsed=request.parsed,
            thread=request.thread,
            key=request.key,
            default_model=request.configuration.model,
            preferences=request.configuration.preferences,
            forced=runtime.forced,
            now=now,
        )
        key = runtime.door.of_id(request.key) if request.key else None
        run.cache_s = seconds_of(given, state, key)
        if not run.cache_s:
            return None
        same = Same(
            key=request.key,
            policy_version=state.routing.version,
            rule=rule.name if (rule := rule_for(state.routing.policy, given)) is not None else None,
            override=runtime.forced or state.routing.forced(now),
            default_model=request.configuration.model,
            preferences=request.configuration.preferences,
            operation=request.parsed.asked.operation,
        )
        kept = await runtime.answers.find(name_of(same, prepared.body))
        if kept is not None and not fits(kept, given, state, run.cache_s, now):
            kept = None
        runtime.totals.looked_up(found=kept is not None)
        return kept

    async def _record(self, run: Run, request: Request, kept: Kept) -> Decided | Refused:
        def decide(books: Books, now: float) -> AnswerReused | Refused:
            if books.config_seq != request.configuration.sequence:
                return Reconfigured(code="unavailable", message=RECONFIGURED, sequence=books.config_seq)
            return AnswerReused(
                request_id=run.request_id,
                key=run.key,
                asked=request.parsed.asked,
                model=kept.model,
                provider=kept.provider,
                version=kept.version,
                origin=kept.origin,
                age_s=round(max(0.0, now - kept.at), 3),
                saved_nanos=kept.cost_nanos,
                **money.fields(money.turn(books, now)),
            )

        command: Command[Books] = Command(
            category="thread",
            aggregate=run.thread,
            id=f"{request.attempt_id}/reused",
            decide=decide,
            actor=self._runtime.name,
            cause=run.request_id,
            traceparent=run.traceparent,
        )
        decided = await self._runtime.shell.execute(self._runtime.ledger, command)
        assert decided is not None, "there is always something to record"
        return decided

    async def _tell(self, run: Run, kept: Kept, sequence: int) -> None:
        runtime = self._runtime
        fields = {
            **({headers.LIMITS: run.limits} if run.limits else {}),
            headers.REQUEST: headers.encode_value(run.request_id),
            headers.MODEL: headers.encode_value(kept.model),
            headers.PROVIDER: headers.encode_value(kept.provider),
            headers.ATTEMPTS: "0",
            headers.CACHE: "hit",
            headers.COST: usd_from_nanos(0),
            headers.EVENT: str(sequence),
            **kept.fields,
        }
        run.ended = run.reused = True
        served = list(run.listeners)
        for inbox in served:
            await replay(runtime.bus, inbox, kept.messages, fields)
        if run.scope is not None and not run.unclaimed:
            claim = Claim(
                state="answered",
                since=runtime.clock(),
                attempts=run.base,
                fingerprint=run.fingerprint,
                headers=fields,
                messages=kept.messages,
            )
            await runtime.claims.keep(run.scope, claim)
        await self._idempotency.catch_up(run, served)
