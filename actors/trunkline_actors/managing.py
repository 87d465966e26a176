"""What the management of one provider instance's models stands on: its adapter, its decisions, its errors."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from trunkline_events import subjects
from trunkline_events.envelope import Event
from trunkline_events.failure import Failure, FailureClass, UpstreamError, answer_for
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_projections.models import Registry

from trunkline_actors.adapters.factory import kind_of, kinds
from trunkline_actors.adapters.management import Manages
from trunkline_actors.plugged import Plugged
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided

A = TypeVar("A")

READY_WAIT = 5.0
"""Seconds that an adapter has to become ready."""

Decide = Callable[[Registry, float], Event | Refused | None]


class _Source:
    """The registry as it stands, and the sequence of one model's last event."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = asyncio.Lock()

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._lock

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[Registry, int | None, bool]:
        last = await self._runtime.log.last("model", aggregate)
        await self._runtime.gateway.catch_up()
        return self._runtime.gateway.state.registry, last.sequence if last else 0, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember: the view follows the log."""


class Managing:
    """One provider instance whose models are managed, or can't be. `plugged` gives the adapter that calls use now."""

    def __init__(self, runtime: Runtime, provider: Provider, plugged: Callable[[], Plugged]) -> None:
        self.runtime = runtime
        self.provider = provider
        self._plugged = plugged
        self._source = _Source(runtime)

    def subject(self, verb: str) -> str:
        """Where this verb is asked for."""
        return subjects.provider_endpoint(self.provider.id, f"models.{verb}")

    async def current(self) -> Registry:
        """The registry, as of the end of the log."""
        await self.runtime.gateway.catch_up()
        return self.runtime.gateway.state.registry

    async def manager(self) -> Manages | Refused:
        """What manages the models, or which kinds could."""
        plugged = self._plugged()
        failure = await plugged.ready(READY_WAIT)
        if failure is not None:
            return self.told(failure)
        adapter: object = plugged.adapter
        if isinstance(adapter, Manages):
            return adapter
        able = []
        for name in kinds():
            with suppress(Exception):  # a plugin that can't be loaded is told of elsewhere
                if "management" in kind_of(name).abilities:
                    able.append(name)
        message = f"a provider of kind {self.provider.kind!r} manages no models; kinds that do: {', '.join(able)}"
        return Refused(code="invalid_request", message=message, param="provider")

    async def upstream(self, asked: Awaitable[A]) -> A | Refused:
        """What the upstream answers, or why it does not."""
        try:
            return await asked
        except UpstreamError as error:
            return self.told(error.failure)

    def told(self, failure: Failure) -> Refused:
        """What whoever asked hears of a failure."""
        missing = failure.kind is FailureClass.MODEL_NOT_FOUND
        code = "model_not_found" if missing else answer_for(failure.kind).code
        return Refused(code=code, message=f"{self.provider.id}: {failure.message}")

    async def decide(
        self, model: str, identifier: str, decide: Decide, *, persistent: bool = False, cause: str = ""
    ) -> Decided | Refused | None:
        """Decide about a model of this instance, and record it."""
        command: Command[Registry] = Command(
            category="model",
            aggregate=model,
            id=f"{self.subject('manage')}/{identifier}",
            decide=decide,
            actor=self.runtime.name,
            cause=cause,
            persistent=persistent,
        )
        return await self.runtime.shell.execute(self._source, command)
