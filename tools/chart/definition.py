"""The CustomResourceDefinition as YAML, and its reference for people."""

from __future__ import annotations

import json
from typing import Any

import yaml
from disagfusion_operator.api.base import API_VERSION, KIND, SHORT_NAME, VALIDATIONS
from disagfusion_operator.api.crdgen import ROOT_RULES, definition, described
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.status import Condition, Status

_HEAD = "# Generated from operator/disagfusion_operator/api by `make docs`; never edited.\n"

_PAGE = f"""\
# The DiffusionPipeline

<!-- Generated from operator/disagfusion_operator/api by `make docs`; never edited. -->

`apiVersion: {API_VERSION}`, `kind: {KIND}`; `kubectl get {SHORT_NAME}` lists them and
`kubectl explain {SHORT_NAME}.spec` says what is written here. The API server checks all that is
said of a field's form, and the conditions below the tables; it fills in the defaults. Quantities
are numbers as Kubernetes writes them, fractions in quotes: `500m`, `2`, `16Gi`, `"0.2"`.

{{rules}}
"""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(document: Any) -> str:
    """Return a document as YAML, in the order that it has."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def definition_file() -> str:
    """Return the definition as the chart has it."""
    return _HEAD + dump(definition())


def reference_page() -> str:
    """Return docs/kubernetes/reference.md."""
    rules = "\n".join(f"- {rule.message}." for rule in ROOT_RULES)
    text = _PAGE.format(rules=rules)
    for title, kind in (("spec", Spec), ("status", Status)):
        whole = described(kind)
        text += _section(title, whole)
        parts = whole.get("$defs", {})
        text += "".join(_section(name, parts[name]) for name in _reached(whole, parts))
    conditions = "".join(f"| `{one.value}` | {one.meaning} |\n" for one in Condition)
    return f"{text}\n## Conditions\n\n| type | where it is True |\n|---|---|\n{conditions}"


def _reached(schema: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """Return the names of all parts in the order in which a reader comes across them."""
    found: list[str] = []

    def walk(one: Any) -> None:
        if isinstance(one, dict):
            name = str(one.get("$ref", "")).removeprefix("#/$defs/")
            if name and name not in found:
                found.append(name)
                walk(parts[name].get("properties", {}))
            for value in one.values():
                walk(value)
        elif isinstance(one, list):
            for value in one:
                walk(value)

    walk(schema.get("properties", {}))
    return found


def _section(title: str, schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"| `{name}` | {_type(field)} | {_default(field, required=name in required)} |"
        f" {_cell(field.get('description', ''))} |\n"
        for name, field in schema.get("properties", {}).items()
    )
    rules = "".join(f"- {rule['message']}.\n" for rule in schema.get(VALIDATIONS, ()))
    table = f"| field | type | default | meaning |\n|---|---|---|---|\n{rows}"
    return f"\n## {title}\n\n{schema['description']}\n\n{table}" + (f"\n{rules}" if rules else "")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _type(field: dict[str, Any]) -> str:
    field = next((one for one in field.get("anyOf", ()) if one != {"type": "null"}), field)
    if "$ref" in field:
        name = field["$ref"].removeprefix("#/$defs/")
        return f"[{name}](#{name.lower()})"
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return " or ".join(f"`{value}`" if value else "empty" for value in values)
    if "x-kubernetes-int-or-string" in field:
        return "quantity"
    if field.get("x-kubernetes-preserve-unknown-fields"):
        return "object"
    match field["type"]:
        case "array":
            return f"list of {_type(field['items'])}{_bounds(field, 'maxItems')}"
        case "object" if isinstance(field.get("additionalProperties"), dict):
            return f"map to {_type(field['additionalProperties'])}{_bounds(field, 'maxProperties')}"
        case "integer" | "number" as kind:
            return f"{kind}{_range(field)}"
        case "string":
            return f"text{_bounds(field, 'maxLength')}"
        case other:
            return str(other)


def _bounds(field: dict[str, Any], word: str) -> str:
    return f", at most {field[word]}" if word in field else ""


def _range(field: dict[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and "exclusiveMinimum" in field:
        low = f"above {field['exclusiveMinimum']}"
    if high is None and "exclusiveMaximum" in field:
        high = f"below {field['exclusiveMaximum']}"
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else ""


def _default(field: dict[str, Any], *, required: bool) -> str:
    if required:
        return "required"
    default = field.get("default")
    if default in (None, "", [], {}):
        return ""
    return "" if isinstance(default, dict) else f"`{json.dumps(default)}`"
