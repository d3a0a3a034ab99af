"""The chart in the words of Helm and of tools that know what goes wrong in clusters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from .conftest import CHART, Tool

EVERYTHING: dict[str, Any] = {
    "operator": {"replicas": 2},
    "metrics": {
        "podMonitor": {"enabled": True},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    },
    "priorityClass": {"create": True},
    "uninstall": {"deletePipelines": True},
}
SOME_NAMESPACES: dict[str, Any] = {"watchNamespaces": ["one", "two"], "rbac": {"nodes": False}}

# What kube-score asks for and the chart does not do, and why.
EXCLUDED = {
    "container-image-pull-policy": "images have a version's tag or a digest, which do not change",
    "pod-networkpolicy": "the API server's address is not known to a chart, so egress is open until"
    " networkPolicy.egress is given; the pods of hooks and tests live for seconds",
    "deployment-replicas": "a second replica only stands by: it is a choice",
}


@pytest.mark.parametrize("values", [{}, EVERYTHING, SOME_NAMESPACES], ids=["none", "all", "some"])
def test_lint_finds_nothing(tool: Tool, values: dict[str, Any]) -> None:
    done = tool("helm", "lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_own_tests_pass(tool: Tool) -> None:
    done = tool("helm-unittest", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" not in done.stdout.split("Tests:")[0]


@pytest.mark.parametrize("values", [{}, EVERYTHING, SOME_NAMESPACES], ids=["none", "all", "some"])
def test_kube_score_finds_nothing(
    tool: Tool, render: Callable[..., str], values: dict[str, Any]
) -> None:
    done = tool(
        "kube-score",
        "score",
        "--exit-one-on-warning",
        # A limit of CPU time only makes the operator slower than the node is.
        "--ignore-container-cpu-limit",
        f"--ignore-test={','.join(EXCLUDED)}",
        "-",
        text=render(values),
    )
    assert done.returncode == 0, done.stdout


def test_kube_score_would_find_a_container_that_runs_as_root(
    tool: Tool, render: Callable[..., str]
) -> None:
    text = render({}).replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    assert tool("kube-score", "score", "-", text=text).returncode != 0


def _objects(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if schema.get("additionalProperties") is False:
        yield path
    for name, one in schema.get("properties", {}).items():
        yield from _objects(one, (*path, name))


_SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", list(_objects(_SCHEMA)), ids=lambda path: ".".join(path) or "top")
def test_unknown_keys_are_refused(tool: Tool, path: tuple[str, ...]) -> None:
    values: dict[str, Any] = {"unknown": 1}
    for name in reversed(path):
        values = {name: values}
    done = tool("helm", "template", "x", str(CHART), values=values)
    assert done.returncode != 0
    assert "additional properties 'unknown' not allowed" in done.stderr


def test_the_definition_is_rendered_as_it_is_generated(render: Callable[..., str]) -> None:
    objects = [one for one in yaml.safe_load_all(render({})) if one]
    (rendered,) = (one for one in objects if one["kind"] == "CustomResourceDefinition")
    path = CHART / "definitions" / "diffusionpipelines.yaml"
    assert rendered["spec"] == yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]


def test_nobody_has_a_wildcard(render: Callable[..., str]) -> None:
    for values in ({}, EVERYTHING, SOME_NAMESPACES):
        for one in yaml.safe_load_all(render(values)):
            for rule in (one or {}).get("rules", ()) if one else ():
                for words in rule.values():
                    assert "*" not in words, one["metadata"]["name"]


def test_alert_rules_are_rendered_as_they_are_tested(render: Callable[..., str]) -> None:
    objects = [one for one in yaml.safe_load_all(render(EVERYTHING)) if one]
    (rendered,) = (one for one in objects if one["kind"] == "PrometheusRule")
    path = CHART / "rules" / "alerts.yaml"
    assert rendered["spec"] == yaml.safe_load(path.read_text(encoding="utf-8"))
