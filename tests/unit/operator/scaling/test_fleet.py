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


ENCODER, DECODER = Place("encoder", "a"), Place("decoder", "a")
CHANGES = {"disagfusion.dev/stage-changes-from": "encoder",
           "disagfusion.dev/stage-changed-at": str(BEGIN + 15)}  # fmt: skip


def together(asked: int, *pods: dict[str, Any], **wanted: int) -> Any:
    """Return the accounts of places that have one Deployment."""
    labels = {"app.kubernetes.io/component": "flex"}
    deployment = {"metadata": {"name": "p-flex-a", "labels": labels}, "spec": {"replicas": asked}}
    places = {place.stage: place for place in (ENCODER, DIT, DECODER)}
    return read_accounts(
        pods,
        dict.fromkeys(places.values(), deployment),
        {},
        {places[stage]: count for stage, count in wanted.items()},
    )


def test_what_a_deployment_of_several_stages_asks_for_is_counted_once() -> None:
    found = together(4, pod("a", **READY), pod("b", **READY), encoder=0, dit=1, decoder=3)
    assert sum(one.held for one in found.values()) == 4
    # What is still to be made is for whoever lacks it.
    assert {place.stage: one.asked for place, one in found.items()} == {
        "encoder": 0, "dit": 2, "decoder": 2,
    }  # fmt: skip
    found = together(1, pod("a", **READY), pod("b", **READY), encoder=1)
    assert (found[DIT].asked, found[DIT].held) == (1, 2)


def test_a_pod_that_changes_starts_with_its_change() -> None:
    changing = pod("a", crew="flex", annotations=CHANGES, **READY)
    found = together(1, changing, dit=1)[DIT]
    assert (found.ready, len(found.live)) == (0, 1)
    assert found.live[0].changes_from == "encoder"
    seen = found.replicas(1, 4.0, BEGIN + 20, change_seconds=9.0)
    assert (seen.ready, seen.starting, seen.starting_since) == (0, 1, BEGIN + 15)
    assert seen.available_at == (BEGIN + 24,)
    # One that has not come up yet has that before it as well.
    seen = found.replicas(1, 30.0, BEGIN + 20, change_seconds=9.0)
    assert seen.available_at == (BEGIN + 30,)


def test_pods_of_a_deployment_that_goes_leave_their_place() -> None:
    stray = pod("a", crew="dit", **READY)
    found = together(2, stray, dit=2)[DIT]
    assert (found.ready, len(found.live), len(found.leaving)) == (0, 0, 1)
    assert found.held == 3


def test_what_people_wrote_on_a_pod_harms_nobody() -> None:
    for text in ("today", "nan", "-inf", "1e999"):
        annotations = {"disagfusion.dev/stage-changed-at": text}
        odd = pod("a", crew="flex", annotations=annotations, **READY)
        assert read_pods([odd])[0].changed_at is None
    del odd["metadata"]["labels"]["disagfusion.dev/stage"]
    (found,) = read_pods([odd])
    assert found.place == Place("", "a")
