"""Where a pipeline's profile comes from, and what happens where it cannot be had."""

from __future__ import annotations

import json

from bench import Bench
from disagfusion_operator.k8s.kinds import PIPELINE


async def test_a_profile_comes_from_where_it_is_said_to_be() -> None:
    bench = Bench()
    stages = {
        stage: {"pools": {"cpu": {"seconds": 1.0}}} for stage in ("encoder", "dit", "decoder")
    }
    profile = {"pools": {"cpu": {"accelerators": 4}}, "stages": stages}
    source = {"configMap": {"name": "measured"}}
    bench.write(scaling={"profile": source})
    await bench.look()
    degraded = bench.condition("Degraded")
    assert degraded["status"] == "True"
    assert "measured" in degraded["message"]

    bench.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": "demo", "name": "measured"},
            "data": {"profile.yaml": json.dumps(profile)},
        }
    )
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
    await bench.settle(scaling={"profile": {"inline": {**profile, "name": "inline"}}})
    found = bench.scaling.views[-1].profile
    assert found is not None
    assert found.name == "inline"
    await bench.look()
    bench.write(scaling={"profile": {"inline": {"pools": {}}}})
    with_error = await bench.look()
    assert with_error.failed
    assert "spec.scaling.profile" in bench.condition("Degraded")["message"]
