"""Schemas for kubeconform, made of what an API server says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tools.chart.schemas import standalone, write_schemas

PARTS: dict[str, Any] = {
    "Thing": {
        "type": "object",
        "x-kubernetes-group-version-kind": [
            {"group": "example.dev", "version": "v1", "kind": "Thing"},
            {"group": "", "version": "v1", "kind": "Other"},
        ],
        "properties": {
            "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}},
            "properties": {"type": "object", "additionalProperties": {"type": "string"}},
            "default": {"type": "integer"},
        },
    },
    "Spec": {
        "type": "object",
        "required": ["port"],
        "properties": {
            "port": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
            "again": {"$ref": "#/components/schemas/Spec"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
    "Unrelated": {"type": "object"},
}


@pytest.mark.parametrize(
    "thing",
    [
        {"spec": {"port": 80}},
        {"spec": {"port": "http", "again": {"port": 1}, "free": {"any": 1}}},
        {"properties": {"a": "b"}, "default": 3},
    ],
    ids=["number", "recursive", "names"],
)
def test_what_the_server_takes_conforms(thing: dict[str, Any]) -> None:
    jsonschema.validate(thing, standalone("Thing", PARTS))


@pytest.mark.parametrize(
    "thing",
    [{"spec": {}}, {"spec": {"port": 1, "prot": 2}}, {"default": "3"}, {"spek": {}}],
    ids=["missing", "misspelt", "type", "unknown"],
)
def test_what_it_does_not_is_found(thing: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(thing, standalone("Thing", PARTS))


def test_only_what_is_reached_is_in_a_schema() -> None:
    assert set(standalone("Thing", PARTS)["definitions"]) == {"Thing", "Spec"}


def test_each_kind_has_a_file_where_kubeconform_looks(tmp_path: Path) -> None:
    answers = {
        "/openapi/v3": {"paths": {"apis/example.dev/v1": {"serverRelativeURL": "/one"}}},
        "/one": {"components": {"schemas": PARTS}},
    }
    assert write_schemas(lambda path: json.dumps(answers[path]), tmp_path) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"thing-example-v1.json", "other-v1.json"}
