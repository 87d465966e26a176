"""One provider actor for each registered instance: started, replaced and stopped as the registry changes."""

import asyncio
from collections.abc import Callable

import structlog
from trunkline_events.envelope import RecordedEvent
from trunkline_events.registry import Provider
from trunkline_events.tasks import end_task

from trunkline_actors.adapters import Adapter
from trunkline_actors.provider import ProviderActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.supervisor import Supervised

log = structlog.get_logger()

DRAIN_SECONDS = 25.0
"""How long the attempts of a provider that was changed or removed may take to end."""


class Fleet:
    """The provider actors of this process. `only` names the instances to serve; None means all, later ones too."""

    def __init__(
        self, runtime: Runtime, make_adapter: Callable[[Provider], Adapter], only: frozenset[str] | None = None
    ) -> None:
        self._runtime = runtime
        self._make_adapter = make_adapter
        self._only = only
        self._serving: dict[str, tuple[Provider, Supervised]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve what is registered, and follow the registry from here on."""
        self._runtime.gateway.on_change.append(self._on_change)
        await self._reconcile()
        self._task = asyncio.create_task(self._follow())

    def _on_change(self, event: RecordedEvent) -> None:
        if event.category == "provider":
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._reconcile()

    async def _reconcile(self) -> None:
        wanted = {
            name: provider
            for name, provider in self._runtime.gateway.state.registry.providers.items()
            if self._only is None or name in self._only
        }
        for name, provider in wanted.items():
            if name not in self._serving or self._serving[name][0] != provider:
                await self._serve(provider)
        for name in [name for name in self._serving if name not in wanted]:
            self._retire(name, self._serving.pop(name)[1])

    async def _serve(self, provider: Provider) -> None:
        replaced = self._serving.get(provider.id)
        supervised = Supervised(lambda: ProviderActor(self._runtime, provider, self._make_adapter))
        try:
            await supervised.start()
        except Exception as error:
            log.exception("provider.not_started", provider=provider.id, error=type(error).__name__)
            return
        self._serving[provider.id] = (provider, supervised)
        log.info("provider.serving", provider=provider.id, kind=provider.kind)
        if replaced is not None:  # the new one listens already, so nothing falls between the two
            self._retire(provider.id, replaced[1])

    def _retire(self, name: str, supervised: Supervised) -> None:
        """Let an actor finish what it has, beside everything else."""

        async def stop() -> None:
            await supervised.stop(DRAIN_SECONDS)
            log.info("provider.stopped", provider=name)

        task = asyncio.create_task(stop())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def stop(self, timeout: float) -> None:
        """Let every attempt end."""
        await end_task(self._task)
        stopping = (supervised.stop(timeout) for _, supervised in self._serving.values())
        await asyncio.gather(*stopping, *self._retiring)
