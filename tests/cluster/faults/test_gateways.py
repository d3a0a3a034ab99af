"""Several gateways on one database, of which one is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres_server import PostgresServer

from tests.cluster.faults.load import LEAST, Load, address_of, two
from tests.cluster.operator.pipelines import Pipelines, eventually

_BRIDGE = "10.89.0.1"
"""Where pods reach this machine."""
_UNFINISHED = "SELECT owner, count(*) FROM jobs WHERE ended_at IS NULL GROUP BY owner"


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL server outside the cluster."""
    server = PostgresServer(_BRIDGE)
    yield server
    server.close()


def test_one_of_two_gateways_is_killed(pipelines: Pipelines, database: PostgresServer) -> None:
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
        """Jobs by the pod that they belong to."""
        found: dict[str, int] = {}
        for owner, count in database.execute(_UNFINISHED, name):
            pod = str(owner).partition("/")[0]
            found[pod] = found.get(pod, 0) + count
        return found

    with Load(address_of(pipelines, "pair")) as load:
        load.wait_busy()
        jobs = unfinished()
        assert set(jobs) <= set(gateways), jobs
        # The one that the client is connected to.
        victim = max(jobs, key=lambda pod: jobs[pod])
        assert jobs[victim] >= LEAST
        pipelines("delete", "pod", victim, "--grace-period=0", "--force")
        eventually("the other has its jobs", 60, lambda: victim not in unfinished())
        load.wait_ended(5, 60)
        pipelines.settled("pair")
        load.check()
    after = pipelines.pods("pair", "gateway")
    assert len(after) == 2
    assert victim not in after
    assert pipelines.pods("pair", "dit") == workers
