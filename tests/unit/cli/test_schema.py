from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from disagfusion.cli.schema import NAMES, render
from disagfusion.errors import InvalidArgumentError

EXAMPLES = Path(__file__).parents[3] / "examples"


def described(schema: dict[str, Any]) -> list[str]:
    """Return the fields without a description."""
    kinds = [schema, *schema.get("$defs", {}).values()]
    return [
        name
        for kind in kinds
        for name, field in kind.get("properties", {}).items()
        if not field.get("description") and "coefficients" not in kind.get("description", "")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_one_and_says_what_fields_are(name: str) -> None:
    schema = json.loads(render(name))
    jsonschema.Draft202012Validator.check_schema(schema)
    missing = set(described(schema)) - {
        "constant", "per_megapixel", "per_megapixel_squared", "per_token", "per_step",
        "per_step_megapixel", "per_step_megapixel_squared",
    }  # fmt: skip
    assert not missing


@pytest.mark.parametrize("kind", ["profile", "workload"])
def test_the_examples_are_valid(kind: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(render(kind)))
    paths = sorted((EXAMPLES / f"{kind}s").glob("*.yaml"))
    assert paths
    for path in paths:
        validator.validate(yaml.safe_load(path.read_text()))


def test_what_the_models_refuse_the_schema_refuses() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(render("profile")))
    good = {"pools": {"a": {"accelerators": 1}}, "stages": {"s": {"pools": {"a": {"seconds": 1}}}}}
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "speed": 1})
    assert not validator.is_valid({**good, "pools": {"a": {"accelerators": -1}}})
    assert not validator.is_valid({**good, "stages": {}})


def test_other_names() -> None:
    with pytest.raises(InvalidArgumentError, match="demand, plan, profile, workload"):
        render("ratio")
