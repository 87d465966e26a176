"""The persistence module when its server is killed, paused or gone: what was acknowledged is there, once."""

import gc
import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cluster import Cluster, cluster_of_three
from eventsourcing.persistence import IntegrityError, OperationalError, StoredEvent, Tracking
from eventsourcing.utils import Environment
from trunkline.embedded import EmbeddedServer
from trunkline_events.loop_thread import LoopThread
from trunkline_events.recorder import NatsFactory


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[LoopThread[EmbeddedServer]]:
    loop = LoopThread(
        "server",
        lambda: EmbeddedServer(store=tmp_path / "nats", port=0, durability="process"),
        lambda: RuntimeError("stopped"),
    )
    yield loop
    loop.close()


@pytest.fixture
def server(servers: LoopThread[EmbeddedServer]) -> EmbeddedServer:
    return servers.open()


@pytest.fixture(autouse=True)
def _what_nats_py_leaves() -> Iterator[None]:
    """A server that dies as it is connected to: nats-py leaves the socket to be collected, and so it is, here."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def factories() -> Iterator[list[NatsFactory]]:
    made: list[NatsFactory] = []
    yield made
    for factory in made:
        factory.close()


def factory_for(url: str, factories: list[NatsFactory], timeout: float = 15.0, replicas: int = 1) -> NatsFactory:
    settings = {"TRUNKLINE_NATS": url, "TRUNKLINE_TIMEOUT": str(timeout), "TRUNKLINE_REPLICAS": str(replicas)}
    factories.append(NatsFactory(Environment("faults", settings)))
    return factories[-1]


def event(originator: UUID, version: int) -> StoredEvent:
    return StoredEvent(originator, version, "topic", b"{}")


def kill(server: EmbeddedServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


def test_saves_under_way_while_the_server_is_killed_are_stored_once_and_whole(
    server: EmbeddedServer, factories: list[NatsFactory]
) -> None:
    recorder = factory_for(server.url, factories).application_recorder()
    done = threading.Event()
    saved: dict[UUID, int] = {}
    ids: list[int] = []
    counted = threading.Semaphore(0)

    def save() -> None:
        for size in itertools.cycle((1, 1, 1, 7)):
            originator = uuid4()
            ids.extend(recorder.insert_events([event(originator, version) for version in range(size)]) or ())
            saved[originator] = size
            counted.release()
            if done.is_set():
                return

    with ThreadPoolExecutor(4) as pool:
        savers = [pool.submit(save) for _ in range(4)]
        for _ in range(2):
            for _ in range(100):
                assert counted.acquire(timeout=20)
            kill(server)
        for _ in range(100):
            assert counted.acquire(timeout=20)
        done.set()
        for saver in savers:
            saver.result(20)
    assert {originator: len(recorder.select_events(originator)) for originator in saved} == saved
    assert sorted(ids) == list(range(1, sum(saved.values()) + 1))
    assert recorder.max_notification_id() == len(ids)


def test_a_subscription_goes_on_across_restarts(server: EmbeddedServer, factories: list[NatsFactory]) -> None:
    recorder = factory_for(server.url, factories).process_recorder()
    with recorder.subscribe() as subscription:
        for number in range(1, 31):
            recorder.insert_events([event(uuid4(), 1)], tracking=Tracking("up", number))
            recorder.insert_tracking(Tracking("other", number))
            if number % 10 == 0:
                kill(server)
        assert [next(subscription).id for _ in range(30)] == list(range(1, 31))
    assert recorder.max_tracking_id("up") == recorder.max_tracking_id("other") == 30


@pytest.mark.parametrize("size", [1, 5])
def test_a_save_whose_acknowledgement_is_late_is_stored_once_and_succeeds(
    server: EmbeddedServer, factories: list[NatsFactory], size: int
) -> None:
    recorder, originator = factory_for(server.url, factories).application_recorder(), uuid4()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    while Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass  # each of its threads has to stop
    # Long enough that it is sent again: the server then finds both, of which the second conflicts with the first.
    resumed = threading.Timer(2.5, os.kill, (server.pid, signal.SIGCONT))
    resumed.start()
    began = time.monotonic()
    assert recorder.insert_events([event(originator, v) for v in range(size)]) == list(range(1, size + 1))
    assert time.monotonic() - began > 1
    assert len(recorder.select_events(originator)) == recorder.max_notification_id() == size


def test_a_save_that_is_never_acknowledged_says_so_and_can_be_made_again(
    server: EmbeddedServer, factories: list[NatsFactory]
) -> None:
    recorder = factory_for(server.url, factories, timeout=0.5).application_recorder()
    processes = factory_for(server.url, factories, timeout=0.5).aggregate_recorder("other")
    assert server.pid is not None
    new = [event(uuid4(), 1)]
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(OperationalError, match="may or may not be stored; save the same again"):
        recorder.insert_events(new)
    with pytest.raises(OperationalError, match="call again") as caught:
        processes.select_events(new[0].originator_id)
    assert caught.value.__cause__ is not None
    os.kill(server.pid, signal.SIGCONT)
    with pytest.raises(IntegrityError):  # the message lay in the server's socket
        recorder.insert_events(new)
    assert recorder.select_events(new[0].originator_id) == new


def test_the_leader_of_a_cluster_is_killed_while_saves_go_on(tmp_path: Path, factories: list[NatsFactory]) -> None:
    loop: LoopThread[Cluster] = LoopThread(
        "cluster", lambda: cluster_of_three(tmp_path), lambda: RuntimeError("stopped")
    )
    cluster = loop.open()
    try:
        recorder = factory_for(cluster.url, factories, timeout=60, replicas=3).process_recorder()
        saved = [uuid4() for _ in range(60)]
        for number, originator in enumerate(saved, 1):
            new = [event(originator, version) for version in range(1 + number % 2)]
            recorder.insert_events(new, tracking=Tracking("up", number))
            assert recorder.select_events(originator) == new  # what was saved is seen, whichever server answers
            if number == 30:
                cluster.kill(leader_of(cluster, factories[-1]))
        notifications = recorder.select_notifications(1, 1000)
        assert [n.id for n in notifications] == list(range(1, 91))
        assert recorder.max_tracking_id("up") == 60
    finally:
        loop.close()


def leader_of(cluster: Cluster, factory: NatsFactory) -> str:
    return factory.datastore.call(lambda bus: cluster.leader(bus.connection, "TRUNKLINE_ES_faults"))
