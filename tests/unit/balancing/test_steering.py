"""A person's hold, and parameters that change while the balancer runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from disagfusion.balancing.rule import SteeredRule
from disagfusion.local.hold import HOLD_FILE, Hold, read_hold, write_hold
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.decision import Decision, Reason
from disagfusion.scheduling.observation import Fresh, JobGroup, Observation, Replicas
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape

PROFILE = Profile.model_validate(
    {
        "pools": {"a": {"accelerators": 4}},
        "stages": {
            "encoder": {"pools": {"a": {"seconds": 1}}},
            "dit": {"pools": {"a": {"seconds": 1}}},
            "decoder": {"pools": {"a": {"seconds": 20}}},
        },
    }
)
BURST = (JobGroup(2, Shape(), 40, 10.0),)


def make(settings: BalancerSettings) -> Hybrid:
    return Hybrid(PROFILE, ProfilePredictor(PROFILE), lambda place: 5.0, settings, budget=4)


def seen(now: float, **dit: int) -> Observation:
    """Decoders are short; two DiTs have nothing to do."""
    return Observation(
        replicas={
            "encoder": {"a": Replicas(ready=1)},
            "dit": {"a": Replicas(**(dit or {"ready": 2}))},
            "decoder": {"a": Replicas(ready=1)},
        },
        jobs=Fresh(BURST, now),
        arrived=Fresh({}, now),
        loads={},
        accelerators={"a": 4},
    )


class Tuner:
    def __init__(self) -> None:
        self.settings = BalancerSettings()
        self.found: tuple[str, ...] = ()
        self.considered: list[float] = []

    def consider(self, observation: Observation, now: float) -> None:
        self.considered.append(now)

    def news(self) -> tuple[str, ...]:
        news, self.found = self.found, ()
        return news


class Running:
    """A rule that is steered, and its state."""

    def __init__(self, hold: Callable[[], Hold | None], tuner: Tuner | None = None) -> None:
        self.rule = SteeredRule(make, BalancerSettings(), hold, tuner)
        self.state: State = self.rule.initial()

    def decide(self, now: float, **dit: int) -> Decision:
        self.state, decision = self.rule.decide(self.state, seen(now, **dit), now)
        return decision


def test_a_hold_counts_from_the_next_decision_on_and_can_be_taken_back(tmp_path: Path) -> None:
    file = tmp_path / HOLD_FILE
    running = Running(lambda: read_hold(file))
    write_hold(file, Hold("ann", "a demonstration", 5.0))
    for now in (10.0, 20.0):
        held = running.decide(now)
        assert (held.reason, held.moves) == (Reason.PAUSED, ())
        assert held.message == "held by ann: a demonstration"
    file.unlink()
    free = running.decide(30.0)
    assert free.reason is Reason.REBALANCE
    assert [move.target.stage for move in free.moves if move.target] == ["decoder"]


def test_arrivals_are_remembered_while_the_ratio_is_held() -> None:
    running = Running(Hold)
    running.decide(10.0)
    assert running.state.history != State().history


def test_a_change_that_fails_while_the_ratio_is_held_is_given_up_afterwards() -> None:
    holds: list[Hold] = []
    running = Running(lambda: holds[0] if holds else None)
    assert running.decide(10.0).reason is Reason.REBALANCE
    holds.append(Hold())
    # It drains for ever.
    stuck = {"ready": 1, "draining": 1}
    assert running.decide(20.0, **stuck).message == "held"
    assert running.decide(5000.0, **stuck).reason is Reason.PAUSED
    holds.clear()
    assert running.decide(5010.0, **stuck).reason is Reason.PENDING_EXPIRED


def test_a_change_that_ends_while_the_ratio_is_held_has_ended() -> None:
    holds: list[Hold] = []
    running = Running(lambda: holds[0] if holds else None)
    running.decide(10.0)
    holds.append(Hold())
    running.decide(20.0)
    assert running.state.pending == ()


def test_other_parameters_count_from_the_next_decision_on_and_are_said() -> None:
    tuner = Tuner()
    running = Running(lambda: None, tuner)
    tuner.settings = replace(tuner.settings, tolerance=0.99)
    tuner.found = ("calibration: tolerance",)
    first, second = running.decide(10.0), running.decide(20.0)
    assert first.reason is Reason.WITHIN_TOLERANCE
    assert (first.notes, second.notes) == (("calibration: tolerance",), ())
    assert tuner.considered == [10.0, 20.0]
    tuner.settings = replace(tuner.settings, tolerance=0.02)
    assert running.decide(30.0).reason is Reason.REBALANCE


def test_the_rule_has_the_name_and_period_of_its_settings() -> None:
    settings = BalancerSettings(period=5.0, sizing="demand")
    rule = SteeredRule(make, settings, lambda: None)
    assert (rule.name, rule.period) == ("elastic", 5.0)


def test_a_hold_is_read_as_it_was_written(tmp_path: Path) -> None:
    hold = Hold("ann", "new drivers", 1234.5)
    write_hold(tmp_path / HOLD_FILE, hold)
    assert read_hold(tmp_path / HOLD_FILE) == hold
    assert [file.name for file in tmp_path.iterdir()] == [HOLD_FILE]
    assert read_hold(tmp_path / "another") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "held"),
        ("{}", "held"),
        ("[1]", "held"),
        ('{"by": 3, "why": null, "since": "yesterday"}', "held"),
        ('{"why": "two\\nlines"}', "held: two lines"),
        ('{"since": 1e999}', "held"),
        ("hold!", "holds no JSON"),
        ("[" * 60000, "holds no JSON"),
        ("\udcff", "holds no JSON"),
    ],
)
def test_whatever_is_in_the_file_it_holds(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / HOLD_FILE).write_bytes(text.encode(errors="surrogateescape"))
    hold = read_hold(tmp_path / HOLD_FILE)
    assert hold is not None
    assert says in str(hold)
    assert hold.since is None


def test_a_file_that_cannot_be_read_holds(tmp_path: Path) -> None:
    (tmp_path / HOLD_FILE).mkdir()
    assert "cannot be read" in str(read_hold(tmp_path / HOLD_FILE))
