"""A gateway on a cluster of three as deploy/nats/cluster.conf makes it: three copies, no single server is missed."""

from pathlib import Path

from cluster import check_that_a_gateway_outlives_any_server, cluster_of_three
from trunkline.health.bus import bus_checks
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog


async def test_a_gateway_outlives_any_server_and_the_doctor_tells_the_truth(tmp_path: Path) -> None:
    async with cluster_of_three(tmp_path) as cluster:
        await check_that_a_gateway_outlives_any_server(cluster, tmp_path)


async def test_one_copy_in_a_cluster_is_a_problem(tmp_path: Path) -> None:
    async with cluster_of_three(tmp_path) as cluster:
        connection = await Connection.open(cluster.url, name="test")
        await JetStreamLog.open(connection)
        found = {check.name: check for check in await bus_checks(cluster.url)}
        await connection.close()
    assert found["copies"].state == "problem"
    assert "1 of 3 copies in a cluster of 3" in found["copies"].found
    assert "TRUNKLINE_REPLICAS=3" in found["copies"].next
