"""A pipeline that is deleted finishes what was accepted, for as long as it may."""

from __future__ import annotations

import pytest
from bench import Bench
from disagfusion_operator.k8s.kinds import (
    CHILDREN,
    CLAIM,
    DEPLOYMENT,
    PIPELINE,
    POD,
    SECRET,
    kind_of,
)
from disagfusion_operator.k8s.port import Kind, Object
from disagfusion_operator.reconcile.gateways import Fleet
from fakes import pipeline

from disagfusion.errors import PermissionDeniedError, UnavailableError

FINALIZER = "disagfusion.dev/drain"


async def delete(bench: Bench) -> None:
    await bench.cluster.delete(PIPELINE, "demo", "digits")


async def delete_namespace(bench: Bench, *, pods_first: bool = False) -> None:
    """Delete all that is there; nothing can be made any more, as the API server has it then."""

    def refuse(verb: str, found: Object) -> None:
        metadata = found["metadata"]
        if (kind_of(found), "demo", metadata["name"]) not in bench.cluster.stored:
            raise PermissionDeniedError(
                f"{metadata['name']} is forbidden: unable to create new content in namespace demo"
                " because it is being terminated"
            )

    bench.cluster.refuse = refuse
    for name in bench.cluster.names(POD) if pods_first else ():
        bench.cluster.remove(POD, "demo", name)
        await bench.look()
    await delete(bench)
    for kind in (*CHILDREN, SECRET):
        for name in bench.cluster.names(kind):
            bench.cluster.remove(kind, "demo", name)


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


@pytest.mark.parametrize("others", [[], ["example.com/backup"]], ids=["alone", "with others"])
async def test_a_pipeline_that_was_written_with_its_finalizer_can_be_deleted(
    others: list[str],
) -> None:
    """Restored from a backup, or from what `kubectl get` printed: the finalizer is not ours."""
    bench = Bench()
    written = pipeline()
    written["metadata"]["finalizers"] = [*others, FINALIZER]
    bench.cluster.create(written)
    await bench.settle()
    await delete(bench)
    await bench.look()
    left = [one["metadata"]["finalizers"] for one in bench.cluster.all(PIPELINE)]
    assert left == ([others] if others else [])


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


@pytest.mark.parametrize("pods_first", [False, True], ids=["at once", "pods first"])
async def test_one_whose_namespace_is_deleted_does_not_wait_for_a_gateway_that_cannot_come(
    pods_first: bool,
) -> None:
    bench = Bench()
    await bench.settle()
    bench.gateways.state = Fleet(unfinished=1)
    await delete_namespace(bench, pods_first=pods_first)
    await bench.look()
    assert bench.cluster.stored == {}


async def test_jobs_still_finish_while_a_gateway_outlives_its_deployment() -> None:
    bench = Bench()
    await bench.settle()
    bench.gateways.state = Fleet(unfinished=1)
    bench.cluster.change(
        DEPLOYMENT, "demo", "digits-gateway", "metadata", "deletionTimestamp", value="2027"
    )
    await delete(bench)
    await bench.look()
    assert bench.status()["state"] == "Draining"
    bench.cluster.lingering = True
    bench.cluster.remove(DEPLOYMENT, "demo", "digits-gateway")
    # Its pod is told to end: it takes no orders any more, and has no successor.
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


async def test_a_gateway_that_starts_anew_is_waited_for_until_jobs_would_be_cancelled() -> None:
    bench = Bench()
    await bench.settle(deletion={"drainSeconds": 60})
    (gateway,) = bench.nodes.pods(component="gateway")
    name = gateway["metadata"]["name"]
    bench.gateways.state = Fleet(unfinished=1)
    await delete(bench)
    for second in range(0, 60, 10):
        # It crashes again and again: now it answers, now it does not.
        ready = "True" if second % 20 else "False"
        bench.cluster.change(
            *(POD, "demo", name, "status", "conditions"),
            value=[{"type": "Ready", "status": ready}],
        )
        await bench.look()
        assert bench.status()["state"] == "Draining"
        bench.cluster.clock.now += 10
    bench.cluster.remove(POD, "demo", name)
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []


@pytest.mark.parametrize("spoilt", ["unreadable", "empty"])
async def test_a_key_that_cannot_be_had_does_not_hold_up_the_end_for_ever(
    spoilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    await bench.settle(deletion={"drainSeconds": 60})
    bench.restart()
    if spoilt == "empty":
        (secret,) = bench.cluster.names(SECRET)
        bench.cluster.change(SECRET, "demo", secret, "data", value={})
    else:
        get = bench.cluster.get

        async def fail(kind: Kind, namespace: str, name: str) -> Object:
            if kind == SECRET:
                raise UnavailableError("the key to encrypted Secrets cannot be had")
            return await get(kind, namespace, name)

        monkeypatch.setattr(bench.cluster, "get", fail)
    await delete(bench)
    bench.cluster.clock.now += 81
    await bench.look()
    assert bench.cluster.names(PIPELINE) == []
