"""Clients that others wrote, run as their users run them: in a process of their own, told of nothing but an address and
a key. Nothing of them is imported here; `make compat` installs them in `.venv/compat` and `.venv/compat-node`.
"""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Asked = Callable[..., Awaitable[Any]]
"""`await asked("ask_openai.py", "plain", "tiny")`: what that scenario found, as the gateway's user or with `key=…`."""

UNKNOWN = "tl-" + "A" * 43
"""A key that the gateway never issued."""

WITHIN = 60.0
TEXT = "Hello from a real llama.cpp engine; café ☃ done."
"""What `tiny` says."""
CLIENTS = Path(__file__).parent / "compat" / "clients"
_ROOT = Path(__file__).parent.parent
_PYTHON = _ROOT / ".venv" / "compat"
_NODE = _ROOT / ".venv" / "compat-node"
_OURS = re.compile(r"(?:TRUNKLINE|OPENAI|ANTHROPIC|LLM|PYTHON|PYTEST|COV|NODE)_|PYTHONPATH$|.*_proxy$", re.IGNORECASE)


class Served(NamedTuple):
    """A running gateway: where its bus and its edge are, and a key that may chat."""

    nats: str
    url: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """All that a client is told of it, under the names that clients read by themselves."""
        return {
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": self.key,
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": self.key,
        }


class Done(NamedTuple):
    """A client that has ended."""

    code: int
    out: str
    err: str


async def finished(*command: str | Path, cwd: Path | None = None, environ: Mapping[str, str]) -> Done:
    """Run a command to its end, with this environment beside what the machine's own needs."""
    kept = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=-1, cwd=cwd, env={**kept, **environ}
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def found(client: str, scenario: str, *arguments: str, environ: Mapping[str, str]) -> Any:
    """What a scenario of the script `client` found: a script in `tests/compat/clients`, its kind told by its suffix."""
    runner, script = (node(), _beside_packages(client)) if client.endswith(".mjs") else (python(), CLIENTS / client)
    done = await finished(runner, script, scenario, *arguments, environ=environ)
    assert done.code == 0, f"{client} {scenario} ended with {done.code}:\n{done.out}{done.err}"
    return json.loads(done.out.splitlines()[-1])


def _beside_packages(client: str) -> Path:
    """A copy of the script where Node looks for its packages: in the folders above a module, wherever it runs."""
    beside = _NODE / "clients"
    beside.mkdir(exist_ok=True)
    for script in CLIENTS.glob("*.mjs"):
        shutil.copy(script, beside)
    return beside / client


def python(name: str = "python") -> Path:
    """The Python, or another script, of the environment that holds the clients written in it."""
    path = _PYTHON / "bin" / name
    if not path.exists():
        pytest.skip("clients in Python are not installed: run `make compat` where there is a package index")
    return path


def node() -> Path:
    """Node, where it is there with the clients written for it."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not installed: clients that run on it are not tested")
    if not (_NODE / "node_modules").exists():
        pytest.skip("clients for Node are not installed: run `make compat` where there is npm and a package index")
    return Path(path)


def is_weather(name: str, arguments: str | Mapping[str, object]) -> bool:
    """Whether this is the call that `tiny` makes where it may."""
    told = json.loads(arguments) if isinstance(arguments, str) else arguments
    return (name, told) == ("get_weather", {"city": "Paris"})
