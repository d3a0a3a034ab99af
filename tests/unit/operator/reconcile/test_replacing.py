"""A stage that is replaced as a whole has no new pod before its last old one is gone."""

from __future__ import annotations

from typing import Any

from bench import Bench
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.k8s.kinds import DEPLOYMENT, POD
from disagfusion_operator.k8s.port import Kind, Object

STAGES = ("encoder", "dit", "decoder")
NEW = {"stages": {stage: {"image": f"registry/{stage}:2"} for stage in STAGES}}
WANTED = {(stage, "cpu"): 4 for stage in STAGES}


def strategy(bench: Bench, stage: str) -> Any:
    return bench.deployment(stage)["spec"]["strategy"]


def pods(bench: Bench, stage: str) -> list[Object]:
    """Return all pods of a stage, those that end included."""
    label = "app.kubernetes.io/component"
    return [one for one in bench.cluster.all(POD) if one["metadata"]["labels"][label] == stage]


def check(found: Object) -> None:
    """Refuse what the API server refuses."""
    if found["kind"] == "Deployment":
        how = found["spec"]["strategy"]
        assert ("rollingUpdate" in how) == (how["type"] == "RollingUpdate")


async def test_no_pod_comes_while_an_old_one_ends() -> None:
    bench = Bench()
    bench.scaling.wanted = WANTED
    await bench.settle()
    most = dict.fromkeys(STAGES, 0)
    before = bench.cluster.follow

    def follow(kind: Kind, found: Object, gone: bool) -> None:
        for stage in STAGES:
            most[stage] = max(most[stage], len(pods(bench, stage)))
        before(kind, found, gone)

    bench.cluster.follow, bench.cluster.normalize = follow, check
    bench.nodes.patient = True
    bench.write(**NEW)
    seen = set()
    for _ in range(40):
        await bench.look()
        bench.nodes.settle()
        bench.restart()
        bench.cluster.follow = follow
        await bench.look()
        if any(not is_live(pod) for pod in pods(bench, "dit")):
            # Some drain for long. Nobody asks for more meanwhile.
            seen.add(strategy(bench, "dit")["type"])
            assert bench.scaling.views[-1].hold
            assert bench.condition("Progressing")["reason"] == "RollingOut"
        bench.nodes.finish()
    assert most["dit"] == most["decoder"] == 4
    assert seen == {"Recreate"}
    for stage in STAGES:
        found = bench.deployment(stage)
        assert strategy(bench, stage)["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "25%"}
        assert len(pods(bench, stage)) == 4
        assert {version_of(pod) for pod in pods(bench, stage)} == {
            version_of(found["spec"]["template"])
        }


async def test_a_pod_whose_node_is_gone_holds_nothing_up() -> None:
    bench = Bench()
    bench.scaling.wanted = WANTED
    await bench.settle()
    bench.write(**NEW)
    while strategy(bench, "dit")["type"] != "Recreate":
        await bench.look()
        # The encoders are replaced. Then DiTs are asked to end, and do not.
        bench.nodes.patient = strategy(bench, "dit")["type"] == "Recreate"
        bench.nodes.settle()
    await bench.look()
    assert [is_live(pod) for pod in pods(bench, "dit")] == [False] * 4
    for pod in pods(bench, "dit")[1:]:
        bench.cluster.remove(POD, "demo", pod["metadata"]["name"])
    for _ in range(3):
        await bench.look()
        bench.nodes.settle()
    assert len(pods(bench, "dit")) == 1
    bench.cluster.clock.now += 31.0
    await bench.look()
    bench.nodes.settle()
    assert len([pod for pod in pods(bench, "dit") if is_live(pod)]) == 4


async def test_what_is_no_new_version_goes_a_quarter_at_a_time() -> None:
    bench = Bench()
    bench.scaling.wanted = WANTED
    await bench.settle()
    seen: set[str] = set()
    before = bench.cluster.follow

    def follow(kind: Kind, found: Object, gone: bool) -> None:
        if kind == DEPLOYMENT and "-dit-" in found["metadata"]["name"]:
            seen.add(found["spec"]["strategy"]["type"])
        before(kind, found, gone)

    bench.cluster.follow = follow
    await bench.settle(stages={stage: {"threads": 2} for stage in STAGES})
    assert seen == {"RollingUpdate"}


def is_live(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"]
