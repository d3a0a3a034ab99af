"""A pipeline in a real cluster, from its first line to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from disagfusion.client import AsyncClient, AsyncJobHandle, Job, JobState
from disagfusion.errors import FailedPreconditionError
from tests.cluster.operator.pipelines import (
    SECONDS,
    Installation,
    Pipelines,
    emulated,
    eventually,
)
from tests.cluster.testing import Cluster

STAGES = "disagfusion.dev/stage in (encoder,dit,decoder)"


async def submit(client: AsyncClient, count: int) -> list[AsyncJobHandle]:
    return [await client.submit(f"number {index}", seed=index) for index in range(count)]


async def ends(handles: Sequence[AsyncJobHandle], seconds: float = 120) -> list[Job]:
    """Return the jobs once all have ended."""
    async with asyncio.timeout(seconds):
        while True:
            jobs = [await handle.refresh() for handle in handles]
            if all(job.ended_at is not None for job in jobs):
                return jobs
            await asyncio.sleep(0.5)


def met(job: Job, versions: dict[str, str]) -> set[str]:
    """Return the versions of the pods that a job's last attempt ran in."""
    last = {record.stage: record for record in job.stages if record.outcome == "done"}
    return {versions[record.worker.rpartition("-")[0]] for record in last.values()}


def measured(pipelines: Pipelines, name: str, stage: str) -> dict[str, Any]:
    """Return what the pod itself says of its start, and check that no other was made later."""
    items = pipelines.json("get", "pods", "-l", f"disagfusion.dev/pipeline={name},{STAGES}")[
        "items"
    ]
    made = [seconds_of(one["metadata"]["creationTimestamp"]) for one in items]
    (pod,) = (one for one in items if one["metadata"]["labels"]["disagfusion.dev/stage"] == stage)
    (status,) = pod["status"]["containerStatuses"]
    begin = seconds_of(pod["metadata"]["creationTimestamp"])
    assert begin == max(made)
    found = {
        "stage": stage,
        "pool": "small",
        # An emulated stage fetches nothing.
        "scheduled": times(pod)["PodScheduled"] - begin,
        "pulled": seconds_of(status["state"]["running"]["startedAt"]) - begin,
        "ready": times(pod)["Ready"] - begin,
    }
    assert 0 <= found["scheduled"] <= found["pulled"] <= found["ready"] < 90
    return found


def times(pod: dict[str, Any]) -> dict[str, float]:
    return {
        one["type"]: seconds_of(one["lastTransitionTime"]) for one in pod["status"]["conditions"]
    }


def seconds_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.smoke
async def test_it_serves_is_mended_and_goes(pipelines: Pipelines) -> None:
    pipelines.write(emulated("one", scale=0.2))
    pipelines.wait("one")
    async with pipelines.client("one") as client:
        jobs = await ends(await submit(client, 3))
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    status = pipelines.settled("one")
    assert status["ratio"] == "1:1:1"
    assert status["endpoint"] == f"one.{pipelines.namespace}.svc:7420"
    assert status["coldStart"] == measured(pipelines, "one", status["coldStart"]["stage"])
    before = pipelines.pods("one")

    pipelines("set", "image", "deployment/one-dit-small", "dit=localhost/none:1")
    pipelines("delete", "service", "one-encoder", "one")
    pipelines("delete", "networkpolicy", "--all")
    pipelines("delete", "pdb", "one-dit")

    def mended() -> bool:
        image = pipelines(
            "get", "deployment", "one-dit-small",
            "-o", "jsonpath={.spec.template.spec.containers[0].image}",
        )  # fmt: skip
        names = pipelines("get", "service,networkpolicy,pdb", "-o", "name").split()
        return "none" not in image and {
            "service/one", "service/one-encoder",
            "networkpolicy.networking.k8s.io/one-stages",
            "networkpolicy.networking.k8s.io/one-gateway",
            "poddisruptionbudget.policy/one-dit",
        } <= set(names)  # fmt: skip

    eventually("what was edited and deleted is as it was", 20, mended)
    pipelines.settled("one")
    after = pipelines.pods("one")
    assert {uid for name, uid in before.items() if "-dit-" not in name} <= set(after.values())

    pipelines("delete", "dfp", "one", "--timeout=30s")
    left = "deployment,service,pod,pvc,secret,configmap,networkpolicy,pdb,serviceaccount"
    eventually(
        "everything has gone with it",
        60,
        lambda: not pipelines("get", left, "-l", "disagfusion.dev/pipeline=one", "-o", "name"),
    )


async def test_a_new_version_loses_no_job_and_mixes_no_versions(
    pipelines: Pipelines, installation: Installation
) -> None:
    stages = {"encoder": {"minReplicas": 2}, "dit": {"minReplicas": 3}}
    pipelines.write(emulated("roll", scale=1.0, stages=stages))
    pipelines.settled("roll")
    old = pipelines.pods("roll")
    async with pipelines.client("roll") as client:
        handles = await submit(client, 30)
        pipelines.write(emulated("roll", scale=1.01, stages=stages))
        handles += await submit(client, 20)

        def rolling() -> bool:
            return bool(pipelines.condition("roll", "Progressing").get("reason") == "RollingOut")

        eventually("it rolls out", 20, rolling)
        # The operator dies in the middle, and the next one goes on.
        first = installation.holder()
        installation.kill(installation.leader())
        handles += await submit(client, 10)
        eventually("another leads", 60, lambda: installation.holder() not in ("", first))
        jobs = await ends(handles, 240)
        status = pipelines.settled("roll", 180)
        more = await ends(await submit(client, 3))
    assert {job.state for job in (*jobs, *more)} == {JobState.SUCCEEDED}
    assert len({job.id for job in jobs}) == 60
    versions = pipelines.versions("roll")
    assert all(len(met(job, versions)) == 1 for job in jobs)
    assert len({version for job in jobs for version in met(job, versions)}) == 2
    assert status["ratio"] == "2:3:1"
    new = pipelines.pods("roll")
    assert not {uid for name, uid in old.items() if "gateway" not in name} & set(new.values())
    # The gateway has no part in the version.
    assert {uid for name, uid in old.items() if "gateway" in name} <= set(new.values())


async def test_two_operators_and_a_restart_leave_pods_as_they_are(
    pipelines: Pipelines, installation: Installation
) -> None:
    pipelines.write(emulated("calm"))
    pipelines.settled("calm")
    before = pipelines.pods("calm")
    generation = pipelines.json("get", "deployment", "calm-dit-small")["metadata"]["generation"]
    installation.scale(2)
    try:
        first = installation.holder()
        assert installation.leader() in installation.pods()
        installation.kill(installation.leader())
        eventually("the other leads", 60, lambda: installation.holder() not in ("", first))
        pipelines("delete", "service", "calm-dit")
        eventually(
            "the other mends",
            40,
            lambda: "calm-dit" in pipelines("get", "services", "-o", "name"),
        )
    finally:
        installation.scale(1)
    eventually("one is left", 60, lambda: installation.leader() in installation.pods())
    installation.install(operator={"logLevel": "debug"})
    pipelines.settled("calm")
    assert pipelines.pods("calm") == before
    found = pipelines.json("get", "deployment", "calm-dit-small")["metadata"]["generation"]
    assert found == generation


async def test_deleting_finishes_what_was_accepted(pipelines: Pipelines) -> None:
    pipelines.write(emulated("end", scale=1.0))
    pipelines.settled("end")
    async with pipelines.client("end") as client:
        handles = await submit(client, 6)
        pipelines("delete", "dfp", "end", "--wait=false")

        async def refused() -> str:
            while True:
                try:
                    handles.append(await client.submit("late"))
                except FailedPreconditionError as error:
                    return error.message
                await asyncio.sleep(0.2)

        async with asyncio.timeout(20):
            assert "is being deleted" in await refused()
        assert pipelines.status("end")["state"] == "Draining"
        jobs = await ends_before_the_gateway(client, handles)
    assert set(jobs.values()) == {JobState.SUCCEEDED}
    eventually("it is gone", 60, lambda: not pipelines.names())


async def ends_before_the_gateway(
    client: AsyncClient, handles: Sequence[AsyncJobHandle]
) -> dict[str, JobState]:
    """Return how jobs end, as their streams tell: soon after the last one the gateway is gone."""

    async def end(handle: AsyncJobHandle) -> tuple[str, JobState]:
        async for event in handle.events():
            if event.state.ended:
                return handle.job.id, event.state
        raise AssertionError("the stream ended before the job")

    async with asyncio.timeout(60):
        return dict(await asyncio.gather(*map(end, handles)))


async def test_what_does_not_end_in_time_is_cancelled(pipelines: Pipelines) -> None:
    pipelines.write(emulated("cut", scale=20.0, deletion={"drainSeconds": 3}))
    pipelines.settled("cut")
    async with pipelines.client("cut") as client:
        handles = await submit(client, 4)
        pipelines("delete", "dfp", "cut", "--wait=false")
        jobs = await ends_before_the_gateway(client, handles)
    assert set(jobs.values()) == {JobState.CANCELLED}
    eventually("it is gone", 60, lambda: not pipelines.names())


def test_a_namespace_goes_with_its_pipeline(cluster: Cluster, pipelines: Pipelines) -> None:
    with cluster.namespace("passing") as space:
        inside = Pipelines(space.name, cluster.kubectl)
        # A namespace takes away the gateway that would have finished the jobs.
        inside.write(emulated("passing", deletion={"drainSeconds": 600}))
        inside.settled("passing")
        cluster.kubectl("delete", "namespace", space.name, "--timeout=90s", seconds=100)


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (
            {"stages": {"dit": {"image": "localhost/none:1"}}},
            "ImageUnavailable", "localhost/none:1",
        ),
        ({"gateway": {"image": "localhost/none:1"}}, "ImageUnavailable", "gateway"),
        (
            {"stages": {"dit": {"podTemplate": {"spec": {"nodeSelector": {"no": "where"}}}}}},
            "", "",
        ),
    ],
)  # fmt: skip
async def test_what_cannot_run_is_told_within_half_a_minute(
    pipelines: Pipelines, change: dict[str, Any], reason: str, message: str
) -> None:
    pipelines.write(emulated("bad", **change))
    if not reason:
        eventually(
            "the pod waits for a node",
            30,
            lambda: "didn't match" in pipelines.condition("bad", "Ready").get("message", ""),
        )
        assert pipelines.condition("bad", "Degraded")["status"] == "False"
        return

    def degraded() -> bool:
        found = pipelines.condition("bad", "Degraded")
        return bool(found.get("reason") == reason and message in found["message"])

    eventually("the condition says so", 30, degraded)
    assert reason in pipelines.events("bad")
    pipelines.write(emulated("bad"))
    pipelines.settled("bad")
    assert pipelines.condition("bad", "Degraded")["status"] == "False"


async def test_a_wrong_model_path_is_told_within_half_a_minute(pipelines: Pipelines) -> None:
    pipelines.claim("models")
    # Any of the images can fetch.
    image = {"image": "localhost/disagfusion-emulated:0.1.0"}
    pipelines.write(
        emulated(
            "lost",
            model={"volume": {"claimName": "models", "path": "nowhere"}},
            stages={stage: image for stage in SECONDS},
        )
    )

    def degraded() -> bool:
        found = pipelines.condition("lost", "Degraded")
        return bool(
            found.get("reason") == "WeightsUnavailable" and "nowhere" in found.get("message", "")
        )

    eventually("the condition says so", 30, degraded)
    eventually("an event says so", 10, lambda: "WeightsUnavailable" in pipelines.events("lost"))


async def test_a_hand_that_scales_is_let_alone_where_scaling_is_off(pipelines: Pipelines) -> None:
    pipelines.write(emulated("off"))
    pipelines.settled("off")
    pipelines("scale", "deployment/off-dit-small", "--replicas=3")
    status = eventually(
        "three take work",
        60,
        lambda: (found := pipelines.status("off"))["stages"]["dit"]["ready"] == 3 and found,
    )
    assert status["ratio"] == "1:3:1"
    pipelines("annotate", "dfp", "off", "touched=yes")
    pipelines.settled("off")
    replicas = pipelines("get", "deployment", "off-dit-small", "-o", "jsonpath={.spec.replicas}")
    assert replicas == "3"
