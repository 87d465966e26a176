"""The deployment in containers, where a Docker engine answers.

The cluster of deploy/nats/cluster.conf: an image from scratch around the wheel's static nats-server, which needs
nothing from a registry. On the host's network, so that servers and tests meet on loopback as processes do, with the
same addresses before and after a kill.

And docker-compose.yml itself, built and started by `docker compose`: that needs the base images, of Python and NATS.
tests/e2e/test_compose.py does the same with processes, everywhere.
"""

import gc
import json
import shutil
import subprocess
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import CONFIG, Cluster, check_that_a_gateway_outlives_any_server, cluster_of_three
from compose_kit import COMPOSE
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.image import DockerImage
from trunkline.embedded.config import find_binary, pick_port
from trunkline.host import ROLES
from trunkline.nkeys import environment

DOCKERFILE = """\
FROM scratch
COPY nats-server cluster.conf accounts.conf /
ENTRYPOINT ["/nats-server", "-c", "/cluster.conf"]
"""


def no_engine() -> str | None:
    """Why no Docker engine can be used; None where one answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the client leaves the socket that it couldn't connect
        try:
            DockerClient().client.ping()
        except DockerException as error:
            return str(error)
        finally:
            gc.collect()
    return None


@pytest.fixture(scope="module")
def engine() -> None:
    """Skips where no Docker engine answers."""
    testcontainers_config.ryuk_disabled = True  # its reaper is an image from a registry; our fixtures clean up
    why_not = no_engine()
    if why_not is not None:
        pytest.skip(f"no Docker engine answers here: {why_not}")


@pytest.fixture(scope="module")
def image(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of an image with the server and its configuration."""
    folder = tmp_path_factory.mktemp("image")
    shutil.copy(find_binary(), folder / "nats-server")
    for name in ("cluster.conf", "accounts.conf"):
        shutil.copy(CONFIG.parent / name, folder)
    (folder / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    with DockerImage(path=folder, tag="trunkline-nats-test:latest") as built:
        yield str(built)


class Containers(Cluster):
    """The same cluster, each server in a container that keeps its store through a kill."""

    image = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._containers: dict[str, Any] = {}
        self._running: set[str] = set()

    def start(self, name: str) -> None:
        self._running.add(name)
        if name in self._containers:
            self._containers[name].get_wrapped_container().start()
            return
        store = self._folder / name
        store.mkdir()
        container = (
            DockerContainer(self.image)
            .with_kwargs(network_mode="host")
            .with_envs(**self.environment(name, "/data"))
            .with_volume_mapping(str(store), "/data", "rw")
        )
        self._containers[name] = container.start()

    def kill(self, name: str) -> None:
        self._running.discard(name)
        container = self._containers[name].get_wrapped_container()
        container.kill()
        container.wait()

    def runs(self, name: str) -> bool:
        return name in self._running

    def pause(self, name: str) -> None:
        self._containers[name].get_wrapped_container().pause()

    def resume(self, name: str) -> None:
        self._containers[name].get_wrapped_container().unpause()

    def stop(self) -> None:
        for container in self._containers.values():
            container.stop()


async def test_a_gateway_outlives_any_server_in_containers(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Containers, "image", image)
    async with cluster_of_three(tmp_path, Containers) as cluster:
        await check_that_a_gateway_outlives_any_server(cluster, tmp_path)


@pytest.fixture
def composed(engine: None, tmp_path: Path) -> Iterator[DockerCompose]:
    """The Compose file's profile single, with the image built, on free ports and as a project of its own."""
    told = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True)
    if told.returncode != 0:
        pytest.skip(f"docker has no compose here: {told.stderr.strip()}")
    lines = {
        "COMPOSE_PROJECT_NAME": "trunkline-test",
        "TRUNKLINE_IMAGE": "trunkline-test",
        "TRUNKLINE_REPLICAS": 1,
        "TRUNKLINE_HTTP_PORTS": pick_port("127.0.0.1"),
        "TRUNKLINE_NATS_PORT": pick_port("127.0.0.1"),
        **environment(),
    }
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
    compose = DockerCompose(COMPOSE.parent, env_file=str(env_file), profiles=["single", "tools"], wait=False)
    try:
        yield compose
    finally:
        compose.stop()


def said(compose: DockerCompose, *command: str) -> str:
    """What `docker compose …` says on stdout. It must end well."""
    done = subprocess.run(
        [*compose.compose_command_property, *command], cwd=COMPOSE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


@pytest.mark.timeout(900)  # the images have to be had and built
def test_the_compose_file_is_built_started_scaled_and_chatted_with(composed: DockerCompose) -> None:
    said(composed, "build")
    said(composed, "up", "--detach", "--wait", "registry")
    scopes = ("--scope", "chat", "--scope", "read", "--scope", "admin")
    key = said(composed, "run", "--rm", "-T", "operator", "keys", "issue", "admin", *scopes).strip()
    said(composed, "up", "--detach", "--wait", "--scale", "router=3", *ROLES)
    host, port = composed.get_service_host_and_port("gateway", 4000)
    url = f"http://{host}:{port}"
    asked(f"{url}/api/providers/register", key, {"id": "scripted", "kind": "scripted", "local": True})
    asked(f"{url}/api/models/register", key, {"id": "echo", "provider": "scripted", "upstream": "echo"})
    chat = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    assert asked(f"{url}/v1/chat/completions", key, chat)["choices"][0]["message"]["content"] == "hello"
    assert len(said(composed, "ps", "--quiet", "router").split()) == 3
    assert said(composed, "exec", "-T", "router", "id", "-u").strip() == "10001"
    tools = "for tool in pip gcc cc make apt-get; do command -v $tool || :; done"
    assert set(said(composed, "exec", "-T", "router", "sh", "-c", tools).split()) <= {
        *("/usr/bin/apt-get", "/usr/local/bin/pip")  # the base image's own; nothing of ours uses them
    }
