"""The definition is made of what Kubernetes allows, and says what the models say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from disagfusion_operator.api.base import VALIDATIONS, Part
from disagfusion_operator.api.crdgen import definition, schema_of
from disagfusion_operator.api.status import Condition, StageStatus, Status
from pydantic import Field

_STRUCTURAL = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
}


def _schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from _schemas(one, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from _schemas(schema[word], f"{path}[]")


def _whole() -> dict[str, Any]:
    (version,) = definition()["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def test_every_schema_is_structural() -> None:
    for path, schema in _schemas(_whole()):
        words = {word for word in schema if not word.startswith("x-kubernetes-")}
        assert words <= _STRUCTURAL, path
        assert schema.get("type") or schema["x-kubernetes-int-or-string"], path
        for rule in schema.get(VALIDATIONS, ()):
            assert rule["message"], "people read the message, never the rule"
            assert rule.get("fieldPath", ".").startswith("."), path


def test_every_field_is_described() -> None:
    silent = {
        path
        for path, schema in _schemas(_whole())
        if "description" not in schema and not path.endswith("[]")
    }
    assert silent == {".apiVersion", ".kind", ".metadata"}


def test_what_is_listed_has_a_bound() -> None:
    """The API server refuses rules whose cost it cannot bound."""
    spec = _whole()["properties"]["spec"]
    unbounded = {
        path
        for path, schema in _schemas(spec)
        if (schema["type"] if "type" in schema else "") == "array" and "maxItems" not in schema
    }
    assert unbounded == {".options.quantization.components"}


def test_columns_read_what_the_status_has() -> None:
    (version,) = definition()["spec"]["versions"]
    status = _whole()["properties"]["status"]["properties"]
    for column in version["additionalPrinterColumns"]:
        first, name = column["jsonPath"].removeprefix(".").split(".")[:2]
        if first == "status":
            assert name.partition("[")[0] in status, column


class _Everything(Part):
    """Every kind of field.

    Attributes:
        choice: Of one.
        share: Between two bounds, which are not in it.
        nothing: Or something.
        filled: By a function.
        empty: By a function.
        whatever: Anything.
    """

    choice: Literal["only"] = "only"
    share: float = Field(default=0.5, gt=0, lt=1)
    nothing: int | None = None
    filled: StageStatus = Field(default_factory=lambda: StageStatus(desired=1))
    empty: dict[str, str] = Field(default_factory=dict)
    whatever: dict[str, Any] = Field(default_factory=dict)


def test_models_become_structural_schemas() -> None:
    schema = schema_of(_Everything)
    fields = schema["properties"]
    assert schema["description"] == "Every kind of field."
    assert fields["choice"] == {
        "description": "Of one.",
        "type": "string",
        "default": "only",
        "enum": ["only"],
    }
    assert fields["share"]["minimum"] == 0
    assert fields["share"]["exclusiveMinimum"] is True
    assert fields["share"]["maximum"] == 1
    assert fields["share"]["exclusiveMaximum"] is True
    assert fields["nothing"] == {"description": "Or something.", "type": "integer"}
    assert fields["filled"]["default"]["desired"] == 1
    assert "default" not in fields["empty"]
    assert fields["empty"]["additionalProperties"] == {"type": "string"}
    assert fields["whatever"]["x-kubernetes-preserve-unknown-fields"] is True


def test_a_field_of_two_types_is_refused() -> None:
    class Either(Part):
        """A part that Kubernetes cannot have."""

        either: int | list[int]

    with pytest.raises(TypeError, match="one type"):
        schema_of(Either)


def test_a_status_has_no_defaults() -> None:
    """They would look like something that the operator said."""
    assert not [
        path for path, one in _schemas(schema_of(Status, defaults=False)) if "default" in one
    ]
    conditions = _whole()["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_a_stage_sums_itself_up() -> None:
    assert StageStatus(desired=3, ready=2).summary == "2/3"
    there = StageStatus(desired=3, ready=2).model_dump(by_alias=True)
    assert StageStatus.model_validate(there | {"ready": 3}).summary == "3/3"


def test_conditions_say_what_they_mean() -> None:
    assert Condition.READY == "Ready"
    assert all(one.meaning.endswith(".") for one in Condition)
