"""What `trunkline up` says when it serves."""

import shlex
import shutil
import sys
from pathlib import Path

from trunkline import __version__
from trunkline.embedded import EmbeddedServer
from trunkline.health.promises import promise
from trunkline.host import ACTORS, GATEWAY
from trunkline.settings import DEFAULT_NATS_PORT, Settings
from trunkline.standby import Serving

_HI = '{"model":"auto","messages":[{"role":"user","content":"Hi"}]}'


def command() -> str:
    """What runs `trunkline` in the current folder: its name where PATH has it, else the way to it."""
    if shutil.which("trunkline"):
        return "trunkline"
    python = Path(sys.executable)
    script = python.with_name("trunkline")
    return _way(script) if script.is_file() else f"{_way(python)} -m trunkline"


def _way(program: Path) -> str:
    folder = Path.cwd()
    if not program.is_relative_to(folder):
        return shlex.quote(str(program))
    way = program.relative_to(folder)
    return shlex.quote(str(way) if len(way.parts) > 1 else f"./{way}")  # a shell looks up a bare name on PATH


def banner(
    settings: Settings,
    ephemeral: bool,
    server: EmbeddedServer | None,
    url: str,
    http: str,
    key: str,
    host: Serving,
    seconds: float,
    found: list[str],
    warning: str | None = None,
) -> list[str]:
    """The lines, in order."""
    if server is None:
        data = f"kept by the server at {url}"
    else:
        where = "a temporary folder, gone at the end" if ephemeral else str(settings.data)
        data = f"{where} ({promise(settings.durability)})"
    actors = ", ".join((*ACTORS, GATEWAY)) + (f", in {settings.workers} workers" if settings.workers else "")
    at = "" if url.endswith(f":{DEFAULT_NATS_PORT}") else f" --nats {url}"
    run = command()
    rows = [
        ("NATS", url),
        ("HTTP", http),
        ("key", key),
        ("console", "not in this version"),
        ("metrics", f"{http}/metrics" if http.startswith("http") else http),
        ("data", data),
        ("actors", actors),
        ("log", f"position {host.position}"),
    ]
    rows += [("found", line) for line in found]
    rows += [("WARNING", warning)] if warning else []
    return [
        f"Trunkline {__version__}, ready in {seconds:.2f} s",
        "",
        *(f"  {name:<8} {value}" for name, value in rows),
        "",
        "Try:",
        f'  {run} chat "Hello!"{at}',
        f"  {run} events tail{at}",
        f"""  curl {http}/v1/chat/completions -H "Authorization: Bearer $TRUNKLINE_KEY" -d '{_HI}'""",
        "",
    ]
