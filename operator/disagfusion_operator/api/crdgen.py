"""The CustomResourceDefinition, made from the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disagfusion.pipeline.options import CacheOptions, CompileOptions, QuantizationOptions
from disagfusion.scheduling.document import Document
from disagfusion_operator.api.base import (
    GROUP,
    KIND,
    PLURAL,
    SHORT_NAME,
    STAGES,
    VALIDATIONS,
    VERSION,
    Part,
    Rule,
)
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.status import Status

Schema = dict[str, Any]

NAME_LENGTH = 40
"""Of a pipeline: Services, whose names are DNS labels, have a suffix beside it."""

ROOT_RULES = (
    Rule(
        f"size(self.metadata.name) <= {NAME_LENGTH} &&"
        " self.metadata.name.matches(r'^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"a pipeline's name has at most {NAME_LENGTH} lower-case letters, digits and inner dashes"
        " and begins with a letter: Services are named after it",
    ),
    Rule(
        # One that is there keeps its name: refused, it could not even be deleted.
        "oldSelf.hasValue() ||"
        f" !self.metadata.name.matches('-({'|'.join((*STAGES, 'gateway'))})$')",
        "a pipeline's name must not end in -encoder, -dit, -decoder or -gateway: these are names of"
        " what belongs to another pipeline",
    ),
)

# How people like to read it.
_ORDER = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
)
_LAST = ("required", "properties", "additionalProperties", "items", VALIDATIONS)

_COLUMNS = (
    # name, type, path, priority (1: only with `-o wide`)
    ("State", "string", ".status.state", 0),
    ("Encoder", "string", ".status.stages.encoder.summary", 0),
    ("DiT", "string", ".status.stages.dit.summary", 0),
    ("Decoder", "string", ".status.stages.decoder.summary", 0),
    ("Bottleneck", "string", ".status.bottleneck", 0),
    ("Jobs/s", "string", ".status.throughput", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Backlog", "integer", ".status.backlog", 1),
    ("Scaling", "string", ".spec.scaling.mode", 1),
    ("Decision", "string", ".status.decision.reason", 1),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 1),
    ("Endpoint", "string", ".status.endpoint", 1),
)


def definition() -> Schema:
    """Return the CustomResourceDefinition."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})
            for name, kind, path, wide in _COLUMNS
        ],
        "schema": {"openAPIV3Schema": _root()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                # What `kubectl get all` lists: a pipeline is what its Deployments are there for.
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def schema_of(kind: type[Part], *, defaults: bool = True) -> Schema:
    """Return a model as the structural schema that Kubernetes asks for.

    Args:
        kind: The model.
        defaults: Whether the API server fills in what is absent.
    """
    whole = described(kind)
    return _structural(whole, whole.get("$defs", {}), defaults)


def described(kind: type[Part]) -> Schema:
    """Return a model as JSON Schema, with the docstrings' words for every field."""
    whole = kind.model_json_schema(by_alias=True)
    describe = Document.model_config["json_schema_extra"]
    assert callable(describe), "documents are described by their docstrings"
    for other in (CacheOptions, CompileOptions, QuantizationOptions):
        if part := whole.get("$defs", {}).get(other.__name__):
            describe(part, other)  # type: ignore[call-arg]  # as in base
    return whole


def _root() -> Schema:
    return {
        "description": "A diffusion model, served in three stages.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": schema_of(Spec),
            # A default would look like something that the operator said.
            "status": schema_of(Status, defaults=False),
        },
        VALIDATIONS: [rule.as_validation() for rule in ROOT_RULES],
    }


def _structural(schema: Schema, definitions: Mapping[str, Schema], defaults: bool) -> Schema:
    schema = _plain(schema, definitions)
    made: Schema = {}
    for word, value in schema.items():
        match word:
            case "properties":
                made[word] = {
                    name: _structural(one, definitions, defaults) for name, one in value.items()
                }
            case "items":
                made[word] = _structural(value, definitions, defaults)
            case "additionalProperties":
                made |= _further(value, schema, definitions, defaults)
            case "propertyNames":
                made[VALIDATIONS] = [*made.get(VALIDATIONS, ()), *_names(value)]
            case "exclusiveMinimum":
                made |= {"minimum": value, word: True}
            case "exclusiveMaximum":
                made |= {"maximum": value, word: True}
            case "const":
                made["enum"] = [value]
            case "default":
                if defaults and value not in (None, "", [], {}):
                    made[word] = value
            case "title" | "$defs":
                pass
            case _:
                made[word] = value
    return dict(sorted(made.items(), key=lambda item: _rank(item[0])))


def _rank(word: str) -> int:
    if word in _LAST:
        return 100 + _LAST.index(word)
    return _ORDER.index(word) if word in _ORDER else len(_ORDER)


def _plain(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a schema without references, and without the alternative of being null."""
    while "$ref" in schema or "anyOf" in schema:
        beside = {word: value for word, value in schema.items() if word not in ("$ref", "anyOf")}
        if "$ref" in schema:
            schema = definitions[schema["$ref"].removeprefix("#/$defs/")] | beside
        else:
            kinds = [one for one in schema["anyOf"] if one != {"type": "null"}]
            if len(kinds) != 1:
                raise TypeError(f"a field has one type in Kubernetes: {schema}")
            schema = kinds[0] | beside
    return schema


def _further(
    value: bool | Schema, schema: Schema, definitions: Mapping[str, Schema], defaults: bool
) -> Schema:
    if value is True:
        return {"x-kubernetes-preserve-unknown-fields": True}
    if value is False:
        # The API server drops or, when it is asked to be strict, refuses what it does not know.
        return {} if "properties" in schema else {"properties": {}}
    return {"additionalProperties": _structural(value, definitions, defaults)}


def _names(schema: Schema) -> list[Schema]:
    """Return rules of a map's keys: schemas in Kubernetes cannot say anything of them."""
    rules = [
        {
            "rule": f"self.all(name, name{one['rule'].removeprefix('self')})",
            "message": one["message"],
        }
        for one in schema.get(VALIDATIONS, ())
    ]
    if length := schema.get("maxLength"):
        rules.append(
            {
                "rule": f"self.all(name, size(name) <= {length})",
                "message": f"expected names of at most {length} characters",
            }
        )
    return rules
