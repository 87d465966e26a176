"""The cluster of deploy/cluster.conf in containers: an image from scratch around the wheel's static nats-server.

Needs a Docker engine and nothing from a registry. On the host's network, so that servers and tests meet on loopback as
processes do, with the same addresses before and after a kill.
"""

import gc
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import CONFIG, Cluster, check_that_a_gateway_outlives_any_server, cluster_of_three
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.image import DockerImage
from trunkline.embedded.config import find_binary

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
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image's name, where a Docker engine answers."""
    testcontainers_config.ryuk_disabled = True  # its reaper is an image from a registry; our fixtures clean up
    why_not = no_engine()
    if why_not is not None:
        pytest.skip(f"no Docker engine answers here: {why_not}")
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
