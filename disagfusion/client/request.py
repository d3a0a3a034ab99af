"""From keyword arguments to a `Submission`. What only the service can judge is left to it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from disagfusion.client.types import (
    Generation,
    GenerationOptions,
    InputImage,
    OutputFormat,
    ParameterValue,
    Submission,
)
from disagfusion.errors import InvalidArgumentError

_INT64 = range(-(2**63), 2**63)
_INTEGERS = {
    "height": 2**31,
    "width": 2**31,
    "num_frames": 2**31,
    "num_inference_steps": 2**31,
    "num_images_per_prompt": 2**31,
}
_OURS = set(GenerationOptions.__annotations__) - {"parameters", "image"}


def build(prompt: str, options: Mapping[str, Any], new_id: Callable[[], str]) -> Submission:
    """Make a submission of what a user passed to `generate` or `submit`.

    Args:
        prompt: The prompt.
        options: `GenerationOptions`, and parameters by their own names.
        new_id: Makes a client request id.

    Raises:
        InvalidArgumentError: Something cannot even be sent, such as a picture that is none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    extra = dict(given.pop("parameters", {}))
    for name in [name for name in given if name not in _OURS and name != "image"]:
        extra[name] = given.pop(name)
    images = [InputImage("image", encode(one)) for one in _pictures(given.pop("image", None))]
    parameters: dict[str, ParameterValue] = {}
    for name, value in extra.items():
        if isinstance(value, Image.Image | Path | bytes):
            images.append(InputImage(name, encode(value, name)))
        elif value is not None:
            parameters[name] = _parameter(name, value)
    generation = Generation(
        prompt=_string("prompt", prompt),
        negative_prompt=_text(given, "negative_prompt"),
        images=tuple(images),
        **{name: _integer(given, name, -bound, bound) for name, bound in _INTEGERS.items()},
        guidance_scale=_number(given, "guidance_scale"),
        seed=_integer(given, "seed", 0, 2**64),
        output_format=_format(given.get("output_format")),
        parameters=parameters,
    )
    return Submission(
        generation=generation,
        client_request_id=_text(given, "client_request_id") or new_id(),
        priority=_integer(given, "priority", -(2**31), 2**31) or 0,
        timeout=_timeout(given),
        pipeline=_text(given, "pipeline") or "",
    )


def encode(picture: Any, field: str = "image") -> bytes:
    """Return a picture's file: as it is where it is one already, as PNG where it is opened."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        try:
            picture.save(buffer, "PNG")
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(field, f"cannot be encoded as PNG: {error}") from error
        return buffer.getvalue()
    if isinstance(picture, str | os.PathLike):
        try:
            return Path(picture).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InvalidArgumentError(field, f"cannot read {picture}: {reason}") from error
    raise InvalidArgumentError(field, f"is {_kind(picture)}", expected="a picture, path or bytes")


def _pictures(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _parameter(name: str, value: Any) -> ParameterValue:
    if isinstance(value, list | tuple):
        return tuple(_parameter(name, one) for one in value)
    if isinstance(value, int) and not isinstance(value, bool) and value not in _INT64:
        raise InvalidArgumentError(name, f"is {value}", expected="an integer of 64 bits")
    if isinstance(value, str):
        return _string(name, value)
    if isinstance(value, bool | int | float):
        return value
    raise InvalidArgumentError(
        name, f"is {_kind(value)}", expected="a bool, int, float, string or a list of them"
    )


def _integer(given: Mapping[str, Any], name: str, low: int, end: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentError(name, f"is {_kind(value)}", expected="an integer")
    if not low <= value < end:
        raise InvalidArgumentError(name, f"is {value}", expected=f"{low} to {end - 1}")
    return value


def _number(given: Mapping[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgumentError(name, f"is {_kind(value)}", expected="a number")
    return float(value)


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    return None if value is None else _string(name, value)


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgumentError(name, f"is {_kind(value)}", expected="a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(name, "not valid UTF-8") from error
    return value


def _timeout(given: Mapping[str, Any]) -> float | None:
    value = _number(given, "timeout")
    # protobuf's Duration ends at about 10,000 years.
    if value is not None and not (math.isfinite(value) and 0 < value < 1e9):
        raise InvalidArgumentError("timeout", f"is {value}", expected="seconds, more than 0")
    return value


def _format(value: Any) -> OutputFormat | None:
    if value is None:
        return None
    try:
        return OutputFormat("jpeg" if value == "jpg" else value)
    except ValueError as error:
        expected = ", ".join(OutputFormat)
        raise InvalidArgumentError("output_format", str(value), expected=expected) from error


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"
