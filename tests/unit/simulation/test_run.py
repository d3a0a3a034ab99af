from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulationkit.runs import example_profile, example_workload, profile, simulate, workload

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Observation
from disagfusion.simulation.run import Simulation

SECONDS = {"encoder": 1.0, "dit": 4.0, "decoder": 2.0}
RATIO = {"encoder": {"a": 1}, "dit": {"a": 2}, "decoder": {"a": 1}}


def stream(every: float, count: int) -> list[dict[str, Any]]:
    return [{"shapes": {"one": 1}, "every": every, "count": count}]


def test_one_job_takes_the_sum_of_its_stages() -> None:
    result = simulate("static", workload(trace=[[3, "one"]], initial=RATIO), profile(SECONDS))
    assert result.last_finish_seconds == 10.0
    assert result.latency_seconds["p50"] == result.latency_seconds["max"] == 7.0
    assert (result.submitted, result.completed, result.lost) == (1, 1, 0)


@pytest.mark.parametrize(
    ("seconds", "ratio", "period"),
    [
        ({"dit": 4.0}, {"dit": {"a": 2}}, 2.0),
        ({"encoder": 3.0, "dit": 4.0}, {"encoder": {"a": 1}, "dit": {"a": 2}}, 3.0),
        (SECONDS, RATIO, 2.0),
    ],
)
def test_the_slowest_stage_sets_the_pace(
    seconds: dict[str, float], ratio: dict[str, dict[str, int]], period: float
) -> None:
    what = workload(trace=[[0, "one"]] * 50, initial=ratio)
    result = simulate("static", what, profile(seconds))
    # Two replicas of the DiT end their jobs in pairs: one of fifty may come early or late.
    assert result.last_finish_seconds == pytest.approx(50 * period, abs=12)


def test_replica_seconds_and_cost() -> None:
    what = workload(trace=[[0, "one"]], initial=RATIO)
    result = simulate("static", what, profile(SECONDS, cost_per_hour=3600.0))
    assert result.replica_seconds == {"encoder": 7.0, "dit": 14.0, "decoder": 7.0}
    assert result.accelerator_seconds == result.cost == 28.0


def test_latencies_leave_out_the_first_jobs_and_are_judged_by_shape() -> None:
    what = workload(
        shapes={"one": {}, "two": {"num_inference_steps": 2}},
        trace=[[0, "one"], [0, "one"], [50, "two"]],
        initial=RATIO,
        measure={"skip_jobs": 1, "objective_seconds": {"one": 7.5}, "windows": [[0, 8], [8, 99]]},
    )
    result = simulate("static", what, profile(SECONDS))
    # The second picture waits for the encoder and the decoder; the third one has no objective.
    assert result.attainment == 0.0
    assert result.latency_seconds["max"] == 9.0
    assert result.finished_in_windows == (1, 2)


def test_transfers_take_the_time_of_the_slower_link() -> None:
    fields = {
        "pools": {
            "a": {"accelerators": 2, "link_gib_per_second": 1.0},
            "b": {"accelerators": 1, "link_gib_per_second": 0.5},
        },
        "stages": {
            "encoder": {"output_mib": 1024, "pools": {"a": {"seconds": 1}}},
            "dit": {"output_mib": 512, "pools": {"b": {"seconds": 4}}},
            "decoder": {"pools": {"a": {"seconds": 2}}},
        },
    }
    from disagfusion.scheduling.document import validate
    from disagfusion.scheduling.profile import Profile

    costs = validate(Profile, fields, name="p")
    initial = {"encoder": {"a": 1}, "dit": {"b": 1}, "decoder": {"a": 1}}
    for transfers, expected in ((False, 7.0), (True, 7.0 + 2.0 + 1.0)):
        what = workload(trace=[[0, "one"]], initial=initial, transfers=transfers)
        assert simulate("static", what, costs).last_finish_seconds == pytest.approx(expected)


def test_a_throttled_stage_takes_longer_from_then_on() -> None:
    throttle = {"start": 2, "end": 6, "stage": "dit", "speed": 0.5}
    what = workload(trace=[[0, "one"]], initial=RATIO, throttles=[throttle])
    # One second at full speed, four at half of it, one more at full speed.
    result = simulate("static", what, profile(SECONDS))
    assert result.last_finish_seconds == pytest.approx(1 + 1 + 4 + 1 + 2)


def test_failed_replicas_cost_time_and_no_job() -> None:
    failure = {"at": 3, "pool": "a", "stage": "dit", "replicas": 2, "repair_seconds": 100}
    what = workload(
        trace=[[0, "one"]] * 6, initial=RATIO, budget=4, failures=[failure], rebind_seconds=5
    )
    result = simulate("static", what, profile(SECONDS, accelerators=4))
    assert (result.completed, result.lost, result.budget_exceeded) == (6, 0, 0)
    # Both DiTs are back after 3 + 100 + 5 seconds; three rounds of four seconds, then decoding.
    assert result.last_finish_seconds == pytest.approx(108 + 3 * 4 + 2, abs=2)


def test_jobs_that_no_replica_is_left_for() -> None:
    failure = {"at": 3, "pool": "a", "stage": "dit", "replicas": 2}
    what = workload(trace=[[0, "one"]] * 6, initial=RATIO, failures=[failure])
    with pytest.raises(FailedPreconditionError) as raised:
        simulate("static", what, profile(SECONDS))
    assert raised.value.message == "6 jobs never end: no replica is left of dit"


@pytest.mark.parametrize("together", [True, False])
def test_a_job_survives_that_many_accelerators_fail_at_once(together: bool) -> None:
    one = {"at": 1, "pool": "a", "repair_seconds": 10}
    failures = [{**one, "replicas": 7}] if together else [{**one, "replicas": 1}] * 7
    what = workload(trace=[[0, "one"]], initial={"dit": {"a": 8}}, failures=failures)
    result = simulate("static", what, profile({"dit": 20.0}))
    assert (result.completed, result.lost) == (1, 0)
    # It begins anew on the eighth.
    assert result.last_finish_seconds == 21.0


@dataclass(frozen=True, slots=True)
class StopsAnEncoder:
    """Has an encoder end after ten seconds, and a DiT start in its place."""

    name: str = "stops an encoder"
    period: float = 10.0

    def initial(self) -> bool:
        return False

    def decide(self, state: bool, observation: Observation, now: float) -> tuple[bool, Decision]:
        stop, start = Move(Place("encoder", "a"), None), Move(None, Place("dit", "a"))
        return True, Decision(now, () if state else (stop, start), Reason.REBALANCE)


def test_a_drained_replica_does_not_keep_its_accelerator_for_ever() -> None:
    # The only DiT fails at 5 s, and what the encoder holds waits for one that waits for it.
    failure = {"at": 5, "pool": "a", "stage": "dit", "replicas": 1}
    ratio = {"encoder": {"a": 2}, "dit": {"a": 1}}
    what = workload(trace=[[0, "one"], [0, "one"]], initial=ratio, failures=[failure])
    result = Simulation(
        what,
        profile({"encoder": 1.0, "dit": 40.0}, accelerators=3),
        StopsAnEncoder(),
        initial=ratio,
        generator=lambda _: random.Random(0),
    ).run()
    assert (result.completed, result.lost, result.moves) == (2, 0, 2)
    # It drains at 10 s and is given up at 35; two jobs follow, one encoded again meanwhile.
    assert result.last_finish_seconds == 35.0 + 2 * 40.0


@settings(max_examples=8)
@given(
    policy=st.sampled_from(["hybrid", "reference", "predict", "feedback", "hpa", "plain"]),
    seed=st.integers(0, 10_000),
    rebind=st.floats(0, 40),
    every=st.floats(0.5, 4),
    failing=st.booleans(),
)
def test_no_policy_loses_a_job_or_exceeds_the_budget(
    policy: str, seed: int, rebind: float, every: float, failing: bool
) -> None:
    failures = [{"at": 60, "pool": "a", "replicas": 2, "repair_seconds": 30}] if failing else []
    what = workload(
        shapes={"one": {}, "two": {"num_inference_steps": 3}},
        arrivals=[
            {"shapes": {"one": 1}, "every": every, "end": 100},
            {"shapes": {"two": 1}, "rate": 0.5, "process": "poisson", "start": 80, "end": 160},
        ],
        initial=RATIO,
        budget=4,
        rebind_seconds=rebind,
        noise={"arrival_seconds": 3, "service_ratio": 0.2},
        failures=failures,
    )
    result = simulate(policy, what, profile(SECONDS), seed=seed)
    assert result.completed == result.submitted > 0
    assert result.lost == result.budget_exceeded == 0
    assert result.most_accelerators <= 4
    assert result == simulate(policy, what, profile(SECONDS), seed=seed)


@pytest.mark.parametrize("policy", ["hybrid", "reference", "predict", "feedback", "hpa", "plain"])
@pytest.mark.parametrize("cut", [300.0, 700.0])
def test_no_look_at_the_future(policy: str, cut: float) -> None:
    what, costs = example_workload(), example_profile()
    whole = [d for d in simulate(policy, what, costs).decisions if d.at <= cut]
    short = [d for d in simulate(policy, what, costs, until=cut).decisions if d.at <= cut]
    assert whole == short


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"initial": {**RATIO, "vae": {"a": 1}}}, "initial.vae"),
        ({"initial": {**RATIO, "dit": {"b": 1}}}, "initial.dit.b"),
        ({"initial": {"encoder": {"a": 1}, "dit": {"a": 1}}}, "initial.decoder"),
        ({"initial": RATIO, "budget": 3}, "initial"),
        (
            {"initial": RATIO, "failures": [{"at": 1, "pool": "b", "replicas": 1}]},
            "failures.0.pool",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        simulate("static", workload(trace=[[0, "one"]], **fields), profile(SECONDS))
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("best", "hybrid, elastic"),
        ("static:1:2", "one number for each of encoder, dit, decoder"),
        ("static:1:0:1", "above 0"),
        ("static:1:x:1", "above 0"),
        ("monolith:resident", "add `monoliths`"),
        ("hybrid:2", "hybrid, elastic"),
    ],
)
def test_wrong_policies(policy: str, expected: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--policy") as raised:
        simulate(policy, workload(trace=[[0, "one"]], initial=RATIO), profile(SECONDS))
    assert expected in raised.value.message
