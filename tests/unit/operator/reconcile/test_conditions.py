"""What a status says outlasts the moments in which the operator knows less than it says."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench
from disagfusion_operator.api.status import Condition
from disagfusion_operator.k8s.kinds import PIPELINE, POD
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.scaling.report import Finding

from disagfusion.errors import AbortedError

FINDINGS = (
    Finding(Condition.SCALING_ACTIVE, True, "Deciding", "it decides"),
    Finding(Condition.SCALING_LIMITED, True, "PoolFull", "cpu is full"),
    Finding(Condition.METRICS_AVAILABLE, False, "PrometheusError", "no answer"),
    Finding(Condition.CONFLICT, False, "NoOther", ""),
)
FLEX = {"pools": {"cpu": {"flex": {}}}}
NONE = dict.fromkeys([("encoder", "cpu"), ("dit", "cpu"), ("decoder", "cpu")], 0)


async def settled(bench: Bench, **spec: Any) -> Object:
    """Return the status of a pipeline that was settled a while ago."""
    bench.scaling.report = {"findings": FINDINGS, **bench.scaling.report}
    await bench.settle(**spec)
    bench.cluster.clock.now += 100
    await bench.look()
    bench.cluster.clock.now += 100
    bench.cluster.events.clear()
    return bench.status()


@pytest.mark.parametrize("spec", [{}, FLEX], ids=["plain", "flex"])
async def test_a_new_operator_changes_nothing_while_it_does_not_know_what_there_is(
    spec: dict[str, Any],
) -> None:
    bench = Bench()
    before = await settled(bench, **spec)
    assert len(before["conditions"]) == 7
    assert before["decision"]["reason"] == "First"
    bench.restart()
    bench.scaling.knows = False
    for _ in range(2):
        await bench.look()
        assert bench.status() == before
        bench.cluster.clock.now += 40
    bench.scaling.knows = True
    await bench.look()
    assert bench.status() == before
    assert bench.cluster.events == []


async def test_a_pipeline_that_sleeps_is_asleep_for_a_new_operator_too() -> None:
    bench = Bench()
    bench.scaling.wanted, bench.scaling.report = NONE, {"asleep": True}
    before = await settled(bench)
    assert before["state"] == "Idle"
    bench.restart()
    bench.scaling.knows = False
    await bench.look()
    assert bench.status() == before
    # One that had no room is not.
    bench.scaling.knows, bench.scaling.report["asleep"] = True, False
    assert (await settled(bench))["state"] == "Pending"
    bench.restart()
    bench.scaling.knows = False
    await bench.look()
    assert bench.condition("Ready")["status"] == "False"


async def test_a_step_that_fails_takes_nothing_back_that_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    before = await settled(bench)

    async def step(*_: Any) -> None:
        raise AbortedError("the object has been modified")

    with monkeypatch.context() as patched:
        patched.setattr(bench.scaling, "step", step)
        await bench.look()
    assert bench.condition("Progressing")["status"] == "True"
    known = {one["type"]: one for one in before["conditions"]}
    for finding in FINDINGS:
        assert bench.condition(finding.type) == known[finding.type]
    assert bench.status()["decision"] == before["decision"]
    # What comes back has its news told as a transition of what it was.
    bench.scaling.report["findings"] = (
        Finding(Condition.SCALING_ACTIVE, False, "Failing", "it cannot"),
        *FINDINGS[1:],
    )
    await bench.look()
    assert ("Failing", "ScalingActive is False: it cannot") in bench.cluster.events


async def test_what_cannot_be_understood_is_not_balanced_and_forgets_nothing() -> None:
    bench = Bench()
    before = await settled(bench)
    bench.write(model={"builtin": "digits"}, pools={"cpu": {"colour": "red"}})
    await bench.look()
    status = bench.status()
    assert status["state"] == "Invalid"
    active = bench.condition("ScalingActive")
    assert (active["status"], active["reason"]) == ("False", "InvalidSpec")
    known = {one["type"]: one for one in before["conditions"]}
    for finding in FINDINGS[1:]:
        assert bench.condition(finding.type) == known[finding.type]
    assert status["decision"] == before["decision"]
    # What runs holds what it has: nobody else gets it.
    assert bench.scaling.forgotten == []
    bench.write()
    await bench.look()
    assert bench.status()["state"] == "Ready"
    since = known["Conflict"]["lastTransitionTime"]
    assert bench.condition("Conflict")["lastTransitionTime"] == since


async def test_pods_that_outlive_what_could_not_be_understood_hold_what_they_have() -> None:
    bench = Bench()
    await bench.settle()
    bench.write(model={"builtin": "digits"}, pools={"cpu": {"colour": "red"}})
    await bench.look()
    bench.cluster.lingering = True
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
    assert (await bench.look()).again is not None
    assert len(bench.scaling.left[-1].pods) == len(bench.cluster.names(POD)) - 1
    bench.nodes.finish()
    assert (await bench.look()).again is None
    assert bench.scaling.forgotten == [bench.key]


async def test_what_is_deleted_is_balanced_no_more() -> None:
    bench = Bench()
    await settled(bench)
    bench.gateways.state = None
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    await bench.look()
    told = {one["type"] for one in bench.status()["conditions"]}
    assert told == {"Ready", "Progressing", "Degraded"}
