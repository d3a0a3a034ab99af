"""The cluster as tests see it, their image, and containers from it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cluster import archives, base, images
from tools.cluster.archives import File
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.options import Options

GROUP = "tests.disagfusion.dev"
IMAGE = "localhost/cluster-tests:1"
APP = "/app/app.py"
PYTHON = "python3"
# Long enough for an answer, short where none will come.
_ASK = (
    "import socket, sys\n"
    "try:\n"
    "    socket.create_connection((sys.argv[1], int(sys.argv[2])), 1.5).close()\n"
    "    print('reached')\n"
    "except OSError:\n"
    "    print('not reached')"
)
_SOURCE = Path(__file__).with_name("app.py")


def archive(layout: Layout) -> Path:
    """Return the archive of the tests' image: the base with the app on top."""
    path = layout.images / "cluster-tests.tar"
    below = base.layer(layout)
    newest = max(below.stat().st_mtime, _SOURCE.stat().st_mtime)
    if not path.exists() or path.stat().st_mtime < newest:
        layout.images.mkdir(parents=True, exist_ok=True)
        own = archives.layer({APP.lstrip("/"): File(_SOURCE.read_bytes())})
        settings = {"Env": list(base.ENVIRONMENT), "Entrypoint": [PYTHON, APP], "User": "65532"}
        archives.write(path, IMAGE, [below, own], settings)
    return path


def container(**more: Any) -> dict[str, Any]:
    """Return a container of the tests' image with all the restrictions that pods of ours have."""
    return {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **more,
    }


@dataclass(frozen=True)
class Namespace:
    """A namespace to work in."""

    name: str
    kubectl: Kubectl

    def __call__(self, *arguments: str, text: str | None = None, seconds: float = 120) -> str:
        return self.kubectl("-n", self.name, *arguments, text=text, seconds=seconds)

    def json(self, *arguments: str) -> dict[str, Any]:
        return self.kubectl.json("-n", self.name, *arguments)

    def apply(self, *objects: dict[str, Any], manager: str = "tests") -> str:
        return self.kubectl.apply(objects, "-n", self.name, f"--field-manager={manager}")

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods with these labels that are not about to end, by name."""
        items = self.json("get", "pods", "-l", selector)["items"]
        lasting = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return sorted(lasting, key=lambda item: str(item["metadata"]["name"]))


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    layout: Layout
    kubectl: Kubectl
    options: Options | None

    @property
    def own(self) -> bool:
        """Whether it is of tools/cluster, so that nodes can be cut off and the like."""
        return self.options is not None

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that are not fake."""
        items = self.kubectl.json("get", "nodes", "-l", "type!=kwok")["items"]
        return sorted(item["metadata"]["name"] for item in items)

    def load(self, *archives: Path) -> None:
        """Import archives of images into every real node; into another's cluster, nothing."""
        if self.own:
            images.load(self.layout, self.nodes, archives)

    @contextlib.contextmanager
    def namespace(self, prefix: str) -> Iterator[Namespace]:
        """Give a namespace that goes away at the end, with what is in it."""
        name = f"{prefix}-{uuid.uuid4().hex[:6]}"
        self.kubectl("create", "namespace", name)
        try:
            yield Namespace(name, self.kubectl)
        finally:
            self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def reaches(run: Callable[..., str], pod: str, address: str, port: int = 7000) -> bool:
    """Tell whether a pod's connection to an address comes about.

    Args:
        run: kubectl in the pod's namespace.
        pod: Its image has Python.
        address: Of another pod.
        port: At which something listens.
    """
    said = run("exec", pod, "--", PYTHON, "-c", _ASK, address, str(port)).strip()
    assert said in ("reached", "not reached"), said
    return said == "reached"


def widget_definition() -> dict[str, Any]:
    """Return a kind with defaults, rules and a scale subresource."""
    name = f"widgets.{GROUP}"
    rules = [
        {
            "rule": "self.replicas <= self.maxReplicas",
            "message": "replicas must not exceed maxReplicas",
        },
        {"rule": "self.maxReplicas >= oldSelf.maxReplicas", "message": "maxReplicas never shrinks"},
    ]
    whole = {"type": "integer"}
    spec = {
        "type": "object",
        "x-kubernetes-validations": rules,
        "properties": {
            "replicas": {**whole, "default": 1},
            "maxReplicas": {**whole, "default": 5},
        },
    }
    status = {"type": "object", "properties": {"replicas": whole, "selector": {"type": "string"}}}
    scale = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}, "scale": scale},
        "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [version],
        },
    }


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": spec,
    }
