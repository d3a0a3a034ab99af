"""The chart's values as YAML with comments, as JSON Schema, and as a reference page."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import yaml
from disagfusion_operator.api.base import Part
from disagfusion_operator.api.crdgen import described
from pydantic import BaseModel

from tools.chart.values import Values

_WIDTH = 100

_HEAD = """\
# Values of the chart. Generated from tools/chart/values.py by `make docs`, with values.schema.json,
# which refuses what is not here, and docs/kubernetes/values.md.
"""

_PAGE = """\
# Values of the chart

<!-- Generated from tools/chart/values.py by `make docs`; never edited. -->

Set with `helm install --set KEY=VALUE` or `--values FILE`. A key that is not here is refused.

| key | type | default | meaning |
|---|---|---|---|
"""


def values_file() -> str:
    """Return values.yaml."""
    return _HEAD + "".join(_lines(Values(), 0))


def _lines(part: BaseModel, depth: int) -> list[str]:
    indent = "  " * depth
    descriptions = {
        name: field.get("description", "") for name, field in _schema(type(part)).items()
    }
    found: list[str] = []
    for name, field in type(part).model_fields.items():
        alias, value = field.alias or name, getattr(part, name)
        comment = textwrap.wrap(descriptions[alias], _WIDTH - len(indent) - 2)
        found.append("\n" if depth == 0 else "")
        found += [f"{indent}# {line}\n" for line in comment]
        if isinstance(value, BaseModel):
            found += [f"{indent}{alias}:\n", *_lines(value, depth + 1)]
        else:
            # Empty lists and objects in brackets, what is filled below its key.
            text = yaml.safe_dump({alias: value}, sort_keys=False, width=_WIDTH)
            found.append(textwrap.indent(text, indent))
    return found


def _schema(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    assert issubclass(kind, Part)
    properties: dict[str, dict[str, Any]] = described(kind)["properties"]
    return properties


def schema_file() -> str:
    """Return values.schema.json."""
    whole = described(Values)
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart disagfusion",
    } | _inlined(whole, whole["$defs"])
    return json.dumps(schema, indent=2) + "\n"


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        named = definitions[schema["$ref"].removeprefix("#/$defs/")]
        schema = named | {word: value for word, value in schema.items() if word != "$ref"}
    # values.yaml says the defaults.
    left_out = {"$defs", "default"}
    return {
        word: {name: _inlined(one, definitions) for name, one in value.items()}
        if word == "properties"
        else _inlined(value, definitions)
        for word, value in schema.items()
        if word not in left_out
    }


def values_page() -> str:
    """Return docs/kubernetes/values.md."""
    return _PAGE + "".join(_rows(Values(), ""))


def _rows(part: BaseModel, prefix: str) -> list[str]:
    rows = []
    schema = _schema(type(part))
    for name, field in type(part).model_fields.items():
        alias, value = field.alias or name, getattr(part, name)
        if isinstance(value, BaseModel):
            rows += _rows(value, f"{prefix}{alias}.")
        else:
            meaning = schema[alias].get("description", "").replace("|", r"\|")
            default = json.dumps(value)
            rows.append(
                f"| `{prefix}{alias}` | {_type(schema[alias])} | `{default}` | {meaning} |\n"
            )
    return rows


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    match schema["type"]:
        case "string":
            return "text"
        case "array":
            return "list"
        case other:
            return str(other)
