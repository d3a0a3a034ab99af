from __future__ import annotations

from typing import Any

from disagfusion_operator.scaling.conflict import Watch, owners, scalers

from disagfusion.scheduling.decision import Place

from .members import BEGIN

DIT = Place("dit", "a")


def deployment(*managers: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "p-dit-a",
            "managedFields": [
                {"manager": one, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for one in managers
            ]
            + [{"manager": "other", "fieldsV1": {"f:metadata": {}}}],
        }
    }


def autoscaler(kind: str, name: str, target: str = "Deployment") -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"kind": target, "name": name}},
    }


def test_autoscalers_are_told_by_their_target() -> None:
    scaled = {
        "kind": "ScaledObject",
        "metadata": {"name": "so"},
        "spec": {"scaleTargetRef": {"name": "x"}},
    }
    found = scalers(
        [
            autoscaler("HorizontalPodAutoscaler", "p-dit-a"),
            autoscaler("HorizontalPodAutoscaler", "p-encoder-a", "StatefulSet"),
            scaled,
        ]
    )
    assert found == {"p-dit-a": "HorizontalPodAutoscaler web", "x": "ScaledObject so"}


def test_owners_are_those_of_the_replicas_other_than_the_operator() -> None:
    assert owners(deployment("disagfusion-balancer", "disagfusion-operator")) == []
    assert owners(deployment("kubectl")) == ["kubectl"]


def test_a_single_change_by_hand_is_no_conflict() -> None:
    watch = Watch()
    found, news = watch.look({DIT: deployment("kubectl")}, [], {DIT: 9}, BEGIN)
    assert not found
    assert [one.reason for one in news] == ["ReplicasChanged"]
    assert "kubectl asked for 9" in news[0].message


def test_whoever_changes_it_again_and_again_is_one_until_he_stops() -> None:
    watch, deployments = Watch(), {DIT: deployment("keda")}
    for number in range(3):
        found, news = watch.look(deployments, [], {DIT: number}, BEGIN + 60 * number)
    assert found == {DIT: "keda"}
    assert [one.reason for one in news] == ["ReplicasChanged"]
    found, news = watch.look(deployments, [], {}, BEGIN + 130)
    assert found == {DIT: "keda"}
    assert not news
    found, _ = watch.look(deployments, [], {}, BEGIN + 120 + 601)
    assert not found


def test_an_autoscaler_is_a_conflict_at_once_which_the_condition_tells() -> None:
    watch, deployments = Watch(), {DIT: deployment()}
    acting = [autoscaler("HorizontalPodAutoscaler", "p-dit-a")]
    found, news = watch.look(deployments, acting, {}, BEGIN)
    assert found == {DIT: "HorizontalPodAutoscaler web"}
    assert news == []
    assert watch.look(deployments, [], {}, BEGIN + 2)[0] == {}
