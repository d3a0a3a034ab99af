from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.bounds import bounds_at

from disagfusion.errors import InvalidArgumentError


def spec(*schedule: Mapping[str, Any], **stages: Any) -> Spec:
    return Spec.model_validate(
        {
            "model": {"builtin": "digits"},
            "pools": {"a": {}},
            "stages": stages,
            "scaling": {"budget": 9, "schedule": list(schedule)},
        }
    )


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


DAY = {"begin": "08:00", "end": "18:00", "minReplicas": {"dit": 4}, "budget": 20}
NIGHT = {"begin": "22:00", "end": "06:00", "maxReplicas": {"dit": 2}, "days": ["Fri"]}


@pytest.mark.parametrize(
    ("time", "least"),
    [
        ("2026-03-02T07:59:59", 1),
        ("2026-03-02T08:00", 4),
        ("2026-03-02T17:59:59", 4),
        ("2026-03-02T18:00", 1),
    ],
)
def test_a_schedule_begins_and_ends(time: str, least: int) -> None:
    found = bounds_at(spec(DAY), at(time))
    assert found.least["dit"] == least
    assert found.budget == (20 if least == 4 else 9)
    assert found.least["encoder"] == 1


@pytest.mark.parametrize(
    ("time", "most"),
    [
        ("2026-03-06T21:59", None),  # a Friday
        ("2026-03-06T22:00", 2),
        ("2026-03-07T05:59", 2),
        ("2026-03-07T06:00", None),
        ("2026-03-07T22:00", None),  # a Saturday
        ("2026-03-06T05:59", None),  # the night before was a Thursday's
    ],
)
def test_one_that_ends_on_the_next_day_is_of_the_day_on_which_it_begins(
    time: str, most: int | None
) -> None:
    assert bounds_at(spec(NIGHT), at(time)).most["dit"] == most


def test_times_are_of_the_schedules_own_zone() -> None:
    berlin = {**DAY, "timeZone": "Europe/Berlin"}
    # In summer, two hours before Greenwich.
    assert bounds_at(spec(berlin), at("2026-07-01T06:00")).least["dit"] == 4
    assert bounds_at(spec(berlin), at("2026-07-01T16:00")).least["dit"] == 1
    # In winter, one.
    assert bounds_at(spec(berlin), at("2026-01-05T06:30")).least["dit"] == 1
    assert bounds_at(spec(berlin), at("2026-01-05T08:30", "Europe/Berlin")).least["dit"] == 4


def test_of_several_the_last_one_counts() -> None:
    more = {"begin": "00:00", "end": "23:59", "minReplicas": {"dit": 6}}
    assert bounds_at(spec(DAY, more), at("2026-03-02T12:00")).least["dit"] == 6
    assert bounds_at(spec(more, DAY), at("2026-03-02T12:00")).least["dit"] == 4


def test_a_scheduled_minimum_beats_the_stages_maximum_and_the_other_way_round() -> None:
    noon = at("2026-03-02T12:00")
    found = bounds_at(spec(DAY, dit={"maxReplicas": 3}), noon)
    assert (found.least["dit"], found.most["dit"]) == (4, 4)
    less = {"begin": "08:00", "end": "18:00", "maxReplicas": {"dit": 2}}
    found = bounds_at(spec(less, dit={"minReplicas": 3}), noon)
    assert (found.least["dit"], found.most["dit"]) == (2, 2)


def test_a_zone_that_is_not_known_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"schedule\.1\.timeZone.*Mars/Olympus"):
        bounds_at(spec(DAY, {**DAY, "timeZone": "Mars/Olympus"}), at("2026-03-02T12:00"))
