"""How long a stage will take, from what was observed and from the prior."""

import math
from random import Random

import pytest

from disagfusion.dispatch.estimates import Estimates, Pace, PoolStage
from disagfusion.dispatch.events import JobSubmitted
from disagfusion.jobs.model import Stage

DIT = Stage.DIT


def job(kind: str) -> JobSubmitted:
    return JobSubmitted("j", "t", "p", cost_key=kind)


def at(estimates: Estimates, pool: str) -> PoolStage:
    return estimates.of("p", pool, DIT, pool)


def test_predictions_fall_back_from_the_particular_to_the_general() -> None:
    estimates = Estimates()
    a, b, c = (at(estimates, name) for name in "abc")
    seconds, known = estimates.service(a, job("big"))
    assert seconds > 0.0
    assert not known
    estimates.observe(a, "big", 8.0)
    assert estimates.service(a, job("big")) == (8.0, True)
    estimates.observe(b, "small", 2.0)
    # The same kind of job elsewhere says more than another kind of job here.
    assert estimates.service(b, job("big")) == (8.0, False)
    assert estimates.service(b, job("huge")) == (2.0, False)
    seconds, known = estimates.service(c, job("huge"))
    assert 2.0 < seconds < 8.0
    assert not known
    for _ in range(50):
        estimates.observe(a, "big", 4.0)
    assert estimates.service(a, job("big"))[0] == pytest.approx(4.0, rel=0.01)


def test_stages_and_pipelines_say_nothing_about_each_other() -> None:
    estimates = Estimates()
    estimates.observe(at(estimates, "a"), "k", 8.0)
    other = estimates.of("another", "a", DIT)
    assert estimates.service(other, job("k"))[0] != 8.0
    assert estimates.service(estimates.of("p", "a", Stage.DECODER), job("k"))[0] != 8.0


def test_the_prior_is_asked_for_what_was_not_observed() -> None:
    asked: list[tuple[str, str]] = []

    def prior(pool: str, stage: Stage, spec: JobSubmitted) -> float | None:
        asked.append((pool, spec.cost_key))
        return {"small": 2.0, "odd": math.nan, "odder": -1.0}.get(spec.cost_key)

    estimates = Estimates(prior)
    a = at(estimates, "a")
    for _ in range(3):
        assert estimates.service(a, job("small")) == (2.0, True)
    assert asked == [("a", "small")], "the answer is remembered"
    for kind in ("odd", "odder", "unheard of"):
        assert not estimates.service(a, job(kind))[1]
    estimates.observe(a, "small", 5.0)
    assert estimates.service(a, job("small")) == (5.0, True)
    estimates.set_prior(lambda pool, stage, spec: 9.0)
    assert estimates.service(a, job("odd")) == (9.0, True)
    assert estimates.service(a, job("small")) == (5.0, True)


def test_a_worker_that_slows_down_is_told_from_its_pool() -> None:
    """A card throttled to 60 % is noticed within ten jobs, and its pool is not blamed."""
    estimates, random = Estimates(), Random(1)
    pool = at(estimates, "a")
    paces = [Pace() for _ in range(8)]
    for _ in range(10):
        for pace in paces:
            estimates.observe(pool, "k", 10.0 * random.uniform(0.95, 1.05), pace)
    assert {pace.factor for pace in paces} == {1.0}, "5 % are nothing to choose by"
    for _ in range(10):
        for pace in paces:
            slow = 1 / 0.6 if pace is paces[0] else 1.0
            estimates.observe(pool, "k", 10.0 * slow * random.uniform(0.95, 1.05), pace)
    base = estimates.service(pool, job("k"))[0]
    assert base == pytest.approx(10.0, rel=0.1)
    assert base * paces[0].factor == pytest.approx(10.0 / 0.6, rel=0.1)
    assert {pace.factor for pace in paces[1:]} == {1.0}


def test_a_straggler_spoils_neither_its_pool_nor_its_worker_for_long() -> None:
    estimates = Estimates()
    pool, pace = at(estimates, "a"), Pace()
    for _ in range(5):
        estimates.observe(pool, "k", 10.0, pace)
    estimates.observe(pool, "k", 1000.0, pace)
    assert estimates.service(pool, job("k"))[0] < 11.0
    assert pace.factor < 1.4
    for _ in range(5):
        estimates.observe(pool, "k", 10.0, pace)
    assert estimates.service(pool, job("k"))[0] * pace.factor == pytest.approx(10.0, rel=0.15)


def test_a_pool_that_changes_as_a_whole_is_followed() -> None:
    estimates = Estimates()
    pool = at(estimates, "a")
    paces = [Pace() for _ in range(4)]
    for seconds in (10.0, 4.0):
        for _ in range(12):
            for pace in paces:
                estimates.observe(pool, "k", seconds, pace)
        for pace in paces:
            predicted = estimates.service(pool, job("k"))[0] * pace.factor
            assert predicted == pytest.approx(seconds, rel=0.1)


def test_a_factor_does_not_go_to_and_fro() -> None:
    pace = Pace()
    pace.change(1.06)
    assert pace.factor == 1.0
    pace.change(1.02)
    assert pace.factor == pytest.approx(1.1)
    pace.change(1 / 1.05)
    assert pace.factor == pytest.approx(1.1)
    for _ in range(100):
        pace.change(2.0)
    assert pace.ratio == 8.0


def test_nonsense_is_not_learned_and_memory_is_bounded() -> None:
    estimates = Estimates(lambda pool, stage, spec: None)
    a = at(estimates, "a")
    for seconds in (math.nan, -1.0, math.inf):
        estimates.observe(a, "x", seconds)
    for seconds in (-1.0, math.inf):
        estimates.observe_transfer(seconds)
    assert not estimates.service(a, job("x"))[1]
    assert estimates.transfer() == 0.0
    for i in range(5000):
        estimates.service(a, job(str(i)))
        estimates.observe(a, str(i), 1.0)
        estimates.of("p", f"pool-{i}", DIT)
    assert len(a.kinds) <= 1024
    assert len(a.priors) <= 1024
    assert len(estimates._pools) <= 513


def test_what_is_known_of_pools_with_workers_is_not_forgotten() -> None:
    estimates = Estimates()
    kept = at(estimates, "kept")
    kept.users += 1
    for i in range(1000):
        estimates.of("p", f"pool-{i}", DIT)
    assert at(estimates, "kept") is kept
