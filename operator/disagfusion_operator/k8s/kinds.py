"""The kinds of objects that the operator makes or looks at."""

from __future__ import annotations

from disagfusion_operator.api.base import API_VERSION, KIND, PLURAL
from disagfusion_operator.k8s.port import Kind, Object

PIPELINE = Kind(API_VERSION, KIND, PLURAL)

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")

POD = Kind("v1", "Pod", "pods")
NODE = Kind("v1", "Node", "nodes", namespaced=False)
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")

CHILDREN = (
    CONFIG_MAP,
    CLAIM,
    SERVICE,
    SERVICE_ACCOUNT,
    DEPLOYMENT,
    NETWORK_POLICY,
    DISRUPTION_BUDGET,
    POD_MONITOR,
)
"""What belongs to a pipeline and is followed. Secrets are not: nobody needs to list them."""

_BY_NAME = {
    (kind.api_version, kind.kind): kind
    for kind in list(globals().values())
    if isinstance(kind, Kind)
}


def kind_of(manifest: Object) -> Kind:
    """Return the kind of an object, which must be one of these."""
    return _BY_NAME[manifest["apiVersion"], manifest["kind"]]
