"""The cluster that these tests share: the one that runs, or one that is started for them.

With KUBECONFIG set to the access file of another cluster that one is used; images that tests load
must then be in its nodes already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cluster.operator.pipelines import Installation, Pipelines
from tests.cluster.testing import Cluster, Namespace, widget_definition
from tools.cluster import lifecycle, objects
from tools.cluster.__main__ import external
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import ROOT, Layout
from tools.cluster.options import Options
from tools.cluster.processes import wait_for

VOLUMES = 4
IMAGES = ("gateway", "emulated", "operator")


def command(*arguments: str) -> None:
    """Run a command of tools/cluster in a process of its own: what it starts is not this one's."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.cluster", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"tools.cluster {' '.join(arguments)}: {done.stderr.strip()}", pytrace=False)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    layout = Layout()
    if (other := external(layout)) is not None:
        yield Cluster(layout, Kubectl(Path(other)), None)
        return
    if os.geteuid() != 0:
        pytest.fail(
            "these tests need root, for real nodes, or KUBECONFIG set to another cluster's",
            pytrace=False,
        )
    fresh = not lifecycle.running(layout)
    if fresh:
        command("up")
    try:
        yield Cluster(layout, Kubectl(layout.kubeconfig), Options.load(layout.options))
    finally:
        if fresh:
            command("down")


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait for a condition: `until(what, seconds, probe)`."""
    return wait_for


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace for the tests of one module."""
    stem = Path(request.path).stem.removeprefix("test_").replace("_", "-")
    with cluster.namespace(stem) as found:
        yield found


@pytest.fixture(scope="session")
def widgets(cluster: Cluster) -> Iterator[None]:
    """Make the kind of `testing.widget` known."""
    definition = widget_definition()
    name = definition["metadata"]["name"]
    cluster.kubectl.apply([definition])
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    yield
    cluster.kubectl("delete", "crd", name, "--wait=false")


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Iterator[Installation]:
    """The operator, from its chart; the images are those that `make images` has left."""
    archives = [cluster.layout.images / f"disagfusion-{name}.tar" for name in IMAGES]
    if cluster.own:
        missing = [path.name for path in archives if not path.exists()]
        if missing:
            names = " ".join(IMAGES)
            pytest.fail(f"no {', '.join(missing)}: run make images IMAGES='{names}'", pytrace=False)
        cluster.load(*archives)
    layout = cluster.layout if cluster.own else None
    found = Installation(cluster.kubectl, ROOT / "charts" / "disagfusion", layout)
    found.clear()
    found.install()
    yield found
    found.uninstall()


@pytest.fixture
def pipelines(cluster: Cluster, installation: Installation) -> Iterator[Pipelines]:
    """A namespace for pipelines, all of which are gone afterwards, and an operator that runs."""
    installation.renew()
    name = f"pipelines-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    if cluster.own:
        # Each is used once.
        objects.add_volumes(cluster.layout, cluster.kubectl, VOLUMES)
    found = Pipelines(name, cluster.kubectl)
    try:
        yield found
    finally:
        found.close()
        for one in found.names():
            found.patch(one, {"spec": {"deletion": {"drainSeconds": 0}}})
        found("delete", "dfp", "--all", "--timeout=60s")
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Give a first test the time to start the cluster, and all the time that pods take."""
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent) and not list(
            item.iter_markers("timeout")
        ):
            item.add_marker(pytest.mark.timeout(300))
