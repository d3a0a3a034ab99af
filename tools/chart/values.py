"""The chart's values: what people may set, with its defaults and what it means."""

# ruff: noqa: RUF012 -- pydantic gives every instance defaults of its own

from __future__ import annotations

from typing import Annotated, Any, Literal

from disagfusion_operator.api.base import Part
from pydantic import Field

Objects = list[dict[str, Any]]
Words = dict[str, str]
Port = Annotated[int, Field(ge=1, le=65535)]


class Image(Part):
    """One image.

    Attributes:
        repository: Name below `images.registry`.
        tag: Tag; `images.tag` where empty.
        digest: Such as sha256:…, in the place of any tag.
    """

    repository: Annotated[str, Field(min_length=1)]
    tag: str = ""
    digest: Annotated[str, Field(pattern="^(sha256:[0-9a-f]{64})?$")] = ""


class Images(Part):
    """Images of the release. A pipeline may name others.

    Attributes:
        registry: Registry and path before every repository, such as registry.example.com/team.
        tag: Tag of all images; the chart's appVersion where empty.
        pull_policy: When nodes pull images, the pipelines' included.
        pull_secrets: Names of Secrets for the registry. The operator's must be in the release's
            namespace, those of a pipeline's pods in the pipeline's.
        operator: The operator.
        gateway: The gateways of pipelines.
        encoder: Their first stage.
        dit: Their second stage.
        decoder: Their third stage.
        flex: All their stages, on pools whose pods change their stage in place.
        emulated: All stages of pipelines with emulated accelerators.
    """

    registry: str = ""
    tag: str = ""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[Annotated[str, Field(min_length=1)]] = []
    operator: Image = Image(repository="disagfusion-operator")
    gateway: Image = Image(repository="disagfusion-gateway")
    encoder: Image = Image(repository="disagfusion-encoder")
    dit: Image = Image(repository="disagfusion-dit")
    decoder: Image = Image(repository="disagfusion-decoder")
    flex: Image = Image(repository="disagfusion-flex")
    emulated: Image = Image(repository="disagfusion-emulated")


class Definitions(Part):
    """The CustomResourceDefinition.

    Attributes:
        enabled: Install and upgrade it with the release.
        keep: Keep it, and with it every pipeline, when the release is uninstalled.
    """

    enabled: bool = True
    keep: bool = True


class Operator(Part):
    """The operator's pods.

    Attributes:
        replicas: One works, the others stand by: a Lease says which.
        resources: Requests and limits of the container.
        log_level: The least severe level that is written.
        log_format: json for machines, console for people.
        node_selector: Where the pods may run.
        tolerations: Taints of nodes that the pods accept.
        affinity: Further wishes; without it, replicas prefer different nodes.
        pod_labels: Further labels of the pods.
        pod_annotations: Further annotations of the pods.
        extra_env: Further environment, such as DISAGFUSION_OPERATOR_RESYNC_SECONDS.
        termination_grace_period_seconds: For what is under way when a pod is stopped.
    """

    replicas: Annotated[int, Field(ge=0, le=5)] = 1
    resources: dict[str, Any] = {
        "requests": {"cpu": "100m", "memory": "192Mi", "ephemeral-storage": "64Mi"},
        "limits": {"memory": "512Mi", "ephemeral-storage": "512Mi"},
    }
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    node_selector: Words = {}
    tolerations: Objects = []
    affinity: dict[str, Any] = {}
    pod_labels: Words = {}
    pod_annotations: Words = {}
    extra_env: Objects = []
    termination_grace_period_seconds: Annotated[int, Field(ge=0)] = 30


class ServiceAccount(Part):
    """Whom the operator is to the API server.

    Attributes:
        create: Make a ServiceAccount.
        name: Its name; the release's full name where empty.
        annotations: Its annotations.
    """

    create: bool = True
    name: str = ""
    annotations: Words = {}


class Rbac(Part):
    """Rights.

    Attributes:
        create: Make roles and bindings for the operator.
        nodes: Let the operator see nodes, from which it learns how many accelerators a pool has.
            Nodes belong to no namespace, so this is a right in the whole cluster; without it, every
            pool must say its capacity.
        aggregate: Add rights on pipelines to the cluster's own roles view, edit and admin.
    """

    create: bool = True
    nodes: bool = True
    aggregate: bool = True


class Pipelines(Part):
    """What all pipelines have in common.

    Attributes:
        prometheus_url: HTTP API of the Prometheus that scrapes them, such as
            http://prometheus.monitoring.svc:9090. A pipeline may name another; without any, the
            ratio is not balanced.
        prometheus_namespace: Whose pods may read pipelines' metrics; those of any where empty.
        client_namespaces: Labels of namespaces whose pods may reach gateways, beside the pipeline's
            own; empty: all.
        network_policies: Make a policy for every pipeline that admits only what belongs to it.
        pod_monitors: auto makes a PodMonitor for every pipeline where the cluster knows them.
    """

    prometheus_url: Annotated[str, Field(pattern=r"^(https?://[^\s]+)?$")] = ""
    prometheus_namespace: str = ""
    client_namespaces: Words = {}
    network_policies: bool = True
    pod_monitors: Literal["auto", "off"] = "auto"


class PodMonitor(Part):
    """A PodMonitor of the Prometheus operator, for the operator's own metrics.

    Attributes:
        enabled: Make a PodMonitor.
        labels: By which your Prometheus finds it.
        interval: Between two scrapes.
    """

    enabled: bool = False
    labels: Words = {}
    interval: Annotated[str, Field(pattern=r"^\d+(ms|s|m)$")] = "15s"


class Rules(Part):
    """Alert rules for all pipelines, as a PrometheusRule of the Prometheus operator.

    Attributes:
        enabled: Make a PrometheusRule.
        labels: By which your Prometheus finds it.
        runbook_base_url: What stands before the alerts' links to the runbook, such as the address
            at which you browse this repository, with a slash at its end.
    """

    enabled: bool = False
    labels: Words = {}
    runbook_base_url: str = ""


class Dashboards(Part):
    """Dashboards, as a ConfigMap that Grafana's sidecar finds.

    Attributes:
        enabled: Make a ConfigMap.
        labels: By which the sidecar finds it.
        annotations: Its annotations, such as the folder.
    """

    enabled: bool = False
    labels: Words = {"grafana_dashboard": "1"}
    annotations: Words = {}


class Metrics(Part):
    """Metrics, alerts and dashboards.

    Attributes:
        service_annotations: Of the operator's Service, for scrapers that look for such.
        pod_monitor: For the Prometheus operator.
        rules: Alerts.
        dashboards: For Grafana.
    """

    service_annotations: Words = {}
    pod_monitor: PodMonitor = PodMonitor()
    rules: Rules = Rules()
    dashboards: Dashboards = Dashboards()


class NetworkPolicy(Part):
    """Who may reach the operator.

    Attributes:
        enabled: Make a policy: nothing but metrics and health can be reached.
        metrics_from: Peers that may read metrics, as of a NetworkPolicy; all where empty.
        egress: Rules for what the operator may reach, as of a NetworkPolicy; everything where
            empty. It needs the API server, DNS, Prometheus, port 7421 of gateways, and port 7430 of
            pods that change their stage.
    """

    enabled: bool = True
    metrics_from: Objects = []
    egress: Objects = []


class DisruptionBudget(Part):
    """Keeps an operator running while nodes are drained.

    Attributes:
        enabled: Make a PodDisruptionBudget, where there is more than one replica.
        min_available: Pods that stay, or a percentage of them.
    """

    enabled: bool = True
    min_available: int | str = 1


class PriorityClass(Part):
    """Of the operator's pods.

    Attributes:
        create: Make a PriorityClass.
        name: Its name, the release's full name where empty; where none is made, the name of one
            that is there, or empty for the cluster's default.
        value: Its value.
    """

    create: bool = False
    name: str = ""
    value: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1_000_000


class Uninstall(Part):
    """What comes before the release goes.

    Attributes:
        delete_pipelines: Delete all pipelines that this operator serves, and wait until they are
            gone, jobs drained. Without it they stay and run on, with nobody who changes them; a
            pipeline that is deleted then waits for an operator to come back.
        timeout_seconds: For so long they may take. `helm uninstall --timeout` must be more than
            a minute longer.
    """

    delete_pipelines: bool = False
    timeout_seconds: Annotated[int, Field(ge=10, le=86_400)] = 900


class Values(Part):
    """Values of the chart.

    Attributes:
        name_override: Name in labels, and part of the objects' names; the chart's where empty.
        fullname_override: Name of the operator's objects; made of release and chart where empty.
        global_: Of a chart that has this one as a part; nothing is read from it.
        images: Images of the release.
        crds: The CustomResourceDefinition.
        watch_namespaces: Serve only the pipelines of these namespaces, with rights in these alone;
            all namespaces where empty.
        operator: The operator's pods.
        service_account: Whom the operator is to the API server.
        rbac: Rights.
        pipelines: What all pipelines have in common.
        metrics: Metrics, alerts and dashboards.
        network_policy: Who may reach the operator.
        pod_disruption_budget: Keeps an operator running while nodes are drained.
        priority_class: Of the operator's pods.
        uninstall: What comes before the release goes.
        common_labels: Labels of everything in the release.
        extra_objects: Further objects of yours; text in them is a template.
    """

    name_override: Annotated[str, Field(max_length=40)] = ""
    fullname_override: Annotated[str, Field(max_length=40)] = ""
    global_: Annotated[dict[str, Any], Field(alias="global")] = {}
    images: Images = Images()
    crds: Definitions = Definitions()
    watch_namespaces: list[
        Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    ] = []
    operator: Operator = Operator()
    service_account: ServiceAccount = ServiceAccount()
    rbac: Rbac = Rbac()
    pipelines: Pipelines = Pipelines()
    metrics: Metrics = Metrics()
    network_policy: NetworkPolicy = NetworkPolicy()
    pod_disruption_budget: DisruptionBudget = DisruptionBudget()
    priority_class: PriorityClass = PriorityClass()
    uninstall: Uninstall = Uninstall()
    common_labels: Words = {}
    extra_objects: list[dict[str, Any] | str] = []
