"""The pipeline goes before the operator, and the operator before the pipeline."""

from __future__ import annotations

from tests.cluster.faults.load import FIRST, Load, address_of, two
from tests.cluster.operator.pipelines import Installation, Pipelines, eventually

_DRAIN = {"drainSeconds": 300}


def gone(pipelines: Pipelines, name: str) -> bool:
    left = "deployment,service,pod,secret,configmap,networkpolicy,pdb,serviceaccount"
    return not pipelines("get", left, "-l", f"disagfusion.dev/pipeline={name}", "-o", "name")


def test_the_pipeline_is_deleted_and_then_the_operator(
    release: Installation, pipelines: Pipelines
) -> None:
    pipelines.write(two("first", deletion=_DRAIN))
    pipelines.settled("first")
    with Load(address_of(pipelines, "first"), leaves=True) as load:
        load.wait_busy()
        load.stop()
        load.assert_busy()
        pipelines("delete", "dfp", "first", "--wait=false")
        eventually("it drains", 20, lambda: pipelines.status("first")["state"] == "Draining")
        load.check()
    eventually("it is gone", 60, lambda: not pipelines.names())
    eventually("and what belonged to it", 90, lambda: gone(pipelines, "first"))
    release.uninstall()
    assert not release.pods()


def test_the_operator_is_deleted_while_the_pipeline_drains(
    release: Installation, pipelines: Pipelines
) -> None:
    pipelines.write(two("both", deletion=_DRAIN))
    pipelines.settled("both")
    pods = pipelines.pods("both")
    with Load(address_of(pipelines, "both"), first=2 * FIRST, leaves=True) as load:
        load.wait_busy()
        load.stop()
        pipelines("delete", "dfp", "both", "--wait=false")
        eventually("it drains", 20, lambda: pipelines.status("both")["state"] == "Draining")
        load.assert_busy()
        release.uninstall()
        assert not release.pods()
        load.assert_busy()
        # Nobody goes on with it, and nobody breaks it off.
        load.check()
        assert pipelines.status("both")["state"] == "Draining"
        assert pipelines.pods("both") == pods
    release.install()
    eventually("it is gone", 90, lambda: not pipelines.names())
    eventually("and what belonged to it", 90, lambda: gone(pipelines, "both"))


def test_the_operator_is_deleted_and_then_the_pipeline(
    release: Installation, pipelines: Pipelines
) -> None:
    pipelines.write(two("last", deletion=_DRAIN))
    pipelines.settled("last")
    pods = pipelines.pods("last")
    with Load(address_of(pipelines, "last")) as load:
        load.wait_busy()
        release.uninstall()
        assert not release.pods()
        load.assert_busy()
        pipelines("delete", "dfp", "last", "--wait=false")
        # It waits for an operator to come back; meanwhile it works on.
        load.wait_ended(20, 60)
        assert "deletionTimestamp" in pipelines.json("get", "dfp", "last")["metadata"]
        assert pipelines.pods("last") == pods
        load.check()
    release.install()
    eventually("it is gone", 90, lambda: not pipelines.names())
    eventually("and what belonged to it", 90, lambda: gone(pipelines, "last"))
