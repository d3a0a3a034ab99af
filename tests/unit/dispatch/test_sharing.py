"""Jobs of gateways that died, and workers that other gateways use, too."""

from __future__ import annotations

import pytest
from dispatchkit.desk import D, Desk, E, K, assigned, held

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.jobs.model import JobState, Stage, StageStatus

WAITING, TRANSFERRING, RUNNING = StageStatus
WORKERS = frozenset({"e", "d", "k"})


def hand_over(
    desk: Desk,
    name: str,
    *,
    running: tuple[ev.RunningAssignment, ...] = (),
    held: tuple[ev.HeldOutput, ...] = (),
) -> list[act.Action]:
    return desk.give(ev.HandedOver(name, f"{name}#1", running, held))


def claim(job_id: str, stage: Stage, status: StageStatus = RUNNING) -> ev.RunningAssignment:
    return ev.RunningAssignment(job_id, 1, stage, status)


def of(actions: list[act.Action], kind: type) -> list[act.Action]:
    return [action for action in actions if isinstance(action, kind)]


@pytest.fixture
def taking(desk: Desk) -> Desk:
    """One that takes jobs over while its workers are connected and its own job runs."""
    desk.submit("own")
    desk.start("e", "own", E)
    desk.give(ev.TakeOverBegun(WORKERS))
    return desk


def test_what_runs_is_adopted_and_goes_on_in_its_attempt(taking: Desk) -> None:
    taking.recover("job", JobState.DENOISING, RUNNING, contested=True)
    assert not assigned(hand_over(taking, "d", running=(claim("job", D),)))
    done = taking.finish("d", "job", D)
    assert assigned(done) == [("job", "k")]
    assert taking.state("job") == (JobState.DECODING, TRANSFERRING, 1)


def test_what_is_held_is_used(taking: Desk) -> None:
    taking.recover("job", JobState.DENOISING, WAITING, contested=True)
    found = hand_over(taking, "e", held=(held("job", E),))
    assert assigned(found) == [("job", "d")]
    # Nobody knows what the gateway before told whom in the first attempt.
    assert taking.state("job") == (JobState.DENOISING, TRANSFERRING, 2)


def test_what_nobody_has_is_done_again_once_all_have_answered(taking: Desk) -> None:
    taking.recover("job", JobState.DENOISING, RUNNING, contested=True)
    for name in ("e", "d"):
        hand_over(taking, name)
        assert taking.state("job") == (JobState.DENOISING, RUNNING, 1)
    found = hand_over(taking, "k")
    assert ("job", "e") in assigned(found)
    assert taking.state("job")[2] == 2


def test_a_worker_that_does_not_answer_is_waited_for_but_not_for_ever(taking: Desk) -> None:
    taking.recover("job", JobState.DENOISING, RUNNING, contested=True)
    hand_over(taking, "e")
    taking.give(ev.Tick(), 4.0)
    assert taking.state("job")[2] == 2


def test_a_workers_hello_meanwhile_does_not_end_the_waiting(taking: Desk) -> None:
    taking.recover("job", JobState.DENOISING, RUNNING, contested=True)
    taking.connect("other", D)
    assert taking.state("job") == (JobState.DENOISING, RUNNING, 1)
    hand_over(taking, "d", running=(claim("job", D),))
    hand_over(taking, "e")
    hand_over(taking, "k")
    assert taking.state("job") == (JobState.DENOISING, RUNNING, 1)


def test_what_is_of_no_job_is_let_go(taking: Desk) -> None:
    found = hand_over(taking, "d", running=(claim("gone", D),), held=(held("old", D),))
    assert [(one.worker, one.job_id) for one in of(found, act.CancelOnWorker)] == [("d", "gone")]
    assert [(one.worker, one.job_id) for one in of(found, act.Release)] == [("d", "old")]
    assert taking.state("own") == (JobState.ENCODING, RUNNING, 1), "its own work is left alone"


@pytest.mark.parametrize("contested", [True, False])
def test_results_are_never_fetched_under_the_name_that_another_gateway_may_use(
    taking: Desk, contested: bool
) -> None:
    taking.recover("job", JobState.DECODING, RUNNING, contested=contested)
    found = hand_over(taking, "k", held=(held("job", K),))
    (fetch,) = of(found, act.FetchResult)
    attempt = 2 if contested else 1
    assert (fetch.output.attempt, fetch.attempt) == (1, attempt)
    stored = taking.give(ev.ResultStored("job", attempt))
    (completed,) = of(stored, act.CompleteJob)
    assert completed.completion.attempt == attempt
    late = taking.give(ev.ResultStored("job", 1))
    assert act.DiscardResult("job", 1) in late


def test_a_decoding_that_was_adopted_running_is_nobody_elses_to_fetch(taking: Desk) -> None:
    taking.recover("job", JobState.DECODING, RUNNING, contested=True)
    hand_over(taking, "k", running=(claim("job", K),))
    (fetch,) = of(taking.finish("k", "job", K), act.FetchResult)
    assert fetch.attempt == 1


def test_grants_that_are_recalled_and_not_used_are_given_back() -> None:
    desk = Desk()
    desk.connect("e", E)
    found = desk.give(ev.GrantsRecalled("e", "e#1", ("e/0", "unknown")))
    assert found == [act.ReturnGrants("e", "e#1", ("e/0",))]
    desk.submit("one")
    desk.start("e", "one", E)
    (assign,) = of(desk.log, act.Assign)
    assert assign.grant_id == "e/1"
    assert desk.give(ev.GrantsRecalled("e", "e#1", ("e/0", "e/1"))) == [], "one gone, one used"
    assert desk.give(ev.GrantsRecalled("e", "e#0", ("e/2",))) == [], "of another incarnation"


def test_the_stages_in_which_jobs_wait_for_grants() -> None:
    desk = Desk()
    desk.connect("e", E, slots=1)
    desk.connect("d", D, slots=0)
    assert desk.dispatcher.waiting() == frozenset()
    desk.submit("one")
    assert desk.dispatcher.waiting() == frozenset(), "it has been assigned"
    desk.submit("two")
    assert desk.dispatcher.waiting() == {E}
    desk.encode("one")
    assert desk.dispatcher.waiting() == {D}
    desk.grant("d")
    assert desk.dispatcher.waiting() == frozenset()


def test_jobs_that_are_held_back_wait_for_no_grant() -> None:
    desk = Desk()
    desk.connect("e", E, slots=2)
    for number in range(8):
        desk.submit(f"job-{number}")
    for number in range(8):
        if (JobState.ENCODING, TRANSFERRING, 1) == desk.state(f"job-{number}"):
            desk.encode(f"job-{number}")
    assert D in desk.dispatcher.waiting()
    assert E not in desk.dispatcher.waiting(), "there are enough for the DiTs, who are not there"
