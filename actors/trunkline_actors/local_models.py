"""The models that a provider instance has on its own machine: listed, pulled and deleted over the bus."""

from collections.abc import Callable

import msgspec
from trunkline_events.envelope import Event
from trunkline_events.refusal import Refused
from trunkline_events.registry import ModelDeleted, Provider
from trunkline_projections.models import Registry

from trunkline_actors import pulls, registry
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Reply, endpoint
from trunkline_actors.dependents import Dependents
from trunkline_actors.mailbox import Spawn
from trunkline_actors.managing import Managing
from trunkline_actors.micro import Endpoint
from trunkline_actors.plugged import Plugged
from trunkline_actors.puller import Puller
from trunkline_actors.pulls import Named
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Decided


class _Nothing(msgspec.Struct, frozen=True):
    """The arguments of `list`."""


class LocalModels:
    """The endpoints `models.*` of one provider instance. `plugged` gives the adapter that calls use now."""

    def __init__(self, runtime: Runtime, provider: Provider, plugged: Callable[[], Plugged], spawn: Spawn) -> None:
        self._runtime = runtime
        self._bus = runtime.bus
        self._provider = provider
        self._managing = Managing(runtime, provider, plugged)
        self._puller = Puller(self._managing, spawn)
        self._dependents = Dependents(runtime)
        self.start = self._puller.start
        self.leave = self._puller.leave

    def endpoints(self) -> list[Endpoint]:
        subject, puller = self._managing.subject, self._puller
        return [
            endpoint(self._bus, "models-list", subject("list"), _Nothing, self._list),
            endpoint(self._bus, "models-delete", subject("delete"), Named, self._delete),
            Endpoint(name="models-pull", subject=subject("pull"), handler=puller.pull, need="admin"),
            Endpoint(
                name="models-abort-pull", subject=subject("abort-pull"), handler=puller.abort, queue="", need="admin"
            ),
            Endpoint(name="models-join-pull", subject=subject("join-pull"), handler=puller.join, queue=""),
        ]

    async def _list(self, given: _Nothing, delivery: Delivery) -> Reply:
        manager = await self._managing.manager()
        if isinstance(manager, Refused):
            return manager
        found = await self._managing.upstream(manager.local_models())
        if isinstance(found, Refused):
            return found
        state = await self._managing.current()
        mine = [one for one in state.models.values() if one.provider == self._provider.id]
        rows = [
            {
                **msgspec.structs.asdict(local),
                "registered": sorted(one.id for one in mine if manager.same_model(one.upstream, local.model)),
            }
            for local in found
        ]
        running = [
            {"id": one.id, "model": one.upstream, "began": one.began, "attempt": one.attempt}
            for one in state.pulls.values()
            if one.provider == self._provider.id
        ]
        return {"seq": self._runtime.gateway.position, "provider": self._provider.id, "models": rows, "pulls": running}

    async def _delete(self, given: Named, delivery: Delivery) -> Reply:
        """Delete a model's files, and what is registered with them first: a model without files serves nobody."""
        manager = await self._managing.manager()
        if isinstance(manager, Refused):
            return manager
        found = await self._managing.upstream(manager.local_models())
        if isinstance(found, Refused):
            return found
        if not any(manager.same_model(one.model, given.model) for one in found):
            message = f"{self._provider.id} has no model {given.model!r}; list what it has"
            return Refused(code="model_not_found", message=message, param="model")
        users = pulls.served_by(await self._managing.current(), self._provider.id, given.model, manager.same_model)
        if isinstance(users, Refused):
            return users
        for user in users:
            problem = None if given.force else await self._dependents.problem(user.id, "remove")
            if problem is not None:
                return problem
        names = [user.id for user in users]
        for name in names:
            removed = await self._remove(name, given, delivery)
            if isinstance(removed, Refused):
                return removed
        gone = await self._managing.upstream(manager.delete(given.model))
        if isinstance(gone, Refused):
            return gone
        name = names[0] if names else given.model
        event = ModelDeleted(id=name, provider=self._provider.id, upstream=given.model, reason=given.reason)
        decided = await self._managing.decide(name, f"delete/{delivery.reply}", lambda _state, _now: event)
        assert isinstance(decided, Decided)
        return {"seq": decided.sequence, "model": given.model, "removed": names}

    async def _remove(self, name: str, given: Named, delivery: Delivery) -> Decided | Refused | None:
        return await self._managing.decide(
            name, f"delete/{delivery.reply}/{name}", lambda state, _now: _removal(state, name, given)
        )


def _removal(state: Registry, model: str, given: Named) -> Event | Refused | None:
    if model not in state.models:
        return None
    return registry.remove_model(state, model, given.reason or f"the files of {given.model} are deleted")
