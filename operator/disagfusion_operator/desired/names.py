"""How the objects of a pipeline are called and labelled, and which ports they have."""

from __future__ import annotations

from disagfusion.emulation.profiles import PREFIX
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.k8s.port import Object

GATEWAY_PORT = 7420
INTERNAL_PORT = 7421
STAGE_PORT = 7430
DATA_PORT = 7431
PROBE_PORT = 7432
UCX_PORTS = (7440, 7499)
METRICS_PORT = 9464

LIVENESS = "liveness"
READINESS = "readiness"
"""Names by which probes ask; as `disagfusion.rpc.server` has them, which needs gRPC."""

DOMAIN = "disagfusion.dev"
PIPELINE_LABEL = f"{DOMAIN}/pipeline"
STAGE_LABEL = f"{DOMAIN}/stage"
POOL_LABEL = f"{DOMAIN}/pool"
COMPONENT_LABEL = "app.kubernetes.io/component"
MANAGED_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "disagfusion-operator"
GATEWAY = "gateway"
FLEX = "flex"
"""Component of pods that change their stage in place; their stage is a label that changes."""

HASH_ANNOTATION = f"{DOMAIN}/applied-hash"
"""Of what was applied, so that the same is not applied again."""
VERSION_ANNOTATION = f"{DOMAIN}/version"
"""Of model and images, on the pods of a stage: no job meets two of them."""
CHANGED_ANNOTATION = f"{DOMAIN}/stage-changed-at"
"""When the operator changed a pod's stage last, in Unix seconds."""
CHANGING_ANNOTATION = f"{DOMAIN}/stage-changes-from"
"""The stage that a pod had before; taken away when its worker serves the new one."""
FINALIZER = f"{DOMAIN}/drain"


def labels(pipeline: str, component: str, pool: str = "") -> dict[str, str]:
    """Return the labels of an object: `component` is a stage, `gateway` or `flex`, or empty."""
    found = {
        "app.kubernetes.io/name": "disagfusion",
        "app.kubernetes.io/instance": pipeline,
        "app.kubernetes.io/part-of": "disagfusion",
        MANAGED_LABEL: MANAGER,
        PIPELINE_LABEL: pipeline,
    }
    if component:
        found[COMPONENT_LABEL] = component
        if component not in (GATEWAY, FLEX):
            found[STAGE_LABEL] = component
    if pool:
        found[POOL_LABEL] = pool
    return found


def selector(pipeline: str, component: str, pool: str = "") -> dict[str, str]:
    """Return the labels that tell pods of one Deployment, or of several; they never change."""
    found = {PIPELINE_LABEL: pipeline, COMPONENT_LABEL: component}
    return {**found, POOL_LABEL: pool} if pool else found


def serving(pipeline: str, stage: str) -> dict[str, str]:
    """Return the labels that tell the pods that serve a stage now."""
    return {PIPELINE_LABEL: pipeline, STAGE_LABEL: stage}


def stage_service(pipeline: str, stage: str) -> str:
    """Return the name of the headless Service behind which a stage's workers are."""
    return f"{pipeline}-{stage}"


def stage_deployment(pipeline: str, component: str, pool: str) -> str:
    """Return the name of the Deployment of a stage, or of `flex`, on a pool."""
    return f"{pipeline}-{component}-{pool}"


def gateway_deployment(pipeline: str) -> str:
    """Return the name of the gateways' Deployment."""
    return f"{pipeline}-gateway"


def internal_secret(pipeline: str) -> str:
    """Return the name of the Secret with the token for the gateways' internal port."""
    return f"{pipeline}-internal"


def served_name(pipeline: str, spec: Spec) -> str:
    """Return the name under which a pipeline is served, which every metric has as its label.

    That of an emulated one says so, since its figures must not be taken for a real one's.
    """
    if spec.model.emulated is None or pipeline.startswith(PREFIX):
        return pipeline
    return f"{PREFIX}-{pipeline}"


def version_of(found: Object) -> str:
    """Return the version of model and images that a pod, or a pod template, has."""
    return str((found["metadata"].get("annotations") or {}).get(VERSION_ANNOTATION, ""))
