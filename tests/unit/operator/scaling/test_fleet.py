from __future__ import annotations

from typing import Any

import pytest
from disagfusion_operator.scaling.fleet import Phase, read_accounts, read_pods
from disagfusion_operator.scaling.view import Key

from disagfusion.scheduling.decision import Place

from .members import BEGIN, Pod, stamp

DIT = Place("dit", "a")
KEY = Key("default", "p")


def pod(name: str, **more: Any) -> dict[str, Any]:
    return Pod(name, KEY, DIT, BEGIN, **more).manifest(BEGIN + 20)


def account(asked: int, *pods: dict[str, Any], **status: Any) -> Any:
    deployment = {"metadata": {"name": "p-dit-a"}, "spec": {"replicas": asked}, "status": status}
    return read_accounts(pods, {DIT: deployment}, {})[DIT]


READY = {"node": "n", "ready_at": BEGIN + 5}


def test_pods_are_ready_starting_or_draining() -> None:
    found = account(
        3, pod("a", **READY), pod("b", node="n"), pod("c", leaves_at=BEGIN + 60, **READY)
    )
    assert (found.ready, len(found.live), len(found.leaving)) == (1, 2, 1)
    assert found.held == 4  # the one that is to be made, too
    seen = found.replicas(3, 30.0, BEGIN + 20)
    assert (seen.ready, seen.starting, seen.draining) == (1, 2, 1)
    assert seen.starting_since == BEGIN
    # Nobody can say when the one that is not there yet will be.
    assert seen.available_at == (BEGIN + 30,)


def test_what_has_failed_holds_nothing() -> None:
    evicted = pod("a", **READY)
    evicted["status"]["phase"] = "Failed"
    assert account(0, evicted).held == 0


def test_pods_above_what_is_wanted_are_about_to_leave_those_first_that_are_not_ready() -> None:
    found = account(3, pod("a", **READY), pod("b", **READY), pod("c", node="n"))
    seen = found.replicas(1, 30.0, BEGIN + 20)
    assert (seen.ready, seen.starting, seen.draining) == (1, 0, 2)
    seen = found.replicas(2, 30.0, BEGIN + 20)
    assert (seen.ready, seen.starting, seen.draining) == (2, 0, 1)


@pytest.mark.parametrize(
    "more", [{"unschedulable": True}, {"node": "n", "waiting_reason": "ImagePullBackOff"}]
)
def test_nobody_waits_for_a_pod_that_cannot_run(more: dict[str, Any]) -> None:
    seen = account(1, pod("a", **more)).replicas(1, 30.0, BEGIN + 20)
    assert (seen.starting, seen.available_at) == (1, ())


def test_a_refusal_is_read_from_the_deployment() -> None:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "message": "exceeded quota",
        "lastTransitionTime": stamp(BEGIN),
    }
    found = account(2, conditions=[condition])
    assert found.refusal is not None
    assert (found.refusal.since, found.refusal.message) == (BEGIN, "exceeded quota")
    assert account(2, conditions=[{**condition, "status": "False"}]).refusal is None


def test_pods_of_a_place_without_deployment_are_counted() -> None:
    accounts = read_accounts([pod("a", **READY)], {}, {})
    assert accounts[DIT].held == 1
    assert accounts[DIT].asked == 0


def test_what_was_written_is_believed_before_the_object() -> None:
    deployment = {"metadata": {"name": "p-dit-a"}, "spec": {"replicas": 5}, "status": {}}
    assert read_accounts([], {DIT: deployment}, {DIT: 2})[DIT].asked == 2


def test_pods_of_others_are_none_of_a_stage() -> None:
    gateway = pod("gateway", **READY)
    del gateway["metadata"]["labels"]["disagfusion.dev/stage"]
    assert not read_pods([gateway])
    assert read_pods([pod("a", leaves_at=BEGIN + 9)])[0].phase is Phase.DRAINING
