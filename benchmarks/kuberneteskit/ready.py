"""Pipelines that become ready."""

from __future__ import annotations

import json
import sys
import time

from tools.cluster.kubectl import Kubectl

_SECONDS = 180.0


def wait_ready(kubectl: Kubectl, namespace: str, name: str, *, replicas: int = 3) -> str:
    """Wait until a pipeline has so many ready replicas and a gateway, and return where that is."""
    deadline = time.monotonic() + _SECONDS
    while True:
        status = kubectl.json("-n", namespace, "get", "dfp", name).get("status", {})
        ready = sum(one.get("ready", 0) for one in status.get("stages", {}).values())
        if ready >= replicas and status.get("state") == "Ready":
            service = kubectl.json("-n", namespace, "get", "service", name)
            return f"{service['spec']['clusterIP']}:7420"
        if time.monotonic() > deadline:
            sys.exit(f"{ready} of {replicas} replicas are ready: {json.dumps(status, indent=1)}")
        time.sleep(1.0)
