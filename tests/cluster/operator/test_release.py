"""The chart in a cluster: its own test, upgrades that pipelines do not notice, and the way out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.operator.pipelines import (
    RELEASE,
    SYSTEM,
    Installation,
    Pipelines,
    emulated,
    eventually,
)
from tools.cluster.errors import ClusterError
from tools.cluster.programs import need

DEFINITION = "crd/diffusionpipelines.disagfusion.dev"


@pytest.fixture
def release(installation: Installation) -> Iterator[Installation]:
    """The chart, put back as the other tests want it."""
    yield installation
    installation.install()


def test_its_own_test_passes(installation: Installation) -> None:
    done = subprocess.run(
        [
            str(need("helm")),
            "test",
            RELEASE,
            f"--namespace={SYSTEM}",
            f"--kubeconfig={installation.kubectl.kubeconfig}",
            "--timeout=60s",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Succeeded" in done.stdout


def test_an_upgrade_leaves_the_pods_of_pipelines_as_they_are(
    release: Installation, pipelines: Pipelines
) -> None:
    pipelines.write(emulated("upgraded"))
    pipelines.settled("upgraded")
    pods, operators = pipelines.pods("upgraded"), release.pods()

    release.install(operator={"logLevel": "debug", "replicas": 2}, commonLabels={"more": "yes"})

    eventually("new operators", 60, lambda: not set(release.pods()) & set(operators))
    assert len(release.pods()) == 2
    pipelines.patch("upgraded", {"spec": {"deletion": {"drainSeconds": 1}}})
    pipelines.settled("upgraded")
    assert pipelines.pods("upgraded") == pods


def test_pipelines_go_first_where_the_release_is_told_to_take_them_along(
    release: Installation, pipelines: Pipelines
) -> None:
    pipelines.write(emulated("taken"))
    pipelines.settled("taken")
    release.install(uninstall={"deletePipelines": True, "timeoutSeconds": 60})

    release.uninstall()

    assert pipelines.names() == []
    eventually("no pods", 60, lambda: not pipelines.pods("taken"))
    release.kubectl("get", DEFINITION)
    with pytest.raises(ClusterError, match="not found"):
        release.kubectl("-n", SYSTEM, "get", f"deployment/{RELEASE}")
