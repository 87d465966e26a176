"""docker-compose.yml without a container engine: its services as processes, with its commands and its environment.

What an engine would do is done here: variables are filled in from `.env`, services start in order of their health,
those that end are started again, each has ports and folders of its own. Host names and container ports stand for free
ports of this machine, volumes and `tmpfs` for folders of the test. What is in deploy/Dockerfile counts as well: the
entry point, the environment and the health check of the image.
"""

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from trunkline.embedded.config import find_binary, pick_port

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HEALTHY_SECONDS = 40.0

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
_ADDRESS = re.compile(r"(?<![\w.-])(0\.0\.0\.0|127\.0\.0\.1|[a-z][a-z0-9-]*):(\d+)\b")


class NotSet(Exception):
    """A variable that the file insists on has no value. The message is the file's."""


def filled_in(text: str, environ: Mapping[str, str]) -> str:
    """A text of the file with its variables: `${A}`, `${A:-default}`, `${A:?what to do}`; `$$` is a dollar sign."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        given = environ.get(found[1]) or ""
        match (found[2] or "")[-1:]:
            case "-":
                return given or found[3]
            case "?" if not given:
                raise NotSet(f"{found[1]}: {found[3]}")
            case _:
                return given

    return _VARIABLE.sub(value, text)


def read(environ: Mapping[str, str], path: Path = COMPOSE) -> dict[str, Any]:
    """The file as an engine takes it. Raises NotSet."""

    def walk(node: Any) -> Any:
        match node:
            case str():
                return filled_in(node, environ)
            case list():
                return [walk(one) for one in node]
            case dict():
                return {name: walk(one) for name, one in node.items()}
            case _:
                return node

    return {str(name): walk(one) for name, one in yaml.safe_load(path.read_text(encoding="utf-8")).items()}


def of_image(instruction: str) -> str:
    """What the last stage of the Dockerfile says after an instruction, such as ENTRYPOINT."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").rpartition("\nFROM ")[2]
    return next(line.partition(" ")[2].strip() for line in text.splitlines() if line.startswith(f"{instruction} "))


def image_environment() -> dict[str, str]:
    """ENV of the image."""
    return dict(one.split("=", 1) for one in shlex.split(of_image("ENV")))


class Container:
    """One process of a service, started again when it ends, as `restart: unless-stopped` has it."""

    def __init__(self, project: "Project", service: str, number: int) -> None:
        self._project = project
        self.service = service
        self.name = f"{service}.{number}"
        self.folder = project.folder / self.name
        self.folder.mkdir()
        self.log = project.folder / f"{self.name}.log"
        self.ports: dict[str, int] = defaultdict(lambda: pick_port("127.0.0.1"))
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.starts = 0

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self._project.services[self.service])

    def environment(self) -> dict[str, str]:
        """What the process gets: nothing of ours but what finds programs and counts coverage."""
        ours = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        image = image_environment() if "build" in self.spec else {}
        given = {name: str(value) for name, value in {**image, **self.spec.get("environment", {})}.items()}
        told = {name: self.here(value) for name, value in given.items() if name != "PATH"}
        if "TRUNKLINE_HTTP_PORT" in told:
            told["TRUNKLINE_HTTP_PORT"] = str(self.ports[told["TRUNKLINE_HTTP_PORT"]])
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {**ours, "PATH": path, "HOME": str(self.folder), **told}

    def here(self, text: str) -> str:
        """A text of the file with the addresses and folders of this machine."""
        if "://" in text and "@nats:" in text:  # a name that several servers go by
            return ",".join(
                self._addresses(text.replace("@nats:", f"@{name}:")) for name in self._project.named("nats")
            )
        text = self._addresses(text)
        for inside, outside in self._folders().items():
            text = re.sub(rf"(?<![\w/]){re.escape(inside)}(?=/|$)", str(outside), text)
        return text

    def _addresses(self, text: str) -> str:
        def mine(found: re.Match[str]) -> str:
            own = found[1] in ("0.0.0.0", "127.0.0.1")
            if not own and found[1] not in self._project.services:
                return found[0]
            there = self if own else self._project.of(found[1])[0]
            return f"127.0.0.1:{there.ports[found[2]]}"

        return _ADDRESS.sub(mine, text)

    def _folders(self) -> dict[str, Path]:
        folders = dict.fromkeys(self.spec.get("tmpfs", []), self.folder / "tmp")
        folders["/var/lib/trunkline"] = self.folder / "home"  # VOLUME of the image
        for volume in self.spec.get("volumes", []):
            source, target = volume.split(":")[:2]
            kept = ROOT / source if source.startswith(".") else self._project.folder / "volumes" / source
            folders[target] = kept
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        return folders

    def command(self, *instead: str) -> list[str]:
        """What runs: the file's entry point, or else the image's, with the file's command or another one."""
        entry = self.spec.get("entrypoint") or yaml.safe_load(of_image("ENTRYPOINT"))
        program = {"nats-server": [str(find_binary())], "trunkline-entrypoint": ["sh", str(ROOT / "deploy/entrypoint")]}
        return [*program[entry[0]], *map(self.here, entry[1:]), *(instead or self.spec.get("command", []))]

    async def start(self) -> None:
        """Start it, and again whenever it ends."""
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        pause = 0.1  # as an engine has it: twice as long each time, from the start again once it has run for a while
        while True:
            began = time.monotonic()
            for where in self.spec.get("tmpfs", []):
                shutil.rmtree(self._folders()[where])
            with self.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command(),
                    env=self.environment(),
                    cwd=self.folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self.starts += 1
            await self._process.wait()
            pause = 0.1 if time.monotonic() - began > 10 else 2 * pause
            await asyncio.sleep(pause)

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()

    async def is_healthy(self) -> bool:
        """What the file's health check says, or else the image's."""
        test = self.spec.get("healthcheck", {}).get("test")
        if not test and not Path(self.environment()["TRUNKLINE_READY_FILE"]).exists():
            return False  # as the check would say, which takes a while to start
        command = test[1:] if test else ["sh", "-c", of_image("HEALTHCHECK").partition("CMD ")[2]]
        if command[0] == "wget" and shutil.which("wget") is None:
            command = [sys.executable, "-c", "import sys, urllib.request as r; r.urlopen(sys.argv[1])", command[-1]]
        process = await asyncio.create_subprocess_exec(
            *map(self.here, command),
            env=self.environment(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0

    async def healthy(self) -> None:
        """Return when it is."""
        async with asyncio.timeout(HEALTHY_SECONDS):
            while not await self.is_healthy():  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.2)

    async def stop(self) -> int | None:
        """The image's signal, then as long as the file grants; the exit code, None where it had to be killed."""
        if self._keeping is not None:
            self._keeping.cancel()
        process, grace = self._process, float(self.spec["stop_grace_period"].removesuffix("s"))
        if process is None or process.returncode is not None:
            return None if process is None else process.returncode
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            return None


class Project:
    """The services of the profiles that are on. `containers` are those that were started, by service."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.document = read(environ)
        on = set(environ["COMPOSE_PROFILES"].split(","))
        self.services: dict[str, dict[str, Any]] = self.document["services"]
        self.active = [name for name, one in self.services.items() if on & set(one.get("profiles", on))]
        self.containers: dict[str, list[Container]] = {}

    def named(self, alias: str) -> list[str]:
        """The active services that go by this name on the network."""
        return [
            name
            for name in self.active
            if name == alias or alias in self.services[name].get("networks", {}).get("default", {}).get("aliases", [])
        ]

    def of(self, service: str) -> list[Container]:
        """The containers of a service; the first one is there as soon as somebody asks for its address."""
        if service not in self.containers:
            self.containers[service] = [Container(self, service, 1)]
        return self.containers[service]

    async def up(self, *services: str, **scale: int) -> None:
        """Start services, or all that are active, each when those it depends on are healthy; return at once after."""
        for service in services or self.active:
            for other, condition in self.services[service].get("depends_on", {}).items():
                if other in self.active:
                    assert condition["condition"] == "service_healthy"
                    await self.healthy(other)
                else:
                    assert condition["required"] is False, f"{service} needs {other}, which is in no profile that is on"
            containers = self.of(service)
            while len(containers) < scale.get(service, 1):
                containers.append(Container(self, service, len(containers) + 1))
            for container in containers:
                if not container.starts:
                    await container.start()

    async def healthy(self, *services: str) -> None:
        """Return when all containers of these services are healthy."""
        await asyncio.gather(*(one.healthy() for service in services for one in self.of(service)))

    async def run(self, service: str, *command: str, **environ: str) -> str:
        """`docker compose run --rm SERVICE COMMAND`: what it says on stdout. It must end well."""
        container = self.of(service)[0]
        process = await asyncio.create_subprocess_exec(
            *container.command(*command),
            env=container.environment() | environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    def url(self, service: str, port: str) -> str:
        """Where a container port of a service's first container is on this machine, for HTTP."""
        return f"http://127.0.0.1:{self.of(service)[0].ports[port]}"

    async def down(self) -> dict[str, int | None]:
        """Stop everything at once, servers last; the exit codes by container."""
        codes: dict[str, int | None] = {}
        everything = [one for containers in self.containers.values() for one in containers if one.starts]
        for servers in (False, True):
            those = [one for one in everything if one.service.startswith("nats") == servers]
            codes |= dict(
                zip([one.name for one in those], await asyncio.gather(*(c.stop() for c in those)), strict=True)
            )
        return codes


@asynccontextmanager
async def project(folder: Path, environ: Mapping[str, str]) -> AsyncIterator[Project]:
    """A project; nothing of it is left at the end."""
    made = Project(folder, environ)
    try:
        yield made
    finally:
        for container in [one for containers in made.containers.values() for one in containers]:
            if container._keeping is not None:
                container._keeping.cancel()
            if container._process is not None and container._process.returncode is None:
                container.kill()
                await container._process.wait()


__all__ = ["COMPOSE", "Container", "NotSet", "Project", "project", "read"]
