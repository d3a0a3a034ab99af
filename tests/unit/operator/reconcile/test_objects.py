"""A pipeline becomes objects, which stay as they should be."""

from __future__ import annotations

import copy

from bench import Bench
from disagfusion_operator.k8s.kinds import (
    CHILDREN,
    CLAIM,
    DEPLOYMENT,
    NETWORK_POLICY,
    PIPELINE,
    SECRET,
    SERVICE,
)
from disagfusion_operator.k8s.port import BALANCER, OPERATOR, Kind, Object
from disagfusion_operator.scaling.view import Key

from disagfusion.errors import InvalidArgumentError, UnavailableError

REPLICAS = ("spec", "replicas")


async def test_ten_lines_become_a_pipeline_that_serves() -> None:
    bench = Bench()
    status = await bench.settle()
    assert status["state"] == "Ready"
    assert status["ratio"] == "1:1:1"
    assert status["endpoint"] == "digits.demo.svc:7420"
    assert bench.condition("Ready")["status"] == "True"
    assert bench.condition("Progressing")["status"] == "False"
    assert bench.condition("Degraded")["status"] == "False"
    assert bench.cluster.names(DEPLOYMENT) == [
        "digits-decoder-cpu", "digits-dit-cpu", "digits-encoder-cpu", "digits-gateway",
    ]  # fmt: skip
    assert bench.cluster.names(SERVICE) == [
        "digits", "digits-decoder", "digits-dit", "digits-encoder",
    ]  # fmt: skip
    assert bench.cluster.names(SECRET) == ["digits-internal"]


async def test_at_rest_nothing_is_asked() -> None:
    bench = Bench()
    await bench.settle()
    bench.calls()
    for _ in range(10):
        await bench.look()
    assert bench.calls() == []


async def test_everything_goes_with_the_pipeline() -> None:
    bench = Bench()
    await bench.settle()
    uid = bench.cluster.peek(PIPELINE, "demo", "digits")["metadata"]["uid"]
    for kind in (*CHILDREN, SECRET):
        for found in bench.cluster.all(kind):
            (owner,) = found["metadata"]["ownerReferences"]
            assert owner["uid"] == uid
            assert owner["controller"] is True
            assert found["metadata"]["labels"]["disagfusion.dev/pipeline"] == "digits"


async def test_there_are_no_replicas_until_the_balancer_asks_for_some() -> None:
    bench = Bench()
    seen: list[int] = []
    before = bench.cluster.follow

    def follow(kind: Kind, found: Object, gone: bool) -> None:
        if kind == DEPLOYMENT and "-dit-" in found["metadata"]["name"]:
            seen.append(found["spec"]["replicas"])
        before(kind, found, gone)

    bench.cluster.follow = follow
    bench.write()
    bench.scaling.wanted = {("dit", "cpu"): 0}
    await bench.look()
    assert set(seen) == {0}
    name = "digits-dit-cpu"
    assert bench.cluster.owners(DEPLOYMENT, "demo", name, REPLICAS) == [OPERATOR]
    image = ("spec", "template", "spec", "containers", ("name", "dit"), "image")
    assert bench.cluster.owners(DEPLOYMENT, "demo", name, image) == [OPERATOR]
    # Applied without them, they stay as they are, and from then on they are the balancer's alone.
    await bench.settle(stages={"dit": {"threads": 2}})
    assert bench.deployment("dit")["spec"]["replicas"] == 0
    assert bench.cluster.owners(DEPLOYMENT, "demo", name, REPLICAS) == [BALANCER]
    bench.scaling.wanted = {("dit", "cpu"): 2}
    await bench.settle(stages={"dit": {"threads": 3}})
    assert bench.deployment("dit")["spec"]["replicas"] == 2
    assert bench.cluster.owners(DEPLOYMENT, "demo", name, REPLICAS) == [BALANCER]


async def test_an_operator_that_died_before_replicas_had_an_owner() -> None:
    for fatal in range(1, 4):
        bench = Bench()
        bench.write()
        left = fatal

        def refuse(verb: str, found: Object) -> None:
            nonlocal left
            if "-dit-" in found["metadata"]["name"]:
                left -= 1
                if not left:
                    raise UnavailableError("killed")

        bench.cluster.refuse = refuse
        try:
            await bench.look()
        except UnavailableError:
            pass
        bench.cluster.refuse = lambda verb, found: None
        bench.restart()
        bench.scaling.wanted = {("dit", "cpu"): 3}
        await bench.settle()
        name = "digits-dit-cpu"
        assert bench.cluster.owners(DEPLOYMENT, "demo", name, REPLICAS) == [BALANCER]
        assert bench.deployment("dit")["spec"]["replicas"] == 3


async def test_an_edit_by_hand_is_mended() -> None:
    bench = Bench()
    await bench.settle()
    wanted = copy.deepcopy(bench.deployment("dit")["spec"]["template"])
    path = ("spec", "template", "spec", "containers", 0, "image")
    bench.cluster.change(DEPLOYMENT, "demo", "digits-dit-cpu", *path, value="mine:latest")
    assert Key("demo", "digits") in bench.woken
    await bench.settle()
    assert bench.deployment("dit")["spec"]["template"] == wanted
    bench.calls()
    await bench.look()
    assert bench.calls() == []


async def test_what_was_deleted_by_hand_comes_back() -> None:
    bench = Bench()
    await bench.settle()
    before = {kind: bench.cluster.names(kind) for kind in CHILDREN}
    for kind in CHILDREN:
        for name in bench.cluster.names(kind):
            bench.cluster.remove(kind, "demo", name)
            await bench.settle()
    assert {kind: bench.cluster.names(kind) for kind in CHILDREN} == before
    assert bench.status()["state"] == "Ready"


async def test_what_the_server_writes_in_its_own_way_is_not_applied_again() -> None:
    bench = Bench()

    def normalize(found: Object) -> None:
        if found["kind"] == "Deployment":
            pod = found["spec"]["template"]["spec"]
            pod["dnsPolicy"] = "ClusterFirst"
            for container in pod["containers"]:
                container["imagePullPolicy"] = container["imagePullPolicy"].upper()
                limits = container["resources"].get("limits", {})
                limits |= {"cpu": "1"} if limits.get("cpu") == "1000m" else {}

    bench.cluster.normalize = normalize
    await bench.settle(gateway={"resources": {"limits": {"cpu": "1000m"}}})
    bench.calls()
    await bench.look()
    assert bench.calls() == []


async def test_a_restarted_operator_applies_nothing_anew() -> None:
    bench = Bench()
    await bench.settle()
    bench.restart()
    bench.calls()
    await bench.settle()
    assert [call for call in bench.calls() if call[0] != "get"] == []


async def test_what_is_not_wanted_any_more_goes_but_never_a_volume() -> None:
    bench = Bench()
    await bench.settle()
    secret = {"urlSecret": {"name": "db", "key": "url"}}
    bench.cluster.create(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "namespace": "demo",
                "name": "left-over",
                "labels": {
                    "disagfusion.dev/pipeline": "digits",
                    "app.kubernetes.io/managed-by": "disagfusion-operator",
                },
            },
            "spec": {},
        }
    )
    claims = bench.cluster.names(CLAIM)
    await bench.settle(gateway={"store": {"postgresql": secret}})
    assert "left-over" not in bench.cluster.names(NETWORK_POLICY)
    assert bench.cluster.names(CLAIM) == claims


async def test_a_pool_that_is_taken_away_is_drained_first() -> None:
    bench = Bench()
    pools = {"a": {}, "b": {}}
    bench.scaling.wanted = {("dit", "a"): 1, ("dit", "b"): 2}
    await bench.settle(pools=pools)
    assert len(bench.nodes.pods(component="dit", pool="b")) == 2
    bench.nodes.patient = True
    bench.write(pools={"a": {}})
    await bench.look()
    bench.nodes.settle()
    await bench.look()
    # Their pods still finish what they have: the Deployment stays until they are gone.
    assert bench.deployment("dit", "b")["spec"]["replicas"] == 0
    assert bench.condition("Progressing")["reason"] == "RemovingPool"
    bench.nodes.finish()
    bench.nodes.settle()
    await bench.settle()
    assert "digits-dit-b" not in bench.cluster.names(DEPLOYMENT)
    assert "digits-dit-a" in bench.cluster.names(DEPLOYMENT)
    assert bench.status()["state"] == "Ready"


async def test_what_the_server_refuses_is_told_and_the_rest_goes_on() -> None:
    bench = Bench()

    def refuse(verb: str, found: Object) -> None:
        if found["metadata"]["name"] == "digits-dit-cpu":
            raise InvalidArgumentError("spec.template.spec.runtimeClassName", "not found")

    bench.cluster.refuse = refuse
    bench.write()
    look = await bench.look()
    assert look.failed
    degraded = bench.condition("Degraded")
    assert degraded["status"] == "True"
    assert degraded["reason"] == "NotApplied"
    assert "runtimeClassName" in degraded["message"]
    assert "digits-decoder-cpu" in bench.cluster.names(DEPLOYMENT)
    assert ("NotApplied", f"Degraded is True: {degraded['message']}") in bench.cluster.events
    bench.cluster.refuse = lambda verb, found: None
    assert (await bench.settle())["state"] == "Ready"


async def test_workers_compute_on_the_device_of_their_pool() -> None:
    bench = Bench()
    intel = {"accelerator": {"resource": "gpu.intel.com/xe"}, "device": "xpu:1"}
    bench.scaling.wanted = {("dit", "intel"): 1}
    await bench.settle(pools={"intel": intel, "cpu": {}})
    for pool, device in (("intel", "xpu:1"), ("cpu", "cpu")):
        container = bench.deployment("dit", pool)["spec"]["template"]["spec"]["containers"][0]
        found = {one["name"]: one.get("value") for one in container["env"]}
        assert found["DISAGFUSION_DEVICE"] == device


async def test_a_resource_that_cannot_be_understood_is_left_as_it_is() -> None:
    bench = Bench()
    await bench.settle()
    image = bench.deployment("dit")["spec"]["template"]["spec"]["containers"][0]["image"]
    bench.write(pools={"cpu": {"colour": "red"}})
    await bench.look()
    assert bench.status()["state"] == "Invalid"
    assert "colour" in bench.condition("Degraded")["message"]
    assert bench.status()["stages"]["dit"]["ready"] == 1
    left = bench.deployment("dit")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert left == image
    assert (await bench.settle(pools={"cpu": {}}))["state"] == "Ready"


async def test_a_deployment_that_the_cache_has_lost_keeps_its_replicas() -> None:
    bench = Bench()
    bench.scaling.wanted = {("dit", "cpu"): 3}
    await bench.settle()
    found = bench.cluster.peek(DEPLOYMENT, "demo", "digits-dit-cpu")
    bench.cache.drop(DEPLOYMENT, {"metadata": {**found["metadata"], "uid": ""}})
    assert bench.cache.child(bench.key, DEPLOYMENT, "digits-dit-cpu") is None
    bench.scaling.wanted = {("dit", "cpu"): 3}
    await bench.look()
    assert bench.deployment("dit")["spec"]["replicas"] == 3
    assert bench.cluster.owners(DEPLOYMENT, "demo", "digits-dit-cpu", REPLICAS) == [BALANCER]


async def test_a_label_that_was_taken_away_comes_back_and_replicas_stay() -> None:
    bench = Bench()
    bench.scaling.wanted = {("dit", "cpu"): 2}
    await bench.settle()
    bench.cluster.change(
        DEPLOYMENT, "demo", "digits-dit-cpu", "metadata", "labels", value={"mine": "x"}
    )
    await bench.look()
    found = bench.deployment("dit")
    assert found["spec"]["replicas"] == 2
    assert found["metadata"]["labels"]["disagfusion.dev/pipeline"] == "digits"


async def test_what_is_somebody_elses_is_let_alone() -> None:
    bench = Bench()
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "demo", "name": "digits", "labels": {"app": "theirs"}},
        "spec": {"type": "LoadBalancer", "selector": {"app": "theirs"}},
    }
    bench.cluster.create(theirs)
    bench.write()
    look = await bench.look()
    assert look.failed
    message = bench.condition("Degraded")["message"]
    assert message.startswith("Service digits: it is there already and is somebody else's")
    assert bench.cluster.peek(SERVICE, "demo", "digits")["spec"] == theirs["spec"]


async def test_volumes_that_were_retained_are_taken_up_again() -> None:
    bench = Bench()
    results = {"results": {"reclaimPolicy": "Retain"}}
    await bench.settle(gateway=results)
    await bench.cluster.delete(PIPELINE, "demo", "digits")
    await bench.look()
    before = {one["metadata"]["uid"] for one in bench.cluster.all(CLAIM)}
    assert len(before) == 2
    await bench.settle(gateway=results)
    assert {one["metadata"]["uid"] for one in bench.cluster.all(CLAIM)} == before
    assert bench.status()["state"] == "Ready"
