"""The work that is left, against a sum over all jobs."""

import pytest
from dispatchkit.desk import D, Desk, E, K
from dispatchkit.twins import Twins

from disagfusion.dispatch import events as ev
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.jobs.model import Stage


def summed_up(dispatcher: Dispatcher, now: float) -> dict[Stage, float]:
    core = dispatcher._core
    found = dict.fromkeys(Stage, 0.0)

    def mean(stage: Stage, job: ev.JobSubmitted) -> float:
        groups = [w.members[stage].group for w in core.workers if stage in w.info.stages]
        if not groups:
            return core.estimates.anywhere(stage, job)
        rates = [1.0 / core.estimates.service(group.estimate, job)[0] for group in groups]
        return len(rates) / sum(rates)

    for job in core.jobs:
        begun = job.assignment is not None and job.assignment.end is not None
        if begun:
            found[job.stage] += max(0.0, job.assignment.end - now)
        elif not job.fetching:
            found[job.stage] += mean(job.stage, job.spec)
        for stage in Stage:
            if stage > job.stage:
                found[stage] += mean(stage, job.spec)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_backlog_is_the_sum_over_all_jobs(seed: int) -> None:
    twins = Twins(seed, DispatchSettings(waiting_per_slot=4))
    for _ in range(300):
        twins.step()
        backlog = {stage: left for (_, stage), left in twins.mine.backlog(twins.now).items()}
        assert backlog == pytest.approx(summed_up(twins.mine, twins.now), abs=1e-6)


def test_a_pipeline_without_jobs_has_no_work_and_one_without_workers_has_some() -> None:
    desk = Desk()
    assert desk.dispatcher.backlog(desk.now) == {}
    for name, stage in (("e", E), ("d", D), ("k", K)):
        desk.connect(name, stage)
    assert desk.dispatcher.backlog(desk.now) == {("p", stage): 0.0 for stage in Stage}
    desk.submit("j", pipeline="q")
    found = desk.dispatcher.backlog(desk.now)
    assert all(found["q", stage] > 0.0 for stage in Stage)
    desk.give(ev.CancelRequested("j"))
    assert set(desk.dispatcher.backlog(desk.now)) == {("p", stage) for stage in Stage}


def test_a_straggler_does_not_hide_the_work_of_others() -> None:
    desk = Desk()
    desk.connect("e", E)
    for name in ("d1", "d2"):
        desk.connect(name, D, slots=1)
    desk.dispatcher.set_prior(lambda pool, stage, job: 10.0 if stage is D else 1.0)
    for job_id, name in (("a", "d1"), ("b", "d2")):
        desk.submit(job_id)
        desk.encode(job_id)
        desk.start(name, job_id, D)
        desk.now += 1000.0
    desk.now -= 998.0
    # "a" is 992 seconds late; "b" has run for two seconds.
    assert desk.dispatcher.backlog(desk.now)["p", D] == pytest.approx(8.0)
