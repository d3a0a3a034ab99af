"""The dispatcher's rules, one at a time."""

import pytest
from dispatchkit.desk import (
    IMAGE,
    RUNNING,
    TRANSFERRING,
    WAITING,
    D,
    Desk,
    E,
    K,
    assigned,
    held,
    states,
)

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.jobs.model import FailureKind, JobState, Output


def test_a_jobs_whole_life(desk: Desk) -> None:
    desk.submit("j")
    desk.start("e", "j", E)
    sending = desk.encode("j")
    key = ev.OutputKey("j", E, 1)
    grant = next(a.grant_id for a in sending if isinstance(a, act.Assign))
    assert act.Send("e", "e#1", key, 1, grant, "d", "d#1") in sending
    desk.receive("d", "j")
    desk.give(ev.OutputSent("e", "e#1", key, 1, 0.02, 99, "ucx/shm"))
    desk.start("d", "j", D)
    published = desk.give(ev.StepCompleted("d", "d#1", "j", 1, 1, 4))
    assert [type(a) for a in published] == [act.Publish]
    done = desk.finish("d", "j", D)
    assert act.Release("e", "j", E, 1) in done
    desk.receive("k", "j")
    desk.start("k", "j", K)
    fetching = desk.finish("k", "j", K)
    assert fetching == [act.FetchResult("k", "k#1", ev.OutputKey("j", K, 1), 1, (IMAGE,))]
    *_, completed, first, second = desk.give(ev.ResultStored("j", 1))
    assert isinstance(completed, act.CompleteJob)
    assert completed.completion.outputs == (IMAGE,)
    assert {first, second} == {act.Release("d", "j", None, 1), act.Release("k", "j", None, 1)}
    assert states(desk.log) == [
        (JobState.ENCODING, TRANSFERRING, 1),
        (JobState.ENCODING, RUNNING, 1),
        (JobState.DENOISING, WAITING, 1),
        (JobState.DENOISING, TRANSFERRING, 1),
        (JobState.DENOISING, RUNNING, 1),
        (JobState.DECODING, WAITING, 1),
        (JobState.DECODING, TRANSFERRING, 1),
        (JobState.DECODING, RUNNING, 1),
    ]
    saved = [a.transition.records for a in desk.log if isinstance(a, act.SaveTransition)]
    encoders = [r for records in saved for r in records if r.stage is E]
    assert (encoders[-1].transport, encoders[-1].bytes_out) == ("ucx/shm", 99)
    assert desk.dispatcher.next_wakeup() is None


def test_saving_comes_before_telling(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    assert [type(a) for a in desk.log] == [
        act.SaveTransition,
        act.Assign,
        act.SaveTransition,
        act.SaveTransition,
        act.Assign,
        act.Send,
    ]


def test_a_lost_receiver_costs_no_recomputation(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.start("d", "j", D)
    desk.connect("d2", D)
    found = desk.give(ev.WorkerLost("d", "d#1", "silent"))
    assert assigned(found) == [("j", "d2")]
    source = next(a.source for a in found if isinstance(a, act.Assign))
    assert source == ev.OutputKey("j", E, 1)
    assert desk.state("j") == (JobState.DENOISING, TRANSFERRING, 2)
    late = desk.give(ev.StageDone("d", "d#1", held("j", D)))
    assert late == [act.RefuseStale("d", "j", 1, "StageDone")]


def test_a_late_result_is_refused_and_released(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.start("d", "j", D)
    desk.connect("d2", D)
    desk.give(ev.WorkerLost("d", "d#1", "stopped"))
    back = desk.connect("d", D, held=(held("j", D),))
    assert act.RefuseStale("d", "j", 1, "WorkerHello.held") in back
    assert act.Release("d", "j", D, 1) in back
    assert desk.state("j") == (JobState.DENOISING, TRANSFERRING, 2)


def test_a_lost_source_is_made_again(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.connect("e2", E)
    found = desk.give(ev.WorkerLost("e", "e#1"))
    assert act.CancelOnWorker("d", "j", 1) in found
    assert assigned(found) == [("j", "e2")]
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)


def test_a_lost_source_does_not_matter_once_the_input_is_there(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.receive("d", "j")
    assert desk.give(ev.WorkerLost("e", "e#1")) == []
    assert desk.state("j") == (JobState.DENOISING, TRANSFERRING, 1)


def test_output_lost_at_the_sender_goes_back_a_stage(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    key = ev.OutputKey("j", E, 1)
    found = desk.give(ev.SendFailed("e", "e#1", key, 1, output_lost=True))
    assert act.CancelOnWorker("d", "j", 1) in found
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)


def test_a_failed_hand_over_is_repeated_elsewhere_then_made_again(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.connect("d2", D)
    key = ev.OutputKey("j", E, 1)
    receivers = ["d"]
    for attempt in (1, 2):
        desk.give(ev.SendFailed("e", "e#1", key, attempt))
        desk.grant(receivers[-1])
        receivers += [worker for _, worker in assigned(desk.until_wakeup())]
    assert receivers[:2] == ["d", "d2"]
    desk.give(ev.SendFailed("e", "e#1", key, 3))
    assert act.Release("e", "j", E, 1) in desk.log
    desk.until_wakeup()
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 4)


def test_an_input_that_never_arrives_is_given_up(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.give(ev.Tick(), after=31.0)
    assert act.CancelOnWorker("d", "j", 1) in desk.log
    desk.until_wakeup()
    assert desk.state("j") == (JobState.DENOISING, TRANSFERRING, 2)


def test_invalid_arguments_fail_at_once(desk: Desk) -> None:
    desk.submit("j")
    found = desk.fail("e", "j", E, kind=FailureKind.INVALID_ARGUMENT)
    ended = next(a.transition for a in found if isinstance(a, act.SaveTransition))
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error.reason == "INVALID_ARGUMENT"


def test_failures_go_elsewhere_and_end_after_five(desk: Desk) -> None:
    desk.connect("e2", E)
    desk.submit("j")
    workers = [worker for _, worker in assigned(desk.log)]
    for attempt in range(1, 6):
        desk.fail(workers[-1], "j", E, attempt, FailureKind.OUT_OF_MEMORY)
        if desk.dispatcher._core.jobs.get("j") is None:
            break
        if len(assigned(desk.log)) == attempt:
            desk.until_wakeup()
        workers = [worker for _, worker in assigned(desk.log)]
    assert workers[0] != workers[1]
    assert len(workers) == 5
    last = [a.transition for a in desk.log if isinstance(a, act.SaveTransition)][-1]
    assert (last.state, last.failures) == (JobState.FAILED, 5)
    assert last.error is not None
    assert last.error.reason == "OUT_OF_MEMORY"
    # Jobs that fail everywhere speak against no worker.
    assert not any(isinstance(a, act.Quarantine) for a in desk.log)


def test_a_worker_that_fails_what_others_do_is_quarantined(desk: Desk) -> None:
    desk.connect("e2", E)
    for job_id in ("j1", "j2"):
        desk.submit(job_id)
        first = assigned(desk.log)[-1][1]
        if first == "e2":
            desk.encode(job_id, "e2")
            continue
        desk.fail("e", job_id, E, kind=FailureKind.NON_FINITE)
        assert assigned(desk.log)[-1] == (job_id, "e2")
        desk.finish("e2", job_id, E, 2)
    while not any(isinstance(a, act.Quarantine) for a in desk.log):
        job_id = f"more-{len(desk.log)}"
        desk.submit(job_id)
        worker = next(w for j, w in reversed(assigned(desk.log)) if j == job_id)
        if worker == "e":
            desk.fail("e", job_id, E, kind=FailureKind.NON_FINITE)
            desk.finish("e2", job_id, E, 2)
        else:
            desk.encode(job_id, "e2")
        desk.give(ev.CancelRequested(job_id))
    sick = next(a for a in desk.log if isinstance(a, act.Quarantine))
    assert sick.worker == "e"
    assert "NON_FINITE" in sick.reason
    assert "j1" in sick.reason
    desk.submit("after")
    assert assigned(desk.log)[-1] == ("after", "e2")


def test_a_refusal_waits_longer_each_time(desk: Desk) -> None:
    desk.submit("j")
    waits = []
    for attempt in range(1, 8):
        desk.fail("e", "j", E, attempt, FailureKind.REFUSED)
        at = desk.dispatcher.next_wakeup()
        assert at is not None
        waits.append(at - desk.now)
        assert assigned(desk.until_wakeup()) == [("j", "e")]
    assert waits == sorted(waits)
    assert waits[-1] > 10 * waits[0]


@pytest.mark.parametrize("reached", ["queued", "assigned", "running", "denoising", "fetching"])
def test_cancelling_leaves_nothing(desk: Desk, reached: str) -> None:
    if reached == "queued":
        desk.give(ev.WorkerDisconnected("e", "e#1"))
    desk.submit("j")
    if reached == "running":
        desk.start("e", "j", E)
    if reached in ("denoising", "fetching"):
        desk.encode("j")
    if reached == "fetching":
        desk.finish("d", "j", D)
        desk.finish("k", "j", K)
    found = desk.give(ev.CancelRequested("j", "unwanted"))
    last = next(a.transition for a in found if isinstance(a, act.SaveTransition))
    assert last.state is JobState.CANCELLED
    expected = {
        "queued": set(),
        "assigned": {act.CancelOnWorker("e", "j", 1)},
        "running": {act.CancelOnWorker("e", "j", 1)},
        "denoising": {act.CancelOnWorker("d", "j", 1), act.Release("e", "j", None, 1)},
        "fetching": {
            act.DiscardResult("j", 1),
            act.Release("d", "j", None, 1),
            act.Release("k", "j", None, 1),
        },
    }[reached]
    assert {a for a in found if not isinstance(a, act.SaveTransition)} == expected
    assert len(desk.dispatcher._core.jobs) == 0
    assert desk.give(ev.CancelRequested("j")) == []


@pytest.mark.parametrize("media", [(), (IMAGE, IMAGE)])
def test_a_senseless_list_of_results_is_a_failure(desk: Desk, media: tuple[Output, ...]) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.finish("d", "j", D)
    output = ev.HeldOutput(ev.OutputKey("j", K, 1), 10, media)
    found = desk.give(ev.StageDone("k", "k#1", output))
    assert act.Release("k", "j", K, 1) in found
    assert assigned(found) == [("j", "k")]
    assert desk.state("j") == (JobState.DECODING, TRANSFERRING, 2)


def test_words_about_an_old_attempt_do_not_count(desk: Desk) -> None:
    desk.submit("j")
    desk.fail("e", "j", E, kind=FailureKind.REFUSED)
    desk.until_wakeup()
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)
    assert desk.start("e", "j", E, attempt=1) == [
        act.RefuseStale("e", "j", 1, "StageStarted"),
        act.CancelOnWorker("e", "j", 1),
    ]
    late = desk.give(ev.StageDone("e", "e#1", held("j", E, 1)))
    assert late == [act.RefuseStale("e", "j", 1, "StageDone"), act.Release("e", "j", E, 1)]
    assert desk.fail("e", "j", E, attempt=1) == [act.RefuseStale("e", "j", 1, "StageFailed")]
    other = ev.StageStarted("e", "an older incarnation", "j", 2, E)
    assert desk.give(other) == [act.RefuseStale("e", "j", 2, "StageStarted")]
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)


def test_results_of_an_old_attempt_are_discarded(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.finish("d", "j", D)
    desk.finish("k", "j", K)
    desk.give(ev.ResultFailed("j", 1, ev.ResultFailure.LOST))
    assert desk.state("j") == (JobState.DECODING, TRANSFERRING, 2)
    desk.finish("k", "j", K, attempt=2)
    assert desk.give(ev.ResultStored("j", 1)) == [act.DiscardResult("j", 1)]
    found = desk.give(ev.ResultStored("j", 2))
    assert isinstance(found[0], act.CompleteJob)
    assert desk.give(ev.ResultStored("j", 2)) == [act.DiscardResult("j", 2)]


def test_results_wait_for_room_without_end(desk: Desk) -> None:
    desk.submit("j")
    desk.encode("j")
    desk.finish("d", "j", D)
    desk.finish("k", "j", K)
    for _ in range(50):
        desk.give(ev.ResultFailed("j", 1, ev.ResultFailure.STORAGE))
        assert [type(a) for a in desk.until_wakeup()] == [act.FetchResult]
    assert desk.state("j")[2] == 1
    assert isinstance(desk.give(ev.ResultStored("j", 1))[0], act.CompleteJob)
