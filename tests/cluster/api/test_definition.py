"""The real API server accepts and refuses what it should, and says why."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.cluster.kubectl import Kubectl
from tools.cluster.processes import wait_for

from .cases import SMALLEST, Case, cases
from .conftest import DEFINITION, Api, RefusedError

pytestmark = pytest.mark.smoke

CASES = list(cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.constraint)
def test_one_is_accepted_and_one_is_refused_with_a_reason(case: Case, api: Api) -> None:
    if case.before is None:
        api.create(case.accepted)
        with pytest.raises(RefusedError) as refused:
            api.create(case.refused)
    else:
        there = api.create(case.before, dry=False)
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        try:
            api.replace(case.accepted | {"metadata": case.accepted["metadata"] | version})
            with pytest.raises(RefusedError) as refused:
                api.replace(case.refused | {"metadata": case.refused["metadata"] | version})
        finally:
            api.delete(case.before["metadata"]["name"])
    assert case.says in str(refused.value), str(refused.value)


def _scheduled(**bounds: Any) -> dict[str, Any]:
    return {"scaling": {"schedule": [{"begin": "08:00", "end": "18:00", **bounds}]}}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"modle": {}}, 'unknown field "spec.modle"'),
        ({"stages": {"vae": {}}}, 'unknown field "spec.stages.vae"'),
        ({"scaling": {"budget": "many"}}, 'spec.scaling.budget: Invalid value: "string"'),
        ({"scaling": {"headroom": 0.2}}, "spec.scaling.headroom"),
        (_scheduled(timeZone="Mars/Olympus"), "unknown time zone Mars/Olympus"),
        (_scheduled(timeZone="Local"), "expected time zones as the tz database calls them"),
        (_scheduled(timeZone="+02:00"), "expected time zones as the tz database calls them"),
        (_scheduled(maxReplicas={"dit": 0}), "may be 0 only with scaleToZero"),
    ],
    ids=[
        *("field", "stage", "type", "fraction"),
        *("zone", "the-server's-zone", "offset", "scheduled-zero"),
    ],
)
def test_what_is_not_there_or_of_no_use_is_refused(
    api: Api, spec: dict[str, object], says: str
) -> None:
    smallest = SMALLEST["spec"]
    with pytest.raises(RefusedError) as refused:
        api.create(SMALLEST | {"spec": smallest | spec})
    assert says in str(refused.value), str(refused.value)


def test_the_smallest_pipeline_is_filled_in(api: Api) -> None:
    spec = api.create(SMALLEST)["spec"]
    assert spec["stages"]["dit"]["minReplicas"] == 1
    assert spec["gateway"]["store"] == {"sqlite": {"storage": "1Gi"}}
    assert spec["scaling"]["mode"] == "Auto"


def _without_rules(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_rules(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        word: _without_rules(value)
        for word, value in schema.items()
        if word != "x-kubernetes-validations"
    }


@pytest.fixture
def other(kubectl: Kubectl) -> Iterator[Callable[..., None]]:
    """Write the definition under a group of its own, with its rules or without."""
    whole = yaml.safe_load(DEFINITION.read_text(encoding="utf-8"))
    whole["spec"]["group"] = "older.disagfusion.dev"
    whole["spec"]["names"] |= {"shortNames": [], "categories": []}
    whole["metadata"]["name"] = name = f"{whole['spec']['names']['plural']}.older.disagfusion.dev"

    def write(*, rules: bool) -> None:
        text = json.dumps(whole if rules else _without_rules(whole))
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}")

    yield write
    kubectl("delete", "crd", name, "--ignore-not-found", "--wait=false")


def test_what_was_accepted_before_there_was_a_rule_goes_on_and_can_go(
    api: Api, kubectl: Kubectl, other: Callable[..., None], tmp_path: Path
) -> None:
    """Every write of the operator is checked as a whole, that of a status or a finalizer too."""
    kind, name = "diffusionpipelines.older.disagfusion.dev", "flux-dit"
    there = copy.deepcopy(SMALLEST) | {"apiVersion": "older.disagfusion.dev/v1alpha1"}
    there["metadata"] = {"name": name, "finalizers": ["disagfusion.dev/drain"]}
    hours = {"begin": "20:00", "end": "08:00", "timeZone": "a", "minReplicas": {"dit": 0}}
    there["spec"]["scaling"] = {"tolerance": "2", "schedule": [hours]}
    other(rules=False)
    kubectl("create", "-n", api.namespace, "-f", "-", text=json.dumps(there))
    other(rules=True)

    def patch(change: dict[str, Any], *options: str) -> None:
        arguments = ("--type=merge", "-p", json.dumps(change), *options)
        kubectl("patch", kind, name, "-n", api.namespace, *arguments)

    another = tmp_path / "another.json"
    another.write_text(json.dumps(there | {"metadata": {"name": "wan-dit"}}), encoding="utf-8")
    dry = ("create", "-n", api.namespace, "--dry-run=server", "-f", str(another))
    wait_for("the rules", 30, lambda: not kubectl.succeeds(*dry))
    patch({"metadata": {"annotations": {"touched": "yes"}}})
    patch({"status": {"state": "Ready"}}, "--subresource=status")
    kubectl("delete", kind, name, "-n", api.namespace, "--wait=false")
    patch({"metadata": {"finalizers": None}})
    wait_for("its end", 10, lambda: not kubectl.succeeds("get", kind, name, "-n", api.namespace))
