"""What all parts of the resource have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from disagfusion.scheduling.document import Document

GROUP = "disagfusion.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DiffusionPipeline"
PLURAL = "diffusionpipelines"
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
    """

    rule: str
    message: str
    field: str = ""


def _extend(schema: dict[str, Any], kind: type[Any]) -> None:
    describe = Document.model_config["json_schema_extra"]
    assert callable(describe), "documents are described by their docstrings"
    describe(schema, kind)  # type: ignore[call-arg]  # pydantic's type forgets the class
    rules = [rule for one in kind.__mro__ for rule in vars(one).get("RULES", ())]
    if rules:
        schema["x-kubernetes-validations"] = [
            {"rule": one.rule, "message": one.message}
            | ({"fieldPath": one.field} if one.field else {})
            for one in rules
        ]


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
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY}),
]
"""A number as Kubernetes writes it: `500m`, `2`, `16Gi`."""

Free = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object whose fields are others' to know."""

ObjectName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=253)
]
"""Of a Secret, a ConfigMap or a claim."""


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
