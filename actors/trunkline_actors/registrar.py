"""The registry's actor: answers the commands about models and providers, and appends what they decide."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import nats.errors
from trunkline_events import headers, subjects
from trunkline_events.envelope import Event
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model, Provider
from trunkline_projections.models import Registry

from trunkline_actors import cataloguing, discovering, lifecycle, plugins, registry, staleness
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import ById, Page, Reply, arguments, endpoint
from trunkline_actors.dependents import Dependents
from trunkline_actors.draining import LONGEST, drained
from trunkline_actors.known_models import Catalogue
from trunkline_actors.micro import Endpoint
from trunkline_actors.readers import ChangeActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided

A = TypeVar("A", bound=msgspec.Struct)

Decide = Callable[[Registry], registry.Decision | None]

SERVING_WAIT = 2.0
"""Seconds to wait for a process to serve a provider that was just registered."""


class _Source:
    """The registry as it stands, and the sequence of one entry's last event."""

    def __init__(self, runtime: Runtime, category: str, lock: asyncio.Lock) -> None:
        self._runtime = runtime
        self._category = category
        self._lock = lock

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._lock

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Registry, int | None, bool]:
        last = await self._runtime.log.last(self._category, aggregate)
        await self._runtime.gateway.catch_up()
        return self._runtime.gateway.state.registry, last.sequence if last else 0, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember: the view follows the log."""


class RegistryActor(ChangeActor):
    """Registers, changes and lists models and providers, of the `kinds` there are and the models of a catalogue."""

    def __init__(self, runtime: Runtime, kinds: frozenset[str], known: Callable[[], Catalogue]) -> None:
        super().__init__(runtime, "trunkline-registry")
        self._kinds = kinds
        self._known = known
        self._dependents = Dependents(runtime)
        lock = asyncio.Lock()  # one for both: what may be said of a model depends on the providers, and the reverse
        self._models = _Source(runtime, "model", lock)
        self._providers = _Source(runtime, "provider", lock)

    def endpoints(self) -> list[Endpoint]:
        return [
            self._endpoint("models", "register", cataloguing.Registration, self._register_model),
            self._endpoint("models", "update", _Changes, self._update_model),
            self._endpoint("models", "enable", ById, self._enable_model),
            self._endpoint("models", "disable", _Ending, self._disable_model),
            self._endpoint("models", "retire", _Retire, self._retire_model),
            self._endpoint("models", "remove", _Ending, self._remove_model),
            self._endpoint("models", "deploy", lifecycle.DeployModel, self._deploy_model),
            self._endpoint("models", "promote", ById, self._promote_model),
            self._endpoint("models", "discover", discovering.Discover, self._discover_models),
            self._endpoint("models", "catalogue", cataloguing.Browse, self._browse_catalogue),
            self._endpoint("models", "get", ById, self._get_model),
            self._endpoint("models", "list", Page, self._list_models),
            self._endpoint("providers", "register", registry.RegisterProvider, self._register_provider),
            self._endpoint("providers", "update", _Changes, self._update_provider),
            self._endpoint("providers", "remove", ById, self._remove_provider),
            self._endpoint("providers", "get", ById, self._get_provider),
            self._endpoint("providers", "list", Page, self._list_providers),
            self._endpoint("providers", "check", ById, self._check_provider),
        ]

    def _endpoint(
        self, noun: str, verb: str, kind: type[A], run: Callable[[A, Delivery], Awaitable[Reply]]
    ) -> Endpoint:
        return endpoint(self.bus, f"{noun}-{verb}", f"trunkline.{noun}.{verb}", kind, run)

    # -- models ----------------------------------------------------------------------------------------------------

    async def _register_model(self, given: cataloguing.Registration, delivery: Delivery) -> Reply:
        if given.from_catalogue is not None:
            return await self._register_known(given.from_catalogue, delivery)
        described = arguments(delivery, registry.RegisterModel)
        if isinstance(described, Refused):
            return described
        return await self._change_model(described.id, delivery, lambda state: registry.register_model(state, described))

    async def _register_known(self, name: str, delivery: Delivery) -> Reply:
        """Register a model as the catalogue describes it, with what is given besides."""
        entry = cataloguing.find(self._known(), name)
        if isinstance(entry, Refused):
            return entry
        fields = arguments(delivery, dict[str, Any])
        registration = fields if isinstance(fields, Refused) else cataloguing.registration(entry, fields)
        if isinstance(registration, Refused):
            return registration
        model, decide = registration
        reply = await self._change_model(model, delivery, decide)
        if isinstance(reply, Refused):
            return reply
        return {**reply, "warnings": cataloguing.warnings(entry, self._runtime.clock())}

    async def _browse_catalogue(self, given: cataloguing.Browse, delivery: Delivery) -> Reply:
        now, rates = self._runtime.clock(), self._runtime.rates
        found = cataloguing.browse(self._known(), given, lambda kind, upstream: rates.listed(kind, upstream, now))
        if isinstance(found, Refused):
            return found
        return {"seq": self._runtime.gateway.position, "dated": self._known().dated, **found}

    async def _update_model(self, given: "_Changes", delivery: Delivery) -> Reply:
        changes = _changes(delivery)
        if isinstance(changes, Refused):
            return changes
        return await self._change_model(
            given.id, delivery, lambda state: registry.update_model(state, given.id, changes, given.reason)
        )

    async def _deploy_model(self, given: lifecycle.DeployModel, delivery: Delivery) -> Reply:
        return await self._change_model(given.id, delivery, lambda state: lifecycle.deploy(state, given))

    async def _promote_model(self, given: ById, delivery: Delivery) -> Reply:
        return await self._change_model(
            given.id, delivery, lambda state: lifecycle.promote(state, given.id, given.reason)
        )

    async def _enable_model(self, given: ById, delivery: Delivery) -> Reply:
        return await self._set_status("enable", given.id, given.reason, delivery)

    async def _disable_model(self, given: "_Ending", delivery: Delivery) -> Reply:
        refused = await self._in_use(given, "disable")
        return refused or await self._set_status("disable", given.id, given.why, delivery)

    async def _retire_model(self, given: "_Retire", delivery: Delivery) -> Reply:
        """Route no new request to it; with `drain_s`, answer when what runs has ended, or the time is over."""
        if given.drain_s is not None and not 0 <= given.drain_s <= LONGEST:
            text = f"drain_s must be from 0 to {LONGEST:g} seconds"
            return Refused(code="invalid_request", message=text, param="drain_s")
        refused = await self._in_use(given, "retire")
        reply = refused or await self._set_status("retire", given.id, given.why, delivery)
        if isinstance(reply, Refused) or given.drain_s is None:
            return reply
        over, running = await drained(lambda: self._running(given.id), given.drain_s)
        return {**reply, "drained": over, "running": running}

    def _running(self, model: str) -> int:
        """The calls to a model that run now, whatever its version, as providers have told; a second old at most."""
        return sum(one.in_flight for one in self._runtime.board.versions(model).values())

    async def _remove_model(self, given: "_Ending", delivery: Delivery) -> Reply:
        return await self._in_use(given, "remove") or await self._change_model(
            given.id, delivery, lambda state: registry.remove_model(state, given.id, given.why)
        )

    async def _in_use(self, given: "_Ending", verb: str) -> Refused | None:
        """Why this can't be done without force: somebody depends on a model that would serve no more, or is no more."""
        model = (await self._current()).models.get(given.id)
        if model is None or given.force or model.status == registry.AFTER.get(verb):
            return None
        return await self._dependents.problem(given.id, verb)

    async def _discover_models(self, given: discovering.Discover, delivery: Delivery) -> Reply:
        await self._current()
        gateway = self._runtime.gateway
        found = discovering.discover(gateway.state, self._runtime.board.measured(), given)
        if isinstance(found, Refused):
            return found
        models, count = found
        return {"seq": gateway.position, "models": models, "count": count}

    async def _set_status(self, verb: str, model: str, reason: str | None, delivery: Delivery) -> Reply:
        return await self._change_model(
            model, delivery, lambda state: registry.set_model_status(state, model, verb, reason)
        )

    async def _change_model(self, model: str, delivery: Delivery, decide: Decide) -> Reply:
        return await self._change(self._models, "model", model, delivery, decide)

    async def _get_model(self, given: ById, delivery: Delivery) -> Reply:
        model = (await self._current()).models.get(given.id)
        if model is None:
            return Refused(code="model_not_found", message=f"no model is registered as {given.id!r}", param="id")
        return {"seq": self._runtime.gateway.position, "model": model}

    async def _list_models(self, given: Page, delivery: Delivery) -> Reply:
        state = await self._current()
        return given.problem() or self._page("models", given, [m for m in state.models.values() if _matches(m, given)])

    # -- providers -------------------------------------------------------------------------------------------------

    async def _register_provider(self, given: registry.RegisterProvider, delivery: Delivery) -> Reply:
        reply = await self._change_provider(
            given.id, delivery, lambda state: registry.register_provider(state, given, self._kinds)
        )
        if isinstance(reply, Refused):
            return reply
        return {**reply, "serving": await self._serving(given.id)}

    async def _update_provider(self, given: "_Changes", delivery: Delivery) -> Reply:
        changes = _changes(delivery)
        if isinstance(changes, Refused):
            return changes
        return await self._change_provider(
            given.id,
            delivery,
            lambda state: registry.update_provider(state, given.id, changes, given.reason, self._kinds),
        )

    async def _remove_provider(self, given: ById, delivery: Delivery) -> Reply:
        return await self._change_provider(
            given.id, delivery, lambda state: registry.remove_provider(state, given.id, given.reason)
        )

    async def _change_provider(self, provider: str, delivery: Delivery, decide: Decide) -> Reply:
        return await self._change(self._providers, "provider", provider, delivery, decide)

    async def _get_provider(self, given: ById, delivery: Delivery) -> Reply:
        provider = (await self._current()).providers.get(given.id)
        if provider is None:
            return Refused(code="not_found", message=f"no provider is registered as {given.id!r}", param="id")
        return {"seq": self._runtime.gateway.position, "provider": provider}

    async def _list_providers(self, given: Page, delivery: Delivery) -> Reply:
        state = await self._current()
        return given.problem() or self._page("providers", given, list(state.providers.values()))

    async def _check_provider(self, given: ById, delivery: Delivery) -> Reply:
        if given.id not in (await self._current()).providers:
            return Refused(code="not_found", message=f"no provider is registered as {given.id!r}", param="id")
        try:
            reply = await self.bus.nats.request(subjects.provider_endpoint(given.id, "check"), timeout=10)
        except nats.errors.NoRespondersError:
            return {"id": given.id, "serving": False, "reachable": False, "problem": "no process serves it"}
        except (nats.errors.Error, TimeoutError):
            return {"id": given.id, "serving": True, "reachable": False, "problem": "it did not answer in time"}
        problem = (reply.headers or {}).get(headers.ERROR)
        checked = {"id": given.id, "serving": True, "reachable": problem is None, "problem": problem}
        return {**checked, "plugin": plugins.read_standing(reply.data)}

    async def _serving(self, provider: str) -> bool:
        """Whether a process serves the instance, waiting a little for one to take it up."""
        subject = subjects.provider_endpoint(provider, "ready")
        loop = asyncio.get_running_loop()
        until = loop.time() + SERVING_WAIT
        while loop.time() < until:
            try:
                reply = await self.bus.nats.request(subject, timeout=until - loop.time())
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.02)
            except (nats.errors.Error, TimeoutError):
                break
            else:
                return headers.ERROR not in (reply.headers or {})  # it is there, and its plugin may be broken
        return False

    def _page(self, name: str, page: Page, entries: Sequence[Model | Provider]) -> dict[str, Any]:
        """One page, sorted by id; `after` of the next one, or null."""
        behind = sorted((entry for entry in entries if entry.id > page.after), key=lambda entry: entry.id)
        chosen = behind[: page.limit]
        after = chosen[-1].id if len(behind) > len(chosen) else None
        return {"seq": self._runtime.gateway.position, name: chosen, "after": after}

    # -- both ------------------------------------------------------------------------------------------------------

    async def _current(self) -> Registry:
        return (await staleness.current(self._runtime)).registry

    async def _change(self, source: _Source, category: str, entry: str, delivery: Delivery, decide: Decide) -> Reply:
        """Decide and append, and answer when every process that decides by the registry has read it."""
        if problem := subjects.id_problem(entry):
            return Refused(code="invalid_request", message=problem, param="id")
        request_id = delivery.header(headers.REQUEST) or self._runtime.new_id()
        command: Command[Registry] = Command(
            category=category,
            aggregate=entry,
            id=f"{delivery.subject}/{subjects.encode_id(entry)}/{headers.encode_value(request_id)}",
            decide=lambda state, _now: decide(state),
            actor=self._runtime.name,
            cause=request_id,
            traceparent=delivery.traceparent,
        )
        decided = await self._runtime.shell.execute(source, command)
        if isinstance(decided, Refused):
            return decided
        if decided is None:  # it was so already
            return {"seq": await self._runtime.log.end(), "id": entry, "changed": False}
        await self.read_by_all(decided.sequence)
        return {"seq": decided.sequence, "id": entry, **_shown(decided)}


class _Ending(ById, frozen=True, kw_only=True):
    """The arguments of what takes a model out of use. `force`: whoever depends on it."""

    force: bool = False

    @property
    def why(self) -> str | None:
        """The reason to be recorded, and that it was forced."""
        return (f"forced: {self.reason}" if self.reason else "forced") if self.force else self.reason


class _Retire(_Ending, frozen=True, kw_only=True):
    """Those of `models.retire`. `drain_s`: wait so long for what runs to end."""

    drain_s: float | None = None


class _Changes(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of an update: the id, a reason, and the fields to change, which are read separately."""

    id: str
    reason: str | None = None


def _changes(delivery: Delivery) -> dict[str, Any] | Refused:
    fields = arguments(delivery, dict[str, Any])
    if isinstance(fields, Refused):  # what nobody looked at yet: a name that is no text, say
        return fields
    return {name: value for name, value in fields.items() if name not in {"id", "reason"}}


def _shown(decided: Decided) -> dict[str, Any]:
    """The entry as it is after the change, where the event holds it."""
    return {name: getattr(decided.event, name) for name in ("model", "provider") if hasattr(decided.event, name)}


def _matches(model: Model, page: Page) -> bool:
    return (
        (page.provider is None or page.provider in registry.providers_of(model))
        and (page.status is None or model.status == page.status)
        and (page.capability is None or bool(model.capabilities.get(page.capability)))
        and (page.tag is None or page.tag in model.tags)
    )
