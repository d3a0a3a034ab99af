"""JSON Schemas of all kinds that an API server knows: kubeconform would download them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
"""Where kubeconform finds them, below their directory."""

_REFERENCE = "#/components/schemas/"
_BOUNDS = (
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def write_schemas(ask: Callable[[str], str], directory: Path) -> int:
    """Write a schema for each kind, strict: what a kind does not have is refused.

    Args:
        ask: Returns what the API server answers at a path.
        directory: Where they go.

    Returns:
        How many.
    """
    written = 0
    for path in json.loads(ask("/openapi/v3"))["paths"].values():
        document = json.loads(ask(path["serverRelativeURL"]))
        parts = document.get("components", {}).get("schemas", {})
        for name, schema in parts.items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                file = directory / _file_name(kind)
                file.write_text(json.dumps(standalone(name, parts)), encoding="utf-8")
                written += 1
    return written


def _file_name(kind: dict[str, str]) -> str:
    group = kind["group"].partition(".")[0]
    suffix = "-".join(filter(None, [group, kind["version"]])).lower()
    return f"{kind['kind'].lower()}-{suffix}.json"


def standalone(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """Return a part of an OpenAPI document with all that it refers to."""
    reached: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached[one] = _strict(parts[one], waiting)
    return {"$ref": f"#/definitions/{name}", "definitions": reached}


def _strict(schema: Any, waiting: list[str]) -> Any:
    if isinstance(schema, list):
        return [_strict(one, waiting) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "properties":
            # Names of fields, any of which may be a schema's word too.
            made[word] = {name: _strict(one, waiting) for name, one in value.items()}
        elif word == "$ref":
            waiting.append(value.removeprefix(_REFERENCE))
            made[word] = f"#/definitions/{waiting[-1]}"
        elif word in ("items", "additionalProperties", "allOf", "anyOf", "oneOf"):
            made[word] = _strict(value, waiting)
        elif word in ("type", "enum", "required", "pattern", "format", *_BOUNDS):
            made[word] = value
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
