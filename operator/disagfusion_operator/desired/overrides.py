"""What people lay over the pods, merged as `kubectl patch` merges it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from disagfusion_operator.api.pods import PodTemplate
from disagfusion_operator.desired.inputs import Manifest

# The keys by which Kubernetes tells the items of a list of a PodSpec: its API's patchMergeKey.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
# Appended to, and not replaced: taking one away would keep a pod from where it belongs.
_ADDED = ("tolerations",)

_PROTECTED_POD = (
    "restartPolicy",
    "serviceAccountName",
    "automountServiceAccountToken",
    "terminationGracePeriodSeconds",
    "hostNetwork",
    "hostPID",
    "hostIPC",
)
_PROTECTED_CONTAINER = (
    # There is a field for it, from which the version follows.
    "image",
    "command",
    "args",
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "securityContext",
    "terminationMessagePolicy",
)
# What decides what a stage computes, as it is where it is not set: the version speaks of all of it,
# so that it is the specification's alone.
_COMPUTED = {
    "ATTENTION_BACKEND": "",
    "CACHE": "null",
    "COMPILE": "null",
    "DEVICE": "cpu",
    "DTYPE": "float32",
    "LOCAL_FILES_ONLY": "false",
    "MODEL": "",
    "MONOLITH": "",
    "PROFILE": "",
    "QUANTIZATION": "null",
    "REVISION": "",
    "TIME_NOISE": "0.0",
    "TIME_SCALE": "1.0",
    "VAE_SLICING": "false",
    "VAE_TILING": "false",
    "VARIANT": "",
    "WORKFLOWS": "[]",
}
# Where the model, or what an emulated one costs, comes from.
_PROTECTED_VOLUMES = ("profile", "source")
_PREFIX = "DISAGFUSION_"
_PROTECTED_ENV = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        *_COMPUTED,
        "DATABASE",
        "INTERNAL_KEYS",
        "INTERNAL_LISTEN",
        "LISTEN",
        "METRICS_LISTEN",
        "NAME",
        "PIPELINE",
        "POOL",
        "PROBE_LISTEN",
        "RESULTS",
        "STAGE",
        "TRANSPORT",
        "TRANSPORT_ADVERTISE",
        "TRANSPORT_HOST",
        "TRANSPORT_PORT",
        "UCX_PORTS",
        "VERSION_TAG",
        "WORKERS",
    )
)


def merge(base: Any, patch: Any, field: str = "") -> Any:
    """Return `base` with `patch` laid over it.

    Objects are merged by field, lists of objects by the key that Kubernetes tells them by, all
    other values are replaced; null takes a field away.
    """
    if isinstance(base, Mapping) and isinstance(patch, Mapping):
        merged = dict(base)
        for name, value in patch.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = merge(merged.get(name), value, name)
        return merged
    if isinstance(base, Sequence) and not isinstance(base, str) and isinstance(patch, Sequence):
        if field in _ADDED:
            return [*base, *(one for one in patch if one not in base)]
        if field in _KEYS:
            return _merge_lists(base, patch, field)
    if isinstance(patch, Mapping):
        return {name: value for name, value in patch.items() if value is not None}
    return patch


def _merge_lists(
    base: Sequence[Any], patch: Sequence[Any], field: str, *, whole: bool = False
) -> list[Any]:
    key = _KEYS[field]
    merged = list(base)
    for one in patch:
        name = one.get(key) if isinstance(one, Mapping) else None
        for index, there in enumerate(merged):
            if name is not None and there.get(key) == name:
                # A variable has one source: what is laid over takes the place of the other.
                merged[index] = one if whole or field == "env" else merge(there, one)
                break
        else:
            merged.append(one)
    return merged


def lay_over(template: Manifest, override: PodTemplate) -> Manifest:
    """Return a pod template with what people lay over it; what must stay, stays."""
    metadata, pod = template["metadata"], template["spec"]
    laid = merge(pod, override.spec)
    for field in _PROTECTED_POD:
        _restore(laid, pod, field)
    laid["containers"] = _protected(pod["containers"], laid.get("containers") or [])
    if pod.get("initContainers"):
        laid["initContainers"] = _protected(pod["initContainers"], laid.get("initContainers") or [])
    kept = [one for one in pod.get("volumes") or [] if one["name"] in _PROTECTED_VOLUMES]
    if kept:
        laid["volumes"] = _merge_lists(laid.get("volumes") or [], kept, "volumes", whole=True)
    laid["securityContext"] = {
        **(laid.get("securityContext") or {}),
        **pod["securityContext"],
    }
    return {
        "metadata": {
            "labels": {**override.labels, **metadata["labels"]},
            "annotations": {**override.annotations, **metadata.get("annotations", {})},
        },
        "spec": laid,
    }


def _protected(ours: Sequence[Manifest], laid: Sequence[Manifest]) -> list[Manifest]:
    by_name = {one["name"]: one for one in laid}
    kept = []
    for container in ours:
        found = dict(by_name.pop(container["name"], container))
        for field in _PROTECTED_CONTAINER:
            _restore(found, container, field)
        found["env"] = _environment(container.get("env") or [], found)
        found["volumeMounts"] = _merge_lists(
            found.get("volumeMounts") or [],
            container.get("volumeMounts") or [],
            "volumeMounts",
            whole=True,
        )
        kept.append(found)
    return [*kept, *by_name.values()]


def _environment(ours: Sequence[Manifest], laid: Manifest) -> list[Manifest]:
    """Return a container's variables: those that must stay as they are, or are not there."""
    needed = {one["name"]: one for one in ours if one["name"] in _PROTECTED_ENV}
    there = [
        one
        for one in laid.get("env") or []
        if one.get("name") in needed or one.get("name") not in _PROTECTED_ENV
    ]
    if laid.get("envFrom") and f"{_PREFIX}VERSION_TAG" in needed:
        # Nobody knows what is in there. What is said here goes before it.
        unset = {f"{_PREFIX}{name}": value for name, value in _COMPUTED.items()}
        needed |= {
            name: {"name": name, "value": value}
            for name, value in unset.items()
            if name not in needed
        }
    return _merge_lists(there, list(needed.values()), "env")


def _restore(laid: Manifest, ours: Manifest, field: str) -> None:
    if field in ours:
        laid[field] = ours[field]
    else:
        laid.pop(field, None)
