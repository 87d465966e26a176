"""The actor for plugins: says which kinds of providers there are, and how each fares in every process."""

import asyncio
from typing import Any

import msgspec
from nats.aio.client import Msg
from trunkline_events import subjects
from trunkline_events.refusal import Refused

from trunkline_actors import plugins, staleness
from trunkline_actors.adapters import factory
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Page, Reply, endpoint
from trunkline_actors.dispatch import read_pulse
from trunkline_actors.micro import Endpoint, ServiceActor
from trunkline_actors.plugins import Used
from trunkline_actors.readers import FORGOTTEN
from trunkline_actors.runtime import PULSE_SECONDS, Runtime


class OfPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `plugins.get`: a kind of provider, by its name."""

    name: str


class PluginsActor(ServiceActor):
    """Shows the plugins that are installed here or used anywhere."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.bus, "trunkline-plugins", runtime.version, {"process": runtime.name})
        self._runtime = runtime
        self._told: dict[str, tuple[list[Used], float]] = {}
        self._began = asyncio.get_running_loop().time()
        self._subscription: Any = None

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "list", f"{subjects.PLUGINS}.list", Page, self._list),
            endpoint(self.bus, "get", f"{subjects.PLUGINS}.get", OfPlugin, self._get),
        ]

    async def starting(self) -> None:
        self._subscription = await self._runtime.bus.nats.subscribe(subjects.PULSE, cb=self._heard)
        await super().starting()

    async def stopped(self) -> None:
        await super().stopped()
        await self._subscription.unsubscribe()

    async def fallen(self) -> None:
        await super().fallen()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _heard(self, message: Msg) -> None:
        pulse = read_pulse(message.data)
        if pulse is not None:
            self._told[pulse.process] = (pulse.plugins, asyncio.get_running_loop().time())

    async def _list(self, given: Page, delivery: Delivery) -> Reply:
        if problem := given.problem():
            return problem
        found = [one for one in await self._all() if given.status is None or one["state"] == given.status]
        behind = [one for one in found if one["name"] > given.after]
        chosen = behind[: given.limit]
        after = chosen[-1]["name"] if len(behind) > len(chosen) else None
        return {"seq": self._runtime.gateway.position, "plugins": chosen, "after": after}

    async def _get(self, given: OfPlugin, delivery: Delivery) -> Reply:
        found = await self._all()
        one = next((one for one in found if one["name"] == given.name), None)
        if one is None:
            text = plugins.unknown_kind(given.name, [one["name"] for one in found])
            return Refused(code="not_found", message=text, param="name")
        return {"seq": self._runtime.gateway.position, "plugin": one}

    async def _all(self) -> list[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        # Every process tells once a second: who began later than that has not heard from all of them.
        await asyncio.sleep(max(0.0, self._began + 1.2 * PULSE_SECONDS - loop.time()))
        state = (await staleness.current(self._runtime)).registry
        now = loop.time()
        self._told = {name: one for name, one in self._told.items() if now - one[1] < FORGOTTEN}
        used = {name: uses for name, (uses, _) in self._told.items() if uses}
        return plugins.shown(factory.plugins(), used, state.providers.values())
