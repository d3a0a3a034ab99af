"""Who reaches the pods of a pipeline and the operator, and what these may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.cluster.operator.pipelines import SYSTEM, Installation, Pipelines, emulated, eventually
from tests.cluster.rights import rights
from tests.cluster.testing import Cluster, archive, container, reaches

CLIENT, INTERNAL, STAGE, DATA, METRICS, HEALTH = 7420, 7421, 7430, 7431, 9464, 8080
STRANGER = "stranger"
WATCHER = {"role": "watcher"}


def pod(name: str, labels: dict[str, str]) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container()]},
    }


@pytest.fixture
def stranger(cluster: Cluster, pipelines: Pipelines) -> str:
    """A pod of the same namespace that nobody knows; and a watcher, for those who know it."""
    cluster.load(archive(cluster.layout))
    cluster.kubectl.apply(
        [pod(STRANGER, {"role": STRANGER}), pod("watcher", WATCHER)], "-n", pipelines.namespace
    )
    pipelines("wait", "--for=condition=Ready", f"pod/{STRANGER}", "pod/watcher", "--timeout=60s")
    return STRANGER


@pytest.fixture
def release(installation: Installation) -> Iterator[Installation]:
    """The chart, put back as the other tests want it."""
    yield installation
    installation.install()


def address(run: Callable[..., str], name: str) -> str:
    return run("get", "pod", name, "-o", "jsonpath={.status.podIP}")


@pytest.mark.smoke
def test_only_its_own_pods_reach_a_pipeline_beyond_the_front_door(
    pipelines: Pipelines, installation: Installation, stranger: str
) -> None:
    pipelines.write(emulated("closed"))
    pipelines.settled("closed")
    (gateway,), (encoder,), (dit,) = (
        pipelines.pods("closed", component) for component in ("gateway", "encoder", "dit")
    )
    at_gateway, at_dit = address(pipelines, gateway), address(pipelines, dit)
    system = partial(installation.kubectl, "-n", SYSTEM)

    # Whoever may, does; so what is refused below is not merely nobody's port.
    assert reaches(pipelines, gateway, at_dit, STAGE)
    assert reaches(pipelines, encoder, at_dit, DATA)
    assert reaches(system, installation.leader(), at_gateway, INTERNAL)
    assert reaches(pipelines, stranger, at_gateway, CLIENT)
    assert reaches(pipelines, stranger, at_dit, METRICS)

    assert not reaches(pipelines, stranger, at_dit, STAGE)
    assert not reaches(pipelines, stranger, at_dit, DATA)
    assert not reaches(pipelines, stranger, at_gateway, INTERNAL)
    assert not reaches(pipelines, gateway, at_dit, DATA)
    assert not reaches(pipelines, encoder, at_dit, STAGE)
    assert not reaches(pipelines, encoder, at_gateway, INTERNAL)
    assert not reaches(system, installation.leader(), at_dit, STAGE)


def test_another_pipeline_does_not_reach_its_stages(pipelines: Pipelines) -> None:
    pipelines.write(emulated("one"))
    pipelines.write(emulated("two"))
    pipelines.settled("one")
    pipelines.settled("two")
    (gateway,), (encoder,), (dit,) = (
        pipelines.pods(name, component)
        for name, component in (("one", "gateway"), ("one", "encoder"), ("two", "dit"))
    )
    (own,) = pipelines.pods("one", "dit")
    assert reaches(pipelines, gateway, address(pipelines, own), STAGE)
    assert not reaches(pipelines, gateway, address(pipelines, dit), STAGE)
    assert reaches(pipelines, encoder, address(pipelines, own), DATA)
    assert not reaches(pipelines, encoder, address(pipelines, dit), DATA)


def test_only_who_is_told_reads_the_operators_metrics(
    release: Installation, pipelines: Pipelines, stranger: str
) -> None:
    namespaces = {"matchLabels": {"kubernetes.io/metadata.name": pipelines.namespace}}
    watchers = {"namespaceSelector": namespaces, "podSelector": {"matchLabels": WATCHER}}
    system = partial(release.kubectl, "-n", SYSTEM)
    operator = address(system, release.leader())
    assert reaches(pipelines, stranger, operator, METRICS)

    release.install(networkPolicy={"metricsFrom": [watchers]})

    operator = address(system, release.leader())
    eventually("the policy", 20, lambda: not reaches(pipelines, stranger, operator, METRICS))
    assert reaches(pipelines, "watcher", operator, METRICS)
    assert reaches(pipelines, stranger, operator, HEALTH)


def test_pods_have_no_rights_and_no_privileges(pipelines: Pipelines) -> None:
    # The strictest of Kubernetes' own levels: a pod that asks for more is not made.
    level = "pod-security.kubernetes.io/enforce=restricted"
    pipelines.kubectl("label", "namespace", pipelines.namespace, level)
    pipelines.write(emulated("safe"))
    pipelines.settled("safe")
    pods = pipelines.pods("safe")
    assert len(pods) == 4
    for name in pods:
        spec = pipelines.json("get", "pod", name)["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for one in spec["containers"]:
            security = one["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            mounted = [mount["mountPath"] for mount in one["volumeMounts"]]
            assert not any("serviceaccount" in path for path in mounted)
    for account in ("safe-stage", "safe-gateway"):
        pipelines("get", "serviceaccount", account)
        assert (
            rights(pipelines.kubectl, f"{pipelines.namespace}:{account}", pipelines.namespace) == ""
        )
