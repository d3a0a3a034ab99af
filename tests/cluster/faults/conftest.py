"""What breaks is mended after each test, and what was seen is told where one fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.cluster.faults.monitoring import Prometheus
from tests.cluster.operator.pipelines import Installation, Pipelines
from tests.cluster.testing import Cluster
from tools.cluster.errors import ClusterError

_MACHINE = "10.89.0.1/32"
"""This machine, as pods see it."""
_FAILED = pytest.StashKey[bool]()
_TAIL = 12_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these are faults, and take as long as their jobs."""
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(autouse=True)
def own(cluster: Cluster) -> None:
    """Only a cluster of tools/cluster may be broken."""
    assert cluster.own, "unset KUBECONFIG: another's cluster is not broken"


@pytest.fixture(autouse=True)
def door(cluster: Cluster, pipelines: Pipelines) -> None:
    """Let this machine reach the pods, beside those that pipelines' own policies admit."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "this-machine"},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": _MACHINE}}]}]},
    }
    cluster.kubectl.apply([policy], "-n", pipelines.namespace)


@pytest.fixture(autouse=True)
def told(
    request: pytest.FixtureRequest, pipelines: Pipelines, installation: Installation
) -> Iterator[None]:
    """What the cluster says, where a test has failed."""
    yield
    if request.node.stash.get(_FAILED, False):
        for arguments in (
            ("get", "dfp", "-o", "yaml"),
            ("get", "pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "-l", "app.kubernetes.io/component=gateway", "--tail=40"),
        ):
            print(f"--- kubectl {' '.join(arguments)}\n{_said(pipelines, *arguments)[-_TAIL:]}")
        try:
            print(f"--- operator\n{installation.logs()[-_TAIL:]}")
        except ClusterError as error:
            print(f"--- operator: {error}")


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """One that is not started yet."""
    found = Prometheus(tmp_path)
    yield found
    found.stop()


@pytest.fixture
def release(installation: Installation) -> Iterator[Installation]:
    """The chart, put back as the other tests want it."""
    yield installation
    installation.install()


def _said(pipelines: Pipelines, *arguments: str) -> str:
    try:
        return pipelines(*arguments)
    except ClusterError as error:
        return str(error)
