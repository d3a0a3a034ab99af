"""The objects of a stage: a Deployment on each pool, a headless Service, a disruption budget."""

from __future__ import annotations

import json

from disagfusion_operator.api.base import number
from disagfusion_operator.api.pools import Pool
from disagfusion_operator.desired import names, pods, weights
from disagfusion_operator.desired.inputs import Inputs, Manifest, manifest, rounded
from disagfusion_operator.desired.overrides import lay_over

_PROFILE_DIRECTORY = "/etc/disagfusion/profile"
PROFILE_KEY = "profile.yaml"
_MIB = 1 << 20
_ARENA_SHARE = 0.9
"""Of /dev/shm: UCX and the engine keep some of their own in it."""
_STARTUP_SECONDS = 600
_UNKNOWN_LOAD_SECONDS = 1800


def stage_account(pipeline: str) -> str:
    """Return the name of the stages' ServiceAccount, which has no rights."""
    return f"{pipeline}-stage"


def profile_map(pipeline: str) -> str:
    """Return the name of the ConfigMap with the profile that emulated stages follow."""
    return f"{pipeline}-profile"


def deployment(inputs: Inputs, stage: str, pool: str) -> Manifest:
    """Return the Deployment of a stage on a pool: everything but its replicas."""
    wanted = inputs.stage(stage)
    template = lay_over(
        {
            "metadata": {
                "labels": names.labels(inputs.name, stage, pool),
                "annotations": {
                    names.VERSION_ANNOTATION: inputs.version,
                    "kubectl.kubernetes.io/default-container": stage,
                    **pods.scraped(),
                },
            },
            "spec": _pod(inputs, stage, pool),
        },
        wanted.pod_template,
    )
    return manifest(
        inputs,
        ("apps/v1", "Deployment"),
        names.stage_deployment(inputs.name, stage, pool),
        names.labels(inputs.name, stage, pool),
        spec={
            "selector": {"matchLabels": names.selector(inputs.name, stage, pool)},
            "strategy": {
                "type": "RollingUpdate",
                # More pods than were decided would be more accelerators than the budget.
                "rollingUpdate": {
                    "maxSurge": 0,
                    "maxUnavailable": "100%" if stage in inputs.whole else "25%",
                },
            },
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": _startup_seconds(inputs, stage, pool) + 600,
            "template": template,
        },
    )


def service(inputs: Inputs, stage: str) -> Manifest:
    """Return the headless Service by which gateways find a stage's workers."""
    return manifest(
        inputs,
        ("v1", "Service"),
        names.stage_service(inputs.name, stage),
        names.labels(inputs.name, stage),
        spec={
            "clusterIP": "None",
            # A worker that loads or drains has to be heard as well.
            "publishNotReadyAddresses": True,
            "selector": names.selector(inputs.name, stage),
            "ports": [service_port("grpc", names.STAGE_PORT)],
        },
    )


def disruption_budget(inputs: Inputs, stage: str) -> Manifest:
    """Return what keeps a drain of several nodes from taking a whole stage at once."""
    return manifest(
        inputs,
        ("policy/v1", "PodDisruptionBudget"),
        names.stage_service(inputs.name, stage),
        names.labels(inputs.name, stage),
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(inputs.name, stage)},
        },
    )


def service_port(name: str, port: int) -> Manifest:
    """Return a port of a Service that is the pods' own."""
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def _pod(inputs: Inputs, stage: str, pool_name: str) -> Manifest:
    pool = inputs.spec.pools[pool_name]
    found: Manifest = {
        "serviceAccountName": stage_account(inputs.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": inputs.grace_seconds(stage, pool_name),
        "securityContext": pods.pod_security(),
        "nodeSelector": dict(pool.node_selector),
        "tolerations": _tolerations(pool),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.selector(inputs.name, stage)},
            }
        ],
        "containers": [_container(inputs, stage, pool_name)],
        "volumes": _volumes(inputs, stage),
    }
    if pool.runtime_class_name:
        found["runtimeClassName"] = pool.runtime_class_name
    if secrets := pods.pull_secrets(inputs):
        found["imagePullSecrets"] = secrets
    if init := weights.containers(inputs, stage):
        found["initContainers"] = init
    return {name: value for name, value in found.items() if value not in ({}, [])}


def _tolerations(pool: Pool) -> list[Manifest]:
    found = []
    for one in pool.tolerations:
        content = one.model_dump(mode="json", by_alias=True, exclude_none=True)
        found.append({name: value for name, value in content.items() if value != ""})
    return found


def _container(inputs: Inputs, stage: str, pool_name: str) -> Manifest:
    pool, wanted = inputs.spec.pools[pool_name], inputs.stage(stage)
    rdma = inputs.spec.transport.rdma
    extended = {pool.accelerator.resource: pool.accelerator.count} if pool.accelerator else {}
    if rdma is not None:
        extended[rdma.resource] = rdma.count
    probed = names.PROBE_PORT if inputs.spec.transport.tls else names.STAGE_PORT
    startup = _startup_seconds(inputs, stage, pool_name)
    return {
        "name": stage,
        "image": inputs.image(stage),
        "imagePullPolicy": inputs.release.pull_policy,
        # The emulated image has all stages in it.
        "command": ["python", "-m", f"disagfusion_{stage}"],
        "env": pods.environment(_settings(inputs, stage, pool_name)),
        "ports": _ports(inputs),
        "resources": pods.resources(wanted.resources, extended, {"cpu": "100m", "memory": "256Mi"}),
        "securityContext": pods.container_security(("IPC_LOCK",) if rdma else ()),
        # The front answers long before the model is loaded; what loads is not dead.
        "startupProbe": pods.grpc_probe(names.LIVENESS, probed, period=2, failures=startup // 2),
        "livenessProbe": pods.grpc_probe(names.LIVENESS, probed, period=10, failures=6),
        "readinessProbe": pods.grpc_probe(names.READINESS, probed, period=2, failures=2),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(inputs),
    }


def _ports(inputs: Inputs) -> list[Manifest]:
    found = [
        {"name": "grpc", "containerPort": names.STAGE_PORT, "protocol": "TCP"},
        {"name": "data", "containerPort": names.DATA_PORT, "protocol": "TCP"},
        {"name": "metrics", "containerPort": names.METRICS_PORT, "protocol": "TCP"},
    ]
    if inputs.spec.transport.tls:
        found.append({"name": "probe", "containerPort": names.PROBE_PORT, "protocol": "TCP"})
    return found


def _settings(inputs: Inputs, stage: str, pool_name: str) -> dict[str, str | Manifest]:
    spec, wanted = inputs.spec, inputs.stage(stage)
    found: dict[str, str | Manifest] = {
        "name": pods.own_field("metadata.name"),
        "listen": f"0.0.0.0:{names.STAGE_PORT}",
        "pipeline": names.served_name(inputs.name, spec),
        "pool": pool_name,
        "version_tag": inputs.version,
        "transport": spec.transport.backend.lower(),
        "transport_host": "0.0.0.0",  # noqa: S104 - of a pod
        "transport_port": str(names.DATA_PORT),
        "transport_advertise": pods.own_field("status.podIP"),
        "dtype": spec.dtype,
        "threads": str(wanted.threads),
        "slots": str(wanted.slots),
        "send_slots": str(wanted.send_slots),
        "arena_bytes": str(_arena_bytes(wanted.shared_memory)),
        "drain_seconds": str(inputs.release_seconds(stage, pool_name)),
        "metrics_listen": f"0.0.0.0:{names.METRICS_PORT}",
        "log_format": "json",
        **pods.tls_environment(inputs),
    }
    if spec.transport.backend == "UCX":
        found["ucx_ports"] = "-".join(map(str, names.UCX_PORTS))
    if spec.transport.tls:
        found["probe_listen"] = f"0.0.0.0:{names.PROBE_PORT}"
    if spec.model.emulated is not None:
        found |= {
            "device": f"emulated:{pool_name}",
            "profile": f"{_PROFILE_DIRECTORY}/{PROFILE_KEY}",
            "time_scale": repr(spec.model.emulated.time_scale),
            "time_noise": repr(spec.model.emulated.time_noise),
        }
        return found
    pool = spec.pools[pool_name]
    found["device"] = pool.device or ("cuda" if pool.accelerator else "cpu")
    found |= weights.SETTINGS
    return found | _options(inputs)


def _options(inputs: Inputs) -> dict[str, str | Manifest]:
    """Return diffusers' options that differ from its defaults."""
    options = inputs.spec.options
    found: dict[str, str | Manifest] = {}
    for name in type(options).model_fields:
        value = getattr(options, name)
        if value in (None, False, ()):
            continue
        if isinstance(value, str):
            found[name] = value
        elif value is True:
            found[name] = "true"
        elif isinstance(value, tuple):
            found[name] = json.dumps(list(value))
        else:
            found[name] = value.model_dump_json(exclude_none=True)
    return found


def _arena_bytes(shared_memory: str | int) -> int:
    return max(_MIB, int(float(number(shared_memory)) * _ARENA_SHARE) // _MIB * _MIB)


def _startup_seconds(inputs: Inputs, stage: str, pool: str) -> int:
    """Return how long a pod may take until it answers at all; loading comes after that."""
    seconds = inputs.load_seconds(stage, pool)
    return max(_STARTUP_SECONDS, rounded(3 * seconds)) if seconds else _UNKNOWN_LOAD_SECONDS


def _volumes(inputs: Inputs, stage: str) -> list[Manifest]:
    shared = {"medium": "Memory", "sizeLimit": str(inputs.stage(stage).shared_memory)}
    found = [
        {"name": "shm", "emptyDir": shared},
        pods.temporary_volume(),
        *pods.tls_volume(inputs),
        *weights.volumes(inputs),
    ]
    if inputs.emulated:
        found.append({"name": "profile", "configMap": {"name": profile_map(inputs.name)}})
    return found


def _mounts(inputs: Inputs) -> list[Manifest]:
    found = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - of a pod
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of a pod
        *pods.tls_mount(inputs),
        *weights.mounts(inputs),
    ]
    if inputs.emulated:
        found.append({"name": "profile", "mountPath": _PROFILE_DIRECTORY, "readOnly": True})
    return found
