"""What a gateway with an empty registry begins with: a keyless scripted provider, and whatever else is at hand."""

import asyncio
import contextlib
import json
import urllib.request
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from trunkline_actors.known_models import shipped
from trunkline_events import subjects
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.stream import DURABILITY, stream_config

from trunkline import settings
from trunkline.client import Gateway
from trunkline.errors import TrunklineError
from trunkline.health.promises import DEFAULT, PROMISES, promise
from trunkline.settings import Durability

log = structlog.get_logger()

OLLAMA = "http://127.0.0.1:11434"
OPENAI_KEY = "OPENAI_API_KEY"
_LOOK_SECONDS = 0.3

# Priced, so that a first chat shows a cost; dearer than small real models, so that `auto` prefers those.
_SCRIPTED = (
    ("echo", "echo", {"input": "1.00", "output": "4.00"}),
    (
        "hello",
        "say:Hello from Trunkline! Every word of this answer is accounted for.",
        {"input": "2.00", "output": "8.00"},
    ),
    ("slow", "tokens:40@20", {"input": "2.00", "output": "8.00"}),
)
_OPENAI_MODELS = ("gpt-6.1-sol", "gpt-6.1-terra", "gpt-6-luna", "text-embedding-3-small")


async def promised_log(url: str, durability: Durability, *, replicas: int, ephemeral: bool = False) -> str | None:
    """Make the log with its promise, if there is none yet; for one that was promised otherwise, what to say of that.

    Whatever else is wrong with the bus is for those to tell who need the log.
    """
    try:
        connection = await Connection.open(url, name="trunkline promise")
    except Unreachable:
        return None
    try:
        js = connection.nats.jetstream(timeout=5)
        with contextlib.suppress(nats.js.errors.BadRequestError):  # such as: there is one, with another configuration
            await js.add_stream(stream_config(replicas, durability=durability, ephemeral=ephemeral))
        told = (await js.stream_info(subjects.STREAM)).config.metadata or {}
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
        return None
    finally:
        await connection.close()
    promised = told.get(DURABILITY, DEFAULT)
    if promised == durability:
        return None
    log.warning("log.promised_otherwise", durability=durability, reason=f"the log was made with {promised}")
    before = promise(promised) if promised in PROMISES else promised
    return (
        f"the log was made with the promise {before}; now it runs with {promise(durability)}. "
        f"Start it with --durability {promised}, or change the promise: "
        f"`nats stream edit {subjects.STREAM} --metadata {DURABILITY}={durability}`"
    )


async def first_models(gateway: Gateway) -> list[str]:
    """Register what was found, if nothing is registered yet; a line for each provider, for the banner."""
    if (await gateway.providers.list(limit=1))["providers"]:
        return []
    found = [await _scripted(gateway)]
    if settings.has_environment(OPENAI_KEY):
        found.append(await _openai(gateway))
    names = await asyncio.to_thread(_ollama_models)
    if names is not None:
        found.append(await _ollama(gateway, names))
    return found


async def _scripted(gateway: Gateway) -> str:
    await _register(gateway.providers, id="scripted", kind="scripted", local=True, reason="first start")
    for name, upstream, price in _SCRIPTED:
        await _register(
            gateway.models, id=name, provider="scripted", upstream=upstream, price=price, reason="first start"
        )
    return "scripted: models echo, hello, slow (no key needed)"


async def _openai(gateway: Gateway) -> str:
    await _register(
        gateway.providers, id="openai", kind="openai", secret=f"env:{OPENAI_KEY}", reason=f"{OPENAI_KEY} is set"
    )
    for name in _OPENAI_MODELS:
        await _register(gateway.models, from_catalogue=name, provider="openai", reason=f"{OPENAI_KEY} is set")
    return f"openai: models {', '.join(_OPENAI_MODELS)} ({OPENAI_KEY} is set)"


async def _ollama(gateway: Gateway, names: list[str]) -> str:
    await _register(gateway.providers, id="ollama", kind="ollama", base_url=OLLAMA, local=True, reason="it answers")
    for name in names:
        known = {"from_catalogue": name, "upstream": name} if shipped().find(name) else {"features": ["tools"]}
        await _register(gateway.models, id=name, provider="ollama", **known, reason="it is there")
    return f"ollama: {len(names)} models at {OLLAMA}"


def _ollama_models() -> list[str] | None:
    """The models of an Ollama server on its default port; None where there is none."""
    try:
        with urllib.request.urlopen(f"{OLLAMA}/api/tags", timeout=_LOOK_SECONDS) as answer:  # noqa: S310 - a constant address
            tags = json.load(answer)
        return [model["name"] for model in tags["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _register(commands: Any, **arguments: Any) -> None:
    """Two processes may start at once on one log: that the other was quicker is fine."""
    try:
        await commands.register(**arguments)
    except TrunklineError as error:
        if error.code != "conflict":
            log.warning("bootstrap.not_registered", kind=error.code)
