"""Dashboard, alerts and queries: they use metrics that exist, and each alert is tested."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from disagfusion.scheduling.decision import Reason
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.telemetry.catalog import CATALOG, Kind

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "disagfusion"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS = yaml.safe_load((CHART / "rules" / "alerts_test.yaml").read_text())["tests"]
DASHBOARD = json.loads((CHART / "dashboards" / "disagfusion.json").read_text())
PAGE = (ROOT / "docs" / "monitoring.md").read_text()

# What Prometheus adds, and Grafana's and the rules' own groupings.
COMMON = {"instance", "namespace", "le"}


def expressions() -> dict[str, str]:
    found = {rule["alert"]: rule["expr"] for rule in RULES}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for query in QUERIES:
        found[query.name] = query.request(Scope("p")).replace('"part"', "")
    return found


def series() -> dict[str, set[str]]:
    """Every series name, and its labels."""
    names: dict[str, set[str]] = {}
    for metric in CATALOG:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        names |= {metric.name + suffix: set(metric.labels) for suffix in suffixes}
    return names


@pytest.mark.parametrize(("name", "expression"), expressions().items())
def test_metrics_and_labels_exist(name: str, expression: str) -> None:
    known = series()
    used = set(re.findall(r"\bdisagfusion_\w+", expression))
    assert used, name
    assert used <= known.keys(), name
    for metric, matchers in re.findall(r"\b(disagfusion_\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers))
        assert labels <= known[metric] | COMMON, f"{name}: {metric}"
    grouped = {
        label.strip()
        for labels in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", expression)
        for label in labels.split(",")
    }
    assert grouped - {""} <= COMMON.union(*(known[metric] for metric in used)), name


def test_every_metric_of_the_catalog_is_on_the_dashboard() -> None:
    shown = " ".join(expressions().values())
    for metric in CATALOG:
        assert metric.name in shown, metric.name


def test_reasons_in_alerts_are_reasons() -> None:
    known = {reason.name.lower() for reason in Reason}
    for rule in RULES:
        for reasons in re.findall(r'balancer\w+\{reason=~"([^"]*)"', rule["expr"]):
            assert set(reasons.split("|")) <= known, rule["alert"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_each_alert_is_tested_both_ways_and_explained(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    cases = [
        bool(case["exp_alerts"])
        for test in TESTS
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert set(cases) == {True, False}, "it must fire once, and once not"


def test_panels_are_identified_titled_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or (panel["description"] and panel["targets"])


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_each_query_is_in_the_table(query: Any) -> None:
    scope = Scope("PIPELINE")
    cell = query.promql(scope).replace("|", "\\|")
    assert f"| `{query.name}` | {query.meaning} | `{cell}` |\n" in PAGE


def test_the_example_in_the_page_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    names["signals"].close()


RUNBOOK = ROOT / "docs" / "kubernetes" / "runbook.md"


def test_every_alert_has_its_section_in_the_runbook() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.M | re.S))
    assert list(sections) == [rule["alert"] for rule in RULES]
    for alert, text in sections.items():
        for part in ("*Symptom*", "*Check*", "*Action*"):
            assert part in text, f"{alert}: {part}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_links_to_its_section(rule: dict[str, Any]) -> None:
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    assert ROOT / page == RUNBOOK
    assert anchor == rule["alert"].lower()
