"""All objects of a pipeline, in the order in which they are applied."""

from __future__ import annotations

from disagfusion_operator.desired import gateway, names, policies, stages
from disagfusion_operator.desired.crews import Crew, crews
from disagfusion_operator.desired.inputs import Inputs, Manifest, manifest


def supports(inputs: Inputs) -> list[Manifest]:
    """Return what has to be there before any pod."""
    found = [
        _account(inputs, stages.stage_account(inputs.name), ""),
        _account(inputs, gateway.gateway_account(inputs.name), names.GATEWAY),
        *policies.policies(inputs),
        *gateway.claims(inputs),
    ]
    if inputs.emulated:
        found.append(
            manifest(
                inputs,
                ("v1", "ConfigMap"),
                stages.profile_map(inputs.name),
                names.labels(inputs.name, ""),
                data={stages.PROFILE_KEY: inputs.profile_text},
            )
        )
    for stage, _ in inputs.spec.stages.items():
        found += [stages.service(inputs, stage), stages.disruption_budget(inputs, stage)]
    if any(map(inputs.spec.flexes, inputs.spec.pools)):
        found.append(stages.disruption_budget(inputs, names.FLEX))
    found += [gateway.service(inputs), gateway.disruption_budget(inputs)]
    if inputs.release.pod_monitors:
        found.append(_pod_monitor(inputs))
    return found


def stage_deployments(inputs: Inputs) -> list[tuple[Crew, Manifest]]:
    """Return the Deployments of all stages, with their pods."""
    return [(crew, stages.deployment(inputs, crew)) for crew in crews(inputs)]


def _account(inputs: Inputs, name: str, component: str) -> Manifest:
    labels = names.labels(inputs.name, component)
    return manifest(
        inputs, ("v1", "ServiceAccount"), name, labels, automountServiceAccountToken=False
    )


def _pod_monitor(inputs: Inputs) -> Manifest:
    stage = {
        "sourceLabels": [f"__meta_kubernetes_pod_label_{_sanitized(names.STAGE_LABEL)}"],
        "targetLabel": "component",
    }
    return manifest(
        inputs,
        ("monitoring.coreos.com/v1", "PodMonitor"),
        inputs.name,
        names.labels(inputs.name, ""),
        spec={
            "selector": {"matchLabels": {names.PIPELINE_LABEL: inputs.name}},
            "podMetricsEndpoints": [
                {"port": "metrics", "path": "/metrics", "interval": "5s", "relabelings": [stage]}
            ],
        },
    )


def _sanitized(label: str) -> str:
    return "".join(one if one.isalnum() else "_" for one in label)
