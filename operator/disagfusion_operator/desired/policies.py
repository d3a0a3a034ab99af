"""Network policies: only what belongs to a pipeline reaches its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from disagfusion_operator.desired import names
from disagfusion_operator.desired.inputs import Inputs, Manifest, manifest

_NAMESPACE_NAME = "kubernetes.io/metadata.name"


def policies(inputs: Inputs) -> list[Manifest]:
    """Return the policies, which say who may open a connection; nothing is said of who may answer.

    What pods may reach is not restricted: names, databases, object stores and a model hub can be
    anywhere.
    """
    if not inputs.release.network_policies:
        return []
    return [_of_stages(inputs), _of_gateways(inputs)]


def _of_stages(inputs: Inputs) -> Manifest:
    stages = [stage for stage, _ in inputs.spec.stages.items()]
    callers = [_pods(names.selector(inputs.name, names.GATEWAY))]
    if any(map(inputs.spec.flexes, inputs.spec.pools)):
        # It tells pods to change their stage.
        callers.append(_operator(inputs))
    data = [_ports(names.DATA_PORT)]
    if inputs.spec.transport.backend == "UCX":
        data.append(_ports(*names.UCX_PORTS))
    return _policy(
        inputs,
        f"{inputs.name}-stages",
        "",
        {
            "matchLabels": {names.PIPELINE_LABEL: inputs.name},
            "matchExpressions": [
                {"key": names.STAGE_LABEL, "operator": "In", "values": stages},
            ],
        },
        [
            _rule(callers, [_ports(names.STAGE_PORT)]),
            _rule([_stages(inputs, stages)], data),
            _rule(_prometheus(inputs), [_ports(names.METRICS_PORT)]),
        ],
    )


def _of_gateways(inputs: Inputs) -> Manifest:
    wanted = inputs.release.client_namespaces
    own: Manifest = {"podSelector": {}}
    # Clients can be outside of the cluster as well, where nobody says which namespaces they are in.
    clients = [own, {"namespaceSelector": _labels(wanted)}] if wanted else []
    return _policy(
        inputs,
        names.gateway_deployment(inputs.name),
        names.GATEWAY,
        {"matchLabels": names.selector(inputs.name, names.GATEWAY)},
        [
            _rule(clients, [_ports(names.GATEWAY_PORT)]),
            _rule([_operator(inputs)], [_ports(names.INTERNAL_PORT)]),
            _rule(_prometheus(inputs), [_ports(names.METRICS_PORT)]),
        ],
    )


def _policy(
    inputs: Inputs, name: str, component: str, chosen: Manifest, rules: Sequence[Manifest]
) -> Manifest:
    return manifest(
        inputs,
        ("networking.k8s.io/v1", "NetworkPolicy"),
        name,
        names.labels(inputs.name, component),
        spec={"podSelector": chosen, "policyTypes": ["Ingress"], "ingress": list(rules)},
    )


def _rule(peers: Sequence[Manifest], ports: Sequence[Manifest]) -> Manifest:
    """Return a rule; with no peers it is for everybody."""
    return {"from": list(peers), "ports": list(ports)} if peers else {"ports": list(ports)}


def _ports(first: int, last: int | None = None) -> Manifest:
    found: Manifest = {"protocol": "TCP", "port": first}
    return found if last is None else {**found, "endPort": last}


def _labels(wanted: Mapping[str, str]) -> Manifest:
    return {"matchLabels": dict(wanted)}


def _pods(wanted: Mapping[str, str]) -> Manifest:
    return {"podSelector": _labels(wanted)}


def _stages(inputs: Inputs, stages: Sequence[str]) -> Manifest:
    return {
        "podSelector": {
            "matchLabels": {names.PIPELINE_LABEL: inputs.name},
            "matchExpressions": [
                {"key": names.STAGE_LABEL, "operator": "In", "values": list(stages)},
            ],
        }
    }


def _operator(inputs: Inputs) -> Manifest:
    return {
        "namespaceSelector": _labels({_NAMESPACE_NAME: inputs.release.namespace}),
        "podSelector": _labels({names.COMPONENT_LABEL: "operator"}),
    }


def _prometheus(inputs: Inputs) -> list[Manifest]:
    namespace = inputs.release.prometheus_namespace
    return [{"namespaceSelector": _labels({_NAMESPACE_NAME: namespace})}] if namespace else []
