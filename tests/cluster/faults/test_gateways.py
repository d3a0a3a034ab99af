"""Several gateways on one database, of which one is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer

from tests.cluster.faults.load import LEAST, Load, address_of, two
from tests.cluster.operator.pipelines import Pipelines, eventually, kill, state_of
from tests.cluster.testing import Cluster

_BRIDGE = "10.89.0.1"
"""Where pods reach this machine."""
_UNFINISHED = "SELECT owner, count(*) FROM jobs WHERE ended_at IS NULL GROUP BY owner"


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL server outside the cluster."""
    server = PostgresServer(_BRIDGE)
    yield server
    server.close()


def test_one_of_two_gateways_is_killed(
    cluster: Cluster, pipelines: Pipelines, database: PostgresServer
) -> None:
    url = database.database()
    name = url.rpartition("/")[2]
    pipelines("create", "secret", "generic", "jobs", f"--from-literal=url={url}")
    gateway = {
        "replicas": 2,
        "store": {"postgresql": {"urlSecret": {"name": "jobs", "key": "url"}}},
    }
    pipelines.write(two("pair", gateway=gateway))
    pipelines.settled("pair")
    gateways, workers = pipelines.pods("pair", "gateway"), pipelines.pods("pair", "dit")
    assert len(gateways) == 2

    def unfinished() -> dict[str, int]:
        """Jobs by the process that they belong to: a pod may have several, one after the other."""
        return {str(owner): count for owner, count in database.execute(_UNFINISHED, name)}

    with Load(address_of(pipelines, "pair")) as load:
        load.wait_busy()
        jobs = unfinished()
        # The one that the client is connected to.
        victim = max(jobs, key=lambda owner: jobs[owner])
        pod = victim.partition("/")[0]
        assert pod in gateways
        assert jobs[victim] >= LEAST
        # It dies without a word: nobody is handed its jobs.
        kill(cluster.layout, cluster.kubectl, pipelines.namespace, pod)
        eventually("another has its jobs", 60, lambda: victim not in unfinished())
        load.wait_ended(5, 60)
        pipelines.settled("pair")
        load.check()
    assert state_of(cluster.kubectl, pipelines.namespace, pod)["restartCount"] == 1
    assert pipelines.pods("pair", "gateway") == gateways
    assert pipelines.pods("pair", "dit") == workers
