"""What the pods of stages and gateways have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from disagfusion_operator.api.pods import Resources
from disagfusion_operator.desired.inputs import Inputs, Manifest
from disagfusion_operator.desired.names import METRICS_PORT

USER = 65532
TLS_DIRECTORY = "/etc/disagfusion/tls"
TEMPORARY = "64Mi"


def pod_security() -> Manifest:
    """Return a pod's security context: as little as can be."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security(capabilities: Sequence[str] = ()) -> Manifest:
    """Return a container's security context."""
    allowed: Manifest = {"drop": ["ALL"]}
    if capabilities:
        allowed["add"] = list(capabilities)
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "capabilities": allowed,
    }


def environment(values: Mapping[str, str | Manifest]) -> list[Manifest]:
    """Return settings as a container's variables; an object is where a value comes from."""
    return [
        {"name": f"DISAGFUSION_{name.upper()}", "value": value}
        if isinstance(value, str)
        else {"name": f"DISAGFUSION_{name.upper()}", "valueFrom": value}
        for name, value in values.items()
    ]


def own_field(path: str) -> Manifest:
    """Return a variable's source: a field of the pod."""
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


def secret_value(name: str, key: str) -> Manifest:
    """Return a variable's source: a value of a Secret."""
    return {"secretKeyRef": {"name": name, "key": key}}


def grpc_probe(service: str, port: int, *, period: int, failures: int) -> Manifest:
    """Return a probe that asks `grpc.health.v1` about a service."""
    return {
        "grpc": {"port": port, "service": service},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def resources(
    asked: Resources, extended: Mapping[str, int], default_requests: Mapping[str, str]
) -> Manifest:
    """Return a container's resources.

    Args:
        asked: By people.
        extended: Resources of devices, of which requests and limits are the same.
        default_requests: Where people ask for nothing of the kind.
    """
    limits = {name: str(value) for name, value in asked.limits.items()}
    requests = {
        # Without a request Kubernetes takes the limit.
        **{name: value for name, value in default_requests.items() if name not in limits},
        **{name: str(value) for name, value in asked.requests.items()},
    }
    counted = {name: str(count) for name, count in extended.items()}
    found = {"requests": {**requests, **counted}, "limits": {**limits, **counted}}
    return {name: values for name, values in found.items() if values}


def tls_environment(inputs: Inputs) -> dict[str, str | Manifest]:
    """Return where the certificates are, if there are any."""
    tls = inputs.spec.transport.tls
    if tls is None:
        return {}
    return {
        "tls_cert": f"{TLS_DIRECTORY}/tls.crt",
        "tls_key": f"{TLS_DIRECTORY}/tls.key",
        "tls_ca": f"{TLS_DIRECTORY}/ca.crt",
        "tls_server_name": tls.server_name,
    }


def tls_volume(inputs: Inputs) -> list[Manifest]:
    """Return the volume of the certificates, if there are any."""
    tls = inputs.spec.transport.tls
    if tls is None:
        return []
    return [{"name": "tls", "secret": {"secretName": tls.secret_name, "defaultMode": 0o440}}]


def tls_mount(inputs: Inputs) -> list[Manifest]:
    """Return where the certificates are mounted, if there are any."""
    if inputs.spec.transport.tls is None:
        return []
    return [{"name": "tls", "mountPath": TLS_DIRECTORY, "readOnly": True}]


def temporary_volume(size: str = TEMPORARY) -> Manifest:
    """Return the volume of /tmp; the root file system cannot be written to."""
    return {"name": "tmp", "emptyDir": {"sizeLimit": size}}


def pull_secrets(inputs: Inputs) -> list[Manifest]:
    """Return the Secrets for the images' registry."""
    names = dict.fromkeys((*inputs.spec.image_pull_secrets, *inputs.release.pull_secrets))
    return [{"name": name} for name in names]


def scraped() -> dict[str, str]:
    """Return the annotations by which a Prometheus without its operator finds a pod."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS_PORT),
        "prometheus.io/path": "/metrics",
    }
