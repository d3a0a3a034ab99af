"""A pipeline that is deleted finishes what was accepted, for as long as it may."""

from __future__ import annotations

from bench import Bench
from disagfusion_operator.k8s.kinds import CHILDREN, CLAIM, PIPELINE
from disagfusion_operator.reconcile.gateways import Fleet

FINALIZER = "disagfusion.dev/drain"


async def delete(bench: Bench) -> None:
    await bench.cluster.delete(PIPELINE, "demo", "digits")


async def test_jobs_finish_and_then_everything_goes() -> None:
    bench = Bench()
    await bench.settle()
    bench.gateways.state = Fleet(unfinished=2)
    await delete(bench)
    look = await bench.look()
    assert look.again is not None
    assert look.again <= 1.0
    assert set(bench.gateways.admission.values()) == {"the pipeline is being deleted"}
    assert bench.status()["state"] == "Draining"
    assert "2 jobs are still under way" in bench.condition("Ready")["message"]
    assert bench.nodes.pods(component="dit")
    # Its pods hold room that others may not have yet.
    assert [view.key for view in bench.scaling.left] == [bench.key]
    assert not bench.scaling.forgotten
    bench.gateways.state = Fleet()
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
    assert [bench.cluster.names(kind) for kind in CHILDREN] == [[]] * len(CHILDREN)
    assert not bench.gateways.cancelled
    assert (await bench.look()).again is None
    assert bench.scaling.forgotten == [bench.key]


async def test_pods_that_outlive_their_pipeline_hold_what_they_have() -> None:
    bench = Bench()
    await bench.settle()
    bench.cluster.lingering = True
    await delete(bench)
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
    # Their grace period is longer than what is left to do for the pipeline.
    assert (await bench.look()).again is not None
    assert len(bench.scaling.left[-1].pods) == 3
    assert bench.scaling.forgotten == []
    bench.nodes.finish()
    assert (await bench.look()).again is None
    assert bench.scaling.forgotten == [bench.key]


async def test_what_is_left_in_the_end_is_cancelled() -> None:
    bench = Bench()
    await bench.settle(deletion={"drainSeconds": 60})
    bench.gateways.state = Fleet(unfinished=1)
    await delete(bench)
    bench.cluster.clock.now += 59
    await bench.look()
    assert not bench.gateways.cancelled
    bench.cluster.clock.now += 2
    await bench.look()
    assert bench.gateways.cancelled == ["the pipeline is being deleted"]
    assert bench.cluster.names(PIPELINE) == ["digits"]
    bench.gateways.state = Fleet()
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_a_gateway_that_cannot_cancel_does_not_hold_up_the_end_for_ever() -> None:
    bench = Bench()
    await bench.settle(deletion={"drainSeconds": 60})
    bench.gateways.state = None
    await delete(bench)
    bench.cluster.clock.now += 70
    await bench.look()
    assert bench.cluster.names(PIPELINE) == ["digits"]
    bench.cluster.clock.now += 15
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_one_that_never_served_goes_at_once() -> None:
    bench = Bench()
    bench.write()
    await bench.look()
    await delete(bench)
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
    assert bench.gateways.asked == 0


async def test_one_that_cannot_be_understood_can_be_deleted() -> None:
    bench = Bench()
    await bench.settle()
    bench.write(model={"builtin": "digits"}, pools={"cpu": {"colour": "red"}})
    await bench.look()
    await delete(bench)
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_results_that_are_to_be_retained_stay() -> None:
    bench = Bench()
    await bench.settle(gateway={"results": {"reclaimPolicy": "Retain"}})
    await delete(bench)
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
    assert bench.cluster.names(CLAIM) == ["digits-jobs", "digits-results"]


async def test_the_policy_can_change_until_the_end() -> None:
    bench = Bench()
    await bench.settle(gateway={"results": {"reclaimPolicy": "Retain"}})
    await bench.settle(gateway={"results": {"reclaimPolicy": "Delete"}})
    await bench.settle(gateway={"results": {"reclaimPolicy": "Retain"}})
    claim = bench.cluster.peek(CLAIM, "demo", "digits-results")
    assert not claim["metadata"].get("ownerReferences")


async def test_an_operator_that_dies_while_it_drains_goes_on() -> None:
    bench = Bench()
    await bench.settle()
    bench.gateways.state = Fleet(unfinished=1)
    await delete(bench)
    await bench.look()
    bench.restart()
    bench.gateways.admission.clear()
    await bench.look()
    # A gateway may have started anew meanwhile, and forgotten.
    assert set(bench.gateways.admission.values()) == {"the pipeline is being deleted"}
    assert FINALIZER in bench.cluster.peek(PIPELINE, "demo", "digits")["metadata"]["finalizers"]
    bench.gateways.state = Fleet()
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
