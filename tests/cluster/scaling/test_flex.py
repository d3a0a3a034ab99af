"""Real pods that change their stage in place, with jobs under way."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from disagfusion.client import JobState
from disagfusion.rpc.channel import open_channel
from disagfusion.v1 import generation_pb2, stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub
from tests.cluster.operator.pipelines import (
    SMALL,
    Installation,
    Pipelines,
    emulated,
    eventually,
)
from tests.cluster.operator.test_pipeline import ends, submit

LABEL, MARK = "disagfusion.dev/stage", "disagfusion.dev/stage-changes-from"
NUMBERS = {
    generation_pb2.STAGE_ENCODER: "encoder",
    generation_pb2.STAGE_DIT: "dit",
    generation_pb2.STAGE_DECODER: "decoder",
}
_END = "import os, time; os.kill(1, 15); time.sleep(0.5); os.kill(1, 15)"
"""The first signal would have a worker finish, the second ends it at once."""


def found(pipelines: Pipelines, name: str) -> list[dict[str, Any]]:
    chosen = f"disagfusion.dev/pipeline={name},app.kubernetes.io/component=flex"
    items = pipelines.json("get", "pods", "-l", chosen)["items"]
    return [one for one in items if "deletionTimestamp" not in one["metadata"]]


def stages(pipelines: Pipelines, name: str) -> dict[str, str]:
    """Return the stages of pods by name; none while one of them changes."""
    pods = found(pipelines, name)
    if any(MARK in one["metadata"].get("annotations", {}) for one in pods):
        return {}
    return {one["metadata"]["name"]: one["metadata"]["labels"][LABEL] for one in pods}


def restarts(pipelines: Pipelines, pod: str) -> int:
    (container,) = pipelines.json("get", "pod", pod)["status"]["containerStatuses"]
    return int(container["restartCount"]) if container["ready"] else 0


async def served(pipelines: Pipelines, pod: str) -> str:
    """Return the stage that a pod's worker serves, by its own words."""
    async with open_channel(pipelines.forward(f"pod/{pod}", 7430)) as channel:
        answer = await StageServiceStub(channel).Describe(stage_pb2.DescribeRequest())
    (stage,) = answer.worker.stages
    assert answer.worker.state == stage_pb2.WORKER_STATE_READY
    return NUMBERS[stage]


@pytest.mark.timeout(400)
async def test_pods_change_in_place_and_lose_no_job(
    pipelines: Pipelines, installation: Installation
) -> None:
    scaling = {"mode": "Auto", "budget": 4}
    pipelines.write(emulated("supple", pools={"small": {"flex": SMALL}}, scaling=scaling))
    wanted = Counter(encoder=1, dit=2, decoder=1)
    eventually("the plan", 120, lambda: Counter(stages(pipelines, "supple").values()) == wanted)
    assert pipelines.settled("supple")["ratio"] == "1:2:1"
    names = pipelines("get", "deployments", "-o", "name").split()
    assert sorted(names) == ["deployment.apps/supple-flex-small", "deployment.apps/supple-gateway"]
    before, pods = stages(pipelines, "supple"), pipelines.pods("supple", "flex")
    assert {pod: await served(pipelines, pod) for pod in before} == before

    async with pipelines.client("supple") as client:
        handles = await submit(client, 30)
        change = {"dit": {"maxReplicas": 1}, "decoder": {"minReplicas": 2}}
        pipelines.patch("supple", {"spec": {"stages": change}})
        # Whoever comes next goes on with what was begun.
        installation.kill(installation.leader())
        handles += await submit(client, 10)
        wanted = Counter(encoder=1, dit=1, decoder=2)
        eventually(
            "another stage has more", 120,
            lambda: Counter(stages(pipelines, "supple").values()) == wanted,
        )  # fmt: skip
        after = stages(pipelines, "supple")
        assert pipelines.pods("supple", "flex") == pods
        (changed,) = (pod for pod in after if after[pod] != before[pod])
        assert (before[changed], after[changed]) == ("dit", "decoder")
        assert {pod: await served(pipelines, pod) for pod in after} == after
        assert pipelines.settled("supple")["ratio"] == "1:1:2"
        endpoints = pipelines.json("get", "endpointslices", "-l",
                                   "kubernetes.io/service-name=supple-decoder")  # fmt: skip
        targets = [
            one["targetRef"]["name"]
            for piece in endpoints["items"]
            for one in piece.get("endpoints") or ()
        ]
        assert sorted(targets) == sorted(pod for pod in after if after[pod] == "decoder")

        # What is started again in the same pod is what it was last.
        pipelines("exec", changed, "--", "python", "-c", _END)
        eventually("it has started again", 90, lambda: restarts(pipelines, changed) == 1)
        assert await served(pipelines, changed) == "decoder"
        assert stages(pipelines, "supple") == after
        handles += await submit(client, 5)
        jobs = await ends(handles, 180)
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert len({job.id for job in jobs}) == 45
    assert pipelines.pods("supple", "flex") == pods
