"""The operator in the cluster, from its chart, and pipelines in a namespace of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.operator.pipelines import Installation, Pipelines
from tests.cluster.testing import Cluster
from tools.cluster import objects
from tools.cluster.layout import ROOT

VOLUMES = 4
IMAGES = ("gateway", "emulated", "operator")


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Iterator[Installation]:
    """The chart, installed; the images are those that `make images` has left."""
    archives = [cluster.layout.images / f"disagfusion-{name}.tar" for name in IMAGES]
    if cluster.own:
        missing = [path.name for path in archives if not path.exists()]
        if missing:
            names = " ".join(IMAGES)
            pytest.fail(f"no {', '.join(missing)}: run make images IMAGES='{names}'", pytrace=False)
        cluster.load(*archives)
    found = Installation(cluster.kubectl, ROOT / "charts" / "disagfusion")
    found.install()
    yield found
    found.uninstall()


@pytest.fixture
def pipelines(cluster: Cluster, installation: Installation) -> Iterator[Pipelines]:
    """A namespace for pipelines, all of which are gone afterwards."""
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
