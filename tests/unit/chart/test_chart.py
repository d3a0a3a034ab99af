"""The chart and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from disagfusion_operator.k8s import kinds
from disagfusion_operator.k8s.port import Kind
from disagfusion_operator.settings import OperatorSettings
from pydantic import BaseModel

from disagfusion.version import __version__
from tools.chart.__main__ import FILES
from tools.chart.values import Values

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "disagfusion"
TEMPLATES = "".join(path.read_text(encoding="utf-8") for path in CHART.rglob("templates/**/*.*"))
ABOUT: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))


def test_the_version_is_the_package_s() -> None:
    assert ABOUT["version"] == ABOUT["appVersion"] == __version__


def test_the_example_is_the_one_in_the_repository() -> None:
    (example,) = yaml.safe_load(ABOUT["annotations"]["artifacthub.io/crdsExamples"])
    assert example == yaml.safe_load((ROOT / "examples" / "digits.yaml").read_text())
    lines = (ROOT / "examples" / "digits.yaml").read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 10


def test_annotations_are_yaml_of_the_definition() -> None:
    (described,) = yaml.safe_load(ABOUT["annotations"]["artifacthub.io/crds"])
    definition = yaml.safe_load((CHART / "definitions" / "diffusionpipelines.yaml").read_text())
    assert described["name"] == definition["metadata"]["name"]
    assert described["kind"] == definition["spec"]["names"]["kind"]
    assert described["version"] == definition["spec"]["versions"][0]["name"]


def _keys(part: BaseModel, prefix: str = "") -> list[str]:
    found = []
    for name, field in type(part).model_fields.items():
        value, alias = getattr(part, name), field.alias or name
        found += (
            _keys(value, f"{prefix}{alias}.") if isinstance(value, BaseModel) else [prefix + alias]
        )
    return found


def test_every_value_is_read() -> None:
    # The images of stages are read in a loop, and `global` belongs to a chart around this one.
    looped = re.compile(r"images\.(gateway|encoder|dit|decoder|flex|emulated)\.|global")
    unread = [
        key
        for key in _keys(Values())
        if not looped.match(key)
        and not re.search(rf"\.Values\.{re.escape(key)}\b", TEMPLATES)
        and not re.search(rf"\$image\.{key.rpartition('.')[2]}\b", TEMPLATES)
    ]
    assert unread == []


def test_every_value_that_is_read_exists() -> None:
    keys = _keys(Values())
    for read in set(re.findall(r"\.Values\.([\w.]+\w)", TEMPLATES)):
        assert any(key == read or key.startswith(f"{read}.") for key in keys), read


def test_every_variable_is_a_setting() -> None:
    read = {name.upper() for name in OperatorSettings.model_fields}
    for name in set(re.findall(r"DISAGFUSION_OPERATOR_([A-Z_]+[A-Z])\n", TEMPLATES)):
        assert name in read, name
    for stage in ("gateway", "encoder", "dit", "decoder", "flex", "emulated"):
        assert f"IMAGE_{stage.upper()}" in read


def test_there_are_rights_for_every_kind_that_the_operator_knows() -> None:
    text = (CHART / "templates" / "_rights.tpl").read_text() + (
        CHART / "templates" / "rbac.yaml"
    ).read_text()
    for kind in vars(kinds).values():
        if isinstance(kind, Kind):
            assert re.search(rf"\b{kind.plural}\b", text), kind
    assert "*" not in re.sub(r"\{\{.*?\}\}", "", text)


def test_generated_files_are_as_generated() -> None:
    for path, make in FILES.items():
        assert path.read_text(encoding="utf-8") == make(), f"{path.name}: run `make docs`"


def test_values_are_the_model_s() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert values == Values().model_dump(by_alias=True)
