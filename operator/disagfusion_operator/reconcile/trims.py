"""Of objects that are kept as they are, only what is needed."""

from __future__ import annotations

from disagfusion_operator.k8s.kinds import DEPLOYMENT, NODE, POD
from disagfusion_operator.k8s.port import Kind, Object

_POD_ANNOTATIONS = (
    "controller.kubernetes.io/pod-deletion-cost",
    "disagfusion.dev/version",
    "disagfusion.dev/stage-changed-at",
    "disagfusion.dev/stage-changes-from",
)


def _picked(found: Object, *names: str) -> Object:
    return {name: found[name] for name in names if name in found}


def _replica_owners(metadata: Object) -> list[Object]:
    """Return who manages the number of replicas, as entries of `managedFields`."""
    return [
        {**_picked(entry, "manager", "operation", "subresource"), "fieldsV1": {"f:spec": {
            "f:replicas": {}
        }}}
        for entry in metadata.get("managedFields") or ()
        if "f:replicas" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]  # fmt: skip


def deployment(found: Object) -> Object:
    """Return what is needed of a Deployment beside what is compared with what was applied."""
    metadata, spec = found["metadata"], found.get("spec") or {}
    kept = _picked(
        metadata,
        *("name", "namespace", "uid", "resourceVersion", "generation", "labels"),
        *("annotations", "creationTimestamp", "deletionTimestamp"),
    )
    kept["managedFields"] = _replica_owners(metadata)
    template = spec.get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    containers = (template.get("spec") or {}).get("containers") or [{}]
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": kept,
        "spec": {
            **_picked(spec, "replicas", "strategy"),
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"containers": [_picked(containers[0], "name", "image")]},
            },
        },
        "status": dict(found.get("status") or {}),
    }


def pod(found: Object) -> Object:
    """Return what is needed of a pod."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    kept = _picked(
        metadata,
        *("name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp"),
        *("deletionTimestamp", "deletionGracePeriodSeconds"),
    )
    kept["annotations"] = _picked(metadata.get("annotations") or {}, *_POD_ANNOTATIONS)
    kept["ownerReferences"] = [
        _picked(owner, "kind", "name", "uid") for owner in metadata.get("ownerReferences") or ()
    ]
    told = _picked(status, "phase", "podIP", "startTime", "reason", "message")
    told["conditions"] = [
        _picked(one, "type", "status", "reason", "message", "lastTransitionTime")
        for one in status.get("conditions") or ()
    ]
    for field in ("initContainerStatuses", "containerStatuses"):
        told[field] = [
            _picked(one, "name", "ready", "restartCount", "state", "lastState", "image")
            for one in status.get(field) or ()
        ]
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": kept,
        "spec": {
            **_picked(spec, "nodeName"),
            "containers": [
                _picked(one, "name", "image", "resources") for one in spec.get("containers") or ()
            ],
        },
        "status": told,
    }


def node(found: Object) -> Object:
    """Return what is needed of a node."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    return {
        "apiVersion": NODE.api_version,
        "kind": NODE.kind,
        "metadata": _picked(metadata, "name", "uid", "labels", "deletionTimestamp"),
        "spec": _picked(spec, "unschedulable", "taints"),
        "status": {
            **_picked(status, "allocatable", "capacity"),
            "conditions": [
                _picked(one, "type", "status")
                for one in status.get("conditions") or ()
                if one.get("type") == "Ready"
            ],
        },
    }


def autoscaler(kind: Kind, found: Object) -> Object:
    """Return what is needed of an autoscaler."""
    metadata = _picked(found["metadata"], "name", "namespace", "uid")
    spec = _picked(found.get("spec") or {}, "scaleTargetRef")
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
