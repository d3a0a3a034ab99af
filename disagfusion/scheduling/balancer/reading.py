"""The balancer's settings as people give them: every name, type and bound is checked."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.balancer.settings import BalancerSettings

_Check = tuple[Callable[[float], bool], str]
_ABOVE: _Check = (lambda value: value > 0.0, "above 0")
_FROM: _Check = (lambda value: value >= 0.0, "0 or more")
_SHARE: _Check = (lambda value: 0.0 <= value < 1.0, "from 0 to below 1")
_BOUNDS: dict[str, _Check] = {
    **dict.fromkeys(("period", "mix_window", "forecast_window", "shift_sigmas", "delays"), _ABOVE),
    **dict.fromkeys(("change_timeout", "drain_seconds"), _ABOVE),
    **dict.fromkeys(("tolerance", "passing_tolerance", "shortfall_tolerance"), _SHARE),
    **dict.fromkeys(("lasting_gain", "forecast_horizon", "headroom", "zero_after"), _FROM),
    **dict.fromkeys(("weight_last", "weight_mean", "weight_p95"), _FROM),
    **dict.fromkeys(("full_seconds", "fallback_after"), _FROM),
}


def read_settings(values: Mapping[str, Any], name: str) -> BalancerSettings:
    """Return the settings; what is not given has its default.

    Args:
        values: By name, as JSON has them: numbers, words, lists and objects.
        name: Of the argument, for errors.

    Raises:
        InvalidArgumentError: There is no such setting, or it cannot be that; names the field.
    """
    for path, known in _unknown(BalancerSettings, values, name):
        raise InvalidArgumentError(path, "there is no such setting", expected=known)
    found = _parse(values, name)
    for field, (holds, expected) in _BOUNDS.items():
        given = getattr(found, field)
        for value in given if isinstance(given, tuple) else (given,):
            if value is not None and not holds(value):
                raise InvalidArgumentError(f"{name}.{field}", f"{value:g}", expected=expected)
    if not found.weight_last + found.weight_mean + found.weight_p95 > 0.0:
        raise InvalidArgumentError(f"{name}.weight_last", "all weights are 0", expected="one above")
    return found


def _unknown(kind: type[Any], values: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(values, Mapping):
        return
    hints = typing.get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            yield f"{path}.{name}", ", ".join(hints)
        elif dataclasses.is_dataclass(hints[name]):
            yield from _unknown(typing.cast(type[Any], hints[name]), value, f"{path}.{name}")


def _parse(values: Mapping[str, Any], name: str) -> BalancerSettings:
    for field, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"{name}.{field}", repr(value), expected="what JSON can hold"
            ) from error
    try:
        # Strictly: "5" would be believed here and fail elsewhere.
        return TypeAdapter(BalancerSettings).validate_json(json.dumps(dict(values)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join([name, *map(str, first["loc"])])
        expected = first["msg"].removeprefix("Input should be ")
        raise InvalidArgumentError(path, repr(first["input"]), expected=expected) from error
