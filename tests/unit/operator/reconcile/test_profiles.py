"""Where a pipeline's profile comes from, and what happens where it cannot be had."""

from __future__ import annotations

import json

from bench import Bench
from disagfusion_operator.k8s.kinds import CONFIG_MAP, DEPLOYMENT, PIPELINE, POD, SERVICE
from disagfusion_operator.k8s.port import Object


def measured(*, seconds: float) -> Object:
    """Return a ConfigMap with a profile."""
    stages = {
        stage: {"pools": {"cpu": {"seconds": seconds}}} for stage in ("encoder", "dit", "decoder")
    }
    profile = {"pools": {"cpu": {"accelerators": 4}}, "stages": stages}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "demo", "name": "measured"},
        "data": {"profile.yaml": json.dumps(profile)},
    }


async def test_a_profile_comes_from_where_it_is_said_to_be() -> None:
    bench = Bench()
    source = {"configMap": {"name": "measured"}}
    bench.write(scaling={"profile": source})
    await bench.look()
    degraded = bench.condition("Degraded")
    assert degraded["status"] == "True"
    assert "measured" in degraded["message"]

    given = measured(seconds=1.0)
    bench.cluster.create(given)
    await bench.settle()
    found = bench.scaling.views[-1].profile
    assert found is not None
    assert found.stages["dit"].pools["cpu"].seconds == 1.0
    assert bench.cluster.names(PIPELINE) == ["digits"]
    bench.calls()
    for _ in range(6):
        bench.cluster.clock.now += 10
        await bench.look()
    assert [call for call in bench.calls() if call[1] == "configmaps"] == [
        ("get", "configmaps", "measured")
    ]
    profile = json.loads(given["data"]["profile.yaml"])
    await bench.settle(scaling={"profile": {"inline": {**profile, "name": "inline"}}})
    found = bench.scaling.views[-1].profile
    assert found is not None
    assert found.name == "inline"
    await bench.look()
    bench.write(scaling={"profile": {"inline": {"pools": {}}}})
    with_error = await bench.look()
    assert with_error.failed
    assert "spec.scaling.profile" in bench.condition("Degraded")["message"]


async def test_a_profile_that_is_not_there_keeps_nothing_else_from_being_done() -> None:
    bench = Bench()
    source = {"configMap": {"name": "measured"}}
    status = await bench.settle(scaling={"profile": source})
    # Everything is made, balanced and mended; the condition says what is missing.
    assert status["ratio"] == "1:1:1"
    degraded = bench.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "InvalidArgument")
    assert "spec.scaling.profile" in degraded["message"]
    assert "measured" in degraded["message"]
    assert bench.scaling.views[-1].profile is None
    bench.cluster.remove(SERVICE, "demo", "digits-dit")
    await bench.settle()
    assert "digits-dit" in bench.cluster.names(SERVICE)


async def test_pods_stay_as_they_are_when_their_profile_goes() -> None:
    """What is known of the longest job decides how long pods may take to end."""
    bench = Bench()
    bench.cluster.create(measured(seconds=400.0))
    source = {"configMap": {"name": "measured"}}
    await bench.settle(scaling={"profile": source})
    before = [pod["metadata"]["uid"] for pod in bench.cluster.all(POD)]
    template = bench.deployment("dit")["spec"]["template"]
    bench.cluster.remove(CONFIG_MAP, "demo", "measured")
    bench.cluster.clock.now += 61
    await bench.settle()
    assert bench.condition("Degraded")["status"] == "True"
    assert bench.scaling.views[-1].profile is not None
    assert bench.deployment("dit")["spec"]["template"] == template
    assert [pod["metadata"]["uid"] for pod in bench.cluster.all(POD)] == before
    bench.cluster.create(measured(seconds=400.0))
    assert (await bench.settle())["state"] == "Ready"


async def test_an_emulated_pipeline_waits_for_its_profile() -> None:
    bench = Bench()
    source = {"configMap": {"name": "measured"}}
    bench.write(model={"emulated": {}}, scaling={"profile": source})
    assert (await bench.look()).failed
    assert "spec.scaling.profile" in bench.condition("Degraded")["message"]
    assert bench.cluster.names(DEPLOYMENT) == []
    bench.cluster.create(measured(seconds=1.0))
    assert (await bench.settle())["state"] == "Ready"
