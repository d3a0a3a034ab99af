"""The chart against a real API server: it knows every object, and nobody may too much."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.rights import rights
from tools.chart.schemas import LOCATION, write_schemas
from tools.cluster import programs
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import ROOT
from tools.cluster.processes import wait_for

from .conftest import CHART, Helm

pytestmark = pytest.mark.smoke

RIGHTS = Path(__file__).with_name("rights")
EVERYTHING: dict[str, Any] = {
    "images": {"pullSecrets": ["registry"]},
    "operator": {
        "replicas": 2,
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
    },
    "watchNamespaces": ["one", "two"],
    "metrics": {
        "podMonitor": {"enabled": True},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "networkPolicy": {"egress": [{"ports": [{"port": 443}]}]},
    "priorityClass": {"create": True},
    "uninstall": {"deletePipelines": True},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}}],
}
# Of the Prometheus operator, which this API server does not have.
FOREIGN = "PodMonitor,PrometheusRule"


@pytest.fixture(scope="module")
def schemas(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("schemas")
    # What a definition adds is published a little after it is served.
    published = "apis/disagfusion.dev/v1alpha1"
    wait_for("the schema", 30, lambda: published in kubectl("get", "--raw", "/openapi/v3"))
    assert write_schemas(lambda path: kubectl("get", "--raw", path), directory) > 100
    return directory


def _conforms(text: str, schemas: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(programs.need("kubeconform")),
            "-summary",
            "-strict",
            f"-schema-location={schemas / LOCATION}",
            *options,
        ],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_kubeconform_finds_nothing(helm: Helm, schemas: Path, values: dict[str, Any]) -> None:
    text = helm("template", "x", str(CHART), "--kube-version", "1.34.0", values=values)
    done = _conforms(text, schemas, "-skip", FOREIGN)
    assert done.returncode == 0, done.stdout
    assert "Errors: 0" in done.stdout


def test_kubeconform_would_find_a_field_that_does_not_exist(schemas: Path) -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": 1}}
    done = _conforms(yaml.safe_dump(wrong), schemas)
    assert done.returncode != 0
    assert "port" in done.stdout


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem
)
def test_examples_are_accepted(kubectl: Kubectl, schemas: Path, path: Path) -> None:
    said = kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", str(path)
    )
    assert "serverside-applied" in said
    done = _conforms(path.read_text(encoding="utf-8"), schemas)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def namespaces(kubectl: Kubectl) -> Iterator[tuple[str, str]]:
    names = ("disagfusion-system", "disagfusion-team")
    for name in names:
        kubectl("create", "namespace", name)
    yield names
    for name in names:
        kubectl("delete", "namespace", name, "--wait=false")


def _compare(name: str, found: str) -> None:
    path = RIGHTS / f"{name}.txt"
    if os.environ.get("WRITE_RIGHTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), f"{path.name} lists other rights"


def test_a_release_comes_changes_and_goes(
    helm: Helm, kubectl: Kubectl, namespaces: tuple[str, str]
) -> None:
    system, team = namespaces
    place = ("disagfusion", str(CHART), "--namespace", system)
    # The definition is there already, made by no release: the tests' own.
    notes = helm("install", *place, "--take-ownership", values={})
    assert "kubectl apply --namespace default" in notes
    account = f"{system}:disagfusion"
    _compare("operator-in-the-whole-cluster", rights(kubectl, account, team))
    _compare("operator-in-its-own-namespace", rights(kubectl, account, system))
    assert rights(kubectl, f"{team}:default", team) == ""

    values = {"watchNamespaces": [team], "uninstall": {"deletePipelines": False}}
    helm("upgrade", *place, values=values)
    _compare("operator-in-a-watched-namespace", rights(kubectl, account, team))
    _compare("operator-in-a-namespace-that-is-not-watched", rights(kubectl, account, "default"))
    helm("upgrade", *place, values=values | {"rbac": {"nodes": False}})
    _compare("operator-without-nodes", rights(kubectl, account, "default"))

    kubectl("apply", "-n", team, "-f", str(ROOT / "examples" / "digits.yaml"))
    helm("uninstall", "disagfusion", "--namespace", system)
    assert "digits" in kubectl("get", "dfp", "-n", team), "pipelines stay"
    assert rights(kubectl, account, team) == ""
    kubectl("delete", "dfp", "--all", "-n", team)


@pytest.mark.parametrize("watched", [False, True], ids=["all-namespaces", "some-namespaces"])
def test_who_takes_pipelines_along_may_list_and_delete_these_alone(
    helm: Helm, kubectl: Kubectl, space: Callable[[str], str], watched: bool
) -> None:
    system, team = space("system"), space("team")
    values = {
        "watchNamespaces": [team] if watched else [],
        "uninstall": {"deletePipelines": True},
    }
    helm(
        *("install", "leaving", str(CHART), "--namespace", system, "--take-ownership"),
        values=values,
    )
    hooks = list(yaml.safe_load_all(helm("get", "hooks", "leaving", "--namespace", system)))
    made = [one for one in hooks if one and one["kind"] not in ("Job", "Pod")]
    kubectl.apply(made)
    try:
        (account,) = (one["metadata"]["name"] for one in made if one["kind"] == "ServiceAccount")
        there, elsewhere = (
            rights(kubectl, f"{system}:{account}", namespace) for namespace in (team, system)
        )
        _compare("uninstall-hook", there)
        assert elsewhere == ("" if watched else there)
    finally:
        kubectl("delete", "--wait=false", "-f", "-", text=yaml.safe_dump_all(made))
        helm("uninstall", "leaving", "--namespace", system, "--no-hooks")


def test_another_release_takes_the_definition_over(
    helm: Helm, kubectl: Kubectl, namespaces: tuple[str, str]
) -> None:
    """It was kept when the first went; the second must say that it is its own now."""
    system, _ = namespaces
    place = ("again", str(CHART), "--namespace", system, "--take-ownership")
    helm("install", *place, values={"uninstall": {"deletePipelines": True}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    kubectl.apply([account], "-n", system)
    hooks = helm("get", "hooks", "again", "--namespace", system)
    kubectl("apply", "--dry-run=server", "-f", "-", text=hooks)
    found = kubectl.json("get", "crd", "diffusionpipelines.disagfusion.dev")
    assert found["metadata"]["annotations"]["meta.helm.sh/release-name"] == "again"
    helm("uninstall", "again", "--namespace", system, "--no-hooks")


def test_columns_tell_how_a_pipeline_is(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "columns")
    kubectl("apply", "-n", "columns", "-f", str(ROOT / "examples" / "digits.yaml"))
    status = {
        "state": "Ready",
        "stages": {"encoder": {"summary": "1/1"}, "dit": {"summary": "2/3"}},
        "bottleneck": "dit",
        "throughput": "0.42",
        "backlog": 7,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AllServing",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    patch = yaml.safe_dump({"status": status})
    kubectl(
        "patch",
        "dfp",
        "digits",
        "-n",
        "columns",
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    )
    head, line = (row.split() for row in kubectl("get", "dfp", "-n", "columns").splitlines())
    assert head == "NAME STATE ENCODER DIT DECODER BOTTLENECK JOBS/S AGE".split()
    # The decoder has said nothing yet.
    assert line[:-1] == "digits Ready 1/1 2/3 dit 0.42".split()
    wide = kubectl("get", "dfp", "-n", "columns", "-o", "wide")
    assert "AllServing" in wide
    assert "Auto" in wide
    assert "digits" in kubectl("get", "all", "-n", "columns")
    kubectl("delete", "dfp", "--all", "-n", "columns")
