"""The objects of stages: Deployments on pools, headless Services, disruption budgets."""

from __future__ import annotations

import json

from disagfusion_operator.api.base import number
from disagfusion_operator.api.pools import Pool
from disagfusion_operator.desired import names, pods, weights
from disagfusion_operator.desired.crews import Crew
from disagfusion_operator.desired.inputs import Inputs, Manifest, manifest, rounded
from disagfusion_operator.desired.overrides import lay_over

_PROFILE_DIRECTORY = "/etc/disagfusion/profile"
PROFILE_KEY = "profile.yaml"
_MIB = 1 << 20
_ARENA_SHARE = 0.9
"""Of `sharedMemory`, for inputs and outputs, which are in a memory file of the front's and not in
/dev/shm. That may become as large as all of it; both count against the container's memory limit."""
_COMPILED = "4Gi"
"""Of /tmp, where torch keeps what it has compiled."""
_STARTUP_SECONDS = 600
_UNKNOWN_LOAD_SECONDS = 1800
_STAGE_VARIABLE = "DISAGFUSION_STAGE"


def stage_account(pipeline: str) -> str:
    """Return the name of the stages' ServiceAccount, which has no rights."""
    return f"{pipeline}-stage"


def profile_map(pipeline: str) -> str:
    """Return the name of the ConfigMap with the profile that emulated stages follow."""
    return f"{pipeline}-profile"


def deployment(inputs: Inputs, crew: Crew) -> Manifest:
    """Return the Deployment of a stage on a pool, or of all there: everything but its replicas."""
    labels = names.labels(inputs.name, crew.component, crew.pool)
    template = lay_over(
        {
            "metadata": {
                "labels": {**labels, names.STAGE_LABEL: crew.first},
                "annotations": {
                    names.VERSION_ANNOTATION: inputs.version,
                    "kubectl.kubernetes.io/default-container": crew.component,
                    **pods.scraped(),
                },
            },
            "spec": _pod(inputs, crew),
        },
        crew.wanted.pod_template,
    )
    return manifest(
        inputs,
        ("apps/v1", "Deployment"),
        names.stage_deployment(inputs.name, crew.component, crew.pool),
        labels,
        spec={
            "selector": {"matchLabels": names.selector(inputs.name, crew.component, crew.pool)},
            "strategy": _strategy(inputs, crew),
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": _startup_seconds(crew) + 600,
            "template": template,
        },
    )


def _strategy(inputs: Inputs, crew: Crew) -> Manifest:
    """Return how old pods are replaced, with no more pods than were decided.

    A rolling update does not count pods that end: for as long as they do there are more. So it is
    only for a quarter at a time, where the others go on.
    """
    if crew.component in inputs.whole:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}


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
            "selector": names.serving(inputs.name, stage),
            "ports": [service_port("grpc", names.STAGE_PORT)],
        },
    )


def disruption_budget(inputs: Inputs, component: str) -> Manifest:
    """Return what keeps a drain of several nodes from taking a whole stage at once.

    Pods that change their stage have one for all of them: how many there should be of a stage is
    counted over whole Deployments.
    """
    return manifest(
        inputs,
        ("policy/v1", "PodDisruptionBudget"),
        f"{inputs.name}-{component}",
        names.labels(inputs.name, component),
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(inputs.name, component)},
        },
    )


def service_port(name: str, port: int) -> Manifest:
    """Return a port of a Service that is the pods' own."""
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def _pod(inputs: Inputs, crew: Crew) -> Manifest:
    pool = inputs.spec.pools[crew.pool]
    found: Manifest = {
        "serviceAccountName": stage_account(inputs.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": crew.grace_seconds,
        "securityContext": pods.pod_security(),
        "nodeSelector": dict(pool.node_selector),
        "tolerations": _tolerations(pool),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.selector(inputs.name, crew.component)},
            }
        ],
        "containers": [_container(inputs, crew)],
        "volumes": _volumes(inputs, crew),
    }
    if pool.runtime_class_name:
        found["runtimeClassName"] = pool.runtime_class_name
    if secrets := pods.pull_secrets(inputs):
        found["imagePullSecrets"] = secrets
    if init := weights.containers(inputs, crew):
        found["initContainers"] = init
    return {name: value for name, value in found.items() if value not in ({}, [])}


def _tolerations(pool: Pool) -> list[Manifest]:
    found = []
    for one in pool.tolerations:
        content = one.model_dump(mode="json", by_alias=True, exclude_none=True)
        found.append({name: value for name, value in content.items() if value != ""})
    return found


def _container(inputs: Inputs, crew: Crew) -> Manifest:
    pool = inputs.spec.pools[crew.pool]
    rdma = inputs.spec.transport.rdma
    extended = {pool.accelerator.resource: pool.accelerator.count} if pool.accelerator else {}
    if rdma is not None:
        extended[rdma.resource] = rdma.count
    probed = names.PROBE_PORT if inputs.spec.transport.tls else names.STAGE_PORT
    startup = _startup_seconds(crew)
    # What a container is started as is its pod's label then, also when it is started again.
    stage = f"$({_STAGE_VARIABLE})" if crew.component == names.FLEX else crew.component
    return {
        "name": crew.component,
        "image": crew.image,
        "imagePullPolicy": inputs.release.pull_policy,
        # Every image of stages has the code of all of them.
        "command": ["python", "-m", f"disagfusion_{stage}"],
        "env": pods.environment(_settings(inputs, crew)),
        "ports": _ports(inputs),
        "resources": pods.resources(
            crew.wanted.resources, extended, {"cpu": "100m", "memory": "256Mi"}
        ),
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


def _settings(inputs: Inputs, crew: Crew) -> dict[str, str | Manifest]:
    spec, wanted = inputs.spec, crew.wanted
    found: dict[str, str | Manifest] = {
        "name": pods.own_field("metadata.name"),
        "listen": f"0.0.0.0:{names.STAGE_PORT}",
        "pipeline": names.served_name(inputs.name, spec),
        "pool": crew.pool,
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
        "drain_seconds": str(crew.release_seconds),
        "metrics_listen": f"0.0.0.0:{names.METRICS_PORT}",
        "log_format": "json",
        **pods.tls_environment(inputs),
    }
    if crew.component == names.FLEX:
        found["stage"] = pods.own_field(f"metadata.labels['{names.STAGE_LABEL}']")
    if spec.transport.backend == "UCX":
        found["ucx_ports"] = "-".join(map(str, names.UCX_PORTS))
    if spec.transport.tls:
        found["probe_listen"] = f"0.0.0.0:{names.PROBE_PORT}"
    if spec.model.emulated is not None:
        found |= {
            "device": f"emulated:{crew.pool}",
            "profile": f"{_PROFILE_DIRECTORY}/{PROFILE_KEY}",
            "time_scale": repr(spec.model.emulated.time_scale),
            "time_noise": repr(spec.model.emulated.time_noise),
        }
        return found
    pool = spec.pools[crew.pool]
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


def _compiles(inputs: Inputs) -> bool:
    return inputs.spec.options.compile is not None and not inputs.emulated


def _arena_bytes(shared_memory: str | int) -> int:
    return max(_MIB, int(float(number(shared_memory)) * _ARENA_SHARE) // _MIB * _MIB)


def _startup_seconds(crew: Crew) -> int:
    """Return how long a pod may take until it answers at all; loading comes after that."""
    seconds = crew.load_seconds
    return max(_STARTUP_SECONDS, rounded(3 * seconds)) if seconds else _UNKNOWN_LOAD_SECONDS


def _volumes(inputs: Inputs, crew: Crew) -> list[Manifest]:
    shared = {"medium": "Memory", "sizeLimit": str(crew.wanted.shared_memory)}
    found = [
        {"name": "shm", "emptyDir": shared},
        pods.temporary_volume(_COMPILED if _compiles(inputs) else pods.TEMPORARY),
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
