"""Emulated pipelines in a cluster, and the operator that serves them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from disagfusion.client import AsyncClient
from tools.cluster import faults
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.programs import need

SYSTEM = "disagfusion-system"
RELEASE = "disagfusion"
_OPERATOR = "app.kubernetes.io/component=operator"

SECONDS = {"encoder": 0.1, "dit": 1.0, "decoder": 0.2}
"""Of a job, before the time scale."""

SMALL = {"sharedMemory": "64Mi", "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}


def emulated(name: str, *, scale: float = 1.0, **spec: Any) -> dict[str, Any]:
    """Return a pipeline of emulated stages on one pool.

    Args:
        name: Of the pipeline.
        scale: Seconds that pass for one of the profile.
        spec: Further fields; `stages` and `scaling` are merged with what there is.
    """
    profile = {
        "pools": {"small": {"accelerators": 16}},
        "stages": {
            stage: {"pools": {"small": {"seconds": seconds}}} for stage, seconds in SECONDS.items()
        },
    }
    stages = {stage: {**SMALL, **spec.get("stages", {}).get(stage, {})} for stage in SECONDS}
    scaling = {"mode": "Off", "profile": {"inline": profile}, **spec.get("scaling", {})}
    rest = {key: value for key, value in spec.items() if key not in ("stages", "scaling")}
    return {
        "apiVersion": "disagfusion.dev/v1alpha1",
        "kind": "DiffusionPipeline",
        "metadata": {"name": name},
        "spec": {
            "model": {"emulated": {"timeScale": scale}},
            "pools": {"small": {}},
            "deletion": {"drainSeconds": 60},
            **rest,
            "stages": stages,
            "scaling": scaling,
        },
    }


def eventually(what: str, seconds: float, probe: Callable[[], Any]) -> Any:
    """Wait until a probe returns something true, and return that."""
    deadline = time.monotonic() + seconds
    seen: Any = None
    while time.monotonic() < deadline:
        try:
            if seen := probe():
                return seen
        except ClusterError as error:
            seen = error
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:g} s; last seen: {seen!r}")


def state_of(kubectl: Kubectl, namespace: str, pod: str) -> dict[str, Any]:
    """Return what a pod says of its container."""
    found: dict[str, Any]
    (found,) = kubectl.json("-n", namespace, "get", "pod", pod)["status"]["containerStatuses"]
    return found


def end_of(kubectl: Kubectl, namespace: str, pod: str, container: str) -> dict[str, Any] | None:
    """Return how a container of a pod ended; None while that is not known."""
    state = state_of(kubectl, namespace, pod)
    for one in (state.get("state", {}), state.get("lastState", {})):
        ended: dict[str, Any] = one.get("terminated") or {}
        if ended.get("containerID") == container:
            return ended
    return None


def kill(layout: Layout, kubectl: Kubectl, namespace: str, pod: str) -> None:
    """End a pod's container with SIGKILL, and wait until the kubelet has seen that."""
    container = faults.signal_container(layout, kubectl, namespace, pod, signal.SIGKILL)
    ended = eventually(
        "the kubelet tells its end", 30, lambda: end_of(kubectl, namespace, pod, container)
    )
    assert ended["exitCode"] == 128 + signal.SIGKILL, ended


@dataclass(frozen=True)
class Installation:
    """The operator, installed from its chart.

    Attributes:
        kubectl: The cluster.
        chart: Its directory.
        layout: Of a cluster of tools/cluster; another's containers cannot be killed.
    """

    kubectl: Kubectl
    chart: Path
    layout: Layout | None = None

    def install(self, *, tag: str = "", **values: Any) -> None:
        """Install the chart, or upgrade it.

        Args:
            tag: Of all images, where it is not the chart's own.
            values: Further ones of the chart.
        """
        images = {
            name: {"repository": f"localhost/disagfusion-{name}"}
            for name in ("operator", "gateway", "encoder", "dit", "decoder", "flex", "emulated")
        }
        given = {"images": {"pullPolicy": "Never", "tag": tag, **images}, **values}
        self._helm(
            "upgrade", "--install", RELEASE, str(self.chart), "--create-namespace",
            "--wait", "--timeout=90s", "-f", "-", text=yaml.safe_dump(given),
        )  # fmt: skip

    def clear(self) -> None:
        """Take away what an interrupted run has left half-way: Helm goes on from nothing else."""
        listed = json.loads(self._helm("list", "-a", "-o", "json", f"--filter=^{RELEASE}$"))
        if any(one["status"] != "deployed" for one in listed):
            self.uninstall()

    def uninstall(self) -> None:
        """Take the chart away; definitions stay."""
        self._helm("uninstall", RELEASE, "--wait", "--timeout=60s")

    def pods(self) -> list[str]:
        """Return the names of the operator's pods that are not about to end."""
        items = self.kubectl.json("-n", SYSTEM, "get", "pods", "-l", _OPERATOR)["items"]
        return sorted(
            one["metadata"]["name"] for one in items if "deletionTimestamp" not in one["metadata"]
        )

    def holder(self) -> str:
        """Return who has the Lease: a process, of which a pod may have had several."""
        lease = self.kubectl.json("-n", SYSTEM, "get", "lease", RELEASE)
        return str(lease["spec"]["holderIdentity"])

    def leader(self) -> str:
        """Return the pod that acts."""
        return self.holder().rpartition("_")[0]

    def kill(self, pod: str) -> None:
        """Kill a pod's container; the kubelet starts it again in the same pod.

        It dies with the Lease in its name, as in a crash, so that whoever comes next has to wait
        until that has expired. Deleting the pod, also by force, would give it two seconds to
        hand the Lease over.
        """
        assert self.layout is not None, "unset KUBECONFIG: another's containers are not killed"
        kill(self.layout, self.kubectl, SYSTEM, pod)

    def renew(self) -> None:
        """Have new pods in the place of such whose containers were killed.

        A kubelet waits longer each time before it starts one again, for minutes after some times.
        """
        items = self.kubectl.json("-n", SYSTEM, "get", "pods", "-l", _OPERATOR)["items"]
        killed = [
            one["metadata"]["name"]
            for one in items
            if any(state["restartCount"] for state in one["status"].get("containerStatuses", ()))
        ]
        if killed:
            self.kubectl("-n", SYSTEM, "delete", "pods", *killed)
            self.kubectl(
                "-n", SYSTEM, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s"
            )
            eventually("a new one leads", 60, lambda: self.leader() in self.pods())

    def signal(self, pod: str, number: signal.Signals) -> str:
        """Send a signal to a pod's process and return its container."""
        assert self.layout is not None, "unset KUBECONFIG: another's processes are not stopped"
        return faults.signal_container(self.layout, self.kubectl, SYSTEM, pod, number)

    def scale(self, replicas: int) -> None:
        """Have so many operators."""
        self.kubectl("-n", SYSTEM, "scale", f"deployment/{RELEASE}", f"--replicas={replicas}")
        self.kubectl("-n", SYSTEM, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")

    def logs(self) -> str:
        """Return what the operators say."""
        return self.kubectl("-n", SYSTEM, "logs", "-l", _OPERATOR, "--tail=-1")

    def _helm(self, *arguments: str, text: str | None = None) -> str:
        done = subprocess.run(
            [
                str(need("helm")),
                "-n",
                SYSTEM,
                f"--kubeconfig={self.kubectl.kubeconfig}",
                *arguments,
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@dataclass
class Pipelines:
    """The pipelines of a namespace."""

    namespace: str
    kubectl: Kubectl
    _forwards: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __call__(self, *arguments: str, text: str | None = None) -> str:
        return self.kubectl("-n", self.namespace, *arguments, text=text)

    def json(self, *arguments: str) -> dict[str, Any]:
        return self.kubectl.json("-n", self.namespace, *arguments)

    def names(self) -> list[str]:
        items = self.json("get", "dfp")["items"]
        return [one["metadata"]["name"] for one in items]

    def write(self, manifest: dict[str, Any]) -> None:
        """Write a pipeline as somebody does."""
        self("apply", "--server-side", "--field-manager=tests", "--force-conflicts", "-f", "-",
             text=json.dumps(manifest))  # fmt: skip

    def claim(self, name: str) -> None:
        """Claim a volume that one node writes to."""
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec}
        self("apply", "-f", "-", text=json.dumps({**claim, "metadata": {"name": name}}))

    def patch(self, name: str, change: dict[str, Any]) -> None:
        """Change fields of a pipeline."""
        self("patch", "dfp", name, "--type=merge", "-p", json.dumps(change))

    def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.json("get", "dfp", name).get("status", {})
        return found

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        conditions = self.status(name).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def wait(self, name: str, condition: str = "Ready", seconds: int = 90) -> None:
        self("wait", f"--for=condition={condition}", f"dfp/{name}", f"--timeout={seconds}s")

    def settled(self, name: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until everything is as it should be, and return the status."""

        def probe() -> dict[str, Any] | None:
            resource = self.json("get", "dfp", name)
            status: dict[str, Any] = resource.get("status", {})
            conditions = {one["type"]: one for one in status.get("conditions", ())}
            current = status.get("observedGeneration") == resource["metadata"]["generation"]
            ready = conditions.get("Ready", {}).get("status") == "True"
            still = conditions.get("Progressing", {}).get("status") == "False"
            return status if current and ready and still else None

        found: dict[str, Any] = eventually(f"{name} settled", seconds, probe)
        return found

    def pods(self, name: str, component: str = "") -> dict[str, str]:
        """Return the names and uids of a pipeline's pods that are not about to end."""
        chosen = f"disagfusion.dev/pipeline={name}"
        if component:
            chosen += f",app.kubernetes.io/component={component}"
        items = self.json("get", "pods", "-l", chosen)["items"]
        return {
            one["metadata"]["name"]: one["metadata"]["uid"]
            for one in items
            if "deletionTimestamp" not in one["metadata"]
        }

    def versions(self, name: str) -> dict[str, str]:
        """Return the version that pods of each ReplicaSet have."""
        items = self.json("get", "replicasets", "-l", f"disagfusion.dev/pipeline={name}")["items"]
        return {
            one["metadata"]["name"]: annotations["disagfusion.dev/version"]
            for one in items
            if "disagfusion.dev/version"
            in (annotations := one["spec"]["template"]["metadata"].get("annotations", {}))
        }

    def events(self, name: str) -> list[str]:
        """Return the reasons of a pipeline's events."""
        chosen = f"involvedObject.kind=DiffusionPipeline,involvedObject.name={name}"
        return [
            one["reason"]
            for one in self.json("get", "events", f"--field-selector={chosen}")["items"]
        ]

    def client(self, name: str) -> AsyncClient:
        """Return the SDK's client, through a forwarded port."""
        return AsyncClient(self.forward(f"service/{name}", 7420))

    def forward(self, target: str, port: int) -> str:
        """Return the address of a forwarded port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            own = free.getsockname()[1]
        process = subprocess.Popen(
            [str(self.kubectl.program), f"--kubeconfig={self.kubectl.kubeconfig}", "-n",
             self.namespace, "port-forward", target, f"{own}:{port}"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self._forwards.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Forwarding from")
        return f"127.0.0.1:{own}"

    def close(self) -> None:
        """End the forwarded ports."""
        for process in self._forwards:
            process.terminate()
            process.communicate()
        self._forwards.clear()
