"""The objects of the gateways: Deployment, Service, disruption budget, volumes."""

from __future__ import annotations

from disagfusion_operator.api.base import number
from disagfusion_operator.desired import names, pods
from disagfusion_operator.desired.inputs import Inputs, Manifest, manifest
from disagfusion_operator.desired.overrides import lay_over
from disagfusion_operator.desired.stages import service_port

_DATA = "/var/lib/disagfusion"
_KEYS = "/etc/disagfusion/keys"
_INTERNAL = "/etc/disagfusion/internal"
KEYS_KEY = "keys"
TOKEN_KEY = "token"  # noqa: S105 - the name of the key
_GRACE_SECONDS = 30
_DISK_RESERVE = "16777216"
# Of a volume. Beyond it the oldest go, before the disk is full and new jobs are refused.
_KEPT = 0.85


def gateway_account(pipeline: str) -> str:
    """Return the name of the gateways' ServiceAccount, which has no rights."""
    return f"{pipeline}-gateway"


def jobs_claim(pipeline: str) -> str:
    """Return the name of the claim of the job store's volume."""
    return f"{pipeline}-jobs"


def results_claim(pipeline: str) -> str:
    """Return the name of the claim of the results' volume."""
    return f"{pipeline}-results"


def deployment(inputs: Inputs) -> Manifest:
    """Return the gateways' Deployment."""
    gateway = inputs.spec.gateway
    if gateway.store.sqlite is not None:
        # The database belongs to one process at a time: the old one goes before the new one comes.
        strategy: Manifest = {"type": "Recreate"}
    else:
        rolling = {"maxSurge": 1, "maxUnavailable": 0}
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    template = lay_over(
        {
            "metadata": {
                "labels": names.labels(inputs.name, names.GATEWAY),
                "annotations": pods.scraped(),
            },
            "spec": _pod(inputs),
        },
        gateway.pod_template,
    )
    return manifest(
        inputs,
        ("apps/v1", "Deployment"),
        names.gateway_deployment(inputs.name),
        names.labels(inputs.name, names.GATEWAY),
        spec={
            "replicas": gateway.replicas,
            "selector": {"matchLabels": names.selector(inputs.name, names.GATEWAY)},
            "strategy": strategy,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": 600,
            "template": template,
        },
    )


def service(inputs: Inputs) -> Manifest:
    """Return the Service by which clients reach the gateways."""
    return manifest(
        inputs,
        ("v1", "Service"),
        inputs.name,
        names.labels(inputs.name, names.GATEWAY),
        spec={
            "type": "ClusterIP",
            "selector": names.selector(inputs.name, names.GATEWAY),
            "ports": [
                {**service_port("grpc", names.GATEWAY_PORT), "appProtocol": "kubernetes.io/h2c"}
            ],
        },
    )


def disruption_budget(inputs: Inputs) -> Manifest:
    """Return what keeps a drain of nodes from taking all gateways at once."""
    return manifest(
        inputs,
        ("policy/v1", "PodDisruptionBudget"),
        names.gateway_deployment(inputs.name),
        names.labels(inputs.name, names.GATEWAY),
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(inputs.name, names.GATEWAY)},
        },
    )


def claims(inputs: Inputs) -> list[Manifest]:
    """Return the claims of volumes. Those that are to be retained belong to nobody."""
    gateway = inputs.spec.gateway
    owned = gateway.results.reclaim_policy == "Delete"
    # Of one gateway as well: there may be more of them later, and a claim's access is for good.
    # And in a rollout there are two of it, perhaps on two nodes.
    shared = gateway.store.postgresql is not None
    found = [
        _claim(
            inputs,
            results_claim(inputs.name),
            str(gateway.results.storage),
            gateway.results.storage_class_name,
            owned=owned,
            shared=shared,
        )
    ]
    if gateway.store.sqlite is not None:
        found.append(
            _claim(
                inputs,
                jobs_claim(inputs.name),
                str(gateway.store.sqlite.storage),
                gateway.store.sqlite.storage_class_name,
                owned=owned,
                shared=False,
            )
        )
    return found


def _claim(
    inputs: Inputs, name: str, storage: str, storage_class: str | None, *, owned: bool, shared: bool
) -> Manifest:
    spec: Manifest = {
        "accessModes": ["ReadWriteMany" if shared else "ReadWriteOnce"],
        "resources": {"requests": {"storage": storage}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    labels = names.labels(inputs.name, names.GATEWAY)
    return manifest(inputs, ("v1", "PersistentVolumeClaim"), name, labels, owned=owned, spec=spec)


def _pod(inputs: Inputs) -> Manifest:
    found: Manifest = {
        "serviceAccountName": gateway_account(inputs.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "securityContext": pods.pod_security(),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.selector(inputs.name, names.GATEWAY)},
            }
        ],
        "containers": [_container(inputs)],
        "volumes": _volumes(inputs),
    }
    if secrets := pods.pull_secrets(inputs):
        found["imagePullSecrets"] = secrets
    return found


def _container(inputs: Inputs) -> Manifest:
    gateway = inputs.spec.gateway
    probed = names.PROBE_PORT if inputs.spec.transport.tls else names.GATEWAY_PORT
    ports = [
        {"name": "grpc", "containerPort": names.GATEWAY_PORT, "protocol": "TCP"},
        {"name": "internal", "containerPort": names.INTERNAL_PORT, "protocol": "TCP"},
        {"name": "metrics", "containerPort": names.METRICS_PORT, "protocol": "TCP"},
    ]
    if inputs.spec.transport.tls:
        ports.append({"name": "probe", "containerPort": names.PROBE_PORT, "protocol": "TCP"})
    return {
        "name": names.GATEWAY,
        "image": inputs.gateway_image,
        "imagePullPolicy": inputs.release.pull_policy,
        "command": ["python", "-m", "disagfusion_gateway"],
        "env": pods.environment(_settings(inputs)),
        "ports": ports,
        "resources": pods.resources(gateway.resources, {}, {"cpu": "100m", "memory": "256Mi"}),
        "securityContext": pods.container_security(),
        "startupProbe": pods.grpc_probe(names.LIVENESS, probed, period=2, failures=60),
        "livenessProbe": pods.grpc_probe(names.LIVENESS, probed, period=10, failures=6),
        "readinessProbe": pods.grpc_probe(names.READINESS, probed, period=2, failures=2),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(inputs),
    }


def _settings(inputs: Inputs) -> dict[str, str | Manifest]:
    spec, gateway = inputs.spec, inputs.spec.gateway
    workers = ",".join(
        f"dns:{names.stage_service(inputs.name, stage)}.{inputs.namespace}.svc:{names.STAGE_PORT}"
        for stage, _ in spec.stages.items()
    )
    found: dict[str, str | Manifest] = {
        "name": pods.own_field("metadata.name"),
        "listen": f"0.0.0.0:{names.GATEWAY_PORT}",
        "internal_listen": f"0.0.0.0:{names.INTERNAL_PORT}",
        "internal_keys": f"{_INTERNAL}/{KEYS_KEY}",
        "workers": workers,
        "pipeline": names.served_name(inputs.name, spec),
        "results": f"{_DATA}/results",
        "queue_limit": str(gateway.queue_limit),
        "retention_result_seconds": str(gateway.results.retention_seconds),
        "retention_result_bytes": _most_of(gateway.results.storage),
        "disk_reserve_bytes": _DISK_RESERVE,
        "metrics_listen": f"0.0.0.0:{names.METRICS_PORT}",
        "log_format": "json",
        **pods.tls_environment(inputs),
    }
    if gateway.store.postgresql is not None:
        url = gateway.store.postgresql.url_secret
        found["database"] = pods.secret_value(url.name, url.key)
    else:
        found["database"] = f"sqlite:///{_DATA}/jobs/jobs.sqlite3"
    if gateway.store.sqlite is not None:
        found["retention_job_bytes"] = _most_of(gateway.store.sqlite.storage)
    if gateway.authentication is not None:
        found["api_keys"] = f"{_KEYS}/{gateway.authentication.api_keys_secret.key}"
    else:
        found["open_to_all"] = "true"
    if spec.transport.tls:
        found["probe_listen"] = f"0.0.0.0:{names.PROBE_PORT}"
    return found


def _most_of(storage: str | int) -> str:
    """Return the bytes that what has ended may take of a volume: the rest is for what goes on."""
    return str(int(float(number(storage)) * _KEPT))


def _volumes(inputs: Inputs) -> list[Manifest]:
    gateway = inputs.spec.gateway
    found = [
        pods.temporary_volume(),
        {"name": "results", "persistentVolumeClaim": {"claimName": results_claim(inputs.name)}},
        {
            "name": "internal",
            "secret": {
                "secretName": names.internal_secret(inputs.name),
                # The key itself is nobody's business in there.
                "items": [{"key": KEYS_KEY, "path": KEYS_KEY}],
                "defaultMode": 0o440,
            },
        },
        *pods.tls_volume(inputs),
    ]
    if gateway.store.sqlite is not None:
        claim = {"claimName": jobs_claim(inputs.name)}
        found.append({"name": "jobs", "persistentVolumeClaim": claim})
    if gateway.authentication is not None:
        secret = {
            "secretName": gateway.authentication.api_keys_secret.name,
            "defaultMode": 0o440,
        }
        found.append({"name": "keys", "secret": secret})
    return found


def _mounts(inputs: Inputs) -> list[Manifest]:
    found: list[Manifest] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of a pod
        {"name": "results", "mountPath": f"{_DATA}/results"},
        {"name": "internal", "mountPath": _INTERNAL, "readOnly": True},
        *pods.tls_mount(inputs),
    ]
    if inputs.spec.gateway.store.sqlite is not None:
        found.append({"name": "jobs", "mountPath": f"{_DATA}/jobs"})
    if inputs.spec.gateway.authentication is not None:
        found.append({"name": "keys", "mountPath": _KEYS, "readOnly": True})
    return found
