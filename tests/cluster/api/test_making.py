"""The real API server makes, refuses and changes what the operator applies, as it relies on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl

from .conftest import Api

pytestmark = pytest.mark.smoke


def apply(kubectl: Kubectl, manifest: dict[str, Any], *, force: bool = True) -> dict[str, Any]:
    answer = kubectl(
        *("apply", "--server-side", f"--force-conflicts={str(force).lower()}"),
        *("--field-manager=disagfusion-operator", "-o", "json", "-f", "-"),
        text=json.dumps(manifest),
    )
    found: dict[str, Any] = json.loads(answer)
    return found


def test_what_is_there_is_a_conflict_and_what_is_not_is_made(api: Api, kubectl: Kubectl) -> None:
    for version, kind in (("v1", "ServiceAccount"), ("v1", "ConfigMap")):
        metadata = {"namespace": api.namespace, "name": "made", "resourceVersion": "1"}
        made = {"apiVersion": version, "kind": kind, "metadata": metadata}
        uid = apply(kubectl, made, force=False)["metadata"]["uid"]
        with pytest.raises(ClusterError, match="modified"):
            apply(kubectl, made, force=False)
        del metadata["resourceVersion"]
        assert apply(kubectl, made)["metadata"]["uid"] == uid


def test_a_deployment_becomes_one_that_is_recreated_and_back(api: Api, kubectl: Kubectl) -> None:
    rolling = {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"},
    }
    labels = {"app": "made"}
    pod = {"containers": [{"name": "one", "image": "none"}]}
    for strategy in (rolling, {"type": "Recreate"}, rolling):
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"namespace": api.namespace, "name": "made"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "strategy": strategy,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
        assert apply(kubectl, manifest)["spec"]["strategy"] == strategy
