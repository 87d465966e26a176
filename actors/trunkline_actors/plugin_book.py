"""What the plugins of this process come to: told in its pulses, and where it is news, to the log."""

import asyncio
from collections.abc import Callable

import structlog
from trunkline_events.envelope import Event
from trunkline_events.log import Log, LogError
from trunkline_events.plugin import PluginFact, PluginFailed, PluginLoaded
from trunkline_events.subjects import id_problem
from trunkline_events.tasks import end_task

from trunkline_actors import plugins
from trunkline_actors.plugged import Plugged
from trunkline_actors.plugins import Plugin, Used
from trunkline_actors.shell import Command, Shell

log = structlog.get_logger()

MOST_UNTOLD = 100


class _Last:
    """The last event of one plugin."""

    def __init__(self, log_: Log) -> None:
        self._log = log_

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return None

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[PluginFact | None, int | None, bool]:
        last = await self._log.last("plugin", aggregate)
        if last is None:
            return None, 0, False
        return (last.body if isinstance(last.body, PluginFact) else None), last.sequence, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        """Nothing to remember: it is read anew each time, which is seldom."""


class PluginBook:
    """The plugins of one process, by the provider instance that each serves. `told` is called at each change."""

    def __init__(
        self, process: str, log_: Log, shell: Shell, new_id: Callable[[], str], told: Callable[[], None]
    ) -> None:
        self._process = process
        self._shell = shell
        self._last = _Last(log_)
        self._new_id = new_id
        self._told = told
        self._served: dict[str, Plugged] = {}
        self._loaded: set[Plugin] = set()
        """Those that the log has heard of, or will."""
        self._untold: asyncio.Queue[PluginFact] = asyncio.Queue(MOST_UNTOLD)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tell the log."""
        self._task = asyncio.create_task(self._tell())

    async def stop(self) -> None:
        """Tell no more."""
        await end_task(self._task)

    def changed(self, plugged: Plugged) -> None:
        """A provider's plugin works, or works no more."""
        self._served[plugged.provider.id] = plugged
        self._told()
        plugin = plugged.plugin
        named = {
            "plugin": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "process": self._process,
        }
        trouble = plugged.trouble
        fact: PluginFact = PluginLoaded(**named)
        if trouble is not None:
            fact = PluginFailed(
                **named,
                provider=plugged.provider.id,
                stage=trouble.stage,
                error=trouble.error,
                detail=trouble.message,
            )
            self._loaded.discard(plugin)
        elif plugin in self._loaded:
            return
        else:
            self._loaded.add(plugin)
        if self._untold.full() or id_problem(plugin.name):
            log.warning("plugin.untold", plugin=plugin.name)
        else:
            self._untold.put_nowait(fact)

    def gone(self, plugged: Plugged) -> None:
        """A provider's plugin serves no more; what took its place may be here already."""
        if self._served.get(plugged.provider.id) is plugged:
            del self._served[plugged.provider.id]
            self._told()

    def used(self) -> list[Used]:
        """How every plugin that is used here stands."""
        by_name: dict[str, list[Plugged]] = {}
        for one in self._served.values():
            by_name.setdefault(one.plugin.name, []).append(one)
        return [_used(served[0].plugin, served) for served in by_name.values()]

    async def _tell(self) -> None:
        while True:
            fact = await self._untold.get()
            try:
                await self._append(fact)
            except LogError as error:
                log.warning("plugin.untold", plugin=fact.plugin, error=type(error).__name__)

    async def _append(self, fact: PluginFact) -> None:
        def decide(last: PluginFact | None, _now: float) -> PluginFact | None:
            return plugins.failed(last, fact) if isinstance(fact, PluginFailed) else plugins.loaded(last, fact)

        command: Command[PluginFact | None] = Command(
            category="plugin",
            aggregate=fact.plugin,
            id=f"plugin/{self._new_id()}",
            decide=decide,
            actor=self._process,
        )
        await self._shell.execute(self._last, command)


def _used(plugin: Plugin, served: list[Plugged]) -> Used:
    return Used(
        plugin=plugin,
        providers=len(served),
        crashes=sum(one.crashes for one in served),
        last_error=next((one.last_error for one in served if one.last_error), ""),
        unusable={one.provider.id: one.trouble for one in served if one.trouble is not None},
    )
