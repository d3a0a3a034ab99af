"""Every constraint that the models state, by a name: `Stage.minReplicas minimum`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from disagfusion_operator.api.base import VALIDATIONS
from disagfusion_operator.api.crdgen import ROOT_RULES, described
from disagfusion_operator.api.pipeline import Spec

_BOUNDS = (
    "enum",
    "const",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def all_constraints() -> set[str]:
    """Return the names of everything that the API server checks in a specification."""
    whole = described(Spec)
    found = {f"DiffusionPipeline: {rule.message}" for rule in ROOT_RULES}
    for name, part in {"Spec": whole, **whole["$defs"]}.items():
        found.update(f"{name}: {rule['message']}" for rule in part.get(VALIDATIONS, ()))
        found.update(f"{name}.{field} required" for field in part.get("required", ()))
        for field, schema in part.get("properties", {}).items():
            found.update(_of_field(f"{name}.{field}", schema))
    return found


def _of_field(name: str, schema: dict[str, Any]) -> Iterator[str]:
    schema = next((one for one in schema.get("anyOf", ()) if one != {"type": "null"}), schema)
    yield from (f"{name} {word}" for word in _BOUNDS if word in schema)
    if schema.get("x-kubernetes-list-type") == "set":
        yield f"{name} unique"
    if not schema.get("$ref"):
        yield from (f"{name}: {rule['message']}" for rule in schema.get(VALIDATIONS, ()))
    for word, suffix in (
        ("items", "[]"),
        ("additionalProperties", "{}"),
        ("propertyNames", "{key}"),
    ):
        if isinstance(schema.get(word), dict):
            yield from _of_field(name + suffix, schema[word])
