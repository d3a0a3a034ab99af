"""The bounds of a pipeline's replicas at a time of day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from disagfusion.errors import InvalidArgumentError
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.scaling import ScheduledBounds


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of the replicas of each stage, and of the accelerators of all.

    Attributes:
        least: Stage → replicas.
        most: Stage → replicas; None: as many as fit.
        budget: Accelerators; None: all that the pools have.
    """

    least: Mapping[str, int]
    most: Mapping[str, int | None]
    budget: int | None


def bounds_at(spec: Spec, now: float) -> Bounds:
    """Return the bounds that hold at a time; of several in the schedule the last one counts.

    Args:
        spec: The pipeline's.
        now: Unix seconds.

    Raises:
        InvalidArgumentError: There is no such time zone.
    """
    least = {name: stage.min_replicas for name, stage in spec.stages.items()}
    most = {name: stage.max_replicas for name, stage in spec.stages.items()}
    budget = spec.scaling.budget
    lowered: set[str] = set()
    for index, one in enumerate(spec.scaling.schedule):
        if not _holds(one, now, index):
            continue
        least.update(one.min_replicas)
        most.update(one.max_replicas)
        lowered = (lowered - set(one.min_replicas)) | set(one.max_replicas)
        budget = one.budget or budget
    # A schedule may ask for more than the stage's own maximum, or for less than its minimum.
    for stage, count in most.items():
        if count is not None and count < least[stage]:
            if stage in lowered:
                least[stage] = count
            else:
                most[stage] = least[stage]
    return Bounds(least, most, budget)


def _holds(bounds: ScheduledBounds, now: float, index: int) -> bool:
    local = datetime.fromtimestamp(now, _zone(bounds.time_zone, index))
    begin, end, at = _minutes(bounds.begin), _minutes(bounds.end), local.hour * 60 + local.minute
    today, yesterday = (
        (day.strftime("%a") in bounds.days or not bounds.days)
        for day in (local, local - timedelta(days=1))
    )
    if begin < end:
        return today and begin <= at < end
    return (today and at >= begin) or (yesterday and at < end)


@lru_cache(maxsize=64)
def _zone(name: str, index: int) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidArgumentError(
            f"spec.scaling.schedule.{index}.timeZone",
            f"{name!r} is not known",
            expected="a name of the tz database, such as Europe/Berlin",
        ) from error


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)
