"""A package that brings a kind of provider, as somebody else would install it: on the path, with its metadata."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trunkline_actors.adapters import factory

GOOD = """
from trunkline_actors.adapters import Answer, Chunk, End
from trunkline_actors.adapters.kinds import Kind
from trunkline_events.usage import Usage

HEARD = []


class Adapter:
    async def initialize(self):
        HEARD.append("initialize")

    async def complete(self, call):
        HEARD.append("complete")
        body = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
        return Answer(body=body, usage=Usage(input_tokens=1, output_tokens=1), finish="stop")

    async def stream(self, call):
        yield Chunk(b'{"choices":[{"index":0,"delta":{"content":"hi"}}]}', 2)
        yield End(usage=Usage(input_tokens=1, output_tokens=1), finish="stop")

    async def embed(self, call):
        raise NotImplementedError

    async def check(self):
        HEARD.append("check")

    async def close(self):
        HEARD.append("close")


KIND = Kind(name="acme", build=lambda settings: Adapter(), abilities=frozenset({"chat"}), networked=False)
"""


def write(
    folder: Path, code: str = GOOD, *, module: str = "trunkline_acme", kind: str = "acme", version: str = "1.2.0"
) -> None:
    """Lay a distribution `trunkline-<kind>` into a folder, of which this is the code of its one module."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code)
    info = folder / f"trunkline_{kind}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: trunkline-{kind}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[trunkline.providers]\n{kind} = {module}:KIND\n")


@contextmanager
def installed(folder: Path, *modules: str) -> Iterator[None]:
    """What lies in this folder is installed in this process; these modules of it are forgotten afterwards."""
    sys.path.insert(0, str(folder))
    factory.look_again()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for module in modules:
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        factory.look_again()


def forget() -> None:
    """Look anew at what is installed, when somebody asks."""
    factory.look_again()
