"""What the files that people write have in common: strict fields, readable errors."""

from __future__ import annotations

import inspect
import json
import re
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from disagfusion.errors import InvalidArgumentError

D = TypeVar("D", bound="Document")

_MERGE = "tag:yaml.org,2002:merge"


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""Of a stage, a pool or a shape: a DNS label, as Kubernetes wants it."""
NO_TRUTH = BeforeValidator(_no_truth)
"""Beside a number's bounds: `true` is not taken for 1."""
NonNegative = Annotated[float, Field(ge=0), NO_TRUTH]
Positive = Annotated[float, Field(gt=0), NO_TRUTH]
Count = Annotated[int, Field(ge=0, strict=True)]
PositiveCount = Annotated[int, Field(ge=1, strict=True)]


def _describe(schema: dict[str, Any], kind: type[Any]) -> None:
    """Move what a docstring says of its attributes to the fields of a JSON Schema."""
    properties = schema.get("properties", {})
    for one in reversed(kind.__mro__):
        if not issubclass(one, BaseModel):
            continue
        summary, _, attributes = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")
        schema["description"] = " ".join(summary.split())
        for text in re.split(r"\n(?=\w)", inspect.cleandoc(f"\n{attributes}")):
            name, _, description = text.partition(": ")
            name = one.model_fields[name].alias or name if name in one.model_fields else name
            if name in properties:
                properties[name]["description"] = " ".join(description.split())
    schema.pop("title", None)
    for field in properties.values():
        field.pop("title", None)


class Document(BaseModel):
    """A part of a file: unknown fields, NaN and infinity are refused, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, json_schema_extra=_describe
    )


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: one of the two would be lost without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Before merge keys (`<<`) are resolved: what is written beside one may override it.
        node = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key that is no text", problem_mark=node.start_mark
                )
            merges = key_node.tag == _MERGE
            key = key_node.value if merges else self.construct_object(key_node)
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return node


def parse(kind: type[D], text: str, *, name: str) -> D:
    """Read a document from YAML (of which JSON is a part).

    Args:
        kind: What it must be.
        text: The file's content.
        name: The file's name, for errors.

    Raises:
        InvalidArgumentError: It is not YAML, or a field is wrong; the error's field is the name
            and the path within the file, such as `p.yaml: stages.dit.pools.a10.seconds`.
    """
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 -- derived from the safe loader
    except yaml.YAMLError as error:
        raise InvalidArgumentError(name, " ".join(str(error).split()), expected="YAML") from error
    except RecursionError:
        raise InvalidArgumentError(name, "nested too deeply", expected="YAML") from None
    if value is None:
        raise InvalidArgumentError(name, "the file is empty", expected=_fields_of(kind))
    if not isinstance(value, dict):
        raise InvalidArgumentError(name, f"a {type(value).__name__}", expected=_fields_of(kind))
    return validate(kind, value, name=name)


def _fields_of(kind: type[D]) -> str:
    fields = _fields(kind)
    needed = [name for name, field in fields.items() if field.is_required()]
    return "fields: " + ", ".join(needed or fields)


def validate(kind: type[D], value: Any, *, name: str) -> D:
    """Make a document of what a file holds.

    Raises:
        InvalidArgumentError: As `parse`.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        # What is missing may be what was misspelt.
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        path = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["type"] == "extra_forbidden" and (known := _known(kind, first["loc"][:-1])):
            raise InvalidArgumentError(
                f"{name}: {path}", "there is no such field", expected=", ".join(known)
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        given = first["input"]
        if isinstance(given, (str, int, float, bool)) or given is None:
            message += f", not {given!r}"
        more = error.error_count() - 1
        if more:
            message += f" (and {more} more)"
        raise InvalidArgumentError(f"{name}: {path}" if path else name, message) from error


def _known(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """Return the fields that there are at a path within a document; none where that is unclear."""
    if path:
        fields = _fields(kind)
        nested = [fields[str(path[0])].annotation] if path[0] in fields else []
        nested += list(get_args(kind)[-1:]) if get_origin(kind) is dict else []
        nested += list(get_args(kind)[:1]) if get_origin(kind) in (tuple, list) else []
        # A part of the path may name the alternative that was tried, and not a field.
        nested += [kind] if fields and kind.__name__ == path[0] else []
        candidates = [(one, path[1:]) for one in nested]
        candidates += [(one, path) for one in _alternatives(kind)]
        return next(filter(None, (_known(one, rest) for one, rest in candidates)), [])
    found = [_known(one, path) for one in _alternatives(kind)]
    return next(filter(None, [list(_fields(kind)), *found]), [])


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """Return a model's fields by the names that people write."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return {}
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return get_args(kind)[:1]
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


def dump_json(document: Document) -> str:
    """Return a document as JSON for people and programs: indented, without empty fields."""
    return json.dumps(document.model_dump(exclude_none=True), indent=2)
