"""The actor for the routing policy: publishes its versions, shows and compares them, and forces a model instead."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec
from trunkline_events import headers, subjects
from trunkline_events.envelope import Event, Unknown
from trunkline_events.log import Scope
from trunkline_events.policy import ROUTING, OverrideCleared, OverrideSet, Policy, PolicyPublished, PolicyRolledBack
from trunkline_events.refusal import Refused
from trunkline_events.times import format_time
from trunkline_projections.policies import History, Version

from trunkline_actors import policies
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Reply, endpoint
from trunkline_actors.micro import Endpoint
from trunkline_actors.policies import Standing
from trunkline_actors.policy_commands import Compare, Get, Listing, Publish, RollBack, SetOverride, Validate
from trunkline_actors.policy_diff import diff
from trunkline_actors.readers import ChangeActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.shapes import Problem
from trunkline_actors.shell import Command

_SCOPE = Scope(("policy",), ROUTING)

Decide = Callable[[Standing, float], Event | Refused | None]


class _Desk:
    """The policy and the registry as they stand, and the sequence of the policy's last event."""

    def __init__(self, runtime: Runtime, analyzers: frozenset[str]) -> None:
        self._runtime = runtime
        self._analyzers = analyzers
        self._deciding = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._history = History()

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._deciding

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Standing, int | None, bool]:
        await self._runtime.gateway.catch_up()
        history = await self.history()
        return self.standing(history), history.sequence, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember: what is new is read from the log."""

    async def history(self) -> History:
        """Everything up to the end of the log as it is now."""
        async with self._reading:
            async with aclosing(self._runtime.log.read(self._history.sequence, scope=_SCOPE)) as events:
                async for event in events:
                    self._history.happened(event)
            return self._history

    def standing(self, history: History) -> Standing:
        """What decisions are made from."""
        registry = self._runtime.gateway.state.registry
        return Standing(routing=history.routing, registry=registry, analyzers=self._analyzers)


class PolicyActor(ChangeActor):
    """Publishes, shows, compares and rolls back policies; sets and clears the override.

    `analyzers` are the names of those that a policy may ask for.
    """

    def __init__(self, runtime: Runtime, analyzers: frozenset[str]) -> None:
        super().__init__(runtime, "trunkline-policy")
        self._desk = _Desk(runtime, analyzers)

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "publish", f"{subjects.POLICY}.publish", Publish, self._publish),
            endpoint(self.bus, "validate", f"{subjects.POLICY}.validate", Validate, self._validate),
            endpoint(self.bus, "get", f"{subjects.POLICY}.get", Get, self._get),
            endpoint(self.bus, "history", f"{subjects.POLICY}.history", Listing, self._list),
            endpoint(self.bus, "diff", f"{subjects.POLICY}.diff", Compare, self._diff),
            endpoint(self.bus, "rollback", f"{subjects.POLICY}.rollback", RollBack, self._roll_back),
            endpoint(self.bus, "override", f"{subjects.POLICY}.override", SetOverride, self._override),
        ]

    # -- changes ---------------------------------------------------------------------------------------------------

    async def _publish(self, given: Publish, delivery: Delivery) -> Reply:
        return await self._change(
            delivery, lambda standing, _now: policies.publish(standing, given.policy, given.base, given.reason)
        )

    async def _roll_back(self, given: RollBack, delivery: Delivery) -> Reply:
        earlier = await self._version(await self._desk.history(), given.to, "to")
        if isinstance(earlier, Refused):
            return earlier
        return await self._change(
            delivery,
            lambda standing, _now: policies.roll_back(standing, given.to, earlier[0], given.reason, force=given.force),
        )

    async def _override(self, given: SetOverride, delivery: Delivery) -> Reply:
        def decide(standing: Standing, now: float) -> OverrideSet | OverrideCleared | Refused | None:
            if given.model is None:
                return policies.release(standing, given.reason, now)
            until = policies.end_of(given.for_s, given.until, now)
            if isinstance(until, Refused):
                return until
            return policies.force(standing, given.model, until, given.reason, now)

        return await self._change(delivery, decide)

    async def _change(self, delivery: Delivery, decide: Decide) -> Reply:
        """Decide and append, and answer when every process that decides by the policy has read it.

        What was done under the id of this request already is answered as it was then.
        """
        runtime, desk = self._runtime, self._desk
        request_id = delivery.header(headers.REQUEST) or runtime.new_id()
        key = runtime.door.who(delivery.header(headers.KEY))
        event_id = f"{delivery.subject}/{headers.encode_value(request_id)}"
        history = await desk.history()
        if problem := _too_old(history):
            return problem
        command: Command[Standing] = Command(
            category="policy",
            aggregate=ROUTING,
            id=event_id,
            # The very same history that was read to decide: an id that is in it was carried out.
            decide=lambda standing, now: None if event_id in history.done else decide(standing, now),
            actor=f"key:{key}" if key else runtime.name,
            cause=request_id,
            traceparent=delivery.traceparent,
        )
        decided = await runtime.shell.execute(desk, command)
        if isinstance(decided, Refused):
            return decided
        if decided is not None:
            await self.read_by_all(decided.sequence)
            return await self._told(decided.event, decided.sequence)
        if event_id in history.done:
            recorded = await runtime.log.get(history.done[event_id])
            assert recorded is not None
            return await self._told(recorded.body, recorded.sequence)
        return {
            "seq": history.sequence,
            "version": history.routing.version,
            "override": policies.shown_override(history.routing, runtime.clock()),
            "changed": False,
        }

    async def _told(self, event: Event | Unknown, sequence: int) -> Reply:
        """What this event changed."""
        match event:
            case PolicyPublished() | PolicyRolledBack():
                warnings = await self._warnings(event.policy)
                more = {"to": event.to} if isinstance(event, PolicyRolledBack) else {}
                told = {"version": event.version, **more, "rules": len(event.policy.rules), "warnings": warnings}
            case OverrideSet():
                until = None if event.until is None else format_time(event.until)
                told = {"override": {"model": event.model, "until": until, "reason": event.reason}}
            case _:
                told = {"override": None}
        return {"seq": sequence, "changed": True, **told}

    # -- questions -------------------------------------------------------------------------------------------------

    async def _validate(self, given: Validate, delivery: Delivery) -> Reply:
        standing = await self._standing()
        # A thousand rules over a thousand models take a while: not in the way of what else this process does.
        policy, found = await asyncio.to_thread(policies.check, given.policy, standing.registry, standing.analyzers)
        return {
            "valid": not found,
            "problems": found[: policies.MOST_TOLD],
            "count": len(found),
            "warnings": await self._warnings(policy),
        }

    async def _get(self, given: Get, delivery: Delivery) -> Reply:
        history = await self._desk.history()
        if given.version is None and (problem := _too_old(history)):
            return problem
        number = history.routing.version if given.version is None else given.version
        found = await self._version(history, number, "version")
        if isinstance(found, Refused):
            return found
        policy, version = found
        return {
            "version": number,
            "policy": policy,
            "override": policies.shown_override(history.routing, self._runtime.clock()),
            "current": history.routing.version,
            "published_at": None if version is None else format_time(version.time),
            "by": None if version is None else version.by,
            "reason": None if version is None else version.reason,
            "seq": history.sequence,
        }

    async def _list(self, given: Listing, delivery: Delivery) -> Reply:
        if not 1 <= given.limit <= 1000:
            return Refused(code="invalid_request", message="limit must be from 1 to 1,000", param="limit")
        history = await self._desk.history()
        older = sorted((one for one in history.versions if given.after is None or one < given.after), reverse=True)
        chosen = older[: given.limit]
        return {
            "seq": history.sequence,
            "current": history.routing.version,
            "versions": [_shown(history.versions[number]) for number in chosen],
            "after": chosen[-1] if len(older) > len(chosen) else None,
        }

    async def _diff(self, given: Compare, delivery: Delivery) -> Reply:
        history = await self._desk.history()
        current = history.routing.version
        if given.policy is not msgspec.UNSET:
            if given.to is not None:
                message = "give either `to` or `policy`, not both"
                return Refused(code="invalid_request", message=message, param="to")
            after, found = policies.read(given.policy)
            if found:
                return policies.refused(found)
            to, base = None, current if given.before is None else given.before
        else:
            to = current if given.to is None else given.to
            base = max(to - 1, 0) if given.before is None else given.before
            latter = await self._version(history, to, "to")
            if isinstance(latter, Refused):
                return latter
            after = latter[0]
        former = await self._version(history, base, "from")
        if isinstance(former, Refused):
            return former
        difference = diff(former[0], after)
        return {"from": base, "to": to, "same": difference.empty, "diff": difference, "seq": history.sequence}

    async def _standing(self) -> Standing:
        await self._runtime.gateway.catch_up()
        return self._desk.standing(await self._desk.history())

    async def _warnings(self, policy: Policy) -> list[Problem]:
        found = await asyncio.to_thread(policies.warnings, policy, (await self._standing()).registry)
        return found[: policies.MOST_TOLD]

    async def _version(self, history: History, number: int, param: str) -> tuple[Policy, Version | None] | Refused:
        """A version by its number; 0 is the policy without rules that is in force before the first."""
        if number == 0:
            return Policy(), None
        version = history.versions.get(number)
        if version is None:
            message = f"there is no version {number} of the policy; `trunkline policy history` shows what there is"
            return Refused(code="not_found", message=message, param=param)
        recorded = await self._runtime.log.get(version.sequence)
        assert recorded is not None
        assert isinstance(recorded.body, PolicyPublished | PolicyRolledBack)
        return recorded.body.policy, version


def _too_old(history: History) -> Refused | None:
    """Why this process can't tell what is in force."""
    if history.unreadable is None:
        return None
    return Refused(
        code="unavailable",
        message=f"event {history.unreadable} about the policy is of a newer version than this process, which "
        "can't tell what is in force; upgrade it, or ask a newer one",
    )


def _shown(version: Version) -> dict[str, Any]:
    """One version as `history` shows it."""
    return {
        "version": version.version,
        "published_at": format_time(version.time),
        "kind": version.kind,
        "to": version.to,
        "rules": version.rules,
        "by": version.by,
        "reason": version.reason,
        "seq": version.sequence,
    }
