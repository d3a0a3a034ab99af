"""What does not run becomes a condition with a reason, and an event."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench
from disagfusion_operator.k8s.kinds import DEPLOYMENT, POD
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.gateways import Fleet, WorkerReport
from disagfusion_operator.reconcile.problems import find

NOW = 1_800_000_000.0
SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T08:00:00Z"}


def pod(*, init: Object | None = None, main: Object | None = None, **status: Any) -> Object:
    return {
        "metadata": {
            "name": "p-1",
            "labels": {
                "app.kubernetes.io/component": "dit",
                "disagfusion.dev/stage": "dit",
                "disagfusion.dev/pool": "a10",
            },
        },
        "status": {
            "phase": "Pending",
            "conditions": [SCHEDULED],
            "initContainerStatuses": [{"name": "weights", **init}] if init else [],
            "containerStatuses": [{"name": "dit", **main}] if main else [],
            **status,
        },
    }


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(code: int, message: str = "", reason: str = "Error") -> Object:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


@pytest.mark.parametrize(
    ("found", "reason", "message", "serious"),
    [
        (
            pod(main=waiting("ImagePullBackOff", "not found", image="x:1")),
            "ImageUnavailable", "the image x:1 cannot be had: not found", True,
        ),
        (pod(main=waiting("CreateContainerConfigError", "no secret")),
         "CreateContainerConfigError", "no secret", True),
        (
            pod(init=waiting("CrashLoopBackOff", lastState=ended(3, "a line\nthe last line\n"))),
            "WeightsUnavailable", "the last line", True,
        ),
        (pod(init={"state": ended(3, "no such model")}),
         "WeightsUnavailable", "no such model", True),
        (
            pod(main={"state": {"running": {}}, "lastState": ended(137, reason="OOMKilled")}),
            "OutOfMemory", "it needed more memory than its limit", True,
        ),
        (pod(main=waiting("CrashLoopBackOff", lastState=ended(2, "wrong setting"))),
         "Crashed", "wrong setting", True),
        (pod(main={"state": {"running": {}}, "lastState": ended(2)}),
         "Crashed", "it ended with status 2", False),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "no room"}]),
            "Unschedulable", "no room", False,
        ),
        (pod(phase="Failed", reason="Evicted", message="disk"), "Evicted", "disk", False),
        (pod(init=waiting("PodInitializing"), main=waiting("PodInitializing")),
         "NotStarted", "its containers are not made", True),
    ],
)  # fmt: skip
def test_what_pods_tell(found: Object, reason: str, message: str, serious: bool) -> None:
    (problem,) = find([found], [], [], NOW + 600)
    assert (problem.component, problem.pool) == ("dit", "a10")
    assert (problem.reason, problem.serious) == (reason, serious)
    assert problem.message.startswith(message)
    assert str(problem).startswith("dit on a10: ")


def test_what_runs_starts_or_ends_is_no_problem() -> None:
    running = pod(main={"state": {"running": {}}, "ready": True, "lastState": ended(1)})
    starting = pod(main=waiting("ContainerCreating"))
    leaving = pod(main=waiting("ImagePullBackOff"))
    leaving["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    assert find([running, leaving], [], [], NOW + 600) == []
    at = NOW + 60
    assert find([starting], [], [], at) == []


def test_no_pods_at_all() -> None:
    deployment = {
        "metadata": pod()["metadata"],
        "status": {
            "conditions": [
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "reason": "FailedCreate",
                    "message": "exceeded quota",
                }
            ]
        },
    }
    (problem,) = find([], [deployment], [], NOW)
    assert (problem.reason, problem.serious) == ("FailedCreate", True)
    assert "exceeded quota" in problem.message


def test_a_worker_that_cannot_load_says_why_itself() -> None:
    report = WorkerReport("p-1", ("dit",), "", False, "the model has no transformer")
    (problem,) = find([pod(main={"state": {"running": {}}})], [], [report], NOW)
    assert problem.reason == "WorkerNotReady"
    assert problem.message == "the model has no transformer"


async def test_a_bad_image_is_told_as_condition_and_event() -> None:
    bench = Bench()
    bench.write()
    await bench.look()
    bench.nodes.step()
    for one in bench.nodes.pods(component="dit"):
        status = {**one["status"], **pod(main=waiting("ErrImagePull", "gone", image="x"))["status"]}
        bench.cluster.change(POD, "demo", one["metadata"]["name"], "status", value=status)
    await bench.look()
    degraded = bench.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "ImageUnavailable")
    assert "dit on cpu: the image x cannot be had: gone" in degraded["message"]
    assert bench.status()["state"] == "Degraded"
    told = [reason for reason, _ in bench.cluster.events]
    assert told.count("ImageUnavailable") == 1
    await bench.look()
    assert [reason for reason, _ in bench.cluster.events] == told
    status = await bench.settle()
    assert status["state"] == "Ready"
    assert bench.condition("Degraded")["status"] == "False"
    assert bench.cluster.events[-1][1].startswith("Degraded is False")


async def test_workers_that_do_not_become_ready_are_asked_why() -> None:
    bench = Bench()
    await bench.settle()
    (found,) = bench.nodes.pods(component="dit")
    name = found["metadata"]["name"]
    conditions = [SCHEDULED, {**SCHEDULED, "type": "Ready", "status": "False"}]
    bench.cluster.change(
        POD, "demo", name, "status", value={**found["status"], "conditions": conditions}
    )
    bench.cluster.clock.now += 6
    bench.gateways.state = Fleet(workers=(WorkerReport(name, ("dit",), "", False, "no such file"),))
    look = await bench.look()
    assert look.again is not None
    assert look.again <= 10.0
    degraded = bench.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "WorkerNotReady")
    assert "no such file" in degraded["message"]


async def test_times_of_transitions_are_of_transitions() -> None:
    bench = Bench()
    await bench.settle()
    before = bench.condition("Ready")["lastTransitionTime"]
    bench.cluster.clock.now += 100
    (found,) = bench.nodes.pods(component="encoder")
    bench.cluster.remove(POD, "demo", found["metadata"]["name"])
    await bench.look()
    gone = bench.condition("Ready")
    assert gone["status"] == "False"
    assert "encoder" in gone["message"]
    assert gone["lastTransitionTime"] > before
    assert bench.condition("Degraded")["lastTransitionTime"] == before
    bench.cluster.clock.now += 100
    await bench.settle()
    assert bench.condition("Ready")["lastTransitionTime"] > gone["lastTransitionTime"]


async def test_figures_that_change_all_the_time_are_written_now_and_then() -> None:
    bench = Bench()
    await bench.settle()
    bench.cluster.clock.now += 100
    await bench.look()
    bench.calls()
    for second in range(20):
        bench.cluster.clock.now += 1
        bench.scaling.report = {"throughput": 1.0 + second, "backlog": second}
        await bench.look()
    assert len([call for call in bench.calls() if call[0] == "apply_status"]) == 1
    bench.cluster.clock.now += 30
    await bench.look()
    assert bench.status()["throughput"] == "20"
    assert bench.status()["backlog"] == 19


async def test_a_deployment_that_vanished_is_seen_in_the_status() -> None:
    bench = Bench()
    await bench.settle()
    bench.cluster.remove(DEPLOYMENT, "demo", "digits-gateway")
    bench.nodes.settle()
    await bench.look()
    assert bench.condition("Ready")["reason"] == "GatewayNotReady"
    await bench.settle()
    assert bench.condition("Ready")["status"] == "True"


async def test_a_pod_without_a_node_is_told_though_nothing_is_degraded() -> None:
    bench = Bench()
    bench.write()
    await bench.look()
    bench.nodes.step()
    unschedulable = [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes have room"}]
    for one in bench.nodes.pods(component="gateway"):
        bench.cluster.change(
            POD, "demo", one["metadata"]["name"], "status",
            value={"phase": "Pending", "conditions": unschedulable},
        )  # fmt: skip
    await bench.look()
    ready = bench.condition("Ready")
    assert ready["reason"] == "GatewayNotReady"
    assert ready["message"] == "no gateway is ready (gateway: 0/2 nodes have room)"
    assert bench.condition("Degraded")["status"] == "False"


async def test_no_replicas_for_want_of_work_is_ready_and_for_want_of_room_is_not() -> None:
    bench = Bench()
    bench.scaling.wanted = dict.fromkeys(
        [("encoder", "cpu"), ("dit", "cpu"), ("decoder", "cpu")], 0
    )
    status = await bench.settle()
    assert status["state"] == "Pending"
    ready = bench.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "StagesNotReady")
    bench.scaling.report = {"asleep": True}
    status = await bench.settle()
    assert status["state"] == "Idle"
    ready = bench.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Idle")
