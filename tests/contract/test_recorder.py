"""The persistence module passes the `eventsourcing` library's own test cases. Those of a cluster lean on these."""

import gc
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase

import msgspec
import pytest
from eventsourcing.dcb.msgpack import MessagePackMapper
from eventsourcing.persistence import ApplicationRecorder, InfrastructureFactory, Tracking
from eventsourcing.tests import application, persistence, projection
from eventsourcing.utils import Environment, get_topic
from trunkline.embedded import EmbeddedServer
from trunkline_events import recorder
from trunkline_events.loop_thread import LoopThread
from trunkline_events.recorder import (
    NatsAggregateRecorder,
    NatsApplicationRecorder,
    NatsFactory,
    NatsProcessRecorder,
    NatsTrackingRecorder,
)

MODULE = "trunkline_events.recorder"


@contextmanager
def serving(start: Callable[[], AbstractAsyncContextManager[Any]], replicas: int = 1) -> Iterator[dict[str, str]]:
    """Servers on a loop of their own, for tests that are not async: what applications need to know of them."""
    servers = LoopThread("servers", start, lambda: RuntimeError("the servers are stopped"))
    running = servers.open()
    try:
        yield {
            "PERSISTENCE_MODULE": MODULE,
            "TRUNKLINE_NATS": running.url,
            "TRUNKLINE_REPLICAS": str(replicas),
        }
    finally:
        gc.collect()  # the library's own cases leave applications behind, whose threads would look for these for ever
        servers.close()


def one_server(folder: Path) -> Callable[[], EmbeddedServer]:
    return lambda: EmbeddedServer(store=folder / "nats", port=0, durability="process")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with serving(one_server(tmp_path_factory.mktemp("server"))) as settings:
        yield settings


_names = itertools.count(1)


class OnNats(TestCase):
    """What the cases have in common: a factory with an application name of its own for each test."""

    servers: ClassVar[str] = "server"
    """The fixture that starts them."""
    settings: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _started(self, request: pytest.FixtureRequest) -> None:
        type(self).settings = request.getfixturevalue(self.servers)

    def named_environment(self) -> Environment:
        return Environment(f"app.{next(_names)} ü", dict(self.settings))

    def new_factory(self) -> NatsFactory:
        made = NatsFactory(self.named_environment())
        self.addCleanup(made.close)
        return made


class TestAggregateRecorder(OnNats, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> NatsAggregateRecorder:
        return self.new_factory().aggregate_recorder()


class TestApplicationRecorder(OnNats, persistence.ApplicationRecorderTestCase[ApplicationRecorder]):
    def create_recorder(self) -> NatsApplicationRecorder:
        return self.new_factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestProcessRecorderAsApplicationRecorder(OnNats, persistence.ApplicationRecorderTestCase[ApplicationRecorder]):
    """A process recorder is an application recorder too, with the same notification ids."""

    def create_recorder(self) -> NatsProcessRecorder:
        return self.new_factory().process_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(OnNats, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> NatsTrackingRecorder:
        return self.new_factory().tracking_recorder()


class TestProcessRecorderAsTrackingRecorder(OnNats, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> NatsProcessRecorder:
        return self.new_factory().process_recorder()


class TestProcessRecorder(OnNats, persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> NatsProcessRecorder:
        return self.new_factory().process_recorder()


class TestNonInterleaving(OnNats, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> NatsApplicationRecorder:
        return self.new_factory().application_recorder()


class OwnTrackingRecorder(NatsTrackingRecorder):
    """What somebody might derive."""


class TestFactory(OnNats, persistence.InfrastructureFactoryTestCase[NatsFactory]):
    def setUp(self) -> None:
        self.env = self.named_environment()
        super().setUp()

    def expected_factory_class(self) -> type[NatsFactory]:
        return NatsFactory

    def expected_aggregate_recorder_class(self) -> type[NatsAggregateRecorder]:
        return NatsAggregateRecorder

    def expected_application_recorder_class(self) -> type[NatsApplicationRecorder]:
        return NatsApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[NatsTrackingRecorder]:
        return NatsTrackingRecorder

    def tracking_recorder_subclass(self) -> type[NatsTrackingRecorder]:
        return OwnTrackingRecorder

    def expected_process_recorder_class(self) -> type[NatsProcessRecorder]:
        return NatsProcessRecorder


class Counts(msgspec.Struct):
    created: int = 0
    subsequent: int = 0


class EventCounters(NatsTrackingRecorder, projection.EventCountersView):
    """A view that is stored together with the position."""

    def _counts(self) -> Counts:
        return _decode(self.view())

    def get_created_event_counter(self) -> int:
        return self._counts().created

    def get_subsequent_event_counter(self) -> int:
        return self._counts().subsequent

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self.insert_tracking(tracking, lambda view: _changed(view, created=1))

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self.insert_tracking(tracking, lambda view: _changed(view, subsequent=1))


def _decode(view: bytes) -> Counts:
    return msgspec.json.decode(view, type=Counts) if view else Counts()


def _changed(view: bytes, created: int = 0, subsequent: int = 0) -> bytes:
    counts = _decode(view)
    return msgspec.json.encode(Counts(counts.created + created, counts.subsequent + subsequent))


class TestEventCountersView(OnNats, projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> EventCounters:
        view = self.new_factory().tracking_recorder(EventCounters)
        assert isinstance(view, EventCounters)
        return view


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """For cases in which the library chooses the application's name."""
    with serving(one_server(tmp_path)) as settings:
        yield settings


class OnFreshServer(TestCase):
    """What the library's cases read from the environment of the process, they find there."""

    env: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def _servers(self, fresh_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        type(self).env = dict(fresh_server)
        for name, value in fresh_server.items():
            monkeypatch.setenv(name, value)
        assert os.environ["PERSISTENCE_MODULE"] == MODULE


class TestExampleApplication(OnFreshServer, application.ExampleApplicationTestCase):
    expected_factory_topic = get_topic(recorder.NatsFactory)


# The library's case records this warning of its own without filtering it.
@pytest.mark.filterwarnings("always:'log' is deprecated:DeprecationWarning")
class TestApplication(OnFreshServer, application.ApplicationTestCase):
    pass


class TestEventCountersProjection(OnFreshServer, projection.AggregateEventCountersProjectionTestCase):
    view_class = EventCounters


class TestTaggedDecisionCounters(OnFreshServer, projection.TaggedDecisionCountersProjectionTestCase):
    """The application stores in memory, its projection's view here."""

    view_class = EventCounters

    def setUp(self) -> None:
        self.env["DCBAPPLICATION_PERSISTENCE_MODULE"] = "eventsourcing.dcb.popo"
        self.env["MAPPER_TOPIC"] = get_topic(MessagePackMapper)


class TestEventSourcedProjection(OnFreshServer, projection.EventSourcedProjectionTestCase):
    pass


def test_the_module_has_one_factory() -> None:
    env: dict[str, Any] = {"PERSISTENCE_MODULE": MODULE, "TRUNKLINE_NATS": "nats://127.0.0.1:1"}
    with_name = InfrastructureFactory.construct(Environment("app", env))
    assert type(with_name) is NatsFactory
