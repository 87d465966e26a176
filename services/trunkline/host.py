"""The roles a process can play, and how they are put together."""

import importlib.metadata
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from trunkline_actors import catalogue
from trunkline_actors.adapters import Adapter
from trunkline_actors.adapters.factory import build, kinds
from trunkline_actors.adapters.kinds import Settings
from trunkline_actors.adapters.unusable import Unusable
from trunkline_actors.advice import AdviceActor
from trunkline_actors.analyzers import BUILT_IN, GROUP
from trunkline_actors.budgets import BudgetsActor
from trunkline_actors.circuits import CircuitsActor
from trunkline_actors.degraded import ROUTING_OVERRIDE
from trunkline_actors.fleet import Fleet
from trunkline_actors.keeper import KeeperActor
from trunkline_actors.keyholder import KeyholderActor
from trunkline_actors.keyring import Keyring, NoSecret
from trunkline_actors.keys_actor import KeysActor
from trunkline_actors.known_models import Catalogue, shipped
from trunkline_actors.metrics import MetricsActor
from trunkline_actors.plugin_reader import PluginsActor
from trunkline_actors.policymaker import PolicyActor
from trunkline_actors.pricing import CEILING, rate_of, version_of
from trunkline_actors.rates import Rates, overridden
from trunkline_actors.registrar import RegistryActor
from trunkline_actors.router import RouterActor
from trunkline_actors.runtime import Runtime
from trunkline_actors.secretary import SecretsActor
from trunkline_actors.supervisor import Supervised
from trunkline_actors.threads import ThreadsActor
from trunkline_actors.workflow_actor import WorkflowActor
from trunkline_actors.workflow_code import CodeBook
from trunkline_events.connection import Connection
from trunkline_events.registry import Price, Provider
from trunkline_events.secret import is_stored

from trunkline import __version__, settings
from trunkline.lifecycle import DRAIN_SECONDS

if TYPE_CHECKING:
    from trunkline.telemetry.exporter import Exporter

log = structlog.get_logger()

ACTORS = ("registry", "router", "provider", "keeper", "workflow")
HOLDERS = {"registry", "provider"}
"""The roles that need the keys of the vault."""
PROJECTOR = "projector"
GATEWAY = "gateway"
ROLES = (*ACTORS, PROJECTOR, GATEWAY)
"""What `trunkline run` takes. Two are no actors: the projector stands beside a host, in a thread or process of its own,
and the gateway, the HTTP edge, on one: on its connection and its view of the log."""


class Host:
    """One process with its actors. Start it, and stop it in order: routers first, then what they depend on."""

    def __init__(
        self,
        runtime: Runtime,
        roles: Sequence[str],
        only: frozenset[str] | None = None,
        known: Callable[[], Catalogue] = shipped,
        code: CodeBook | None = None,
    ) -> None:
        self.runtime = runtime
        roles = [role for role in roles if role != PROJECTOR]
        runtime.roles = list(roles)
        self._routers: list[Supervised] = []
        self._fleet: Fleet | None = None
        self._others: list[Supervised] = []
        self._exporter: Exporter | None = None
        if "provider" in roles:
            self._fleet = Fleet(runtime, lambda provider: make_adapter(provider, runtime.keyring), only)
        if "router" in roles:
            self._routers = [Supervised(lambda: RouterActor(runtime))]
        if "registry" in roles:
            self._others += [
                Supervised(lambda: RegistryActor(runtime, frozenset(kinds()), known)),
                Supervised(lambda: ThreadsActor(runtime)),
                Supervised(lambda: BudgetsActor(runtime)),
                Supervised(lambda: PolicyActor(runtime, analyzers())),
                Supervised(lambda: MetricsActor(runtime)),
                Supervised(lambda: AdviceActor(runtime)),
                Supervised(lambda: CircuitsActor(runtime)),
                Supervised(lambda: PluginsActor(runtime)),
                Supervised(lambda: SecretsActor(runtime)),
                Supervised(lambda: KeysActor(runtime)),
            ]
        if HOLDERS & set(roles):
            self._others.append(Supervised(lambda: KeyholderActor(runtime)))
        if "keeper" in roles:
            self._others.append(Supervised(lambda: KeeperActor(runtime)))
        if "workflow" in roles:
            book = code or CodeBook()
            self._others.append(Supervised(lambda: WorkflowActor(runtime, book)))

    @property
    def position(self) -> int:
        """How far this process has read the log."""
        return self.runtime.gateway.position

    @classmethod
    async def start(
        cls,
        url: str,
        roles: Sequence[str],
        *,
        only: frozenset[str] | None = None,
        replicas: int = 1,
        rates: Rates | None = None,
        known: Callable[[], Catalogue] = shipped,
        forced: str | None = None,
        name: str | None = None,
        unlock_file: Path | None = None,
        require_keys: bool = False,
        code: CodeBook | None = None,
        observed: "Callable[[Runtime], Exporter] | None" = None,
    ) -> "Host":
        """Connect, catch up with the log, and serve. Raises Unreachable, LogUnavailable.

        `rates` are what models cost; by default their own prices and the catalogue's. `known` has the models that may
        be registered by name alone, when it is asked for the first time. `forced` is the model that
        routers here send every request to; `name` tells the process apart, by default from any other. `unlock_file`
        holds what opens the vault of secrets. `require_keys`: whoever asks here on the bus must show an API key.
        `code` has the functions and workflows that runs led here may use. `observed` makes what exports traces and
        metrics.
        """
        name = name or process_name()
        connection = await Connection.open(url, name=f"trunkline {' '.join(roles)} {name}")
        try:
            runtime = await Runtime.start(
                connection, name=name, version=__version__, rates=rates or Rates(catalogue.listed), replicas=replicas
            )
        except BaseException:
            await connection.close()
            raise
        runtime.door.required = require_keys
        host = cls(runtime, roles, only, known, code)
        if observed is not None:
            host._exporter = observed(runtime)
            host._exporter.start()
        try:
            await host._serve(forced, unlock_file)
        except BaseException:
            await host.stop()
            raise
        log.info("process.serving", process=name, roles=list(roles), position=host.position)
        return host

    async def _serve(self, forced: str | None, unlock_file: Path | None) -> None:
        runtime, roles = self.runtime, self.runtime.roles
        if HOLDERS & set(roles):
            runtime.gateway.on_change.append(runtime.keyring.happened)
            await runtime.keyring.start(unlock_file, creates="registry" in roles)
        if forced is not None and "router" in roles:
            runtime.forced = forced
            runtime.degraded.enter(ROUTING_OVERRIDE, f"every request goes to {forced}")
        if {"router", "registry"} & set(roles):
            await runtime.board.start()
        if self._fleet:
            await self._fleet.start()
        for supervised in (*self._others, *self._routers):
            await supervised.start()
        await runtime.beat()

    async def stop(self) -> None:
        """Take nothing new, let everything end, and go."""
        for supervised in self._routers:
            await supervised.stop(DRAIN_SECONDS)
        if self._fleet:
            await self._fleet.stop(DRAIN_SECONDS)
        for supervised in self._others:
            await supervised.stop(DRAIN_SECONDS)
        if self._exporter is not None:
            await self._exporter.stop()
        await self.runtime.stop()
        log.info("process.stopped")


def process_name() -> str:
    """A name that no other process has. Not its id alone: containers share it, and so do two hosts in one process."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def make_adapter(provider: Provider, keyring: Keyring) -> Adapter:
    """The adapter of a provider instance, with the secret it names; without that, one that fails, saying why."""
    try:
        key = keyring.secret_of(provider) if is_stored(provider.secret) else settings.secret(provider.secret)
    except NoSecret as error:
        log.warning("provider.secret_missing", provider=provider.id, reason=str(error))
        return Unusable(str(error))
    if provider.secret and not key:
        reason = f"{provider.secret} is not set where provider {provider.id!r} is served; set it and start that again"
        log.warning("provider.secret_missing", provider=provider.id, reason=reason)
        return Unusable(reason)
    return build(
        provider.kind,
        Settings(
            provider=provider.id,
            base_url=provider.base_url,
            key=key,
            headers=provider.headers,
            timeout_s=provider.timeout_s,
            local=provider.local,
            transport=provider.transport,
        ),
    )


def analyzers() -> frozenset[str]:
    """The names of the analyzers that a policy may ask for: our own, and those of packages that are installed."""
    return frozenset({BUILT_IN} | importlib.metadata.entry_points(group=GROUP).names)


def make_rates(prices: Mapping[str, Price], ceiling: Price | None) -> Rates:
    """What models cost where the settings are these: `prices` before the catalogue's, unknown ones at the ceiling."""
    for name in prices:
        if name.partition("/")[0] not in (known := {*kinds(), *catalogue.KINDS}):
            log.warning("prices.unknown_kind", price=name, known=sorted(known), next="mend `prices` in the settings")
    own = {name: rate_of(price, version_of("override", price)) for name, price in prices.items()}
    dearest = CEILING if ceiling is None else rate_of(ceiling, version_of("ceiling", ceiling))
    return Rates(overridden(own, catalogue.listed), dearest)
