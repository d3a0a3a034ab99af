"""Who gets which job, and when; and what is found again after a restart."""

from dataclasses import replace

import pytest
from dispatchkit.desk import RUNNING, TRANSFERRING, WAITING, D, Desk, E, K, assigned, held, states

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.jobs.model import JobState, Stage, StageStatus


def learn(desk: Desk, name: str, stage: Stage, seconds: float) -> None:
    estimates = desk.dispatcher._core.estimates
    estimates.observe(estimates.of("p", f"/{name}", stage), "c", seconds)


def test_priority_then_order_of_submission() -> None:
    desk = Desk()
    for job_id, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)):
        desk.submit(job_id, priority=priority)
    desk.connect("e", E, slots=1)
    desk.connect("d", D, slots=10)
    order = [assigned(desk.log)[-1][0]]
    while len(order) < 5:
        order += [job_id for job_id, worker in assigned(desk.encode(order[-1])) if worker == "e"]
    assert order == ["b", "d", "a", "c", "e"]


def test_a_busy_worker_gets_its_next_job_shortly_before_it_is_free(desk: Desk) -> None:
    learn(desk, "d", D, 10.0)
    for job_id in ("a", "b"):
        desk.submit(job_id)
        desk.encode(job_id)
    assert assigned(desk.log)[-1] == ("b", "e")
    assert desk.state("b") == (JobState.DENOISING, WAITING, 1)
    desk.receive("d", "a")
    desk.start("d", "a", D)
    started = desk.now
    at = desk.dispatcher.next_wakeup()
    assert at == pytest.approx(started + 10.0 - 0.25)
    assert assigned(desk.until_wakeup()) == [("b", "d")]


def test_steps_correct_the_prediction(desk: Desk) -> None:
    learn(desk, "d", D, 100.0)
    for job_id in ("a", "b"):
        desk.submit(job_id)
        desk.encode(job_id)
    desk.receive("d", "a")
    desk.start("d", "a", D)
    desk.give(ev.StepCompleted("d", "d#1", "a", 1, 1, 4), after=1.0)
    assert desk.dispatcher.next_wakeup() == pytest.approx(desk.now + 3.0 - 0.25)
    found = desk.give(ev.StepCompleted("d", "d#1", "a", 1, 4, 4), after=1.0)
    assert assigned(found) == [("b", "d")]


def test_the_job_goes_to_whoever_is_free_first() -> None:
    desk = Desk()
    desk.connect("e", E)
    for name in ("d1", "d2"):
        desk.connect(name, D)
        learn(desk, name, D, 10.0)
    for job_id in ("a", "b", "c"):
        desk.submit(job_id)
        desk.encode(job_id)
    assert {worker for _, worker in assigned(desk.log)} == {"e", "d1", "d2"}
    assert desk.state("c")[1] is WAITING
    second = next(
        worker for job_id, worker in assigned(desk.log) if (job_id, worker[0]) == ("b", "d")
    )
    desk.start(second, "b", D)
    assert assigned(desk.finish(second, "b", D)) == [("c", second)]


def test_a_fast_busy_worker_is_waited_for_but_not_by_everyone() -> None:
    desk = Desk(DispatchSettings(waiting_per_slot=8))
    desk.connect("e", E)
    desk.connect("fast", D)
    learn(desk, "fast", D, 1.0)
    desk.connect("slow", D, slots=0)
    learn(desk, "slow", D, 5.5)
    for i in range(8):
        desk.submit(f"j{i}")
        desk.encode(f"j{i}")
    desk.start("fast", "j0", D)
    # "slow" is free now: j1 to j5 would all be done sooner by "fast", one after the other.
    assert assigned(desk.grant("slow")) == [("j5", "slow")]


def two_dits(near_seconds: float, far_seconds: float, bytes_per_second: float) -> Desk:
    """Two idle DiTs that are equally fast, of which one has a slow link."""
    desk = Desk(DispatchSettings(waiting_per_slot=8))
    desk.connect("e", E, slots=8)
    for name, seconds, rate in (
        ("near", near_seconds, 1000 * bytes_per_second),
        ("far", far_seconds, bytes_per_second),
    ):
        desk.connect(name, D)
        learn(desk, name, D, seconds)
        for nbytes in (1000, 2000):
            desk.dispatcher._core.links.observe("e", name, nbytes, nbytes / rate, desk.now)
    return desk


def dits_given(desk: Desk, *job_ids: str, nbytes: int) -> list[tuple[str, str]]:
    """Encode jobs whose conditioning has so many bytes, and return who got them."""
    for job_id in job_ids:
        desk.submit(job_id)
        done = held(job_id, E)._replace(size_bytes=nbytes)
        desk.give(ev.StageDone("e", "e#1", done))
    return [(job_id, worker) for job_id, worker in assigned(desk.log) if worker != "e"]


def test_the_dit_that_the_tensors_reach_in_time_is_preferred() -> None:
    megabytes = 20_000_000
    desk = two_dits(10.0, 10.0, bytes_per_second=megabytes // 2)
    assert dits_given(desk, "a", nbytes=megabytes) == [("a", "near")]
    # Two seconds on the way are less than ten behind another job.
    assert dits_given(desk, "b", nbytes=megabytes)[1:] == [("b", "far")]


def test_a_faster_dit_behind_a_slow_link_is_worth_it_only_while_its_inputs_are_small() -> None:
    desk = two_dits(10.0, 5.0, bytes_per_second=1_000_000)
    assert dits_given(desk, "a", nbytes=1_000_000) == [("a", "far")]
    desk = two_dits(10.0, 5.0, bytes_per_second=1_000_000)
    assert dits_given(desk, "a", nbytes=8_000_000) == [("a", "near")]


def test_a_near_busy_dit_is_waited_for_when_the_idle_ones_link_takes_longer() -> None:
    desk = two_dits(1.0, 1.0, bytes_per_second=1_000_000)
    desk.give(ev.StageDone("e", "e#1", held("none", E)))
    assert dits_given(desk, "a", nbytes=30_000_000) == [("a", "near")]
    desk.start("near", "a", D)
    assert dits_given(desk, "b", nbytes=30_000_000) == [("a", "near")]
    assert dits_given(desk, "c", nbytes=1000)[-1] == ("c", "far")


def test_links_that_do_not_matter_leave_workers_their_turns() -> None:
    desk = two_dits(10.0, 10.0, bytes_per_second=1_000_000)
    dits_given(desk, "a", nbytes=100_000)
    first = assigned(desk.log)[-1][1]
    desk.finish(first, "a", D, seconds=10.0)
    other = {"near": "far", "far": "near"}[first]
    assert dits_given(desk, "b", nbytes=100_000)[-1] == ("b", other)


def test_a_link_that_was_slow_is_tried_again() -> None:
    desk = two_dits(10.0, 10.0, bytes_per_second=1000)
    assert dits_given(desk, "a", nbytes=20_000)[-1] == ("a", "near")
    desk.finish("near", "a", D, seconds=10.0)
    desk.give(ev.Tick(), after=61.0)
    # Both links have been forgotten, and "near" had the last one.
    assert dits_given(desk, "b", nbytes=20_000)[-1] == ("b", "far")


def test_links_are_learned_from_what_arrives() -> None:
    desk = two_dits(10.0, 10.0, bytes_per_second=1_000_000)
    assert dits_given(desk, "a", nbytes=1_000_000) == [("a", "near")]
    for _ in range(2):
        desk.give(ev.InputReceived("near", "near#1", "a", 1, 5.0, 1_000_000))
    estimate = desk.dispatcher._core.links.estimate("e", "near", desk.now)
    assert 1.5 < estimate.seconds(1_000_000) < 5.0, "the second time does not count"


def test_encoders_do_not_run_far_ahead() -> None:
    desk = Desk()
    desk.connect("e", E, slots=100)
    desk.connect("d", D, slots=2)
    for i in range(50):
        desk.submit(f"j{i}")
    encoding = [job_id for job_id, worker in assigned(desk.log) if worker == "e"]
    assert len(encoding) == 4
    for job_id in encoding[:2]:
        found = desk.encode(job_id)
    assert {worker for _, worker in assigned(found)} == {"d", "e"}


def test_dits_do_not_run_far_ahead_of_decoders(desk: Desk) -> None:
    desk.give(ev.WorkerLost("k", "k#1"))
    for i in range(8):
        desk.submit(f"j{i}")
        desk.encode(f"j{i}")
        if "d" in {worker for job_id, worker in assigned(desk.log) if job_id == f"j{i}"}:
            desk.finish("d", f"j{i}", D)
    count = desk.dispatcher._core.jobs.count
    assert count("p", JobState.DECODING) == 2
    desk.connect("k", K)
    assert count("p", JobState.DECODING, WAITING) == 0


def test_jobs_in_flight_are_bounded() -> None:
    desk = Desk(DispatchSettings(max_in_flight=3))
    desk.connect("e", E, slots=10)
    desk.connect("d", D, slots=10)
    for i in range(9):
        desk.submit(f"j{i}")
    assert len(assigned(desk.log)) == 3


@pytest.mark.parametrize("state", ["LOADING", "DRAINING", "QUARANTINED"])
def test_only_ready_workers_are_given_work(desk: Desk, state: str) -> None:
    info = desk.info("e", E)
    desk.give(ev.WorkerStateChanged(replace(info, state=ev.WorkerState[state])))
    assert desk.submit("j") == []
    assert assigned(desk.give(ev.WorkerStateChanged(info))) == [("j", "e")]


def test_a_grant_is_used_once(desk: Desk) -> None:
    desk.submit("a")
    grant = next(a.grant_id for a in desk.log if isinstance(a, act.Assign))
    desk.submit("b")
    desk.give(ev.GrantsOffered("e", "e#1", (grant,)))
    assert desk.submit("c") == []
    grants = [a.grant_id for a in desk.log if isinstance(a, act.Assign)]
    assert len(grants) == len(set(grants)) == 2


@pytest.mark.parametrize("reached", [0, 1, 2])
def test_a_deadline_ends_a_job_wherever_it_is(desk: Desk, reached: int) -> None:
    desk.submit("j", deadline=desk.now + 5)
    if reached > 0:
        desk.start("e", "j", E)
    if reached > 1:
        desk.encode("j")
        desk.receive("d", "j")
    found = desk.until_wakeup()
    assert desk.now == 1005.0
    assert [state for state, _, _ in states(found)] == [JobState.EXPIRED]
    assert act.CancelOnWorker("d" if reached > 1 else "e", "j", 1) in found
    assert desk.dispatcher.next_wakeup() is None


def test_load_counts_what_waits() -> None:
    desk = Desk()
    for i in range(3):
        desk.submit(f"j{i}")
    assert desk.dispatcher.load("anna").queued == 3
    assert desk.dispatcher.load("anna").unfinished_of_tenant == 3
    assert desk.dispatcher.load("ben").unfinished_of_tenant == 0
    desk.connect("e", E, slots=1)
    assert desk.dispatcher.load("anna").queued == 2
    desk.give(ev.CancelRequested("j1"))
    assert desk.dispatcher.load("anna").unfinished_of_tenant == 2


# After a restart of the gateway.


def running(
    job_id: str, stage: Stage, status: StageStatus, attempt: int = 1
) -> ev.RunningAssignment:
    return ev.RunningAssignment(job_id, attempt, stage, status, 2, 4)


def test_running_work_is_adopted() -> None:
    desk = Desk(expected=("e", "d", "k"))
    desk.recover("j", JobState.DENOISING, RUNNING, attempt=2)
    assert desk.connect("d", D, running=(running("j", D, RUNNING, 2),)) == []
    desk.connect("e", E, held=(held("j", E, 1),))
    desk.connect("k", K)
    assert desk.state("j") == (JobState.DENOISING, RUNNING, 2)
    found = desk.finish("d", "j", D, attempt=2)
    assert act.Release("e", "j", E, 1) in found
    assert assigned(found) == [("j", "k")]


def test_a_stage_that_ended_meanwhile_is_taken() -> None:
    desk = Desk(expected=("e", "d", "k"))
    desk.recover("j", JobState.DENOISING, RUNNING)
    desk.connect("k", K)
    assert assigned(desk.connect("d", D, held=(held("j", D),))) == [("j", "k")]
    # The gateway that died may have told a decoder of attempt 1.
    assert desk.state("j") == (JobState.DECODING, TRANSFERRING, 2)


def test_results_that_were_not_fetched_are_fetched() -> None:
    desk = Desk(expected=("k",))
    desk.recover("j", JobState.DECODING, RUNNING)
    found = desk.connect("k", K, held=(held("j", K),))
    assert [type(a) for a in found] == [act.FetchResult]


def test_what_nobody_claims_waits_for_the_grace_then_resumes() -> None:
    desk = Desk()
    desk.recover("j", JobState.DENOISING, TRANSFERRING)
    desk.connect("e", E, held=(held("j", E),))
    desk.connect("d", D)
    assert assigned(desk.log) == []
    assert assigned(desk.until_wakeup()) == [("j", "d")]
    assert desk.now == 1003.0
    assert desk.state("j") == (JobState.DENOISING, TRANSFERRING, 2)


def test_the_grace_ends_early_once_all_have_said_hello() -> None:
    desk = Desk(expected=("d", "e"))
    desk.recover("j", JobState.DENOISING, RUNNING)
    desk.connect("d", D)
    assert assigned(desk.connect("e", E)) == [("j", "e")]
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)


def test_what_waits_goes_on_at_once_in_an_attempt_that_nobody_was_told() -> None:
    desk = Desk(expected=("e", "d", "k"))
    desk.recover("a", JobState.QUEUED, WAITING)
    desk.recover("b", JobState.DENOISING, WAITING, attempt=3)
    assert assigned(desk.connect("d", D)) == []
    found = desk.connect("e", E, held=(held("b", E, 2),))
    assert assigned(found) == [("b", "d"), ("a", "e")]
    assert desk.state("a") == (JobState.ENCODING, TRANSFERRING, 2)
    assert desk.state("b") == (JobState.DENOISING, TRANSFERRING, 4)
    found = desk.finish("d", "b", D, attempt=4) + desk.connect("k", K)
    assert assigned(found) == [("b", "k")]
    assert desk.state("b") == (JobState.DECODING, TRANSFERRING, 4)


def test_work_that_was_told_before_it_was_stored_is_adopted() -> None:
    desk = Desk(expected=("e", "d"))
    desk.recover("a", JobState.QUEUED, WAITING)
    desk.recover("b", JobState.DENOISING, WAITING)
    found = desk.connect("e", E, running=(running("a", E, RUNNING),))
    found += desk.connect("d", D, running=(running("b", D, RUNNING),))
    assert assigned(found) == []
    assert desk.state("a") == (JobState.ENCODING, RUNNING, 1)
    assert desk.state("b") == (JobState.DENOISING, RUNNING, 1)


def test_what_is_not_known_is_cancelled_and_released() -> None:
    desk = Desk()
    found = desk.connect("d", D, running=(running("x", D, RUNNING),), held=(held("y", D),))
    assert act.CancelOnWorker("d", "x", 1) in found
    assert act.Release("d", "y", D, 1) in found


def test_an_adopted_input_that_was_never_sent_is_noticed_soon() -> None:
    desk = Desk(expected=("e", "d"))
    desk.recover("j", JobState.DENOISING, TRANSFERRING)
    desk.connect("e", E, held=(held("j", E),))
    desk.connect("d", D, running=(running("j", D, TRANSFERRING),))
    assert desk.state("j") == (JobState.DENOISING, TRANSFERRING, 1)
    found = desk.until_wakeup()
    assert desk.now == 1002.0
    assert act.CancelOnWorker("d", "j", 1) in found


def test_an_assignment_lost_with_its_stream_is_given_again(desk: Desk) -> None:
    desk.submit("j")
    desk.give(ev.WorkerDisconnected("e", "e#1"))
    assert assigned(desk.connect("e", E)) == [("j", "e")]
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)
    desk.start("e", "j", E, attempt=2)
    desk.give(ev.WorkerDisconnected("e", "e#1"))
    assert assigned(desk.connect("e", E, running=(running("j", E, RUNNING, 2),))) == []
    assert desk.state("j") == (JobState.ENCODING, RUNNING, 2)
