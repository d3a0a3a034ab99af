"""The metrics of many pipelines in one process."""

from __future__ import annotations

from disagfusion_operator.scaling.controller import Scaling
from prometheus_client import CollectorRegistry

from disagfusion.scheduling.decision import Reason
from disagfusion.telemetry.balanced import BalancedPipelines

from .members import pool, profile
from .world import Known, Told, World

REASONS = [reason.name.lower() for reason in Reason]


async def test_every_pipeline_is_exported_until_it_is_gone() -> None:
    registry = CollectorRegistry()
    world = World()
    world.add_nodes("a", 3, 8)
    spec = {
        "pools": {"a": pool("a")},
        "scaling": {
            "budget": 8,
            "profile": profile("a", encoder=1.0, dit=6.0, decoder=1.0),
        },
    }
    first = world.add("p", spec, lambda now: 0.5)
    second = world.add("p", {**spec, "scaling": {**spec["scaling"], "paused": True}}, namespace="x")
    world.add("p", {**spec, "scaling": {**spec["scaling"], "mode": "Off"}}, namespace="off")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"disagfusion_{name}", {"pipeline": "p", **labels})

    metrics = BalancedPipelines(registry, REASONS)
    async with Scaling(world, load=Known(world), gateways=Told(world), metrics=metrics) as scaling:
        await world.run(scaling, 60)
        at = {"namespace": "default", "stage": "dit", "pool": "a"}
        assert value("desired_replicas", **at) == 6
        assert value("replicas", **at, state="ready") == 6
        assert value("replicas", **at, state="draining") == 0
        assert value("pool_accelerators", namespace="default", pool="a", state="held") == 8
        assert value("pool_accelerators", namespace="default", pool="a", state="usable") == 8
        assert value("model_correction_ratio", **at) == 1.0
        assert value("balancer_held", namespace="default") == 0
        assert value("balancer_held", namespace="x") == 1
        assert value("balancer_held", namespace="off") == 1
        decided = value("balancer_decisions_total", namespace="default", reason="balanced")
        assert decided is not None
        assert decided >= 4
        assert value("balancer_decisions_total", namespace="default", reason="fallback") == 0
        paused = value("balancer_decisions_total", namespace="x", reason="paused")
        assert paused is not None
        assert paused >= 4
        scaling.forget(second.key)
        assert value("balancer_held", namespace="x") is None
        assert value("balancer_held", namespace="default") == 0
    assert value("balancer_held", namespace="default") is None
    assert first.key.name == second.key.name
