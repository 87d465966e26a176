"""How the gateways of others are started: one process before one upstream, without a database, callbacks or a cache."""

import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from trunkline.benchmark.door import Door
from trunkline.benchmark.foreign import started
from trunkline.embedded.config import pick_port

LITELLM: Final = "LiteLLM"
PORTKEY: Final = "Portkey"
TENSORZERO: Final = "TensorZero"

_LITELLM_CONFIG = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "{origin}/v1", api_key: none}}
"""


@asynccontextmanager
async def _litellm(command: Sequence[str], origin: str) -> AsyncIterator[Door]:
    port, key = pick_port("127.0.0.1"), f"sk-{secrets.token_hex(16)}"
    # Without the first it fetches prices as it starts; without the second it refuses to start.
    environment = ("env", "LITELLM_LOCAL_MODEL_COST_MAP=True", f"LITELLM_MASTER_KEY={key}")
    flags = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False")
    with TemporaryDirectory() as folder:
        config = Path(folder) / "litellm.yaml"
        config.write_text(_LITELLM_CONFIG.format(origin=origin))
        async with started([*environment, *command, "--config", str(config), *flags], Path(folder)) as process:
            await process.listens(port)
            yield Door(port, process.pid, {"authorization": f"Bearer {key}"})


@asynccontextmanager
async def _portkey(command: Sequence[str], origin: str) -> AsyncIterator[Door]:
    port = pick_port("127.0.0.1")
    fields = {
        "authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{origin}/v1",
    }
    with TemporaryDirectory() as folder:
        async with started([*command, f"--port={port}", "--headless"], Path(folder)) as process:
            await process.listens(port)
            yield Door(port, process.pid, fields)


_TENSORZERO_CONFIG = """
[gateway]
observability.enabled = false
[models.m]
routing = ["far"]
[models.m.providers.far]
type = "openai"
api_base = "{origin}/v1/"
model_name = "m"
api_key_location = "none"
"""

# Its wheel holds the gateway itself, which this serves over HTTP from a Python process that does nothing else.
_TENSORZERO_SERVES = """
import sys, openai, tensorzero
client = openai.OpenAI(api_key="none")
tensorzero.patch_openai_client(client, config_file=sys.argv[1], async_setup=False)
with open(sys.argv[2], "w") as told:
    told.write(str(client.base_url.port))
import signal
signal.pause()
"""


@asynccontextmanager
async def _tensorzero(command: Sequence[str], origin: str) -> AsyncIterator[Door]:
    with TemporaryDirectory() as folder:
        config, told = Path(folder) / "tensorzero.toml", Path(folder) / "port"
        config.write_text(_TENSORZERO_CONFIG.format(origin=origin))
        arguments = ("-c", _TENSORZERO_SERVES, str(config), str(told))
        async with started([*command, *arguments], Path(folder)) as process:
            await process.until(lambda: told.exists() and told.read_text() != "")
            path = "/openai/v1/chat/completions"
            yield Door(int(told.read_text()), process.pid, path=path, model="tensorzero::model_name::m")


def _litellm_on_path() -> list[str]:
    path = shutil.which("litellm")
    return [path] if path else []


def _portkey_on_path() -> list[str]:
    path = shutil.which("gateway")  # a name that others may have too
    return [path] if path and "@portkey-ai" in Path(path).resolve().parts else []


class Other(NamedTuple):
    """A gateway that is not ours: how a command of its serves, what is on PATH, how to get it."""

    start: Callable[[Sequence[str], str], AbstractAsyncContextManager[Door]]
    on_path: Callable[[], list[str]]
    advice: str


OTHERS: Final = {
    LITELLM: Other(_litellm, _litellm_on_path, "pip install 'litellm[proxy]'"),
    PORTKEY: Other(_portkey, _portkey_on_path, "npm install -g @portkey-ai/gateway"),
    TENSORZERO: Other(_tensorzero, list, "pip install tensorzero==2026.6.0 openai"),
}
