"""Keys, certificates and answers of gateways."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from bench import RELEASE, Bench
from disagfusion_operator.api.base import SecretKey
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired.inputs import Inputs
from disagfusion_operator.k8s.kinds import DEPLOYMENT, PIPELINE, POD, SECRET, SERVICE
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.gateways import Fleet, WorkerReport, fleet_of, joined, tag_of
from disagfusion_operator.reconcile.tokens import Tokens
from disagfusion_operator.scaling.gateways import Door
from disagfusion_operator.scaling.view import Key
from fakes import FakeCluster

from disagfusion.errors import NotFoundError
from disagfusion.rpc.auth import KeyFile
from disagfusion.v1 import fleet_pb2, generation_pb2, stage_pb2

KEY = Key("demo", "digits")
TLS = {"backend": "TCP", "tls": {"secretName": "certs", "serverName": "gateway"}}


def inputs(uid: str = "uid", **spec: Any) -> Inputs:
    given = {"model": {"builtin": "digits"}, "pools": {"cpu": {}}, **spec}
    return Inputs("demo", "digits", uid, Spec.model_validate(given), RELEASE)


def secret(name: str, **data: bytes) -> dict[str, Any]:
    encoded = {key.replace("_", "."): base64.b64encode(data[key]).decode() for key in data}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "demo", "name": name},
        "data": encoded,
    }


async def test_a_key_is_made_once_and_gateways_know_only_its_hash(tmp_path: Any) -> None:
    cluster = FakeCluster()
    tokens = Tokens(cluster, cluster.clock)
    key = await tokens.key_of(KEY, inputs())
    assert await tokens.key_of(KEY, inputs()) == key
    assert [call[0] for call in cluster.calls] == ["get", "replace"]
    data = cluster.peek(SECRET, "demo", "digits-internal")["data"]
    lines = base64.b64decode(data["keys"]).decode()
    assert key not in lines
    (tmp_path / "keys").write_text(lines)
    assert KeyFile(tmp_path / "keys").tenant_of(key) == "operator"
    # Another operator, or this one after a restart, uses the same.
    assert await Tokens(cluster, cluster.clock).key_of(KEY, inputs()) == key


async def test_a_secret_that_was_deleted_is_made_again() -> None:
    cluster = FakeCluster()
    tokens = Tokens(cluster, cluster.clock)
    key = await tokens.key_of(KEY, inputs())
    cluster.remove(SECRET, "demo", "digits-internal")
    cluster.clock.now += 299
    assert await tokens.key_of(KEY, inputs()) == key
    cluster.clock.now += 2
    again = await tokens.key_of(KEY, inputs())
    assert again != key
    assert cluster.names(SECRET) == ["digits-internal"]
    # A pipeline of the same name that was made anew is another one.
    cluster.remove(SECRET, "demo", "digits-internal")
    assert await tokens.key_of(KEY, inputs("another")) not in (key, again)


async def test_certificates_are_files_of_the_operators_own() -> None:
    cluster = FakeCluster()
    tokens = Tokens(cluster, cluster.clock)
    assert await tokens.certificates(KEY, inputs()) is None
    with pytest.raises(NotFoundError):
        await tokens.certificates(KEY, inputs(transport=TLS))
    cluster.create(secret("certs", tls_crt=b"cert", tls_key=b"key"))
    with pytest.raises(NotFoundError, match=r"ca\.crt"):
        await tokens.certificates(KEY, inputs(transport=TLS))
    cluster.create(secret("certs", tls_crt=b"cert", tls_key=b"key", ca_crt=b"ca"))
    found = await tokens.certificates(KEY, inputs(transport=TLS))
    assert found is not None
    assert [path.read_bytes() for path in (found.cert, found.key, found.ca)] == [
        b"cert", b"key", b"ca",
    ]  # fmt: skip
    assert found.key.stat().st_mode & 0o777 == 0o600
    assert found.server_name == "gateway"
    tokens.close()
    assert not found.key.exists()


async def test_a_value_of_somebody_elses_secret() -> None:
    cluster = FakeCluster()
    cluster.create(secret("prometheus", token=b"t\n"))
    tokens = Tokens(cluster, cluster.clock)
    for _ in range(2):
        assert await tokens.value(KEY, SecretKey(name="prometheus", key="token")) == "t"
    assert len(cluster.calls) == 1
    with pytest.raises(NotFoundError, match="no key other"):
        await tokens.value(KEY, SecretKey(name="prometheus", key="other"))


async def test_a_missing_secret_is_told_and_nothing_else_suffers() -> None:
    bench = Bench()
    bench.write(transport=TLS)
    look = await bench.look()
    assert look.failed
    degraded = bench.condition("Degraded")
    assert degraded["status"] == "True"
    assert "certs" in degraded["message"]
    bench.cluster.create(secret("certs", tls_crt=b"c", tls_key=b"k", ca_crt=b"a"))
    assert (await bench.settle())["state"] == "Ready"
    (door,) = bench.scaling.views[-1].doors
    assert door.tls is not None
    assert door.address.endswith(":7421")
    bench.reconciler.close()


def test_answers_are_read_by_version_tags() -> None:
    answer = fleet_pb2.GetFleetResponse(unfinished=3)
    for version in ("m-0.1.0+abc", "m-0.1.0+abc", ""):
        answer.jobs.add(stage=generation_pb2.STAGE_DIT, version=version)
    answer.workers.add(
        name="w", stages=[generation_pb2.STAGE_DIT], version="m-0.1.0+abc",
        state=stage_pb2.WORKER_STATE_READY,
    )  # fmt: skip
    answer.workers.add(name="x", state=stage_pb2.WORKER_STATE_LOADING, reason="loads")
    found = fleet_of(answer)
    assert found.unfinished == 3
    assert dict(found.jobs) == {("dit", "abc"): 2}
    assert found.workers == (
        WorkerReport("w", ("dit",), "abc", True),
        WorkerReport("x", (), "", False, "loads"),
    )
    assert tag_of("m-0.1.0") == ""


def test_gateways_have_their_own_jobs_and_the_same_workers() -> None:
    worker = WorkerReport("w", ("dit",), "a", True)
    one = Fleet(2, {("dit", "a"): 2}, (worker,))
    other = Fleet(3, {("dit", "a"): 1, ("decoder", "a"): 2}, (worker,))
    both = joined([one, other])
    assert both.unfinished == 5
    assert dict(both.jobs) == {("dit", "a"): 3, ("decoder", "a"): 2}
    assert both.workers == (worker,)


async def test_a_key_to_prometheus_that_is_missing_keeps_no_replica_from_starting() -> None:
    bench = Bench()
    secret_key = {"name": "prometheus", "key": "token"}
    status = await bench.settle(scaling={"prometheus": {"bearerTokenSecret": secret_key}})
    assert status["ratio"] == "1:1:1"
    degraded = bench.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "SecretUnavailable")
    bench.cluster.create(secret("prometheus", token=b"t"))
    assert (await bench.settle())["state"] == "Ready"
    assert bench.scaling.views[-1].prometheus_token == "t"


def changed(found: Object, **data: str | None) -> Object:
    """Return what a Secret has, with something else in it."""
    encoded = {k: v and base64.b64encode(v.encode()).decode() for k, v in data.items()}
    return {k: v for k, v in (found["data"] | encoded).items() if v is not None}


@pytest.mark.parametrize(
    "edit", [{"token": "dfk_other"}, {"token": None}, {"keys": "operator: sha256:0\n"}]
)
async def test_a_secret_that_somebody_has_changed_is_told_and_nothing_else_suffers(
    edit: dict[str, str | None],
) -> None:
    bench = Bench()
    await bench.settle()
    found = bench.cluster.peek(SECRET, "demo", "digits-internal")
    bench.cluster.change(SECRET, "demo", "digits-internal", "data", value=changed(found, **edit))
    bench.cluster.clock.now += 301
    bench.cluster.remove(SERVICE, "demo", "digits-dit")
    assert (await bench.look()).failed
    degraded = bench.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "SecretUnavailable")
    assert "the Secret digits-internal: delete it" in degraded["message"]
    assert "digits-dit" in bench.cluster.names(SERVICE)
    assert bench.scaling.views[-1].doors == ()
    bench.cluster.remove(SECRET, "demo", "digits-internal")
    assert (await bench.settle())["state"] == "Ready"
    assert bench.condition("Degraded")["status"] == "False"
    assert bench.scaling.views[-1].doors


async def test_the_secret_of_a_pipeline_that_was_here_before_is_not_used() -> None:
    bench = Bench()
    cluster = bench.cluster
    await Tokens(cluster, cluster.clock).key_of(KEY, inputs("gone"))
    bench.write()
    look = await bench.look()
    assert (look.again, look.failed) == (2.0, False)
    progressing = bench.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("True", "NamesakeGoes")
    assert bench.condition("Degraded")["status"] == "False"
    # A gateway that came now would have the key of a Secret that is about to go.
    assert cluster.names(DEPLOYMENT) == []
    cluster.remove(SECRET, "demo", "digits-internal")
    assert (await bench.settle())["state"] == "Ready"
    (owner,) = cluster.peek(SECRET, "demo", "digits-internal")["metadata"]["ownerReferences"]
    assert owner["uid"] == cluster.peek(PIPELINE, "demo", "digits")["metadata"]["uid"]


async def test_a_secret_that_belongs_to_nobody_is_used_if_it_is_of_use() -> None:
    cluster = FakeCluster()
    key = await Tokens(cluster, cluster.clock).key_of(KEY, inputs("gone"))
    path = ("metadata", "ownerReferences")
    cluster.change(SECRET, "demo", "digits-internal", *path, value=[])
    assert await Tokens(cluster, cluster.clock).key_of(KEY, inputs()) == key


async def test_a_gateway_that_waits_for_its_secret_does_not_wait_for_long() -> None:
    bench = Bench()
    await bench.settle()
    bench.cluster.remove(SECRET, "demo", "digits-internal")
    (pod,) = bench.nodes.pods(component="gateway")
    bench.calls()
    bench.cluster.clock.now += 20
    await bench.look()
    assert bench.cluster.names(SECRET) == [], "at rest it is not asked for"
    creating = {"name": "gateway", "state": {"waiting": {"reason": "ContainerCreating"}}}
    pulling = {"name": "gateway", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    scheduled = {"type": "PodScheduled", "status": "True"}

    def show(*conditions: Object, container: Object) -> None:
        status = {"phase": "Pending", "podIP": "10.0.0.9", "conditions": [*conditions]}
        status["containerStatuses"] = [container]
        bench.cluster.change(POD, "demo", pod["metadata"]["name"], "status", value=status)

    # For want of a node, or of an image, it waits for as long as it must.
    for conditions, container in (((), creating), ((scheduled,), pulling)):
        show(*conditions, container=container)
        await bench.look()
        assert bench.cluster.names(SECRET) == []
    show(scheduled, container=creating)
    await bench.look()
    assert bench.cluster.names(SECRET) == ["digits-internal"]
    bench.calls()
    for _ in range(14):
        bench.cluster.clock.now += 1
        await bench.look()
    assert not [call for call in bench.calls() if call[1] == "secrets"]


@pytest.mark.parametrize("while_leaving", [False, True], ids=["rollout", "deletion"])
async def test_a_key_that_gateways_do_not_know_is_read_again(while_leaving: bool) -> None:
    bench = Bench()
    await bench.settle()
    before = bench.scaling.views[-1].doors[0].key
    bench.cluster.remove(SECRET, "demo", "digits-internal")
    uid = bench.cluster.peek(PIPELINE, "demo", "digits")["metadata"]["uid"]
    another = await Tokens(bench.cluster, bench.cluster.clock).key_of(KEY, inputs(uid))
    bench.gateways.refusing = True
    bench.cluster.clock.now += 16
    if while_leaving:
        await bench.cluster.delete(PIPELINE, "demo", "digits")
    else:
        bench.write(stages={"dit": {"image": "registry/dit:2"}})
    seen: list[str] = []
    fleet = bench.gateways.fleet

    async def ask(door: Door) -> Fleet:
        seen.append(door.key)
        return await fleet(door)

    bench.gateways.fleet = ask  # type: ignore[method-assign]
    bench.calls()
    for _ in range(10):
        bench.cluster.clock.now += 1
        await bench.look()
    assert (seen[0], seen[-1]) == (before, another)
    # And not again and again: a file in a pod takes a minute to follow its Secret.
    assert len([call for call in bench.calls() if call[1] == "secrets"]) == 1
