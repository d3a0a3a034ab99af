"""Pods in memory, as Deployments make them: controllers and nodes, one step at a time."""

from __future__ import annotations

from disagfusion_operator.k8s.kinds import DEPLOYMENT, POD
from disagfusion_operator.k8s.port import Object
from fakes import FakeCluster, matches


class FakeNodes:
    """Makes pods of Deployments, as the controllers and the nodes do, one step at a time.

    Attributes:
        broken: Versions whose pods never become ready.
        patient: While true, pods that have been asked to end stay until `finish`.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._made = 0
        self.broken: set[str] = set()
        self.patient = False

    def step(self) -> None:
        """Have every Deployment one step nearer to what it should be."""
        for deployment in self._cluster.all(DEPLOYMENT):
            self._step(deployment)

    def settle(self, steps: int = 50) -> None:
        """Have all Deployments as they should be."""
        for _ in range(steps):
            before = len(self._cluster.stored), self._cluster._version
            self.step()
            if before == (len(self._cluster.stored), self._cluster._version):
                return

    def finish(self) -> None:
        """Have all pods gone that have been asked to end."""
        for pod in self._cluster.all(POD):
            if "deletionTimestamp" in pod["metadata"]:
                metadata = pod["metadata"]
                self._cluster.remove(POD, metadata["namespace"], metadata["name"])

    def pods(self, **labels: str) -> list[Object]:
        """Return pods with a component (and a pool) that have not been asked to end."""
        wanted = {"app.kubernetes.io/component": labels.get("component", "")}
        if "pool" in labels:
            wanted["disagfusion.dev/pool"] = labels["pool"]
        return [
            pod
            for pod in self._cluster.all(POD)
            if matches(pod["metadata"]["labels"], wanted)
            and "deletionTimestamp" not in pod["metadata"]
        ]

    def _step(self, deployment: Object) -> None:
        cluster, metadata, spec = self._cluster, deployment["metadata"], deployment["spec"]
        template = spec["template"]
        version = template["metadata"].get("annotations", {})
        mine = [
            pod
            for pod in cluster.all(POD)
            if any(one["uid"] == metadata["uid"] for one in pod["metadata"]["ownerReferences"])
            # What has failed stays, and has a successor.
            and pod["status"]["phase"] != "Failed"
        ]
        live = [pod for pod in mine if "deletionTimestamp" not in pod["metadata"]]
        old = [pod for pod in live if not _has(pod, version)]
        fresh = [pod for pod in live if pod not in old]
        replicas = spec.get("replicas", 1)
        for pod in (*old, *fresh)[: max(0, len(live) - replicas)]:
            self._end(pod)
        left = [pod for pod in mine if pod not in fresh and not _has(pod, version)]
        if left and spec["strategy"]["type"] == "Recreate":
            # It counts what ends; a rolling update does not.
            for pod in old:
                self._end(pod)
        elif old and len(live) == replicas:
            ready = sum(_is_ready(pod) for pod in fresh) == len(fresh)
            for pod in old[: 1 if ready else 0]:
                self._end(pod)
        elif len(mine) < replicas or (self.patient and len(live) < replicas):
            self._start(deployment)
        for pod in fresh:
            key = pod["metadata"]["annotations"].get("disagfusion.dev/version", "")
            if not _is_ready(pod) and key not in self.broken:
                self._set_ready(pod)
        status = {
            "observedGeneration": metadata["generation"],
            "replicas": len(live),
            "updatedReplicas": len(fresh),
            "readyReplicas": sum(map(_is_ready, live)),
        }
        kept = {k: v for k, v in deployment.get("status", {}).items() if k == "conditions"}
        if deployment.get("status") != {**kept, **status}:
            cluster.change(
                DEPLOYMENT, metadata["namespace"], metadata["name"],
                "status", value={**kept, **status}, by="controller",
            )  # fmt: skip

    def _start(self, deployment: Object) -> None:
        self._made += 1
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        self._cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "namespace": metadata["namespace"],
                    "name": f"{metadata['name']}-{self._made}",
                    "labels": dict(template["metadata"]["labels"]),
                    "annotations": dict(template["metadata"].get("annotations", {})),
                    "ownerReferences": [
                        {"kind": "Deployment", "name": metadata["name"], "uid": metadata["uid"]}
                    ],
                },
                "spec": {"nodeName": "node-1", "containers": template["spec"]["containers"]},
                "status": {"phase": "Pending", "podIP": f"10.0.0.{self._made % 250}"},
            },
            "kubelet",
        )

    def _set_ready(self, pod: Object) -> None:
        now = self._cluster.clock.text()
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Ready")
        ]
        metadata = pod["metadata"]
        self._cluster.change(
            POD, metadata["namespace"], metadata["name"], "status",
            value={"phase": "Running", "podIP": pod["status"]["podIP"], "conditions": conditions},
            by="kubelet",
        )  # fmt: skip

    def _end(self, pod: Object) -> None:
        metadata = pod["metadata"]
        place = (POD, metadata["namespace"], metadata["name"])
        if self.patient:
            self._cluster.change(
                *place, "metadata", "deletionTimestamp", value=self._cluster.clock.text()
            )
        else:
            self._cluster.remove(*place)


def _has(pod: Object, annotations: dict[str, str]) -> bool:
    return annotations.items() <= pod["metadata"]["annotations"].items()


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
