"""What all parts of the resource have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from disagfusion.scheduling.document import Document

GROUP = "disagfusion.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DiffusionPipeline"
PLURAL = "diffusionpipelines"
SHORT_NAME = "dfp"
STAGES = ("encoder", "dit", "decoder")

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{suffix: Decimal(1000) ** n for n, suffix in enumerate(("k", "M", "G", "T", "P"), 1)},
    **{suffix: Decimal(1024) ** n for n, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)},
}
_QUANTITY = r"^\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that the API server checks, in the Common Expression Language.

    Attributes:
        rule: Must be true; `self` is the part of the resource that has the rule.
        message: What people read where it is not.
        field: Which field the error names; the part itself where empty.
        told: An expression of what they read instead, with the values that are wrong.
    """

    rule: str
    message: str
    field: str = ""
    told: str = ""

    def as_validation(self) -> dict[str, Any]:
        """Return the rule as a schema has it."""
        return (
            {"rule": self.rule, "message": self.message}
            | ({"fieldPath": self.field} if self.field else {})
            | ({"messageExpression": self.told} if self.told else {})
            # Else a rule that speaks of what was before says nothing of what is new.
            | ({"optionalOldSelf": True} if "oldSelf.hasValue()" in self.rule else {})
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """A text's form, checked here and by the API server, with a message in the place of a pattern.

    Attributes:
        pattern: Regular expression in the syntax of RE2.
        message: What was expected.
    """

    pattern: str
    message: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        rule = f"self.matches(r'{self.pattern}')"
        return handler(schema) | {VALIDATIONS: [{"rule": rule, "message": self.message}]}

    def _check(self, value: str) -> str:
        if not re.search(self.pattern, value):
            raise ValueError(self.message)
        return value


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that is a set, or a map by a key, so that several writers can share it.

    Attributes:
        key: Of a map; a set where empty.
    """

    key: str = ""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        keys = {"x-kubernetes-list-map-keys": [self.key]} if self.key else {}
        return handler(schema) | {"x-kubernetes-list-type": "map" if self.key else "set"} | keys

    def _check(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        found = [getattr(value, self.key) if self.key else value for value in values]
        for one in found:
            if found.count(one) > 1:
                raise ValueError(f"{one!r} is there twice")
        return values


VALIDATIONS = "x-kubernetes-validations"
SET = Listing()
"""Beside a list: nothing is in it twice."""


def _filled(value: Any) -> Any:
    """Return a default as JSON, without what is empty: that is what an absent field means."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, Mapping):
        kept = {name: _filled(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one not in ({}, [], "")}
    return value


def _extend(schema: dict[str, Any], kind: type[Any]) -> None:
    describe = Document.model_config["json_schema_extra"]
    assert callable(describe), "documents are described by their docstrings"
    describe(schema, kind)  # type: ignore[call-arg]  # pydantic's type forgets the class
    for field in kind.model_fields.values():
        if field.default_factory and (default := _filled(field.default_factory())):
            schema["properties"][field.alias]["default"] = default
    rules = [rule for one in kind.__mro__ for rule in vars(one).get("RULES", ())]
    if rules:
        schema[VALIDATIONS] = [one.as_validation() for one in rules]


class Part(Document):
    """A part of the resource, in camelCase as Kubernetes writes it."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, json_schema_extra=_extend
    )


def _quantity(value: str | int) -> str:
    text = str(value)
    if not re.fullmatch(_QUANTITY, text):
        raise ValueError("expected a quantity of Kubernetes, such as 500m, 2 or 16Gi")
    return text


Quantity = Annotated[
    str | int,
    AfterValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY, "minimum": 0}),
]
"""A number as Kubernetes writes it: `500m`, `2`, `16Gi`."""

Free = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object whose fields are others' to know."""

PoolName = Annotated[
    str,
    Field(max_length=63),
    Matches(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "expected a pool's name of lower-case letters, digits and inner dashes",
    ),
]
"""Part of the names of Deployments, and a label's value."""

ObjectName = Annotated[
    str,
    Field(max_length=253),
    Matches(
        r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "expected an object's name of lower-case letters, digits, inner dashes and dots",
    ),
]
"""Of a Secret, a ConfigMap or a claim."""

ResourceName = Annotated[
    str,
    Field(max_length=317),
    Matches(
        r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        "expected an extended resource with its domain, such as nvidia.com/gpu",
    ),
]
"""Of what device plugins offer."""

Url = Annotated[
    str,
    Field(max_length=2048),
    Matches(r"^https?://[^\s]+$", "expected a URL that begins with http:// or https://"),
]
"""Of a server."""

Image = Annotated[str, Field(min_length=1, max_length=512)]
"""Reference of a container image, with a tag or a digest."""


Labels = Annotated[dict[str, str], Field(max_length=32)]
"""Labels or annotations."""


def volume_rules(what: str) -> tuple[Rule, ...]:
    """Return the rules of a volume claim, which Kubernetes does not let anybody change freely."""
    return (
        Rule(
            "quantity(string(self.storage)).compareTo(quantity(string(oldSelf.storage))) >= 0",
            f"the volume of {what} can grow but not shrink",
            ".storage",
        ),
        Rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName) &&"
            " (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            f"the storage class of {what} cannot change: the volume exists already",
            ".storageClassName",
        ),
    )


def number(quantity: str | int) -> Decimal:
    """Return what a quantity stands for."""
    match = re.fullmatch(r"([\d.]+)(\D*)", str(quantity))
    assert match, "it was validated"
    return Decimal(match[1]) * _SUFFIXES[match[2]]


class SecretKey(Part):
    """One value of a Secret in the pipeline's namespace.

    Attributes:
        name: Of the Secret.
        key: Of the value.
    """

    name: ObjectName
    key: Annotated[str, Field(min_length=1, max_length=253)]
