"""What an answer of Prometheus means: values that can be acted upon, and why the others cannot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from disagfusion.scheduling.observation import Fresh, Invalid, Missing, Signal, Stale
from disagfusion.scheduling.prometheus.queries import AT, LAST, PART, VALUE, Query, Scope

T = TypeVar("T")

Key = tuple[str, ...]
"""Values of a query's labels, in their order."""

_SHOWN = 200


class ValueProblemError(ValueError):
    """A number is none of what was asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A vector, taken apart.

    Attributes:
        at: When it was evaluated, in Unix seconds of the server; 0 where it is empty.
        parts: Part → labels → what stood there; None where it stood there twice.
    """

    at: float = 0.0
    parts: Mapping[str, Mapping[Key, float | None]] = field(default_factory=dict)

    def keys(self) -> list[Key]:
        """Return all labels that there is anything about, sorted."""
        return sorted({key for part in self.parts.values() for key in part})


Outcome = Answer | Missing | Invalid


def parse(query: Query, status: int, body: bytes) -> Outcome:
    """Read what `/api/v1/query` answered to `Query.request`.

    Args:
        query: What was asked.
        status: Of HTTP.
        body: Of the answer.

    Returns:
        The answer; Missing where the server could not give one, Invalid where it gave none that
        makes sense.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    told = document if isinstance(document, dict) else {}
    if status != 200 or told.get("status") == "error":
        problem = f"{told.get('errorType', '')} {told.get('error', '')}".strip()
        return Missing(f"Prometheus answered {status}: {problem or _shown(body)}")
    if told.get("status") != "success":
        return Invalid(f"not an answer of Prometheus: {_shown(body)}")
    if told.get("warnings"):
        # Thanos and Mimir warn where a store could not be asked: sums are then too small.
        return Invalid(f"the answer may be partial: {str(told['warnings'])[:_SHOWN]}")
    data = told.get("data")
    if not isinstance(data, dict) or data.get("resultType") != "vector":
        return Invalid("the answer is no vector")
    try:
        return _vector(query, data.get("result"))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return Invalid(f"the answer is malformed: {type(error).__name__}: {error}"[:_SHOWN])


def _vector(query: Query, result: Any) -> Answer:
    if not isinstance(result, list):
        raise TypeError("a vector is a list")
    at = 0.0
    parts: dict[str, dict[Key, float | None]] = {VALUE: {}, LAST: {}, AT: {}}
    for sample in result:
        labels = dict(sample["metric"])
        part = parts[labels.pop(PART)]
        # Prometheus leaves out labels that are empty.
        key = tuple(str(labels.pop(name, "")) for name in query.by)
        if labels:
            raise ValueError(f"labels nobody asked for: {', '.join(sorted(labels))}")
        when, number = sample["value"]
        if not isinstance(number, str):
            raise TypeError("a value is a string")
        value = _number(number)
        time = float(when)
        if not math.isfinite(time) or (at and time != at):
            raise ValueError("samples of different times")
        at = time
        part[key] = None if key in part else value
    return Answer(at, parts)


def _number(text: str) -> float:
    if "_" in text or text != text.strip():
        raise ValueError(f"no number: {text!r}"[:_SHOWN])
    return float(text)


def signal(
    outcome: Outcome, key: Key, scope: Scope, now: float, convert: Callable[[float], T]
) -> Signal[T]:
    """Return one signal of an answer.

    Args:
        outcome: What came of the query.
        key: Values of the query's labels.
        scope: Says when a sample is too old.
        now: On the clock that the signal's time is to be of; the answer is of that moment.
        convert: Turns the number into the value; raises `ValueProblemError` where it is none.
    """
    if not isinstance(outcome, Answer):
        return outcome
    values, last, times = (outcome.parts.get(part, {}) for part in (VALUE, LAST, AT))
    fresh = key in values
    if not fresh and key not in last:
        return Missing("Prometheus has no such series" + (f": {', '.join(key)}" if key else ""))
    value, at = values[key] if fresh else last[key], times.get(key, math.nan)
    if value is None or at is None:
        return Invalid("there are two values for one set of labels")
    try:
        converted = convert(_measured(value))
    except ValueProblemError as error:
        return Invalid(str(error))
    age = outcome.at - at
    if not math.isfinite(age) or age < -scope.stale:
        return Invalid("it is not said when the value was measured")
    taken = now - max(age, 0.0)
    return Fresh(converted, taken) if fresh and age <= scope.stale else Stale(converted, taken)


def _measured(value: float) -> float:
    if math.isnan(value):
        raise ValueProblemError("the value is not a number")
    if math.isinf(value):
        raise ValueProblemError("the value is infinite")
    if value < 0.0:
        raise ValueProblemError(f"the value is negative: {value:g}")
    return value


def whole(value: float) -> int:
    """Return a count."""
    if value != int(value):
        raise ValueProblemError(f"a count is a whole number, not {value:g}")
    return int(value)


def share(value: float) -> float:
    """Return a part of a whole."""
    if value > 1.0 + 1e-9:
        raise ValueProblemError(f"a share is at most 1, not {value:g}")
    return min(value, 1.0)


def amount(value: float) -> float:
    """Return a number as it is."""
    return value


def _shown(body: bytes) -> str:
    return repr(body[:_SHOWN].decode(errors="replace"))
