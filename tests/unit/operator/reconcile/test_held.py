"""What pods hold counts also where their pipeline cannot be looked after."""

from __future__ import annotations

from typing import Any

import pytest
from bench import Bench
from disagfusion_operator.k8s.kinds import PIPELINE, POD


async def restarted(**spec: Any) -> Bench:
    """Return a pipeline that serves, and an operator that has just been started."""
    bench = Bench()
    await bench.settle()
    if spec:
        bench.write(**spec)
    bench.restart()
    bench.scaling.views.clear()
    return bench


def stages(bench: Bench) -> set[str]:
    names = (f"digits-{stage}-cpu" for stage in ("encoder", "dit", "decoder"))
    return {
        pod["metadata"]["name"]
        for name in names
        for pod in bench.cache.pods(bench.key)
        if pod["metadata"]["name"].startswith(name)
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"pools": {"cpu": {"colour": "red"}}},
        {"model": {"emulated": {}}, "scaling": {"profile": {"configMap": {"name": "gone"}}}},
    ],
)
async def test_an_operator_that_can_make_nothing_of_a_pipeline_counts_its_pods(
    spec: dict[str, Any],
) -> None:
    bench = await restarted(**spec)
    await bench.look()
    assert bench.condition("Degraded")["status"] == "True"
    assert bench.scaling.views == []
    assert len(stages(bench)) == 3
    assert bench.scaling.held[bench.key] >= stages(bench)


async def test_pods_of_a_pipeline_that_went_before_the_operator_came_count() -> None:
    bench = await restarted()
    found = bench.cluster.peek(PIPELINE, "demo", "digits")
    bench.cache.drop(PIPELINE, found)
    look = await bench.look()
    assert look.again is not None
    assert bench.scaling.held[bench.key] >= stages(bench)
    assert bench.scaling.forgotten == []
    for pod in bench.cache.pods(bench.key):
        bench.cluster.remove(POD, "demo", pod["metadata"]["name"])
    assert (await bench.look()).again is None
    assert bench.scaling.forgotten == [bench.key]
