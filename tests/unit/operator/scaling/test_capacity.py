from __future__ import annotations

from typing import Any

import pytest
from disagfusion_operator.api.pools import Pool, Toleration
from disagfusion_operator.scaling.capacity import (
    Full,
    Learned,
    holdings,
    key_of,
    making_room,
    offered,
    overdue,
    patience,
)
from disagfusion_operator.scaling.fleet import Account, Refusal, read_pods
from disagfusion_operator.scaling.view import Key

from disagfusion.scheduling.decision import Place

from .members import BEGIN, Pod, pool

H100 = Pool.model_validate(pool("h100"))
KEY = key_of(H100, "default/p")


def node(name: str = "n", count: str = "4", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"pool": "h100", "zone": "x"}},
        "spec": spec,
        "status": {
            "allocatable": {"nvidia.com/gpu": count, "cpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def test_nodes_count_whose_labels_are_selected() -> None:
    other = node("other")
    other["metadata"]["labels"] = {"pool": "a10"}
    assert offered([node("a"), node("b", "2"), other], KEY, ()).accelerators == 6


def test_a_node_without_the_resource_has_none() -> None:
    bare = node()
    bare["status"]["allocatable"] = {"cpu": "8"}
    assert offered([bare], KEY, ()).accelerators == 0


@pytest.mark.parametrize("kind", ["cordoned", "silent"])
def test_nodes_that_take_no_more_are_closed(kind: str) -> None:
    found = node("c")
    if kind == "cordoned":
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        found["spec"] = {"unschedulable": True, "taints": [taint]}
    else:
        found["status"]["conditions"][0]["status"] = "Unknown"
    offer = offered([node("a"), found], KEY, ())
    assert (offer.accelerators, offer.closed) == (4, {"c"})


@pytest.mark.parametrize(
    ("toleration", "counts"),
    [
        ({}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists"}, True),
        ({"key": "nvidia.com/gpu", "value": "yes"}, True),
        ({"key": "nvidia.com/gpu", "value": "no"}, False),
        ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
    ],
)
def test_a_taint_has_to_be_tolerated(toleration: dict[str, Any], counts: bool) -> None:
    tainted = node(taints=[{"key": "nvidia.com/gpu", "value": "yes", "effect": "NoSchedule"}])
    tolerations = (Toleration.model_validate(toleration),) if toleration else ()
    assert offered([tainted], KEY, tolerations).accelerators == (4 if counts else 0)


def test_a_taint_that_is_a_preference_keeps_nobody_away() -> None:
    tainted = node(taints=[{"key": "spot", "effect": "PreferNoSchedule"}])
    assert offered([tainted], KEY, ()).accelerators == 4


def test_pools_of_several_pipelines_are_one_if_nodes_and_resource_are_the_same() -> None:
    assert key_of(H100, "default/p") == key_of(H100, "other/q")
    cpu = Pool.model_validate({"nodeSelector": {"pool": "h100"}})
    assert key_of(cpu, "default/p") != key_of(cpu, "other/q")


def test_patience_is_short_where_nobody_brings_nodes() -> None:
    assert patience(H100) == 60
    assert patience(Pool.model_validate(pool("a", provisioning="Autoscaled"))) == 900
    assert patience(Pool.model_validate(pool("a", provisioningTimeoutSeconds=30))) == 30


def waiting(asked: int, *created: float, placed: int = 0, **more: Any) -> Account:
    pods = [
        Pod(f"w{i}", Key("default", "p"), Place("dit", "a"), at, unschedulable=True)
        for i, at in enumerate(created)
    ]
    pods += [
        Pod(f"p{i}", Key("default", "p"), Place("dit", "a"), BEGIN, node="n") for i in range(placed)
    ]
    return Account(asked, tuple(read_pods([one.manifest(BEGIN) for one in pods])), **more)


def test_a_pod_may_wait_for_so_long() -> None:
    account = waiting(3, BEGIN, BEGIN + 50, placed=1)
    assert overdue(account, 60.0, BEGIN + 59, freed_at=0.0) is None
    found = overdue(account, 60.0, BEGIN + 60, freed_at=0.0)
    assert found is not None
    assert (found.keep, found.quota) == (1, False)


def test_it_waits_for_those_that_leave_and_only_then_for_nodes() -> None:
    account = waiting(3, BEGIN)
    assert overdue(account, 60.0, BEGIN + 300, freed_at=BEGIN + 290) is None
    assert overdue(account, 60.0, BEGIN + 350, freed_at=BEGIN + 290) is not None


def test_pods_that_nobody_makes_are_told_from_those_that_find_no_node() -> None:
    account = waiting(3, placed=2, refusal=Refusal(BEGIN, "exceeded quota"))
    found = overdue(account, 900.0, BEGIN + 60, freed_at=0.0)
    assert found is not None
    assert (found.keep, found.quota, found.message) == (2, True, "exceeded quota")
    assert overdue(account, 900.0, BEGIN + 59, freed_at=0.0) is None
    # A refusal of long ago, and since then all have been made.
    whole = waiting(2, placed=2, refusal=Refusal(BEGIN, "exceeded quota"))
    assert overdue(whole, 900.0, BEGIN + 999, freed_at=0.0) is None


def test_a_full_pool_is_so_for_a_while_or_until_the_contrary_is_seen() -> None:
    learned = Learned()
    assert learned.note(KEY, "", Full(4, BEGIN + 600, "why", 8))
    assert not learned.note(KEY, "", Full(4, BEGIN + 700, "why", 8))
    assert learned.at(KEY, "default/p", BEGIN + 1) == Full(4, BEGIN + 700, "why", 8)
    assert not learned.disprove(KEY, 4, 8)
    assert learned.disprove(KEY, 5, 8)
    assert learned.at(KEY, "default/p", BEGIN + 1) is None
    learned.note(KEY, "", Full(4, BEGIN + 600, "why", 8))
    assert learned.disprove(KEY, 4, 9)
    learned.note(KEY, "", Full(4, BEGIN + 600, "why"))
    assert learned.at(KEY, "default/p", BEGIN + 600) is None


def test_a_quota_bounds_its_own_pipeline_only() -> None:
    learned = Learned()
    learned.note(KEY, "default/p", Full(2, BEGIN + 600, "quota"))
    assert learned.at(KEY, "default/p", BEGIN) == Full(2, BEGIN + 600, "quota")
    assert learned.at(KEY, "default/q", BEGIN) is None


def test_room_is_made_by_pods_that_come_to_their_end_where_others_can_start() -> None:
    pods = [
        Pod(name, Key("default", "p"), Place("dit", "a"), BEGIN, node=node, leaves_at=BEGIN + 60)
        for name, node in (("here", "n"), ("dead", "gone"), ("nowhere", ""))
    ]
    leaving = tuple(read_pods([one.manifest(BEGIN) for one in pods]))
    account = Account(0, (), leaving)
    for now, expected in ((BEGIN, ["here"]), (BEGIN + 89, ["here"]), (BEGIN + 90, [])):
        assert [one.name for one in making_room(account, {"gone"}, now)] == expected


def test_pods_hold_what_only_nodes_of_a_kind_have() -> None:
    key = Key("default", "p")
    pods = [
        Pod("w", key, Place("dit", "a"), BEGIN, node="n", accelerators=2),
        Pod("v", key, Place("dit", "a"), BEGIN, node="n"),
        Pod("waits", key, Place("dit", "a"), BEGIN),
        Pod("ended", key, Place("dit", "a"), BEGIN, node="n"),
    ]
    found = [one.manifest(BEGIN) for one in pods]
    found[-1]["status"]["phase"] = "Failed"
    assert holdings(found) == {("n", "nvidia.com/gpu"): 3}
