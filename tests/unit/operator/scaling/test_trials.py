"""Whom to tell again to change its stage, and what to say of one that does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from disagfusion_operator.scaling.fleet import Phase, Pod
from disagfusion_operator.scaling.trials import Trials

from disagfusion.errors import (
    DeadlineExceededError,
    DisagfusionError,
    FailedPreconditionError,
    UnavailableError,
)
from disagfusion.scheduling.decision import Place

POD = Pod("x", "uid", Place("dit", "a"), Phase.STARTING, 0.0, changes_from="encoder", version=7)
REFUSED = FailedPreconditionError("the worker is leaving")


def told(trials: Trials, error: DisagfusionError | None, until: int, pod: Pod = POD) -> list[int]:
    """Return the seconds at which a worker is told that answers like that."""
    found = []
    for now in range(until):
        if trials.due(pod, now):
            trials.enter(pod, error, now)
            found.append(now)
    return found


@pytest.mark.parametrize("error", [UnavailableError("away"), DeadlineExceededError("too late")])
def test_who_cannot_be_reached_is_told_ever_less_often(error: DisagfusionError) -> None:
    assert told(Trials(), error, 130) == [0, 1, 3, 7, 15, 31, 61, 91, 121]


@pytest.mark.parametrize("error", [REFUSED, None])
def test_who_answers_is_told_at_every_look(error: DisagfusionError | None) -> None:
    assert told(Trials(), error, 9) == list(range(9))


def test_a_pod_that_has_become_another_is_told_at_once() -> None:
    trials = Trials()
    told(trials, UnavailableError("away"), 20)
    assert not trials.due(POD, 20)
    assert told(trials, UnavailableError("away"), 5, replace(POD, version=8)) == [0, 1, 3]
    assert trials.due(replace(POD, uid="another"), 20)


def test_what_is_gone_or_has_changed_is_forgotten() -> None:
    trials = Trials()
    trials.enter(POD, UnavailableError("away"), 0.0)
    trials.keep({"another"})
    assert trials.due(POD, 0.0)
    trials.enter(POD, UnavailableError("away"), 0.0)
    trials.forget(POD)
    assert trials.due(POD, 0.0)


def test_who_does_not_change_for_a_minute_is_told_of_once() -> None:
    trials = Trials()
    assert trials.enter(POD, UnavailableError("away"), 100.0) is None
    assert trials.enter(POD, REFUSED, 159.0) is None
    found = trials.enter(POD, REFUSED, 160.0)
    assert found is not None
    assert (found.reason, found.warning) == ("StageNotChanged", True)
    for word in ("pod x", "from encoder to dit", "60 s", "the worker is leaving"):
        assert word in found.message
    assert trials.enter(POD, REFUSED, 1000.0) is None
    # Another change is another matter.
    other = replace(POD, place=Place("decoder", "a"), changed_at=1000.0)
    assert trials.enter(other, REFUSED, 1001.0) is None
    found = trials.enter(other, REFUSED, 1061.0)
    assert found is not None
    assert "from encoder to decoder" in found.message


def test_who_has_agreed_may_finish_jobs_and_load() -> None:
    trials = Trials()
    assert trials.enter(POD, None, 0.0) is None
    assert trials.enter(POD, None, 599.0) is None
    found = trials.enter(POD, None, 600.0)
    assert found is not None
    assert "has agreed" in found.message
