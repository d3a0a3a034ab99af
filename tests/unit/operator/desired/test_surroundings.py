"""Gateways, volumes, policies and what else a pipeline is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from bench import RELEASE
from disagfusion_gateway.settings import GatewaySettings
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired import gateway, pipeline, policies
from disagfusion_operator.desired.inputs import Inputs

POSTGRESQL = {"postgresql": {"urlSecret": {"name": "db", "key": "url"}}}


def inputs(**spec: Any) -> Inputs:
    given = {"model": {"builtin": "digits"}, "pools": {"cpu": {}}, **spec}
    return Inputs("demo", "p", "uid", Spec.model_validate(given), RELEASE)


def container(found: Inputs) -> Any:
    (one,) = gateway.deployment(found)["spec"]["template"]["spec"]["containers"]
    return one


def environment(found: Inputs) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(found)["env"]}


def test_a_gateway_understands_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = inputs(
        gateway={"queueLimit": 7, "results": {"retentionSeconds": 3600}}, scaling={"budget": 4}
    )
    for name, value in environment(found).items():
        monkeypatch.setenv(name, value if isinstance(value, str) else "p-gateway-1")
    settings = GatewaySettings()
    workers = settings.worker_addresses()
    assert [one.address for one in workers] == [
        "p-encoder.demo.svc:7430", "p-dit.demo.svc:7430", "p-decoder.demo.svc:7430",
    ]  # fmt: skip
    assert all(one.dns for one in workers)
    assert (settings.listen, settings.internal_listen) == ("0.0.0.0:7420", "0.0.0.0:7421")
    assert settings.open_to_all
    assert str(settings.internal_keys) == "/etc/disagfusion/internal/keys"
    assert settings.database == "sqlite:////var/lib/disagfusion/jobs/jobs.sqlite3"
    assert settings.queue_limit == 7
    assert settings.retention_result_seconds == 3600


def test_what_has_ended_leaves_room_on_its_volume() -> None:
    found = environment(inputs())
    assert int(found["DISAGFUSION_RETENTION_RESULT_BYTES"]) == int(0.85 * 10 * 2**30)
    assert int(found["DISAGFUSION_RETENTION_JOB_BYTES"]) == int(0.85 * 2**30)
    store = {"sqlite": {"storage": "4Gi"}}
    found = environment(inputs(gateway={"results": {"storage": "500Gi"}, "store": store}))
    assert int(found["DISAGFUSION_RETENTION_RESULT_BYTES"]) == int(0.85 * 500 * 2**30)
    assert int(found["DISAGFUSION_RETENTION_JOB_BYTES"]) == int(0.85 * 4 * 2**30)
    found = environment(inputs(gateway={"store": POSTGRESQL}))
    assert "DISAGFUSION_RETENTION_JOB_BYTES" not in found


def test_a_sqlite_database_has_one_gateway_at_a_time() -> None:
    spec = gateway.deployment(inputs())["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_several_gateways_share_a_database_and_their_results() -> None:
    found = inputs(gateway={"replicas": 3, "store": POSTGRESQL})
    spec = gateway.deployment(found)["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert environment(found)["DISAGFUSION_DATABASE"] == {
        "secretKeyRef": {"name": "db", "key": "url"}
    }
    (claim,) = gateway.claims(found)
    assert claim["metadata"]["name"] == "p-results"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_number_of_gateways_decides_nothing_that_cannot_change() -> None:
    one, more = (inputs(gateway={"replicas": n, "store": POSTGRESQL}) for n in (1, 2))
    assert gateway.claims(one) == gateway.claims(more)
    # In a rollout there are two of one, perhaps on two nodes.
    assert gateway.claims(one)[0]["spec"]["accessModes"] == ["ReadWriteMany"]
    for claim in gateway.claims(inputs()):
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_keys_of_clients_are_mounted_and_nobody_else_is_let_in() -> None:
    authentication = {"apiKeysSecret": {"name": "clients", "key": "keys.txt"}}
    found = inputs(gateway={"authentication": authentication})
    settings = environment(found)
    assert settings["DISAGFUSION_API_KEYS"] == "/etc/disagfusion/keys/keys.txt"
    assert "DISAGFUSION_OPEN_TO_ALL" not in settings


def test_the_operators_key_itself_is_not_in_the_gateway() -> None:
    volumes = gateway.deployment(inputs())["spec"]["template"]["spec"]["volumes"]
    (secret,) = [one["secret"] for one in volumes if one["name"] == "internal"]
    assert secret["items"] == [{"key": "keys", "path": "keys"}]


def test_volumes_stay_where_results_are_retained() -> None:
    for policy, owned in (("Retain", False), ("Delete", True)):
        found = inputs(gateway={"results": {"reclaimPolicy": policy, "storageClassName": "fast"}})
        for claim in gateway.claims(found):
            assert ("ownerReferences" in claim["metadata"]) is owned
        assert gateway.claims(found)[0]["spec"]["storageClassName"] == "fast"


def admitted(policy: Any) -> dict[int, list[Any]]:
    return {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}


def test_only_what_belongs_to_the_pipeline_reaches_its_pods() -> None:
    release = dataclasses.replace(RELEASE, prometheus_namespace="monitoring")
    found = dataclasses.replace(inputs(), release=release)
    stages, gateways = policies.policies(found)
    mine = {"disagfusion.dev/pipeline": "p"}
    rules = admitted(stages)
    assert set(rules) == {7430, 7431, 9464}
    (peer,) = rules[7430]
    assert peer["podSelector"]["matchLabels"] == {**mine, "app.kubernetes.io/component": "gateway"}
    (peer,) = rules[7431]
    assert peer["podSelector"]["matchLabels"] == mine
    (peer,) = rules[9464]
    assert peer == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }
    data = next(rule for rule in stages["spec"]["ingress"] if rule["ports"][0]["port"] == 7431)
    assert {"protocol": "TCP", "port": 7440, "endPort": 7499} in data["ports"]
    rules = admitted(gateways)
    assert set(rules) == {7420, 7421, 9464}
    (peer,) = rules[7421]
    assert peer["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "operator-system"
    }
    assert rules[7420] is None, "clients may come from outside of the cluster"
    closed = dataclasses.replace(release, client_namespaces={"team": "x"})
    rules = admitted(policies.policies(dataclasses.replace(found, release=closed))[1])
    assert rules[7420] == [
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"team": "x"}}},
    ]
    assert admitted(policies.policies(inputs())[0])[9464] is None


def test_policies_and_monitors_are_made_where_they_are_wanted() -> None:
    def kinds(**release: Any) -> set[str]:
        found = dataclasses.replace(inputs(), release=dataclasses.replace(RELEASE, **release))
        return {one["kind"] for one in pipeline.supports(found)}

    assert "NetworkPolicy" in kinds()
    assert "NetworkPolicy" not in kinds(network_policies=False)
    assert "PodMonitor" not in kinds()
    assert "PodMonitor" in kinds(pod_monitors=True)


def test_every_object_says_whose_it_is() -> None:
    found = inputs()
    objects = [*pipeline.supports(found), *(one for _, one in pipeline.stage_deployments(found))]
    for one in (*objects, gateway.deployment(found)):
        metadata = one["metadata"]
        assert metadata["namespace"] == "demo"
        assert metadata["labels"]["disagfusion.dev/pipeline"] == "p"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "disagfusion-operator"
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == (
            "DiffusionPipeline",
            "uid",
            True,
        )


def test_services_of_stages_name_workers_before_they_are_ready() -> None:
    services = {
        one["metadata"]["name"]: one["spec"]
        for one in pipeline.supports(inputs())
        if one["kind"] == "Service"
    }
    assert services["p"]["ports"][0]["port"] == 7420
    for stage in ("encoder", "dit", "decoder"):
        spec = services[f"p-{stage}"]
        assert spec["clusterIP"] == "None"
        assert spec["publishNotReadyAddresses"] is True
