"""The actor for circuit breakers: says how they stand and how that came, and closes one by hand."""

from collections import deque
from contextlib import aclosing
from typing import Any

import msgspec
from trunkline_events import headers, subjects
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Scope
from trunkline_events.refusal import Refused
from trunkline_events.times import format_time
from trunkline_projections.circuits import CLOSED, Circuit, State

from trunkline_actors import circuit, staleness
from trunkline_actors.breaker import CircuitSource
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Page, Reply, endpoint
from trunkline_actors.micro import Endpoint
from trunkline_actors.readers import ChangeActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command


class OfProvider(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of what concerns the circuit of one provider instance."""

    provider: str
    reason: str | None = None


class OfAll(Page, frozen=True, kw_only=True):
    """The arguments of `circuits.list`: a page, of those in one state where it is given."""

    state: State | None = None


class OfHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `circuits.history`: the last `limit` events of a circuit."""

    provider: str
    limit: int = 100


class _Known(CircuitSource):
    """Circuits as the log has them: what is changed by hand is decided from nothing older."""

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Circuit, int | None, bool]:
        return await super().load(aggregate, fresh=True)


class CircuitsActor(ChangeActor):
    """Shows the circuits of provider instances, and resets them."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "trunkline-circuits")
        self._circuits = _Known(runtime)

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "get", f"{subjects.CIRCUITS}.get", OfProvider, self._get),
            endpoint(self.bus, "list", f"{subjects.CIRCUITS}.list", OfAll, self._list),
            endpoint(self.bus, "reset", f"{subjects.CIRCUITS}.reset", OfProvider, self._reset),
            endpoint(self.bus, "history", f"{subjects.CIRCUITS}.history", OfHistory, self._history),
        ]

    async def _get(self, given: OfProvider, delivery: Delivery) -> Reply:
        await staleness.current(self._runtime)
        return self._unknown(given.provider) or self._shown(given.provider)

    async def _list(self, given: OfAll, delivery: Delivery) -> Reply:
        if problem := given.problem():
            return problem
        gateway = self._runtime.gateway
        await staleness.current(self._runtime)
        known = ((name, gateway.state.circuits.get(name, CLOSED)) for name in gateway.state.registry.providers)
        behind = sorted(
            name for name, one in known if name > given.after and (given.state is None or one.state == given.state)
        )
        chosen = behind[: given.limit]
        after = chosen[-1] if len(behind) > len(chosen) else None
        return {"seq": gateway.position, "circuits": [self._shown(name) for name in chosen], "after": after}

    async def _reset(self, given: OfProvider, delivery: Delivery) -> Reply:
        runtime = self._runtime
        await runtime.gateway.catch_up()
        if problem := self._unknown(given.provider):
            return problem
        request_id = delivery.header(headers.REQUEST) or runtime.new_id()
        command: Command[Circuit] = Command(
            category="circuit",
            aggregate=given.provider,
            id=f"{delivery.subject}/{subjects.encode_id(given.provider)}/{headers.encode_value(request_id)}",
            decide=lambda state, _now: circuit.reset(state, given.provider, given.reason),
            actor=runtime.name,
            cause=request_id,
            traceparent=delivery.traceparent,
        )
        decided = await runtime.shell.execute(self._circuits, command)
        if isinstance(decided, Refused):
            return decided
        if decided is not None:
            await self.read_by_all(decided.sequence)
        return {**self._shown(given.provider), "changed": decided is not None}

    async def _history(self, given: OfHistory, delivery: Delivery) -> Reply:
        if not 1 <= given.limit <= 1000:
            return Refused(code="invalid_request", message="limit must be from 1 to 1,000", param="limit")
        if problem := subjects.id_problem(given.provider):
            return Refused(code="invalid_request", message=problem, param="provider")
        last: deque[RecordedEvent] = deque(maxlen=given.limit)
        async with aclosing(self._runtime.log.read(scope=Scope(("circuit",), given.provider))) as events:
            async for event in events:
                last.append(event)
        if not last:  # one that was removed has a history still
            await self._runtime.gateway.catch_up()
            if unknown := self._unknown(given.provider):
                return unknown
        return {"provider": given.provider, "events": [_told(event) for event in last]}

    def _unknown(self, provider: str) -> Refused | None:
        if provider in self._runtime.gateway.state.registry.providers:
            return None
        message = f"no provider is registered as {provider!r}; `trunkline providers list` shows what there is"
        return Refused(code="not_found", message=message, param="provider")

    def _shown(self, provider: str) -> dict[str, Any]:
        """A circuit as commands show it. Times are Unix time; `seq` is its last event's."""
        one = self._runtime.gateway.state.circuits.get(provider, CLOSED)
        return {
            "provider": provider,
            "state": one.state,
            "failures": one.failures,
            "opened_at": one.opened_at,
            "retry_at": one.retry_at,
            "probe": one.probe,
            "probe_until": one.probe_until,
            "seq": one.sequence,
        }


def _told(event: RecordedEvent) -> dict[str, Any]:
    """An event of a circuit as its history shows it."""
    body = {name: value for name, value in msgspec.to_builtins(event.body).items() if name not in {"type", "provider"}}
    return {
        "seq": event.sequence,
        "time": format_time(event.time),
        "type": event.type,
        "actor": event.actor,
        **body,
    }
