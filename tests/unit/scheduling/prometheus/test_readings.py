"""From answers to what a balancer is told."""

from __future__ import annotations

from collections.abc import Mapping

from disagfusion.scheduling.observation import Fresh, Invalid, JobGroup, Missing, Replicas, Stale
from disagfusion.scheduling.prometheus.answers import Answer, Outcome
from disagfusion.scheduling.prometheus.queries import AT, LAST, QUERIES, VALUE, Scope
from disagfusion.scheduling.prometheus.readings import Readings, Tally, divide, read, total
from disagfusion.scheduling.shapes import Shape, WeightedShape

STAGES = ("encoder", "dit", "decoder")
SCOPE = Scope("p", stale=60.0)
NOW = 100.0
SMALL, LARGE = WeightedShape(height=64, weight=3.0), WeightedShape(height=128, weight=1.0)


def answer(values: Mapping[tuple[str, ...], float], age: float = 2.0) -> Answer:
    times = dict.fromkeys(values, 1000.0 - age)
    return Answer(1000.0, {VALUE: values, LAST: values, AT: times})


def old(values: Mapping[tuple[str, ...], float]) -> Answer:
    return Answer(1000.0, {VALUE: {}, LAST: values, AT: dict.fromkeys(values, 800.0)})


def outcomes(**changes: Outcome) -> dict[str, Outcome]:
    states = ("ready", "loading", "draining", "quarantined")
    found: dict[str, Outcome] = {
        "replicas": answer(
            {
                (stage, pool, state): float(count)
                for stage, pool, counts in [
                    ("encoder", "a10", (1, 0, 0, 0)),
                    ("dit", "a10", (2, 1, 0, 0)),
                    ("dit", "h100", (1, 0, 1, 1)),
                    ("decoder", "a10", (1, 0, 0, 0)),
                ]
                for state, count in zip(states, counts, strict=True)
            }
        ),
        "queued": answer({(): 5.0}),
        "jobs": answer(
            {
                (stage, status): float(count)
                for stage, counts in {
                    "encoder": (1, 0, 1),
                    "dit": (4, 1, 4),
                    "decoder": (0, 0, 0),
                }.items()
                for status, count in zip(
                    ("waiting", "transferring", "running"), counts, strict=True
                )
            }
        ),
        "arrivals": answer({(): 0.5}),
        "shares": answer(
            {
                (stage, state): value
                for stage in STAGES
                for state, value in {"busy": 0.5, "starved": 0.25, "blocked": 0.25}.items()
            }
        ),
        "completed": answer({(stage,): 0.5 for stage in STAGES}),
        "seconds": answer({("dit",): 4.0}),
        "reporting": answer({("encoder",): 1.0, ("dit",): 3.0, ("decoder",): 1.0}),
        "backlog": answer({("dit", "a10"): 40.0}),
    }
    assert found.keys() == {query.name for query in QUERIES}
    return found | changes


def readings(**changes: Outcome) -> Readings:
    return read(outcomes(**changes), STAGES, SCOPE, NOW)


def test_all_signals_are_read() -> None:
    found = readings()
    assert found.replicas["dit"] == {
        "a10": Fresh(Replicas(2, 1, 0), 98.0),
        "h100": Fresh(Replicas(1, 0, 2), 98.0),
    }
    assert found.waiting == {
        "encoder": Fresh(6, 98.0), "dit": Fresh(4, 98.0), "decoder": Fresh(0, 98.0),
    }  # fmt: skip
    assert found.inside["dit"] == Fresh(5, 98.0)
    assert found.arrivals == Fresh(0.5, 98.0)
    assert found.backlog == {"encoder": {}, "dit": {"a10": Fresh(40.0, 98.0)}, "decoder": {}}
    load = found.load("dit", Fresh(7, 98.0))
    assert (load.busy, load.blocked) == (Fresh(0.5, 98.0), Fresh(0.25, 98.0))
    assert (load.completed, load.seconds) == (Fresh(7, 98.0), Fresh(4.0, 98.0))
    assert load.reporting == 3
    assert isinstance(found.seconds["encoder"], Missing)


def test_jobs_get_the_shapes_of_the_mix_and_the_pools_of_the_replicas() -> None:
    jobs = readings().jobs(STAGES, (SMALL, LARGE))
    assert isinstance(jobs, Fresh)
    assert all(group.age == 0.0 for group in jobs.value)
    counts = {(g.stage, g.pool, g.shape.height): g.count for g in jobs.value}
    # 5 are in the DiT: 2 on the pool with two replicas, 3 on that with three, two of which drain.
    assert counts == {
        (0, "", 64): 5, (0, "", 128): 1, (0, "a10", 64): 1,
        (1, "", 64): 3, (1, "", 128): 1, (1, "a10", 64): 2,
        (1, "h100", 64): 2, (1, "h100", 128): 1,
    }  # fmt: skip
    stages = [group.stage for group in jobs.value]
    assert stages == sorted(stages, reverse=True)


def test_no_jobs_are_no_groups_but_known() -> None:
    none = answer(
        {(stage, s): 0.0 for stage in STAGES for s in ("waiting", "transferring", "running")}
    )
    jobs = readings(jobs=none, queued=answer({(): 0.0})).jobs(STAGES, (SMALL,))
    assert jobs == Fresh((), 98.0)


def test_one_stage_that_nobody_counted_makes_the_jobs_missing() -> None:
    counted = outcomes()["jobs"]
    assert isinstance(counted, Answer)
    less = {key: value for key, value in counted.parts[VALUE].items() if key[0] != "decoder"}
    for changes in (
        {"jobs": answer(less)},  # type: ignore[arg-type]
        {"jobs": Missing("down")},
        {"queued": Answer()},
        {"replicas": Missing("down")},
    ):
        assert isinstance(readings(**changes).jobs(STAGES, (SMALL,)), Missing), changes
    assert isinstance(readings(queued=answer({(): -1.0})).jobs(STAGES, (SMALL,)), Invalid)
    assert isinstance(readings(queued=old({(): 5.0})).jobs(STAGES, (SMALL,)), Stale)


def test_a_sum_over_some_of_the_replicas_is_missing_but_their_mean_is_not() -> None:
    found = readings(reporting=answer({("dit",): 2.0}))
    load = found.load("dit", Fresh(7, 98.0))
    assert load.completed == Missing("2 of 3 replicas report")
    assert load.busy == Fresh(0.5, 98.0)
    assert load.seconds == Fresh(4.0, 98.0)
    assert load.reporting == 2
    nobody = readings(reporting=Answer()).load("dit", Fresh(0, 98.0))
    assert nobody.reporting == 0
    assert isinstance(nobody.completed, Missing)


def test_replicas_of_which_a_state_is_not_known_are_missing() -> None:
    states = {("dit", "a10", "ready"): 2.0, ("dit", "a10", "draining"): 0.0}
    found = readings(replicas=answer(states)).replicas
    assert isinstance(found["dit"]["a10"], Missing)
    assert isinstance(found["encoder"][""], Missing)
    stale = outcomes()["replicas"]
    assert isinstance(stale, Answer)
    assert isinstance(readings(replicas=old(stale.parts[VALUE])).replicas["dit"]["a10"], Missing)  # type: ignore[arg-type]


def test_a_total_is_no_better_than_its_parts() -> None:
    assert total([Fresh(1, 5.0), Fresh(2, 3.0)]) == Fresh(3, 3.0)
    assert total([Fresh(1, 5.0), Stale(2, 3.0)]) == Stale(3, 3.0)
    assert total([Fresh(1, 5.0), Stale(2, 3.0), Invalid("x")]) == Invalid("x")
    assert total([Invalid("x"), Missing("y")]) == Missing("y")


def test_numbers_are_divided_without_remainder() -> None:
    for count in range(40):
        for weights in ([1.0], [0.1, 0.2, 0.7], [3.0, 3.0, 3.0], [1e-9, 1.0]):
            numbers = divide(count, weights)
            assert sum(numbers) == count
            whole = sum(weights)
            for number, weight in zip(numbers, weights, strict=True):
                assert abs(number - count * weight / whole) < 1.0


def test_rates_become_whole_numbers_and_lose_nothing() -> None:
    tally = Tally()
    counts = [tally.add("x", Fresh(0.3, 1.0), 1.0) for _ in range(10)]
    assert [c.value for c in counts if isinstance(c, Fresh)] == [0, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert tally.add("y", Fresh(1 / 3, 1.0), 3.0) == Fresh(1, 1.0)
    assert tally.add("y", Missing("down"), 3.0) == Missing("down")


def test_shapes_of_the_mix_are_shapes() -> None:
    jobs = readings().jobs(STAGES, (SMALL,))
    assert isinstance(jobs, Fresh)
    assert all(isinstance(g, JobGroup) and isinstance(g.shape, Shape) for g in jobs.value)
