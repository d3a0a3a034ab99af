"""What the others compare with: the same jobs where nothing breaks."""

from __future__ import annotations

from tests.cluster.faults.load import Load, address_of, last_records, two
from tests.cluster.operator.pipelines import Pipelines


def test_nothing_breaks(pipelines: Pipelines) -> None:
    pipelines.write(two("calm"))
    pipelines.settled("calm")
    pods = pipelines.pods("calm")
    with Load(address_of(pipelines, "calm")) as load:
        load.wait_busy()
        jobs = load.check()
    assert all(job.attempt == 1 for job in jobs)
    assert {record.worker for job in jobs for record in last_records(job).values()} <= set(pods)
    assert pipelines.pods("calm") == pods
