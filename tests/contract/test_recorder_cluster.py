"""The `eventsourcing` library's own test cases of recorders, on a cluster of three with three copies of each stream."""

from collections.abc import Iterator

import pytest
from cluster import cluster_of_three
from contract import test_recorder as cases


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("cluster")
    with cases.serving(lambda: cluster_of_three(folder), replicas=3) as settings:
        yield settings


class TestAggregateRecorder(cases.TestAggregateRecorder):
    servers = "cluster"


class TestApplicationRecorder(cases.TestApplicationRecorder):
    servers = "cluster"


class TestTrackingRecorder(cases.TestTrackingRecorder):
    servers = "cluster"


class TestProcessRecorder(cases.TestProcessRecorder):
    servers = "cluster"


class TestNonInterleaving(cases.TestNonInterleaving):
    servers = "cluster"


class TestEventCountersView(cases.TestEventCountersView):
    servers = "cluster"


class TestFactory(cases.TestFactory):
    servers = "cluster"
